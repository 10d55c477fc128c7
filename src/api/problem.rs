//! What went wrong, as whoever asked is told it: `application/problem+json` (RFC 9457) for everything, from a wrong path to a full database.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::shape::{Defs, Shape};
use crate::processor::OperateError;
use crate::store::StoreError;

/// What went wrong.
#[derive(Debug)]
pub struct Problem {
    /// HTTP's status.
    pub status: StatusCode,
    /// What kind, for programs: the last part of `type`.
    pub kind: &'static str,
    /// What, for people.
    pub detail: String,
    /// When to ask again, in seconds.
    pub retry_after_s: Option<u64>,
}

/// What the `type`s begin with.
const TYPES: &str = "urn:voicepay:problem:";

impl Problem {
    /// One of a status.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), retry_after_s: None }
    }

    /// The request can't be read, or says what can't be.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    /// There is none such, or it is another tenant's: nobody is told which.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", format!("there is no such {what}"))
    }

    /// How things stand does not allow it.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// This part of the service does not run here.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }

    /// Too often, or too much of it: when to ask again, in seconds.
    pub fn too_often(retry_after_s: u64, detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", detail);
        Self { retry_after_s: Some(retry_after_s), ..problem }
    }

    /// Ours; the log says what.
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "the API failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something failed here; the log knows what")
    }

    fn body(&self) -> Value {
        let title = self.status.canonical_reason().unwrap_or("error");
        json!({ "type": format!("{TYPES}{}", self.kind), "title": title, "status": self.status.as_u16(), "detail": self.detail })
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl Shape for Problem {
    fn schema(defs: &mut Defs) -> Value {
        let schema = json!({
            "type": "object",
            "description": "What went wrong (RFC 9457).",
            "properties": {
                "type": { "type": "string", "description": "What kind, for programs." },
                "title": { "type": "string" },
                "status": { "type": "integer" },
                "detail": { "type": "string", "description": "What, for people." },
            },
            "required": ["type", "title", "status", "detail"],
        });
        defs.insert("Problem".into(), schema);
        super::shape::reference("Problem")
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(what) => Self::not_found(what),
            e @ (StoreError::Exists(_) | StoreError::Conflict(_)) => Self::conflict(e.to_string()),
            // Rules of ours are sentences; a database's own refusal is not for outside.
            StoreError::Refused(why) if why.contains("constraint") => Self::conflict("a rule of the data refuses it"),
            StoreError::Refused(why) => Self::conflict(why),
            e @ (StoreError::Busy | StoreError::Unreachable(_) | StoreError::Unsure(_)) => {
                tracing::warn!(error = %e, "the API can't reach the database");
                let mut problem = Self::unavailable("the database does not answer; ask again, with the same Idempotency-Key");
                problem.retry_after_s = Some(1);
                problem
            }
            e @ (StoreError::Open { .. } | StoreError::Migrate { .. } | StoreError::Damaged { .. } | StoreError::Failed(_)) => {
                Self::internal(&e)
            }
        }
    }
}

impl From<OperateError> for Problem {
    fn from(error: OperateError) -> Self {
        match error {
            OperateError::Store(e) => e.into(),
            OperateError::Refused(crate::payment::OperationRefusal::NoSuchPayment) => Self::not_found("payment"),
            OperateError::Refused(e) => Self::conflict(e.to_string()),
            OperateError::Transition(e) => Self::conflict(e.to_string()),
            OperateError::Dispute(e) => Self::conflict(e.to_string()),
        }
    }
}
