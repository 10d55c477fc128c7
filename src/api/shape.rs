//! What a type looks like in JSON: each type that is read or written here says so itself, from the very list of fields that makes it, so that
//! the description ([`super::openapi`]) can't say anything else than the code does (JSON Schema 2020-12, as OpenAPI 3.1 has it).

use std::fmt;
use std::marker::PhantomData;

use serde::Deserializer;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::{Map, Value, json};

use crate::ids::{
    AccountId, ApiKeyId, AppSessionId, ApprovalId, AttemptId, AuditId, BankName, CallId, CardId, Category, CodeId, ConsentId,
    CustomerId, DisputeId, EndpointId, GuardianshipId, IntentId, InviteId, MainAccountId, MandateId, OutboxId, PayeeId,
    PurchaseId, ReceiptId, RequestId, SupervisionId,
};

/// The schemas of all named types, by name.
pub type Defs = Map<String, Value>;

/// A type that can be described.
pub trait Shape {
    /// Whether a field of it may be absent.
    const OPTIONAL: bool = false;
    /// Its schema; named ones are put into `defs` and referred to.
    fn schema(defs: &mut Defs) -> Value;
}

impl Shape for String {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string" })
    }
}

impl Shape for bool {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "boolean" })
    }
}

impl Shape for i64 {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "integer", "format": "int64" })
    }
}

impl Shape for u64 {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "integer", "format": "int64", "minimum": 0 })
    }
}

impl Shape for u32 {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX })
    }
}

/// Anything: what other rooms write down for themselves.
impl Shape for Value {
    fn schema(_: &mut Defs) -> Value {
        json!({})
    }
}

impl<T: Shape> Shape for Option<T> {
    const OPTIONAL: bool = true;
    fn schema(defs: &mut Defs) -> Value {
        json!({ "anyOf": [T::schema(defs), { "type": "null" }] })
    }
}

impl<T: Shape> Shape for Vec<T> {
    fn schema(defs: &mut Defs) -> Value {
        json!({ "type": "array", "items": T::schema(defs) })
    }
}

macro_rules! ids {
    ($($id:ty),+ $(,)?) => {
        $(impl Shape for $id {
            fn schema(_: &mut Defs) -> Value {
                json!({ "type": "string", "pattern": format!("^{}_[a-z0-9]{{1,40}}$", <$id>::PREFIX) })
            }
        })+
    };
}
ids!(
    AccountId,
    ApiKeyId,
    AppSessionId,
    ApprovalId,
    AttemptId,
    AuditId,
    CallId,
    CardId,
    CodeId,
    ConsentId,
    CustomerId,
    DisputeId,
    EndpointId,
    GuardianshipId,
    IntentId,
    InviteId,
    MainAccountId,
    MandateId,
    OutboxId,
    PayeeId,
    PurchaseId,
    ReceiptId,
    RequestId,
    SupervisionId,
);

impl Shape for Category {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string", "pattern": "^[a-z][a-z0-9-]{0,31}$" })
    }
}

impl Shape for BankName {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string", "pattern": "^[a-z][a-z0-9-]{0,31}$" })
    }
}

/// Describes fields that were described.
pub fn object(name: &str, doc: &str, fields: Vec<(&str, &str, bool, Value)>, closed: bool, defs: &mut Defs) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (field, doc, optional, mut schema) in fields {
        if let (Value::Object(map), false) = (&mut schema, doc.is_empty()) {
            map.insert("description".into(), doc.into());
        }
        // What we write is always there, if as null; of what we read only what is not optional must be.
        if !(optional && closed) {
            required.push(Value::from(field));
        }
        properties.insert(field.to_owned(), schema);
    }
    let mut whole = json!({ "type": "object", "description": doc, "properties": properties });
    if let Value::Object(map) = &mut whole {
        if !required.is_empty() {
            map.insert("required".into(), required.into());
        }
        map.insert("additionalProperties".into(), (!closed).into());
    }
    defs.insert(name.to_owned(), whole);
    reference(name)
}

/// A reference to a named schema.
pub fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// What is read field by field.
pub trait Fields<'de>: Sized {
    /// Reads the fields. Of a list serde would take the values by their order.
    fn of<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error>;
}

/// Reads an object and nothing else, as the schema has it.
pub fn only_object<'de, D: Deserializer<'de>, T: Fields<'de>>(from: D) -> Result<T, D::Error> {
    struct Object<T>(PhantomData<T>);
    impl<'de, T: Fields<'de>> Visitor<'de> for Object<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
            T::of(MapAccessDeserializer::new(fields))
        }
    }
    from.deserialize_map(Object(PhantomData))
}

/// Reads a struct that derives `Deserialize` with `remote = "Self"` as an object only.
macro_rules! read_as_object {
    ($name:ident) => {
        impl<'de> $crate::api::shape::Fields<'de> for $name {
            fn of<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Self::deserialize(from) // what is derived; the trait's own is below
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                $crate::api::shape::only_object(from)
            }
        }
    };
}
pub(crate) use read_as_object;

/// One type, once: the struct, how it is read or written, and its schema. `input`s refuse what they don't know.
macro_rules! shape {
    ($(#[doc = $doc:literal])+ output $name:ident { $($(#[doc = $about:literal])+ $field:ident: $type:ty),* $(,)? }) => {
        $(#[doc = $doc])+
        #[derive(Debug, serde::Serialize)]
        pub struct $name { $($(#[doc = $about])+ pub $field: $type),* }
        $crate::api::shape::shape!(@schema $name, false, concat!($($doc),+), $($field: $type: concat!($($about),+)),*);
    };
    ($(#[doc = $doc:literal])+ input $name:ident { $($(#[doc = $about:literal])+ $field:ident: $type:ty),* $(,)? }) => {
        $(#[doc = $doc])+
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields, remote = "Self")]
        pub struct $name { $($(#[doc = $about])+ pub $field: $type),* }
        $crate::api::shape::read_as_object!($name);
        // What is sent to us may hold a secret, so none of it prints.
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
        $crate::api::shape::shape!(@schema $name, true, concat!($($doc),+), $($field: $type: concat!($($about),+)),*);
    };
    (@schema $name:ident, $closed:literal, $doc:expr, $($field:ident: $type:ty: $about:expr),*) => {
        impl $crate::api::shape::Shape for $name {
            fn schema(defs: &mut $crate::api::shape::Defs) -> serde_json::Value {
                let name = stringify!($name);
                if defs.contains_key(name) {
                    return $crate::api::shape::reference(name);
                }
                let fields = vec![$((
                    stringify!($field),
                    $about.trim(),
                    <$type as $crate::api::shape::Shape>::OPTIONAL,
                    <$type as $crate::api::shape::Shape>::schema(defs),
                )),*];
                $crate::api::shape::object(name, $doc.trim(), fields, $closed, defs)
            }
        }
    };
}
pub(crate) use shape;

/// A list of `T`s, page by page.
#[derive(Debug, serde::Serialize)]
pub struct Page<T> {
    /// What is on it.
    pub data: Vec<T>,
    /// The cursor of the next page; `None`: this is the last.
    pub next: Option<String>,
}

impl<T: Shape> Shape for Page<T> {
    fn schema(defs: &mut Defs) -> Value {
        json!({
            "type": "object",
            "properties": {
                "data": Vec::<T>::schema(defs),
                "next": { "type": ["string", "null"], "description": "Give it as `after` for the next page; null: this is the last. A page may be \
                          shorter than `limit`, even empty, and not the last." },
            },
            "required": ["data", "next"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    shape! {
        /// A thing.
        input Thing {
            /// How many.
            count: i64,
            /// Perhaps a word.
            word: Option<String>,
        }
    }

    shape! {
        /// One within another.
        input Around {
            /// It.
            thing: Thing,
        }
    }

    #[test]
    fn a_schema_says_what_the_reader_does() {
        let mut defs = Defs::new();
        assert_eq!(Thing::schema(&mut defs), reference("Thing"));
        let schema = &defs["Thing"];
        assert_eq!(schema["required"], json!(["count"]));
        assert_eq!(schema["additionalProperties"], json!(false));
        assert_eq!(schema["properties"]["count"]["description"], "How many.");
        assert!(serde_json::from_str::<Thing>(r#"{"count": 1, "more": 2}"#).is_err());
        assert!(serde_json::from_str::<Thing>(r#"{"word": "a"}"#).is_err());
        let thing: Thing = serde_json::from_str(r#"{"count": 1}"#).unwrap();
        assert_eq!((thing.count, thing.word), (1, None));
        for no_object in [r#"[1, "a"]"#, "[]", "1", "null", r#""count""#] {
            assert!(serde_json::from_str::<Thing>(no_object).is_err(), "{no_object}");
            assert!(serde_json::from_str::<Around>(&format!(r#"{{"thing": {no_object}}}"#)).is_err(), "{no_object}");
        }
        assert_eq!(serde_json::from_str::<Around>(r#"{"thing": {"count": 1}}"#).unwrap().thing.count, 1);
    }
}
