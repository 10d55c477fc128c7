//! `POST /bank/deductions`: the bank's messages, on a listener of their own. One is believed only with a good and fresh
//! signature; the bank is told that we have it only once it is in the journal, and sends it again until then. Twice, late or in
//! any order, it does no harm.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, NotHeard};
use super::signature::{BankKeys, Headers, ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use super::wire::Told;
use crate::gateway::bank_feedback::{BankFeedbackConfig, BankFeedbackError, NotTaken};
use crate::listen::{self, Doors, one_header, problem};
use crate::payment::pairing::{Heard, MessageState, Reason, Refusal};
use crate::telemetry::metrics::metrics;

/// Where messages are posted.
pub const PATH: &str = "/bank/deductions";

/// A body longer than this is refused; a message has some hundred bytes.
const BODY_LIMIT_BYTES: usize = 65_536;

struct Door {
    desk: Desk,
    keys: BankKeys,
}

/// Listens until `stop`. Gives the address, with its real port.
pub(super) async fn listen(
    cfg: &BankFeedbackConfig,
    desk: Desk,
    stop: CancellationToken,
) -> Result<SocketAddr, BankFeedbackError> {
    let keys = BankKeys::new(cfg.secrets()?, cfg.public_keys()?);
    let taken = |e: io::Error| BankFeedbackError::new("listen", format!("can't listen on {}: {e}", cfg.listen));
    let (doors, address) = Doors::open(cfg.listen).await.map_err(taken)?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "the bank is heard in plain HTTP beyond this machine: put a proxy with TLS before it");
    }
    let app = Router::new().route(PATH, post(hear)).with_state(Arc::new(Door { desk, keys }));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(doors, app).with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::error!(%error, "the bank's messages are no longer heard");
        }
    });
    Ok(address)
}

async fn hear(State(door): State<Arc<Door>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = match listen::body(body, BODY_LIMIT_BYTES).await {
        Ok(body) => body,
        Err(answer) => return *answer,
    };
    let header = |name| one_header(&head.headers, name);
    let headers = Headers { id: header(ID_HEADER), timestamp: header(TIMESTAMP_HEADER), signature: header(SIGNATURE_HEADER) };
    let id = match door.keys.check(headers, &body, door.desk.clock().now()) {
        Ok(id) => id,
        Err(forged) => {
            tracing::warn!(%forged, "a message that is not the bank's was refused");
            metrics().bank_messages.inc(["forged"]);
            return problem(StatusCode::UNAUTHORIZED, &forged.to_string());
        }
    };
    let told = match Told::read(&body, id) {
        Ok(told) => told,
        Err(error) => {
            tracing::error!(%error, "a message that the bank signed can't be read");
            metrics().bank_messages.inc(["malformed"]);
            return problem(StatusCode::BAD_REQUEST, &error.to_string());
        }
    };
    let reference = told.reference.clone();
    let heard = door.desk.hear(told).await;
    metrics().bank_messages.inc([heard.as_ref().map_or("refused", word)]);
    match heard {
        Ok(heard) => {
            tracing::info!(%reference, message = %heard.message.id, state = word(&heard), "the bank announced a deduction");
            said(&heard)
        }
        Err(NotHeard::Busy) => {
            tracing::error!(
                "as many deductions are open as gateway.bank_feedback.open_limit allows; the bank is asked to come again"
            );
            problem(StatusCode::SERVICE_UNAVAILABLE, "too many deductions are open: send it again later")
        }
        Err(NotHeard::NotTaken(NotTaken::Refused(why @ Refusal::Full { .. }))) => {
            tracing::error!(%reference, %why, "a message of the bank is not taken: a person must look");
            problem(StatusCode::CONFLICT, &why.to_string())
        }
        Err(NotHeard::NotTaken(why)) => {
            tracing::error!(%reference, %why, "a message of the bank can't be taken now; it sends it again");
            problem(StatusCode::SERVICE_UNAVAILABLE, "not taken now: send it again later")
        }
    }
}

/// The answer to a message that is in the journal.
fn said(heard: &Heard) -> Response {
    if let MessageState::Quarantined { reason: Reason::IdReused, .. } = &heard.state {
        return problem(StatusCode::CONFLICT, "this message_id was used before, for a message that says something else");
    }
    let body = serde_json::json!({ "message_id": heard.message.id, "state": word(heard) });
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn word(heard: &Heard) -> &'static str {
    match &heard.state {
        MessageState::Waiting => "waiting",
        MessageState::Matched { .. } => "matched",
        MessageState::Quarantined { .. } => "quarantined",
        MessageState::Rejected { .. } => "rejected",
    }
}
