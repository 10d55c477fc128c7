//! PURE. Messages out of a byte stream by their Content-Length (RFC 3261 section 18.3), and the keep-alives between them
//! (RFC 5626 section 4.4.1). What is kept is bounded whatever comes.

use super::grammar;
use super::screen::BODY_LIMIT_BYTES;
use super::text::{self, HEAD_LIMIT_BYTES};

/// What stands next in the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// CR LF CR LF between messages; CR LF is to be sent back.
    Ping,
    /// A whole message.
    Message(Vec<u8>),
}

/// Where the next message would begin can't be known any more. The head, as far as it came, is for an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Lost {
    /// Its head has no end.
    HeadTooLong(Vec<u8>),
    /// Its body would be longer than any that we take.
    BodyTooLong(Vec<u8>),
    /// It does not say how long its body is, or says it twice.
    NoLength(Vec<u8>),
}

/// A stream on its way to messages.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Bytes already searched for the end of a head.
    searched: usize,
    /// Length of the message under way, once its head is there.
    length: Option<usize>,
    /// Line ends seen since the last message.
    breaks: u8,
}

impl Framer {
    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Is nothing of a message there?
    pub fn is_between(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next frame, if it is whole. After an error there are no more.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Lost> {
        while self.length.is_none() && self.buffer.starts_with(b"\r\n") {
            self.drop_front(2);
            self.breaks = self.breaks.saturating_add(1);
            if self.breaks == 2 {
                self.breaks = 0;
                return Ok(Some(Frame::Ping));
            }
        }
        if self.buffer.is_empty() || self.buffer.as_slice() == b"\r" {
            return Ok(None);
        }
        let length = match self.length {
            Some(length) => length,
            None => match self.measure()? {
                Some(length) => length,
                None => return Ok(None),
            },
        };
        self.length = Some(length);
        let Some(message) = self.buffer.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
        self.drop_front(length);
        (self.length, self.breaks) = (None, 0);
        if self.buffer.is_empty() {
            self.buffer.shrink_to(0); // most connections are silent most of the time
        }
        Ok(Some(Frame::Message(message)))
    }

    /// Head and body together, once the head is whole.
    fn measure(&mut self) -> Result<Option<usize>, Lost> {
        // The end may straddle what was searched before.
        let from = self.searched.saturating_sub(3);
        let Some(at) = text::head_length(self.buffer.get(from..).unwrap_or(&[])) else {
            self.searched = self.buffer.len();
            if self.searched > HEAD_LIMIT_BYTES {
                return Err(Lost::HeadTooLong(std::mem::take(&mut self.buffer)));
            }
            return Ok(None);
        };
        let head_length = from.saturating_add(at);
        let head = self.buffer.get(..head_length).unwrap_or(&[]);
        if head_length > HEAD_LIMIT_BYTES {
            return Err(Lost::HeadTooLong(head.to_vec()));
        }
        let parts = text::split(head);
        let announced = parts.get("Content-Length").and_then(grammar::digits).filter(|_| parts.count("Content-Length") == 1);
        let Some(body) = announced else { return Err(Lost::NoLength(head.to_vec())) };
        match usize::try_from(body).ok().filter(|b| *b <= BODY_LIMIT_BYTES) {
            Some(body) => Ok(Some(head_length.saturating_add(body))),
            None => Err(Lost::BodyTooLong(head.to_vec())),
        }
    }

    fn drop_front(&mut self, bytes: usize) {
        self.buffer.drain(..bytes.min(self.buffer.len()));
        self.searched = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &[u8] = b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 3\r\n\r\nabc";
    const TWO: &[u8] = b"OPTIONS sip:a@b SIP/2.0\r\nl : 0\r\n\r\n";

    fn frames(framer: &mut Framer) -> Vec<Frame> {
        std::iter::from_fn(|| framer.next_frame().unwrap()).collect()
    }

    #[test]
    fn messages_and_keep_alives_come_out_however_they_are_cut() {
        let stream = [b"\r\n\r\n", ONE, b"\r\n", TWO, b"\r\n\r\n\r\n", TWO].concat();
        let want =
            [Frame::Ping, Frame::Message(ONE.to_vec()), Frame::Message(TWO.to_vec()), Frame::Ping, Frame::Message(TWO.to_vec())];
        for step in 1..stream.len() {
            let mut framer = Framer::default();
            let mut got = Vec::new();
            for part in stream.chunks(step) {
                framer.push(part);
                got.extend(frames(&mut framer));
            }
            assert_eq!(got, want, "in steps of {step}");
            assert!(framer.is_between());
        }
    }

    #[test]
    fn what_cannot_be_framed_is_said_so() {
        let of = |bytes: &[u8]| {
            let mut framer = Framer::default();
            framer.push(bytes);
            framer.next_frame()
        };
        assert!(matches!(of(b"X y SIP/2.0\r\nTo: a\r\n\r\n"), Err(Lost::NoLength(_))));
        assert!(matches!(of(b"X y SIP/2.0\r\nContent-Length: -1\r\n\r\n"), Err(Lost::NoLength(_))));
        assert!(matches!(of(b"X y SIP/2.0\r\nl: 1\r\nContent-Length: 2\r\n\r\n"), Err(Lost::NoLength(_))));
        assert!(matches!(of(b"X y SIP/2.0\r\nContent-Length: 9999999\r\n\r\n"), Err(Lost::BodyTooLong(_))));
        assert!(matches!(of(&[b'x'; HEAD_LIMIT_BYTES + 1]), Err(Lost::HeadTooLong(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_grow(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4096), 0..16)) {
            let mut framer = Framer::default();
            for chunk in chunks {
                framer.push(&chunk);
                while let Ok(Some(_)) = framer.next_frame() {}
                prop_assert!(framer.buffer.len() <= HEAD_LIMIT_BYTES + BODY_LIMIT_BYTES + 4096);
            }
        }
    }
}
