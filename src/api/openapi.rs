//! The description of the API: OpenAPI 3.1, made of the table of routes and of the types themselves.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::gate::{IDEMPOTENCY_KEY, KEY_LIMIT_CHARS};
use super::live::LAST_EVENT_ID;
use super::problem::Problem;
use super::route::{self, Route, Verb};
use super::scope::Scope;
use super::shape::{Defs, Shape};

/// The whole description.
pub fn document() -> Value {
    static MADE: OnceLock<Value> = OnceLock::new();
    MADE.get_or_init(|| make(&route::table())).clone()
}

fn make(table: &[Route]) -> Value {
    let mut defs = Defs::new();
    let problem = Problem::schema(&mut defs);
    let mut paths = Map::new();
    for route in table {
        let described = operation(route, &mut defs);
        let path = paths.entry(format!("/v1{}", route.path)).or_insert_with(|| json!({}));
        if let Value::Object(path) = path {
            path.insert(route.verb.name().to_owned(), described);
        }
    }
    paths.insert("/v1/calls/{id}/events".into(), json!({ "get": events() }));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Voicepay",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Payments that customers agree to by voice. Amounts are in minor units, times in RFC 3339, errors in problem+json \
                            (RFC 9457). What is another tenant's is not there. Every POST wants an Idempotency-Key: the same request with \
                            the same key is done once and answered the same again.",
        },
        "servers": [{ "url": "/" }],
        "security": [{ "key": [] }],
        "paths": paths,
        "components": {
            "schemas": defs,
            "responses": refusals(&problem),
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer", "description": "A key that begins with vpk_." } },
        },
    })
}

fn events() -> Value {
    let mut parameters = parameters("/calls/{id}/events", &[], false);
    if let Value::Array(all) = &mut parameters {
        let about = "The `id` of the last event that you have, of a stream that you lost: `missed` says how many came since.";
        let schema = json!({ "type": "string", "pattern": "^[0-9]{1,15}$" });
        all.push(json!({ "name": LAST_EVENT_ID, "in": "header", "required": false, "description": about, "schema": schema }));
    }
    let stream = json!({ "description": "The stream.", "content": { "text/event-stream": { "schema": { "type": "string" } } } });
    json!({
        "operationId": "followCall",
        "summary": "What happens in a call that is up, as server-sent events: `event`, `missed`, `over`.",
        "description": scope(Scope::CallsRead),
        "tags": ["calls"],
        "parameters": parameters,
        "responses": responses(200, stream, true, false),
    })
}

/// What can be refused, by status: its name in the description, what it means, and whether it says when to ask again.
const REFUSALS: [(u16, &str, &str, bool); 12] = [
    (400, "Invalid", "The request can't be read, or says what can't be.", false),
    (401, "Unauthorized", "No key, or one that is unknown, expired or revoked.", false),
    (403, "Scope", "The key lacks the scope.", false),
    (404, "NotFound", "There is none such, or it is another tenant's.", false),
    (408, "Timeout", "The body did not come in time.", false),
    (409, "Conflict", "How things stand does not allow it, or the same is being answered just now.", true),
    (413, "TooLarge", "The body is too long.", false),
    (415, "MediaType", "The body is not application/json.", false),
    (422, "Unprocessable", "This Idempotency-Key was used for another request, or the body names what can't be used.", false),
    (429, "RateLimited", "Too often.", true),
    (500, "Internal", "Something failed on our side.", false),
    (503, "Unavailable", "The database does not answer, or all places are taken: ask again.", true),
];

fn refusals(problem: &Value) -> Value {
    let described = REFUSALS.into_iter().map(|(_, name, about, later)| {
        let mut refusal = json!({ "description": about, "content": { "application/problem+json": { "schema": problem } } });
        if let (true, Value::Object(map)) = (later, &mut refusal) {
            let header =
                json!({ "Retry-After": { "description": "In so many seconds.", "schema": { "type": "integer", "minimum": 1 } } });
            map.insert("headers".into(), header);
        }
        (name.to_owned(), refusal)
    });
    Value::Object(described.collect())
}

/// What may be answered: that it is done, and what can be refused. `named`: it is asked of something that may not be there; `posted`: it changes
/// something, once.
fn responses(status: u16, done: Value, named: bool, posted: bool) -> Value {
    let may = |status: u16| match status {
        404 => named || posted,
        409 => named || posted,
        415 | 422 => posted,
        _ => true,
    };
    let refused = REFUSALS.into_iter().filter(|(status, ..)| may(*status));
    let refused =
        refused.map(|(status, name, ..)| (status.to_string(), json!({ "$ref": format!("#/components/responses/{name}") })));
    Value::Object(std::iter::once((status.to_string(), done)).chain(refused).collect())
}

fn scope(scope: Scope) -> String {
    format!("Needs the scope `{scope}`.")
}

fn operation(route: &Route, defs: &mut Defs) -> Value {
    let tag = route.path.trim_start_matches('/').split('/').next().unwrap_or("");
    let done = json!({ "description": "Done.", "content": { "application/json": { "schema": (route.output)(defs) } } });
    let named = route.path.contains('{') || route.params.iter().any(|p| p.required);
    let mut described = json!({
        "operationId": route.name,
        "summary": route.about,
        "description": scope(route.scope),
        "tags": [tag],
        "parameters": parameters(route.path, route.params, route.verb == Verb::Post),
        "responses": responses(route.status, done, named, route.verb == Verb::Post),
    });
    if let (Some(input), Value::Object(map)) = (route.input, &mut described) {
        let body = json!({ "required": true, "content": { "application/json": { "schema": input(defs) } } });
        map.insert("requestBody".into(), body);
    }
    described
}

fn parameters(path: &str, params: &[route::Param], idempotent: bool) -> Value {
    let mut all = Vec::new();
    for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let schema = match (path.split('/').nth(1), name) {
            (_, "reference") => json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" }),
            (_, "invite") => json!({ "type": "string", "pattern": "^inv_[a-z0-9]{1,40}$" }),
            (_, "consent") => json!({ "type": "string", "pattern": "^cns_[a-z0-9]{1,40}$" }),
            (Some("customers"), _) => json!({ "type": "string", "pattern": "^cus_[a-z0-9]{1,40}$" }),
            (Some("cards"), _) => json!({ "type": "string", "pattern": "^card_[a-z0-9]{1,40}$" }),
            (Some("payees"), _) => json!({ "type": "string", "pattern": "^pay_[a-z0-9]{1,40}$" }),
            (Some("requests"), _) => json!({ "type": "string", "pattern": "^req_[a-z0-9]{1,40}$" }),
            (Some("payments"), _) => json!({ "type": "string", "pattern": "^int_[a-z0-9]{1,40}$" }),
            (Some("approvals"), _) => json!({ "type": "string", "pattern": "^apr_[a-z0-9]{1,40}$" }),
            (Some("mandates"), _) => json!({ "type": "string", "pattern": "^mnd_[a-z0-9]{1,40}$" }),
            (Some("guardianships"), _) => json!({ "type": "string", "pattern": "^gua_[a-z0-9]{1,40}$" }),
            (Some("supervisions"), _) => json!({ "type": "string", "pattern": "^sup_[a-z0-9]{1,40}$" }),
            (Some("app-sessions"), _) => json!({ "type": "string", "pattern": "^aps_[a-z0-9]{1,40}$" }),
            (Some("webhooks"), _) => json!({ "type": "string", "pattern": "^whk_[a-z0-9]{1,40}$" }),
            (Some("calls"), _) => json!({ "type": "string", "pattern": "^call_[a-z0-9]{1,40}$" }),
            (Some(_) | None, _) => json!({ "type": "string", "minLength": 1 }),
        };
        all.push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
    }
    for p in params {
        all.push(
            json!({ "name": p.name, "in": "query", "required": p.required, "description": p.about, "schema": (p.schema)() }),
        );
    }
    if idempotent {
        let schema = json!({ "type": "string", "pattern": format!("^[!-~]{{1,{KEY_LIMIT_CHARS}}}$") });
        let about = "Chosen by you, a new one for each thing that is to be done: with the same one it is done once.";
        all.push(json!({ "name": IDEMPOTENCY_KEY, "in": "header", "required": true, "description": about, "schema": schema }));
    }
    all.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_its_own_name() {
        let whole = document();
        let text = whole.to_string();
        for (at, _) in text.match_indices("#/components/schemas/") {
            let name: String = text[at + 21..].chars().take_while(|c| c.is_alphanumeric()).collect();
            assert!(whole["components"]["schemas"].get(&name).is_some(), "{name}");
        }
        for (at, _) in text.match_indices("#/components/responses/") {
            let name: String = text[at + 23..].chars().take_while(|c| c.is_alphanumeric()).collect();
            assert!(whole["components"]["responses"].get(&name).is_some(), "{name}");
        }
        let table = route::table();
        let names: BTreeSet<_> = table.iter().map(|r| r.name).collect();
        let places: BTreeSet<_> = table.iter().map(|r| (r.verb.name(), r.path)).collect();
        assert_eq!((names.len(), places.len()), (table.len(), table.len()));
        assert!(table.iter().all(|r| (r.verb == Verb::Post) == r.input.is_some()), "a POST has a body, and nothing else has");
        assert_eq!(whole["paths"]["/v1/requests"]["post"]["operationId"], "addRequest");
    }
}
