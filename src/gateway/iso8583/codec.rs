//! Messages to bytes and back, by a dialect. PURE, and bounded by what it is given: it never reads past the end, and what does
//! not fit is an error that names the field and none of its content.

use zeroize::Zeroizing;

use super::message::{Message, Mti};
use super::spec::{Bitmap, Encoding, FieldSpec, Format, Length, Spec};

/// Fields of one bitmap.
const BITMAP_FIELDS: u8 = 64;
/// More than a field takes on the wire beside its content: three digits of length.
const LENGTH_LIMIT_BYTES: usize = 3;
/// Type and two bitmaps in their longest form.
const HEAD_LIMIT_BYTES: usize = 4 + 32;

/// Writes a message. The buffer is made once in its full size, so that no copy of a card number stays behind where it grew.
pub fn encode(spec: &Spec, message: &Message) -> Result<Zeroizing<Vec<u8>>, CodecError> {
    let room: usize = message.fields().map(|(_, v)| v.len() + LENGTH_LIMIT_BYTES).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(HEAD_LIMIT_BYTES + room));
    write_text(&mut out, spec.mti_encoding, message.mti.digits());
    write_bitmaps(&mut out, spec, message)?;
    for (n, value) in message.fields() {
        let field = spec.field(n).ok_or(CodecError::UnknownField { field: n })?;
        write_field(&mut out, spec, n, field, value)?;
    }
    Ok(out)
}

/// Reads a message; all of `bytes` must be one.
pub fn decode(spec: &Spec, bytes: &[u8]) -> Result<Message, CodecError> {
    let mut left = bytes;
    let digits = read_text(&mut left, spec.mti_encoding, 4).map_err(|e| e.of("message type"))?;
    let mti = digits.as_slice().try_into().ok().and_then(Mti::from_digits).ok_or(CodecError::MessageType)?;
    let primary = read_bitmap(&mut left, spec)?;
    let mut bits = u128::from(primary) << BITMAP_FIELDS;
    if has(bits, 1) {
        bits |= u128::from(read_bitmap(&mut left, spec)?);
    }
    let mut message = Message::new(mti);
    // Bits 1 and 65 stand for bitmaps. Nobody has a third one; a message that says so has fields that we could not find.
    for n in (2..=2 * BITMAP_FIELDS).filter(|n| has(bits, *n)) {
        let field = spec.field(n).ok_or(CodecError::UnknownField { field: n })?;
        let value = read_field(&mut left, spec, n, field)?;
        message.set(n, value.to_vec());
    }
    match left.len() {
        0 => Ok(message),
        bytes => Err(CodecError::Trailing { bytes }),
    }
}

/// Whether field `n`'s bit is set; the highest bit is field 1's.
fn has(bits: u128, n: u8) -> bool {
    bits >> (2 * BITMAP_FIELDS).saturating_sub(n) & 1 == 1
}

fn write_bitmaps(out: &mut Vec<u8>, spec: &Spec, message: &Message) -> Result<(), CodecError> {
    let mut bits = 0u128;
    for (n, _) in message.fields() {
        if !(2..=2 * BITMAP_FIELDS).contains(&n) || n == BITMAP_FIELDS + 1 {
            return Err(CodecError::UnknownField { field: n });
        }
        bits |= 1 << (2 * BITMAP_FIELDS).saturating_sub(n);
    }
    let [mut primary, secondary] = [bits >> BITMAP_FIELDS, bits & u128::from(u64::MAX)].map(|b| u64::try_from(b).unwrap_or(0));
    if secondary != 0 {
        primary |= 1 << 63;
    }
    for half in std::iter::once(primary).chain((secondary != 0).then_some(secondary)) {
        match spec.bitmap {
            Bitmap::Binary => out.extend_from_slice(&half.to_be_bytes()),
            Bitmap::Hex => out.extend_from_slice(format!("{half:016X}").as_bytes()),
        }
    }
    Ok(())
}

fn read_bitmap(left: &mut &[u8], spec: &Spec) -> Result<u64, CodecError> {
    match spec.bitmap {
        Bitmap::Binary => {
            let bytes = take(left, 8).map_err(|e| e.of("bitmap"))?;
            Ok(bytes.try_into().map_or(0, u64::from_be_bytes))
        }
        Bitmap::Hex => {
            let text = take(left, 16).map_err(|e| e.of("bitmap"))?;
            let digits = text.iter().all(u8::is_ascii_hexdigit).then(|| std::str::from_utf8(text).ok()).flatten();
            digits.and_then(|t| u64::from_str_radix(t, 16).ok()).ok_or(CodecError::Bitmap)
        }
    }
}

fn write_field(out: &mut Vec<u8>, spec: &Spec, n: u8, field: &FieldSpec, value: &[u8]) -> Result<(), CodecError> {
    let named = || Named { field: n, name: field.name.clone() };
    let max = usize::from(field.max);
    match field.length {
        Length::Fixed if value.len() != max => {
            return Err(CodecError::Length { field: named(), has: value.len(), takes: max });
        }
        Length::Llvar | Length::Lllvar if value.len() > max => {
            return Err(CodecError::Length { field: named(), has: value.len(), takes: max });
        }
        Length::Fixed => {}
        Length::Llvar => write_length(out, spec.length_encoding, value.len(), 2),
        Length::Lllvar => write_length(out, spec.length_encoding, value.len(), 3),
    }
    if !fits(field.format, value) {
        return Err(CodecError::Content { field: named(), format: field.format });
    }
    match field.encoding {
        Encoding::Bcd => write_bcd(out, field.format, value),
        Encoding::Ascii | Encoding::Ebcdic | Encoding::Binary => write_text(out, field.encoding, value),
    }
    Ok(())
}

fn read_field(left: &mut &[u8], spec: &Spec, n: u8, field: &FieldSpec) -> Result<Zeroizing<Vec<u8>>, CodecError> {
    let named = || Named { field: n, name: field.name.clone() };
    let short = |e: Short| CodecError::Truncated { at: named().to_string(), needs: e.needs, left: e.left };
    let max = usize::from(field.max);
    let length = match field.length {
        Length::Fixed => Ok(max),
        Length::Llvar => read_length(left, spec.length_encoding, 2),
        Length::Lllvar => read_length(left, spec.length_encoding, 3),
    };
    let length = length.map_err(|e| match e {
        LengthError::Short(e) => short(e),
        LengthError::NoDigits => CodecError::LengthDigits { field: named() },
    })?;
    if length > max {
        return Err(CodecError::Length { field: named(), has: length, takes: max });
    }
    let content = || CodecError::Content { field: named(), format: field.format };
    let value = match field.encoding {
        Encoding::Bcd => read_bcd(left, field.format, length).map_err(|e| e.map_or_else(content, short))?,
        Encoding::Ascii | Encoding::Ebcdic | Encoding::Binary => read_text(left, field.encoding, length).map_err(short)?,
    };
    if fits(field.format, &value) { Ok(value) } else { Err(content()) }
}

/// Whether a value, in ASCII, is of a format.
pub(super) fn fits(format: Format, value: &[u8]) -> bool {
    value.iter().all(|b| match format {
        Format::N => b.is_ascii_digit(),
        Format::A => b.is_ascii_alphabetic() || *b == b' ',
        Format::An => b.is_ascii_alphanumeric() || *b == b' ',
        Format::Ans => (b' '..=b'~').contains(b),
        Format::Z => b.is_ascii_digit() || matches!(b, b'=' | b'D'),
        Format::B => true,
    })
}

fn write_length(out: &mut Vec<u8>, encoding: Encoding, length: usize, digits: usize) {
    match encoding {
        Encoding::Ascii | Encoding::Ebcdic => write_text(out, encoding, format!("{length:0digits$}").as_bytes()),
        Encoding::Bcd => write_bcd(out, Format::N, format!("{length:0digits$}").as_bytes()),
        Encoding::Binary => {
            let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
            if digits > 2 {
                out.push(high);
            }
            out.push(low);
        }
    }
}

fn read_length(left: &mut &[u8], encoding: Encoding, digits: usize) -> Result<usize, LengthError> {
    let text = match encoding {
        Encoding::Ascii | Encoding::Ebcdic => read_text(left, encoding, digits).map_err(LengthError::Short)?,
        Encoding::Bcd => read_bcd(left, Format::N, digits).map_err(|e| e.map_or(LengthError::NoDigits, LengthError::Short))?,
        Encoding::Binary => {
            let bytes = take(left, digits.saturating_sub(1)).map_err(LengthError::Short)?;
            return Ok(bytes.iter().fold(0, |sum, b| (sum << 8) | usize::from(*b)));
        }
    };
    // Checked first: a number's own parser would take a sign.
    let digits = fits(Format::N, &text).then(|| std::str::from_utf8(&text).ok()).flatten();
    digits.and_then(|t| t.parse().ok()).ok_or(LengthError::NoDigits)
}

fn write_text(out: &mut Vec<u8>, encoding: Encoding, ascii: &[u8]) {
    match encoding {
        Encoding::Ascii | Encoding::Binary => out.extend_from_slice(ascii),
        Encoding::Ebcdic => out.extend(ascii.iter().map(|b| to_ebcdic(*b))),
        Encoding::Bcd => write_bcd(out, Format::N, ascii),
    }
}

fn read_text(left: &mut &[u8], encoding: Encoding, length: usize) -> Result<Zeroizing<Vec<u8>>, Short> {
    let value = match encoding {
        Encoding::Ascii | Encoding::Binary => take(left, length)?.to_vec(),
        Encoding::Ebcdic => take(left, length)?.iter().map(|b| from_ebcdic(*b)).collect(),
        // Only message types come here; what is no digit stays a letter, which their own check refuses.
        Encoding::Bcd => unpack(take(left, length.div_ceil(2))?).collect(),
    };
    Ok(Zeroizing::new(value))
}

/// Two digits a byte. An odd count of digits has a leading 0, track 2 a trailing F; `=` is D there (ISO/IEC 7813).
fn write_bcd(out: &mut Vec<u8>, format: Format, ascii: &[u8]) {
    let nibble = |b: &u8| match b {
        b'0'..=b'9' => b - b'0',
        _ => 0xd,
    };
    let odd = ascii.len() % 2 == 1;
    let (lead, trail) = match (odd, format) {
        (false, _) => (None, None),
        (true, Format::Z) => (None, Some(0xf)),
        (true, _) => (Some(0), None),
    };
    let mut nibbles = lead.into_iter().chain(ascii.iter().map(nibble)).chain(trail);
    while let (Some(high), Some(low)) = (nibbles.next(), nibbles.next()) {
        out.push(high << 4 | low);
    }
}

/// `Err(None)`: the padding is not what it must be, or a nibble is no digit.
fn read_bcd(left: &mut &[u8], format: Format, digits: usize) -> Result<Zeroizing<Vec<u8>>, Option<Short>> {
    let packed = take(left, digits.div_ceil(2)).map_err(Some)?;
    let mut value: Zeroizing<Vec<u8>> = Zeroizing::new(Vec::with_capacity(packed.len() * 2));
    value.extend(unpack(packed));
    if digits % 2 == 1 {
        let pad = if format == Format::Z { value.pop() } else { Some(value.remove(0)) };
        if pad != Some(if format == Format::Z { b'F' } else { b'0' }) {
            return Err(None);
        }
    }
    Ok(value)
}

fn unpack(packed: &[u8]) -> impl Iterator<Item = u8> {
    packed.iter().flat_map(|b| [b >> 4, b & 15]).map(|n| match n {
        0..=9 => b'0' + n,
        0xd => b'=',
        0xf => b'F',
        _ => b'?',
    })
}

fn take<'a>(left: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], Short> {
    let (taken, rest) = left.split_at_checked(bytes).ok_or(Short { needs: bytes, left: left.len() })?;
    *left = rest;
    Ok(taken)
}

/// Printable ASCII from the space on, in code page 037.
#[rustfmt::skip]
const EBCDIC: [u8; 95] = [
    0x40, 0x5a, 0x7f, 0x7b, 0x5b, 0x6c, 0x50, 0x7d, 0x4d, 0x5d, 0x5c, 0x4e, 0x6b, 0x60, 0x4b, 0x61,
    0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0x7a, 0x5e, 0x4c, 0x7e, 0x6e, 0x6f,
    0x7c, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6,
    0xd7, 0xd8, 0xd9, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xba, 0xe0, 0xbb, 0xb0, 0x6d,
    0x79, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96,
    0x97, 0x98, 0x99, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xc0, 0x4f, 0xd0, 0xa1,
];

fn to_ebcdic(ascii: u8) -> u8 {
    // What has no place there can't be in a field: its format was checked before.
    EBCDIC.get(usize::from(ascii.wrapping_sub(b' '))).copied().unwrap_or(0x6f)
}

/// 0 for what is no printable character, which every format refuses.
fn from_ebcdic(byte: u8) -> u8 {
    let at = EBCDIC.iter().position(|b| *b == byte).and_then(|at| u8::try_from(at).ok());
    at.map_or(0, |at| b' '.saturating_add(at))
}

#[derive(Clone, Copy, Debug)]
struct Short {
    needs: usize,
    left: usize,
}

impl Short {
    fn of(self, at: &str) -> CodecError {
        CodecError::Truncated { at: at.to_owned(), needs: self.needs, left: self.left }
    }
}

enum LengthError {
    Short(Short),
    NoDigits,
}

/// A field in an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its number.
    pub field: u8,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "field {} ({})", self.field, self.name)
    }
}

/// Why a message can't be written or read. Says where, never what stood there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The message ends too early.
    #[error("the message ends within {at}: {needs} bytes are needed, {left} are left")]
    Truncated {
        /// Where.
        at: String,
        /// How many it needs.
        needs: usize,
        /// How many there are.
        left: usize,
    },
    /// The message goes on after its last field.
    #[error("{bytes} bytes follow the last field of the message")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The first four digits are none.
    #[error("the message type is not four digits")]
    MessageType,
    /// A bitmap that isn't hexadecimal.
    #[error("the bitmap is not hexadecimal")]
    Bitmap,
    /// A field that the dialect doesn't have: whatever follows it can't be found.
    #[error("field {field} is not defined: add it to the file that gateway.iso8583.spec names")]
    UnknownField {
        /// Its number.
        field: u8,
    },
    /// A length that isn't digits.
    #[error("the length of {field} is not digits")]
    LengthDigits {
        /// Which.
        field: Named,
    },
    /// Too long, or not as long as it must be.
    #[error("{field} has a length of {has}, but takes {takes}")]
    Length {
        /// Which.
        field: Named,
        /// How long it is.
        has: usize,
        /// How long it must or may be.
        takes: usize,
    },
    /// Characters that its format doesn't have.
    #[error("{field} holds what its format {format:?} does not have")]
    Content {
        /// Which.
        field: Named,
        /// What it may hold.
        format: Format,
    },
}
