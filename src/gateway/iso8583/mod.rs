//! A bank host over TCP, in ISO 8583:1987.
//!
//! | operation   | message | if the answer is lost                                                          |
//! |-------------|---------|--------------------------------------------------------------------------------|
//! | `Authorise` | 0100    | taken back: 0400, then 0401 until it is acknowledged                           |
//! | `Charge`    | 0200    | the same                                                                       |
//! | `Refund`    | 0200    | the same: the refund is undone, and can be asked for again                     |
//! | `Capture`   | 0220    | said again: 0221 until it is answered. An advice is not decided, only recorded |
//! | `Void`      | 0400    | said again: 0401 until it is acknowledged                                      |
//!
//! The wire can't be asked what became of a request, so a request in doubt is undone rather than sent again: the same trace
//! number with a charge after its reversal would mean two things. A host that knows of nothing to reverse (response code 25) may
//! only not have it *yet*. That word counts once the request can't arrive any more: `late_arrival_ms` after this process last
//! sent it, or first asked about it where another process sent it; until then the core is told nothing and asks again. From there
//! on it is [`DeclineReason::NeverReceived`], not [`BankWord::NotFound`], which would have the core send the charge again.

mod answers;
pub mod codec;
pub mod config;
mod dial;
pub mod frame;
mod line;
pub mod message;
mod probe;
mod requests;
mod sent;
mod session;
pub mod spec;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use time::UtcOffset;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::{Gateway, GatewayKind, GatewayRequest};
use crate::clock::Clock;
use crate::payment::{BankWord, DeclineReason, Operation};
use config::{ConfigFault, Iso8583Config};
use dial::Dialer;
use frame::Framing;
use line::{Line, Reply};
use message::Message;
use requests::{ComposeError, Terms};
use sent::Sent;
use spec::{ReversalVerdict, Spec, SpecError};

pub use line::LineError;
pub use probe::{Finding, probe};

/// What every line works by.
struct Shared {
    spec: Spec,
    framing: Framing,
    clock: Arc<dyn Clock>,
    sign_on: bool,
    connect_timeout: Duration,
    write_timeout: Duration,
    response_timeout: Duration,
    echo_interval: Duration,
    reconnect_min: Duration,
    reconnect_max: Duration,
    queue_limit: usize,
    in_flight_limit: usize,
}

impl Shared {
    fn new(cfg: &Iso8583Config, clock: Arc<dyn Clock>) -> Result<Self, Iso8583Error> {
        cfg.check()?;
        let ms = Duration::from_millis;
        Ok(Self {
            spec: Spec::load(cfg.spec.as_deref())?,
            framing: cfg.framing()?,
            clock,
            sign_on: cfg.sign_on,
            connect_timeout: ms(cfg.connect_timeout_ms),
            write_timeout: ms(cfg.write_timeout_ms),
            response_timeout: ms(cfg.response_timeout_ms),
            echo_interval: ms(cfg.echo_interval_ms),
            reconnect_min: ms(cfg.reconnect_min_ms),
            reconnect_max: ms(cfg.reconnect_max_ms),
            queue_limit: usize::try_from(cfg.queue_limit).unwrap_or(1),
            in_flight_limit: usize::try_from(cfg.in_flight_limit).unwrap_or(1),
        })
    }

    /// A message as it goes over the line.
    fn framed(&self, message: &Message) -> Result<Zeroizing<Vec<u8>>, LineError> {
        tracing::trace!(message = %message.shown(&self.spec), "to the bank");
        let bytes = codec::encode(&self.spec, message)?;
        Ok(self.framing.frame(&bytes)?)
    }
}

/// The bank.
pub struct Iso8583Gateway {
    shared: Arc<Shared>,
    terms: Terms,
    /// In the order of preference.
    lines: Vec<Line>,
    came_up: watch::Receiver<()>,
    sent: Mutex<Sent>,
}

impl fmt::Debug for Iso8583Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Iso8583Gateway({}, {} hosts)", self.shared.spec.name, self.lines.len())
    }
}

impl Iso8583Gateway {
    /// Checks the config and starts a line to each host; whether they can be reached shows when something is asked. Within a
    /// runtime of tokio.
    pub fn open(cfg: &Iso8583Config, clock: Arc<dyn Clock>) -> Result<Self, Iso8583Error> {
        let shared = Arc::new(Shared::new(cfg, clock)?);
        let terms = Terms {
            terminal_id: cfg.terminal_id.clone(),
            merchant_id: cfg.merchant_id.clone(),
            acquirer_id: cfg.acquirer_id.clone(),
            local: UtcOffset::from_whole_seconds(i32::from(cfg.local_offset_min) * 60).unwrap_or(UtcOffset::UTC),
        };
        requests::rehearse(&shared.spec, &terms).map_err(|(what, source)| Iso8583Error::Unwritable { what, source })?;
        let (up, came_up) = watch::channel(());
        let start = |dialer| Line::start(Arc::clone(&shared), dialer, up.clone());
        let lines = Dialer::all(cfg)?.into_iter().map(start).collect();
        // A line that has begun to write goes on for so long, whoever waits.
        let quiet = shared.write_timeout.saturating_add(Duration::from_millis(cfg.late_arrival_ms));
        let sent = Mutex::new(Sent::new(quiet));
        Ok(Self { shared, terms, lines, came_up, sent })
    }

    /// Asks the first host whose line takes it. Another one is tried only where surely not a byte was sent.
    async fn ask(&self, message: &Message) -> Reply {
        let frame = match self.shared.framed(message) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::error!(%error, "a message can't be written; nothing was sent");
                return Reply::NotSent;
            }
        };
        let deadline = Instant::now() + self.shared.connect_timeout;
        let mut came_up = self.came_up.clone();
        loop {
            came_up.mark_unchanged();
            let mut tried = false;
            for line in self.lines.iter().filter(|l| l.is_up()) {
                tried = true;
                match line.ask(message, frame.clone(), self.shared.response_timeout).await {
                    Reply::NotSent => {}
                    Reply::Lost => return Reply::Lost,
                    // Somebody else's terminal: no answer to us.
                    Reply::Answer(answer) if answer.get(41).is_some_and(|t| Some(t) != message.get(41)) => {
                        tracing::error!(mti = %answer.mti, "the bank answers for another terminal; it counts as no answer");
                        return Reply::Lost;
                    }
                    answered @ Reply::Answer(_) => return answered,
                }
            }
            // A full queue won't be shorter for a wait; a host that is down may come back.
            if tried || timeout_at(deadline, came_up.changed()).await.is_err() {
                return Reply::NotSent;
            }
        }
    }

    /// Asks for the operation, or says again that it was asked for.
    async fn ask_for(&self, request: &GatewayRequest, repeat: bool) -> BankWord {
        let mut message = match requests::ask(&self.shared.spec, &self.terms, request) {
            Ok(message) => message,
            Err(error) => return unsaid(request, error),
        };
        if repeat {
            message.mti = message.mti.repeat();
        }
        match self.ask(&message).await {
            Reply::Answer(answer) => answers::judge(&self.shared.spec, request, &answer),
            Reply::Lost => BankWord::Silence,
            Reply::NotSent => match request.operation {
                // Asked for once only, so what was not sent now was never sent: a clear no, and the payer may try again.
                Operation::Charge | Operation::Authorise | Operation::Refund if !repeat => {
                    tracing::warn!(our_reference = request.our_reference, "no host of the bank can be reached; nothing was sent");
                    BankWord::Declined(DeclineReason::IssuerUnavailable)
                }
                Operation::Charge | Operation::Authorise | Operation::Refund | Operation::Capture | Operation::Void => {
                    BankWord::Silence
                }
            },
        }
    }

    /// Takes back what was never clearly answered.
    async fn reverse(&self, request: &GatewayRequest) -> BankWord {
        let mut message = match requests::reverse(&self.shared.spec, &self.terms, request) {
            Ok(message) => message,
            Err(error) => return unsaid(request, error),
        };
        if self.sent().was_reversed(&request.our_reference) {
            message.mti = message.mti.repeat();
        }
        let reply = self.ask(&message).await;
        if !matches!(reply, Reply::NotSent) {
            self.sent().reversed(&request.our_reference, Instant::now());
        }
        let Reply::Answer(answer) = reply else { return BankWord::Silence };
        match answers::judge_reversal(&self.shared.spec, &answer) {
            Some(ReversalVerdict::Acknowledged) => BankWord::Reversed,
            Some(ReversalVerdict::NoOriginal) if self.sent().may_still_arrive(&request.our_reference, Instant::now()) => {
                BankWord::Silence
            }
            Some(ReversalVerdict::NoOriginal) => BankWord::Declined(DeclineReason::NeverReceived),
            None => BankWord::Silence,
        }
    }

    fn sent(&self) -> std::sync::MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes until when a request was perhaps sent, also where whoever asked stops waiting.
struct Sending<'a> {
    sent: &'a Mutex<Sent>,
    reference: &'a str,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).sent(self.reference, Instant::now());
    }
}

/// What can't be said was never sent.
fn unsaid(request: &GatewayRequest, error: ComposeError) -> BankWord {
    tracing::error!(our_reference = request.our_reference, %error, "nothing was sent");
    BankWord::Declined(match error {
        ComposeError::Amount => DeclineReason::InvalidAmount,
        ComposeError::NoOriginal(_) => DeclineReason::Other,
    })
}

#[async_trait]
impl Gateway for Iso8583Gateway {
    fn name(&self) -> &'static str {
        GatewayKind::Iso8583.name()
    }

    fn resolve_only_asks(&self) -> bool {
        false
    }

    fn always_names_card(&self) -> bool {
        true // field 2 is mandatory in reversals and refunds on most hosts
    }

    async fn send(&self, request: &GatewayRequest) -> BankWord {
        let _until = Sending { sent: &self.sent, reference: &request.our_reference };
        self.ask_for(request, false).await
    }

    async fn resolve(&self, request: &GatewayRequest) -> BankWord {
        match request.operation {
            Operation::Charge | Operation::Authorise | Operation::Refund => self.reverse(request).await,
            Operation::Capture | Operation::Void => self.ask_for(request, true).await,
        }
    }
}

/// Why the gateway can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum Iso8583Error {
    /// A key, or what stands in the file that it names.
    #[error(transparent)]
    Config(#[from] ConfigFault),
    /// The dialect.
    #[error("key `gateway.iso8583.spec`: {0}")]
    Spec(#[from] SpecError),
    /// The dialect can't write what we have to say.
    #[error("key `gateway.iso8583.spec`: messages.{what} can't be written: {source}")]
    Unwritable {
        /// Which message.
        what: &'static str,
        /// Why.
        source: codec::CodecError,
    },
}

#[cfg(test)]
mod tests;
