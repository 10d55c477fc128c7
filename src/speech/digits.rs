//! Spoken digits, as text, to digit strings: what Whisper's free decoding writes.

use zeroize::Zeroizing;

/// The digits in an English text: "4 2 oh", "double five", "forty-two forty-two", "52260.8.5983". Words that are no numbers are
/// passed over.
pub fn digits_in(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.bytes().filter(u8::is_ascii_digit).map(|b| b - b'0').collect())
}
