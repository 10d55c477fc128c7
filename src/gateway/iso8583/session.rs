//! One connection to a host: messages out, messages in, sign-on and echo. It ends at the first thing that can't be understood any
//! more.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::codec::decode;
use super::dial::Wire;
use super::frame::Framer;
use super::line::LineError;
use super::message::Message;
use super::spec::Template;
use super::{Shared, requests};

/// Messages that can't be read, one after another, before the line is given up.
const UNREADABLE_LIMIT: u32 = 3;

/// A connection.
pub(super) struct Session<'a> {
    shared: &'a Shared,
    wire: Box<dyn Wire>,
    framer: Framer,
    buffer: Zeroizing<Vec<u8>>,
    unreadable: u32,
    /// Counts the messages of network management.
    asked: u64,
}

impl<'a> Session<'a> {
    /// On a connection that was just made.
    pub(super) fn new(shared: &'a Shared, wire: Box<dyn Wire>) -> Self {
        let framer = Framer::new(shared.framing.clone());
        let buffer = Zeroizing::new(vec![0; Framer::READ_LIMIT_BYTES]);
        Self { shared, wire, framer, buffer, unreadable: 0, asked: 0 }
    }

    /// Opens the session with the host, where it wants that.
    pub(super) async fn sign_on(&mut self) -> Result<(), LineError> {
        if !self.shared.sign_on {
            return Ok(());
        }
        let limit = self.shared.connect_timeout;
        timeout(limit, self.exchange(self.shared.spec.sign_on())).await.map_err(|_| LineError::Timeout("sign-on"))?
    }

    /// Asks whether the host is there, and waits for its answer. Only where nothing else is under way.
    pub(super) async fn echo(&mut self) -> Result<(), LineError> {
        let limit = self.shared.response_timeout;
        timeout(limit, self.exchange(self.shared.spec.echo())).await.map_err(|_| LineError::Timeout("echo"))?
    }

    async fn exchange(&mut self, template: &Template) -> Result<(), LineError> {
        let question = self.ask_network(template).await?;
        loop {
            let message = self.next_message().await?;
            if self.answer_network(&message).await? {
                continue;
            }
            if Some(message.mti) == question.mti.answer() && message.get(11) == question.get(11) {
                return match message.text(39) {
                    Some("00") => Ok(()),
                    Some(code) => Err(LineError::Refused { code: code.to_owned() }),
                    None => Err(LineError::Refused { code: "none".to_owned() }),
                };
            }
        }
    }

    /// Sends a message of network management.
    pub(super) async fn ask_network(&mut self, template: &Template) -> Result<Message, LineError> {
        self.asked = self.asked.wrapping_add(1);
        let message = requests::network(template, self.asked, self.shared.clock.now());
        let frame = self.shared.framed(&message)?;
        self.write(&frame).await?;
        Ok(message)
    }

    /// Writes a whole frame.
    pub(super) async fn write(&mut self, frame: &[u8]) -> Result<(), LineError> {
        let writing = async {
            self.wire.write_all(frame).await?;
            self.wire.flush().await
        };
        timeout(self.shared.write_timeout, writing).await.map_err(|_| LineError::Timeout("writing"))?.map_err(LineError::Broken)
    }

    /// The next message that somebody here knows what to do with: an answer, or the host's own sign-on or echo, which wants
    /// [`Self::answer_network`]. It only reads, so that nothing is lost or torn where the caller stops waiting.
    pub(super) async fn next_message(&mut self) -> Result<Message, LineError> {
        loop {
            while let Some(bytes) = self.framer.next_message()? {
                let message = match decode(&self.shared.spec, &bytes) {
                    Ok(message) => message,
                    Err(error) => {
                        tracing::warn!(%error, "the bank sent a message that can't be read; it counts as none");
                        self.unreadable = self.unreadable.saturating_add(1);
                        if self.unreadable >= UNREADABLE_LIMIT {
                            return Err(LineError::Unreadable);
                        }
                        continue;
                    }
                };
                self.unreadable = 0;
                tracing::trace!(message = %message.shown(&self.shared.spec), "from the bank");
                if message.mti.answer().is_none() || message.mti.is_network() {
                    return Ok(message);
                }
                tracing::warn!(mti = %message.mti, "the bank asks for something; nobody answers");
            }
            let n = self.wire.read(&mut self.buffer).await.map_err(LineError::Broken)?;
            match self.buffer.get(..n) {
                None | Some([]) => return Err(LineError::Closed),
                Some(bytes) => self.framer.push(bytes),
            }
        }
    }

    /// Says yes to the host's own sign-on or echo; `false` where the message is none.
    pub(super) async fn answer_network(&mut self, question: &Message) -> Result<bool, LineError> {
        let Some(mti) = question.mti.answer() else { return Ok(false) };
        let mut answer = question.clone();
        answer.mti = mti;
        answer.set(39, *b"00");
        let frame = self.shared.framed(&answer)?;
        self.write(&frame).await?;
        Ok(true)
    }
}
