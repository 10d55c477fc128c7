//! The spans of a call, and how OTLP writes them as JSON. PURE. A span's name and attributes are words of ours, numbers of
//! milliseconds or flags: there is no place to put a caller's digits, numbers or audio.

use serde_json::{Value, json};

use crate::clock::Timestamp;

/// Spans kept for one call; one that makes more keeps the first ones.
pub const CALL_LIMIT_SPANS: usize = 256;

/// What may be said of a span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attribute {
    /// One of our own words.
    Word(&'static str),
    /// A count or a duration.
    Count(u64),
    /// Yes or no.
    Flag(bool),
}

/// One stretch of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// What it is, such as `prompt` or `inference.voice`.
    pub name: &'static str,
    /// When it began, in milliseconds since the call was answered.
    pub start_ms: u64,
    /// When it ended.
    pub end_ms: u64,
    /// More about it.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// It came to nothing.
    pub failed: bool,
}

/// Collects a call's spans. Of each name one span is open at a time.
#[derive(Debug, Default)]
pub struct Spans {
    open: Vec<Span>,
    closed: Vec<Span>,
}

impl Spans {
    /// Begins a span; one of the same name that is still open ends.
    pub fn begin(&mut self, now_ms: u64, name: &'static str, attributes: Vec<(&'static str, Attribute)>) {
        self.end(now_ms, name, Vec::new(), false);
        if self.open.len() + self.closed.len() < CALL_LIMIT_SPANS {
            self.open.push(Span { name, start_ms: now_ms, end_ms: now_ms, attributes, failed: false });
        }
    }

    /// Ends the open span of this name, if there is one.
    pub fn end(&mut self, now_ms: u64, name: &str, attributes: Vec<(&'static str, Attribute)>, failed: bool) {
        if let Some(at) = self.open.iter().position(|s| s.name == name) {
            let mut span = self.open.remove(at);
            span.end_ms = now_ms.max(span.start_ms);
            span.attributes.extend(attributes);
            span.failed = failed;
            self.closed.push(span);
        }
    }

    /// The call is over: all spans, in the order in which they began.
    pub fn finish(&mut self, now_ms: u64) -> Vec<Span> {
        let open: Vec<&'static str> = self.open.iter().map(|s| s.name).collect();
        for name in open {
            self.end(now_ms, name, Vec::new(), false);
        }
        let mut all = std::mem::take(&mut self.closed);
        all.sort_by_key(|s| s.start_ms);
        all
    }
}

/// A call as a trace.
#[derive(Clone, Debug)]
pub struct Trace {
    /// When it was answered.
    pub answered_at: Timestamp,
    /// From INVITE to answer, in milliseconds.
    pub setup_ms: u64,
    /// From answer to end, in milliseconds.
    pub duration_ms: u64,
    /// Nothing that happened in it is our fault.
    pub ok: bool,
    /// Of the call as a whole: identifiers of ours, trunk, codec, verdict.
    pub attributes: Vec<(&'static str, String)>,
    /// What happened in it.
    pub spans: Vec<Span>,
}

impl Trace {
    /// How many spans it makes: its own and that of the set-up among them.
    pub fn span_count(&self) -> usize {
        self.spans.len() + 2
    }
}

/// OTLP's ExportTraceServiceRequest as JSON (OTLP 1.x, "JSON Protobuf encoding": ids in hexadecimal, 64-bit numbers as text).
/// `random` gives fresh identifiers, none of them all zeroes.
pub fn export_request(traces: &[Trace], mut random: impl FnMut() -> [u8; 16]) -> Value {
    let spans: Vec<Value> = traces.iter().flat_map(|t| spans_of(t, &mut random)).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": [text("service.name", "voicepay"), text("service.version", env!("CARGO_PKG_VERSION"))] },
        "scopeSpans": [{ "scope": { "name": "voicepay.call", "version": env!("CARGO_PKG_VERSION") }, "spans": spans }],
    }] })
}

const KIND_INTERNAL: u8 = 1;
const KIND_SERVER: u8 = 2;
const STATUS_ERROR: u8 = 2;

fn spans_of(trace: &Trace, random: &mut impl FnMut() -> [u8; 16]) -> Vec<Value> {
    let trace_id = hex::encode(random());
    let mut span_id = || hex::encode(random().first_chunk::<8>().unwrap_or(&[1; 8]));
    let root = span_id();
    let answered_ms = u64::try_from(trace.answered_at.0).unwrap_or(0);
    let invited_ms = answered_ms.saturating_sub(trace.setup_ms);
    let nanos = |ms: u64| u128::from(ms).saturating_mul(1_000_000).to_string();
    let mut out = Vec::with_capacity(trace.span_count());
    let status = |failed: bool| if failed { json!({ "code": STATUS_ERROR }) } else { json!({}) };
    out.push(json!({
        "traceId": trace_id, "spanId": root, "name": "call", "kind": KIND_SERVER,
        "startTimeUnixNano": nanos(invited_ms), "endTimeUnixNano": nanos(answered_ms.saturating_add(trace.duration_ms)),
        "attributes": trace.attributes.iter().map(|(k, v)| text(k, v)).collect::<Vec<_>>(), "status": status(!trace.ok),
    }));
    out.push(json!({
        "traceId": trace_id, "spanId": span_id(), "parentSpanId": root, "name": "sip.setup", "kind": KIND_INTERNAL,
        "startTimeUnixNano": nanos(invited_ms), "endTimeUnixNano": nanos(answered_ms), "attributes": [], "status": {},
    }));
    for span in &trace.spans {
        out.push(json!({
            "traceId": trace_id, "spanId": span_id(), "parentSpanId": root, "name": span.name, "kind": KIND_INTERNAL,
            "startTimeUnixNano": nanos(answered_ms.saturating_add(span.start_ms)),
            "endTimeUnixNano": nanos(answered_ms.saturating_add(span.end_ms)),
            "attributes": span.attributes.iter().map(|(k, v)| attribute(k, *v)).collect::<Vec<_>>(),
            "status": status(span.failed),
        }));
    }
    out
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn attribute(key: &str, value: Attribute) -> Value {
    match value {
        Attribute::Word(word) => text(key, word),
        Attribute::Count(n) => json!({ "key": key, "value": { "intValue": n.to_string() } }),
        Attribute::Flag(flag) => json!({ "key": key, "value": { "boolValue": flag } }),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A trace with one of each.
    pub(crate) fn a_trace() -> Trace {
        let mut spans = Spans::default();
        spans.begin(0, "prompt", vec![("prompt.kind", Attribute::Word("Welcome"))]);
        spans.end(1_500, "prompt", Vec::new(), false);
        spans.begin(1_500, "inference.voice", vec![("ahead", Attribute::Flag(true))]);
        spans.end(1_620, "inference.voice", vec![("net_speech_ms", Attribute::Count(2_400))], true);
        spans.begin(1_700, "listen", Vec::new());
        Trace {
            answered_at: Timestamp(1_790_000_000_000),
            setup_ms: 40,
            duration_ms: 2_000,
            ok: true,
            attributes: vec![("voicepay.call", "call_1".into())],
            spans: spans.finish(2_000),
        }
    }

    /// What OTLP's schema asks of a span (opentelemetry-proto, trace.proto), and of its JSON form.
    pub(crate) fn check(request: &Value) -> usize {
        let mut seen = std::collections::BTreeSet::new();
        let hex_of = |v: &Value, length: usize| {
            let text = v.as_str().unwrap();
            assert!(
                text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit()) && text.bytes().any(|b| b != b'0'),
                "{text}"
            );
            text.to_owned()
        };
        let time = |v: &Value| v.as_str().expect("64-bit numbers are text").parse::<u64>().unwrap();
        for resource in request["resourceSpans"].as_array().unwrap() {
            assert_eq!(resource["resource"]["attributes"][0]["key"], "service.name");
            for scope in resource["scopeSpans"].as_array().unwrap() {
                assert!(scope["scope"]["name"].is_string());
                for span in scope["spans"].as_array().unwrap() {
                    hex_of(&span["traceId"], 32);
                    assert!(seen.insert(hex_of(&span["spanId"], 16)), "span ids are unique");
                    if span["name"] != "call" {
                        hex_of(&span["parentSpanId"], 16);
                    }
                    assert!(span["name"].as_str().is_some_and(|n| !n.is_empty()));
                    assert!((1..=5).contains(&span["kind"].as_u64().unwrap()));
                    assert!(time(&span["startTimeUnixNano"]) <= time(&span["endTimeUnixNano"]));
                    for a in span["attributes"].as_array().unwrap() {
                        assert!(a["key"].is_string() && a["value"].as_object().unwrap().len() == 1);
                        let value = &a["value"];
                        let int = value["intValue"].as_str().is_some_and(|n| n.parse::<i64>().is_ok());
                        assert!(int || value["stringValue"].is_string() || value["boolValue"].is_boolean(), "{value}");
                    }
                    assert!(span["status"].get("code").is_none_or(|c| c == 2));
                }
            }
        }
        seen.len()
    }

    pub(crate) fn ids() -> impl FnMut() -> [u8; 16] {
        let mut n = 0u128;
        move || {
            n += 1;
            (n << 64 | n).to_be_bytes()
        }
    }

    #[test]
    fn a_call_becomes_what_otlp_asks_for() {
        let request = export_request(&[a_trace(), a_trace()], ids());
        assert_eq!(check(&request), 10);
        let spans = request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
        assert_eq!(spans[0]["startTimeUnixNano"], "1789999999960000000");
        let names: Vec<_> = spans.iter().take(5).map(|s| s["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["call", "sip.setup", "prompt", "inference.voice", "listen"]);
        assert_eq!(spans[3]["status"]["code"], 2);
        assert_eq!(spans[4]["endTimeUnixNano"], spans[0]["endTimeUnixNano"], "what was open ends with the call");
        assert_ne!(spans[0]["traceId"], spans[5]["traceId"]);
    }

    #[test]
    fn spans_of_a_call_are_bounded_and_one_of_a_name_is_open() {
        let mut spans = Spans::default();
        for n in 0..10_000 {
            spans.begin(n, "prompt", Vec::new());
        }
        spans.end(7, "never begun", Vec::new(), true);
        let all = spans.finish(20_000);
        assert_eq!(all.len(), CALL_LIMIT_SPANS);
        assert!(all.iter().all(|s| s.start_ms <= s.end_ms));
    }
}
