//! Messages on a stream: a length, perhaps a header of constant bytes, the message. PURE.

use zeroize::Zeroizing;

use super::config::LengthPrefix;

/// The longest message that is sent or taken, header included. Real ones have some hundred bytes.
pub const MESSAGE_LIMIT_BYTES: usize = 8_192;

/// How messages are set apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framing {
    /// How the length is written.
    pub prefix: LengthPrefix,
    /// Whether the length counts its own bytes.
    pub counts_itself: bool,
    /// What stands between length and message. In answers as many bytes are skipped.
    pub header: Vec<u8>,
}

impl Framing {
    /// How many bytes the length has.
    fn prefix_bytes(&self) -> usize {
        match self.prefix {
            LengthPrefix::Binary2 => 2,
            LengthPrefix::Binary4 | LengthPrefix::Ascii4 => 4,
        }
    }

    /// A message with its length and header before it.
    pub fn frame(&self, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, FrameError> {
        let body = self.header.len() + message.len();
        if body > MESSAGE_LIMIT_BYTES {
            return Err(FrameError::TooLong { bytes: body });
        }
        let counted = body + if self.counts_itself { self.prefix_bytes() } else { 0 };
        let mut out = Zeroizing::new(Vec::with_capacity(self.prefix_bytes() + body));
        match self.prefix {
            LengthPrefix::Binary2 => out.extend(u16::try_from(counted).unwrap_or(u16::MAX).to_be_bytes()),
            LengthPrefix::Binary4 => out.extend(u32::try_from(counted).unwrap_or(u32::MAX).to_be_bytes()),
            LengthPrefix::Ascii4 => out.extend(format!("{counted:04}").bytes()),
        }
        out.extend_from_slice(&self.header);
        out.extend_from_slice(message);
        Ok(out)
    }
}

/// Takes a stream's bytes as they come and gives the messages out.
pub struct Framer {
    framing: Framing,
    /// Made once in its full size: it holds at most one message and what one read brought on top.
    buffer: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Framer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Framer({} bytes)", self.buffer.len())
    }
}

impl Framer {
    /// How much may be pushed at once.
    pub const READ_LIMIT_BYTES: usize = 4_096;

    /// At the beginning of a stream.
    pub fn new(framing: Framing) -> Self {
        Self { framing, buffer: Zeroizing::new(Vec::with_capacity(MESSAGE_LIMIT_BYTES + 2 * Self::READ_LIMIT_BYTES)) }
    }

    /// Bytes of the stream, [`Self::READ_LIMIT_BYTES`] at most; take the messages out before the next ones.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, without its header. After an error the stream can't be understood any more. A length of nought
    /// keeps a connection alive on some hosts, and is skipped.
    pub fn next_message(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, FrameError> {
        loop {
            let prefix_bytes = self.framing.prefix_bytes();
            let Some((prefix, rest)) = self.buffer.split_at_checked(prefix_bytes) else { return Ok(None) };
            let counted = read_length(self.framing.prefix, prefix)?;
            let own = if self.framing.counts_itself { prefix_bytes } else { 0 };
            let body = match counted.checked_sub(own) {
                None if counted == 0 => 0,
                None => return Err(FrameError::TooShort { bytes: counted }),
                Some(body) => body,
            };
            if body > MESSAGE_LIMIT_BYTES {
                return Err(FrameError::TooLong { bytes: body });
            }
            if body > 0 && body <= self.framing.header.len() {
                return Err(FrameError::TooShort { bytes: body });
            }
            let Some(framed) = rest.get(..body) else { return Ok(None) };
            let message = Zeroizing::new(framed.get(self.framing.header.len()..).unwrap_or_default().to_vec());
            self.buffer.drain(..prefix_bytes + body);
            if body > 0 {
                return Ok(Some(message));
            }
        }
    }
}

fn read_length(prefix: LengthPrefix, bytes: &[u8]) -> Result<usize, FrameError> {
    match prefix {
        LengthPrefix::Binary2 | LengthPrefix::Binary4 => {
            Ok(bytes.iter().fold(0usize, |sum, b| sum.saturating_mul(256).saturating_add(usize::from(*b))))
        }
        LengthPrefix::Ascii4 if bytes.iter().all(u8::is_ascii_digit) => {
            Ok(bytes.iter().fold(0, |sum, b| sum * 10 + usize::from(b - b'0')))
        }
        LengthPrefix::Ascii4 => Err(FrameError::NotDigits),
    }
}

/// Why a stream can't be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than a message may be.
    #[error("a message of {bytes} bytes: at most {MESSAGE_LIMIT_BYTES} are taken; is gateway.iso8583.length_prefix right?")]
    TooLong {
        /// As its length says.
        bytes: usize,
    },
    /// Shorter than its header.
    #[error("a message of {bytes} bytes is no longer than its header; are gateway.iso8583.header and length_prefix right?")]
    TooShort {
        /// As its length says.
        bytes: usize,
    },
    /// A length in digits that has none.
    #[error("the length before a message is not four digits; is gateway.iso8583.length_prefix right?")]
    NotDigits,
}
