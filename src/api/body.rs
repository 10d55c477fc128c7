//! What a request carries: of which media type, how long, by when. Each door words its own refusals; what is read, and when it is given up, is the same.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, StatusCode};
use hyper::body::Bytes;

use super::problem::Problem;
use crate::listen::one_header;

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// Too long, or broken off: nobody waits for the answer to the latter.
    TooLong,
    /// It did not come in time.
    TooSlow,
}

impl Unread {
    /// As a program is told it.
    pub(super) fn problem(self, limit_bytes: usize) -> Problem {
        match self {
            Self::TooLong => {
                let detail = format!("a body has at most {limit_bytes} bytes here");
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
            }
            Self::TooSlow => Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not come in time"),
        }
    }
}

/// The whole body. One that says itself that it is too long is not waited for.
pub(super) async fn whole(headers: &HeaderMap, body: Body, limit_bytes: usize, wait_ms: u64) -> Result<Bytes, Unread> {
    let declared = one_header(headers, "content-length").and_then(|l| l.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit_bytes) {
        return Err(Unread::TooLong);
    }
    match tokio::time::timeout(Duration::from_millis(wait_ms), to_bytes(body, limit_bytes)).await {
        Ok(read) => read.map_err(|_| Unread::TooLong),
        Err(_) => Err(Unread::TooSlow),
    }
}

/// Whether the body is of this media type, whatever its parameters.
pub(super) fn is_kind(headers: &HeaderMap, wanted: &str) -> bool {
    let kind = one_header(headers, "content-type").map(|t| t.split(';').next().unwrap_or("").trim().to_ascii_lowercase());
    kind.as_deref() == Some(wanted)
}

/// Refuses any other media type.
pub(super) fn must_be(headers: &HeaderMap, wanted: &str) -> Result<(), Problem> {
    if is_kind(headers, wanted) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", format!("the body must be {wanted}")))
}
