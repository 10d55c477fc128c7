//! Requests outside any dialog on rsipstack's client transactions: REGISTER and OPTIONS to trunks.

use rsipstack::sip::prelude::HasHeaders;
use rsipstack::sip::{Request, SipMessage};
use rsipstack::transaction::key::{TransactionKey, TransactionRole};
use rsipstack::transaction::transaction::Transaction;
use rsipstack::transport::SipAddr;
use tokio::time::Instant;

use super::headers::Headers;
use super::rsip::Shared;
use super::signalling::{OutOfDialog, Reply, RequestError};
use super::wire::stack_transport;

/// What a branch begins with since RFC 3261 (section 8.1.1.7).
const BRANCH_COOKIE: &str = "z9hG4bK";

/// Sends it and waits for its final response.
pub(super) async fn ask(shared: &Shared, request: OutOfDialog) -> Result<Reply, RequestError> {
    let unreachable = |e: rsipstack::Error| RequestError::Unreachable(e.to_string());
    let branch = format!("{BRANCH_COOKIE}{}", hex::encode(shared.entropy.bytes::<12>()));
    let text = text_of(&request, &branch, &shared.endpoint.user_agent).ok_or(RequestError::Unwritable)?;
    let parsed = Request::try_from(text).map_err(|_| RequestError::Unwritable)?;
    let key = TransactionKey::from_request(&parsed, TransactionRole::Client).map_err(unreachable)?;
    let destination = SipAddr { r#type: Some(stack_transport(request.transport)), ..SipAddr::from(request.destination) };
    let begun = Instant::now();
    let (endpoint, wire) = (shared.endpoint.clone(), shared.wire.clone());
    let OutOfDialog { transport, destination: address, server_name, wait, .. } = request;
    // A task of its own: rsipstack's transactions don't bear being dropped in the middle of a step.
    let mut asked = tokio::spawn(async move {
        // Connects where it must, so that what can't be reached is told at once and not by a time-out.
        let reached = wire.reach(transport, address, Some(&server_name)).await;
        reached.map_err(|e| RequestError::Unreachable(e.to_string()))?;
        let (connection, reached) = endpoint.transport_layer.lookup(&destination, Some(&key)).await.map_err(unreachable)?;
        let mut transaction = Transaction::new_client(key, parsed, endpoint, Some(connection));
        transaction.destination = Some(reached);
        transaction.send().await.map_err(unreachable)?;
        while let Some(message) = transaction.receive().await {
            if let SipMessage::Response(response) = message
                && response.status_code.code() >= 200
            {
                let mut headers = Headers::new();
                response.headers().iter().for_each(|h| headers.push(h.name(), h.value()));
                return Ok(Reply { status: response.status_code.code(), headers, took: begun.elapsed() });
            }
        }
        Err(RequestError::Silence(begun.elapsed()))
    });
    match tokio::time::timeout(wait, &mut asked).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(_failed)) => Err(RequestError::Unreachable("the request's task is gone".to_owned())),
        Err(_late) => {
            asked.abort();
            Err(RequestError::Silence(wait))
        }
    }
}

/// The message; `None` if a value would break out of its line.
fn text_of(request: &OutOfDialog, branch: &str, user_agent: &str) -> Option<String> {
    let OutOfDialog { method, uri, from, from_tag, to, call_id, cseq, sent_by, contact, headers, transport, .. } = request;
    let over = transport.token();
    let contact = contact.as_ref().map_or_else(String::new, |c| format!("Contact: <{c}>\r\n"));
    let own_lines = if contact.is_empty() { 8 } else { 9 };
    let mut out = format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{over} {sent_by};branch={branch};rport\r\n\
         Max-Forwards: 70\r\nFrom: <{from}>;tag={from_tag}\r\n\
         To: <{to}>\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n{contact}User-Agent: {user_agent}\r\n"
    );
    let lines_before = out.matches("\r\n").count();
    for (name, value) in headers.iter() {
        out += &format!("{name}: {value}\r\n");
    }
    out += "Content-Length: 0\r\n\r\n";
    let lines = lines_before + headers.iter().count() + 2;
    let whole = out.matches('\n').count() == lines && out.matches('\r').count() == lines && lines_before == own_lines;
    whole.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::signalling::Transport;

    fn register() -> OutOfDialog {
        OutOfDialog {
            method: "REGISTER",
            uri: "sip:example.org".into(),
            from: "sip:u@example.org".into(),
            from_tag: "t".into(),
            to: "sip:u@example.org".into(),
            call_id: "c".into(),
            cseq: 3,
            sent_by: "[2001:db8::1]:5060".parse().unwrap(),
            contact: Some("sip:u@[2001:db8::1]:5060".into()),
            headers: Headers::new().with("Expires", "600"),
            destination: "[2001:db8::2]:5060".parse().unwrap(),
            transport: Transport::Tcp,
            server_name: "example.org".into(),
            wait: std::time::Duration::from_secs(1),
        }
    }

    #[test]
    fn a_request_is_what_rsipstack_reads_and_no_value_breaks_out() {
        let text = text_of(&register(), "z9hG4bK1", "voicepay").unwrap();
        let parsed = Request::try_from(text).unwrap();
        assert_eq!(parsed.headers.iter().find(|h| h.name() == "Expires").unwrap().value(), "600");
        TransactionKey::from_request(&parsed, TransactionRole::Client).unwrap();
        let broken = OutOfDialog { headers: Headers::new().with("Expires", "1\r\nX: y"), ..register() };
        assert_eq!(text_of(&broken, "z9hG4bK1", "voicepay"), None);
        assert_eq!(text_of(&OutOfDialog { to: "sip:u\r\nX: y".into(), ..register() }, "z9hG4bK1", "voicepay"), None);
    }
}
