//! What a bank host may send: a stream of framed ISO 8583 messages, in one of three dialects. See `targets.rs`.

use std::sync::OnceLock;

use voicepay::gateway::iso8583::codec::{decode, encode};
use voicepay::gateway::iso8583::config::LengthPrefix;
use voicepay::gateway::iso8583::frame::{Framer, Framing, MESSAGE_LIMIT_BYTES};
use voicepay::gateway::iso8583::spec::{DEFAULT_SPEC, Spec};

/// The built-in dialect, digits in BCD, and EBCDIC with lengths in binary.
fn dialects() -> &'static [Spec; 3] {
    static DIALECTS: OnceLock<[Spec; 3]> = OnceLock::new();
    DIALECTS.get_or_init(|| {
        let with = |encoding: &str, lengths: &str, bitmap: &str| {
            let text = DEFAULT_SPEC.replacen("\nencoding = \"ascii\"", &format!("\nencoding = \"{encoding}\""), 1);
            let text = text.replace("length_encoding = \"ascii\"", &format!("length_encoding = \"{lengths}\""));
            let text = text.replace("mti_encoding = \"ascii\"", &format!("mti_encoding = \"{encoding}\""));
            Spec::parse(&text.replace("bitmap = \"binary\"", &format!("bitmap = \"{bitmap}\""))).expect("a dialect")
        };
        [with("ascii", "ascii", "binary"), with("bcd", "bcd", "hex"), with("ebcdic", "binary", "binary")]
    })
}

/// The first byte chooses dialect and framing, the second where the stream is cut into reads.
pub fn bank_stream(data: &[u8]) {
    let [chosen, cut, stream @ ..] = data else { return };
    let spec = &dialects()[usize::from(chosen % 3)];
    let framing = Framing {
        prefix: [LengthPrefix::Binary2, LengthPrefix::Binary4, LengthPrefix::Ascii4][usize::from(chosen / 3 % 3)],
        counts_itself: chosen & 64 != 0,
        header: vec![0x60; usize::from(chosen >> 7) * 5],
    };
    let mut framer = Framer::new(framing.clone());
    for piece in stream.chunks(usize::from(*cut).max(1)) {
        framer.push(piece);
        loop {
            match framer.next_message() {
                Ok(Some(bytes)) => message(spec, &framing, &bytes),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

fn message(spec: &Spec, framing: &Framing, bytes: &[u8]) {
    assert!(bytes.len() <= MESSAGE_LIMIT_BYTES, "a message longer than any may be");
    let Ok(read) = decode(spec, bytes) else { return };
    let shown = read.shown(spec).to_string();
    if let Some(pan) = read.text(2).filter(|pan| pan.len() >= 12) {
        assert!(!shown.contains(&format!("2={pan}")), "a trace shows a card number");
    }
    let written = encode(spec, &read).expect("what was read can be written");
    assert_eq!(decode(spec, &written).as_ref(), Ok(&read), "what was written is read otherwise");
    let mut again = Framer::new(framing.clone());
    again.push(&framing.frame(&written).expect("what was read can be framed"));
    assert_eq!(again.next_message().expect("our own frame").as_deref(), Some(&*written));
}
