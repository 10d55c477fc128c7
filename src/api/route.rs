//! The table of what can be asked. The router and the description are both made of it: neither can know more than the other.

use std::future::Future;
use std::pin::Pin;

use serde_json::{Value, json};

use super::ask::{Answer, Ask};
use super::problem::Problem;
use super::scope::Scope;
use super::shape::{Defs, Shape};

/// What a handler gives.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Answer, Problem>> + Send + 'a>>;

/// HTTP's method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Reads.
    Get,
    /// Makes or changes something; wants an Idempotency-Key.
    Post,
    /// Takes away; the same again does no harm.
    Delete,
}

impl Verb {
    /// As the description names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Delete => "delete",
        }
    }
}

/// A parameter of the query.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Whether it must be there.
    pub required: bool,
    /// Its schema.
    pub schema: fn() -> Value,
}

/// The two that every list has.
pub const LIST: &[Param] = &[LIMIT, AFTER];
pub(super) const LIMIT: Param = Param {
    name: "limit",
    about: "How many at most; 20 if absent.",
    required: false,
    schema: || json!({ "type": "integer", "minimum": 1, "maximum": 100 }),
};
pub(super) const AFTER: Param = Param {
    name: "after",
    about: "`next` of the page before.",
    required: false,
    schema: || json!({ "type": "string", "minLength": 1, "maxLength": 400 }),
};

/// How large a body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// `api.max_body_bytes`.
    Light,
    /// `api.max_upload_bytes`.
    Upload,
}

/// One thing that can be asked.
pub struct Route {
    /// Method.
    pub verb: Verb,
    /// Path with `{id}`s, after `/v1`.
    pub path: &'static str,
    /// The operation's name in the description.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// What the key must allow.
    pub scope: Scope,
    /// Parameters of the query.
    pub params: &'static [Param],
    /// The schema of the body, if there is one.
    pub input: Option<fn(&mut Defs) -> Value>,
    /// How large it may be.
    pub weight: Weight,
    /// The status of success.
    pub status: u16,
    /// The schema of the answer.
    pub output: fn(&mut Defs) -> Value,
    /// What does it.
    pub run: for<'a> fn(&'a Ask) -> Answering<'a>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Route({} {})", self.verb.name(), self.path)
    }
}

impl Route {
    /// What reads: `GET`, 200.
    pub fn get<O: Shape>(
        path: &'static str,
        name: &'static str,
        scope: Scope,
        run: for<'a> fn(&'a Ask) -> Answering<'a>,
        about: &'static str,
    ) -> Self {
        let (params, input, weight): (&[Param], _, _) = (&[], None, Weight::Light);
        Self { verb: Verb::Get, path, name, about, scope, params, input, weight, status: 200, output: O::schema, run }
    }

    /// What makes something of a body: `POST`, 201.
    pub fn post<I: Shape, O: Shape>(
        path: &'static str,
        name: &'static str,
        scope: Scope,
        run: for<'a> fn(&'a Ask) -> Answering<'a>,
        about: &'static str,
    ) -> Self {
        Self { verb: Verb::Post, input: Some(I::schema), status: 201, ..Self::get::<O>(path, name, scope, run, about) }
    }

    /// What takes away: `DELETE`, 200.
    pub fn delete<O: Shape>(
        path: &'static str,
        name: &'static str,
        scope: Scope,
        run: for<'a> fn(&'a Ask) -> Answering<'a>,
        about: &'static str,
    ) -> Self {
        Self { verb: Verb::Delete, ..Self::get::<O>(path, name, scope, run, about) }
    }

    /// The same as a list.
    pub fn listed(self) -> Self {
        Self { params: LIST, ..self }
    }

    /// The same with other parameters.
    pub fn with(self, params: &'static [Param]) -> Self {
        Self { params, ..self }
    }

    /// The same with another status of success.
    pub fn giving(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// The same for a large body.
    pub fn upload(self) -> Self {
        Self { weight: Weight::Upload, ..self }
    }
}

/// A handler as the table takes it.
macro_rules! run {
    ($handler:path) => {
        |ask| Box::pin($handler(ask))
    };
}
pub(crate) use run;

/// All of them.
pub fn table() -> Vec<Route> {
    let mut all = super::people::routes();
    all.extend(super::voices::routes());
    all.extend(super::rights::routes());
    all.extend(super::asking::routes());
    all.extend(super::money::routes());
    all.extend(super::trail::routes());
    all.extend(super::agreeing::routes());
    all.extend(super::guarding::routes());
    all.extend(super::webhooks::routes());
    all.extend(super::accounts::routes());
    all.extend(super::app_sessions::routes());
    all
}
