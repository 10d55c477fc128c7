//! Sends instructions to the bank, signed with our key. It repeats nothing, and takes nothing but a clear word for an answer.

use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};

use super::signature::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign};
use super::wire;
use crate::clock::Timestamp;
use crate::gateway::bank_feedback::{BankFeedbackConfig, BankFeedbackError};
use crate::gateway::http::{self, OpenError};
use crate::payment::pairing::{Answer, Instruction};
use crate::vault::SigningKey;

/// So many instructions are under way at a time.
pub(super) const AT_ONCE: usize = 16;

/// The bank, where it takes instructions.
#[derive(Debug)]
pub(super) struct Client {
    http: http::Client,
    path: String,
}

impl Client {
    /// Reads the authorities; connects to nobody yet.
    pub(super) fn open(cfg: &BankFeedbackConfig) -> Result<Self, BankFeedbackError> {
        let target = cfg.target()?;
        let path = target.path.clone();
        let http = http::Client::open(target, &cfg.roots_file, cfg.answer_timeout_ms, AT_ONCE).map_err(|e| match e {
            OpenError::Url(what) => BankFeedbackError::new("instructions_url", what),
            OpenError::Roots(what) => BankFeedbackError::new("roots_file", what),
        })?;
        Ok(Self { http, path })
    }

    /// Sends an instruction; the bank's word, or `None`: nobody knows what became of it, and it is to be sent again.
    pub(super) async fn send(&self, i: &Instruction, key: &SigningKey, now: Timestamp) -> Option<Answer> {
        let instruction = i.id.as_str();
        let body = match wire::bytes(i) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(instruction, %error, "an instruction can't be written");
                return None;
            }
        };
        let seconds = now.0.div_euclid(1_000);
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(CONTENT_TYPE, "application/json")
            .header(ID_HEADER, instruction)
            .header(TIMESTAMP_HEADER, seconds)
            .header(SIGNATURE_HEADER, sign(key, instruction, seconds, &body));
        let answer = match self.http.exchange(request, Bytes::from(body)).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(instruction, %error, "the bank gave no answer");
                return None;
            }
        };
        match answer.status {
            StatusCode::OK => {
                let word = wire::answer(i, &answer.body);
                if word.is_none() {
                    tracing::error!(instruction, "the bank's answer is no word about this instruction");
                }
                word
            }
            status if status.is_client_error() => {
                tracing::error!(instruction, %status, "the bank does not take an instruction: do its keys fit ours?");
                None
            }
            status => {
                tracing::warn!(instruction, %status, "the bank's answer says nothing");
                None
            }
        }
    }
}
