//! A dialect of ISO 8583 as data: fields, messages and response codes, read from TOML and checked before it is used.
//! The one that is compiled in is `config/iso8583-1987.toml`, which says what the keys mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::message::Mti;
use crate::payment::{DeclineReason, Operation};

/// The dialect that is compiled in.
pub const DEFAULT_SPEC: &str = include_str!("../../../config/iso8583-1987.toml");

/// Fields that hold a card number: at most their last four digits may be shown.
const CARD_NUMBER_FIELDS: [u8; 1] = [2];
/// Fields that are never shown, whatever a file says: the number in other shapes, tracks, PIN, security data, chip data.
const NEVER_SHOWN_FIELDS: [u8; 7] = [34, 35, 36, 45, 52, 53, 55];
/// Fields that we know how to fill in.
const COMPUTED_FIELDS: [u8; 17] = [2, 3, 4, 7, 11, 12, 13, 14, 32, 37, 38, 41, 42, 43, 49, 70, 90];

/// A dialect.
#[derive(Clone, Debug)]
pub struct Spec {
    /// What it is called in `voicepay gateway test`.
    pub name: String,
    /// How the message type is written.
    pub mti_encoding: Encoding,
    /// How bitmaps are written.
    pub bitmap: Bitmap,
    /// How lengths of variable fields are written.
    pub length_encoding: Encoding,
    /// Whether approvals carry amount and currency.
    pub amounts_echoed: bool,
    fields: BTreeMap<u8, FieldSpec>,
    messages: Messages,
    responses: BTreeMap<String, Verdict>,
    reversal_responses: BTreeMap<String, ReversalVerdict>,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldSpec {
    /// What it is called in errors.
    pub name: String,
    /// Which characters it takes.
    pub format: Format,
    /// How its length is known.
    pub length: Length,
    /// Most digits or characters, bytes where the format is [`Format::B`]; exactly so many where the length is fixed.
    pub max: u16,
    /// How it is written.
    pub encoding: Encoding,
    /// What a trace may tell of it.
    pub show: Show,
}

/// Which characters a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Digits.
    N,
    /// Letters and spaces.
    A,
    /// Letters, digits and spaces.
    An,
    /// Printable ASCII.
    Ans,
    /// Track 2: digits, `=` or `D` as its separator.
    Z,
    /// Bytes.
    B,
}

/// How a field's length is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// Always the same.
    Fixed,
    /// Two digits before it.
    Llvar,
    /// Three digits before it.
    Lllvar,
}

/// How characters, digits and lengths are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// A byte a character.
    Ascii,
    /// Two digits a byte.
    Bcd,
    /// A byte a character, code page 037.
    Ebcdic,
    /// The bytes themselves; for lengths an unsigned number, high byte first.
    Binary,
}

/// How bitmaps are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bitmap {
    /// 8 bytes each.
    Binary,
    /// 16 hexadecimal characters each.
    Hex,
}

/// What a trace may tell of a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Show {
    /// All of it.
    Plain,
    /// Its last four characters.
    Last4,
    /// That it is there.
    #[default]
    Hidden,
}

/// What one message is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Its type.
    pub mti: Mti,
    /// What stands in field 3; unset for messages that take it from what they refer to.
    pub processing_code: Option<String>,
    /// The fields that we fill in.
    pub fields: Vec<u8>,
    /// Constants.
    pub set: BTreeMap<u8, String>,
}

#[derive(Clone, Debug)]
struct Messages {
    authorise: Template,
    charge: Template,
    capture: Template,
    refund: Template,
    void: Template,
    reversal: Template,
    sign_on: Template,
    echo: Template,
}

/// What a response code says of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done, as much as field 4 says.
    Approved,
    /// Done in part: field 4 must say how much.
    ApprovedPartly,
    /// Not done, and it won't be.
    Declined(DeclineReason),
    /// Not decided yet.
    StillWorking,
    /// It says neither.
    Unclear,
}

/// What a response code says of a reversal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReversalVerdict {
    /// What it refers to is undone.
    Acknowledged,
    /// There is nothing that could be undone.
    NoOriginal,
}

impl Spec {
    /// The dialect that is compiled in.
    pub fn built_in() -> Result<Self, SpecError> {
        Self::parse(DEFAULT_SPEC)
    }

    /// Reads the file, or takes what is compiled in.
    pub fn load(path: Option<&Path>) -> Result<Self, SpecError> {
        let Some(path) = path else { return Self::built_in() };
        let text = std::fs::read_to_string(path).map_err(|source| SpecError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Reads and checks a dialect.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let raw: RawSpec = toml::from_str(text).map_err(|e| SpecError::Toml(e.to_string().trim().to_owned()))?;
        let fields = raw
            .fields
            .iter()
            .map(|(key, field)| {
                let n = field_number(&format!("fields.{key}"), key)?;
                Ok((n, field.check(n, raw.encoding)?))
            })
            .collect::<Result<BTreeMap<_, _>, SpecError>>()?;
        let m = &raw.messages;
        let messages = Messages {
            authorise: m.authorise.check("messages.authorise", &fields, true)?,
            charge: m.charge.check("messages.charge", &fields, true)?,
            capture: m.capture.check("messages.capture", &fields, true)?,
            refund: m.refund.check("messages.refund", &fields, true)?,
            void: m.void.check("messages.void", &fields, false)?,
            reversal: m.reversal.check("messages.reversal", &fields, false)?,
            sign_on: m.sign_on.check("messages.sign_on", &fields, false)?,
            echo: m.echo.check("messages.echo", &fields, false)?,
        };
        if raw.mti_encoding == Encoding::Binary {
            return Err(wrong("mti_encoding", "must be ascii, ebcdic or bcd"));
        }
        // Without these an answer can be neither matched with what was asked nor understood.
        for n in [11, 37, 39] {
            if !fields.contains_key(&n) {
                return Err(wrong(&format!("fields.{n}"), "is missing: answers are read by it"));
            }
        }
        let responses = raw.responses.iter().map(|(code, said)| Ok((code.clone(), verdict(code, said)?)));
        Ok(Self {
            name: raw.name,
            mti_encoding: raw.mti_encoding,
            bitmap: raw.bitmap,
            length_encoding: raw.length_encoding,
            amounts_echoed: raw.amounts_echoed,
            fields,
            messages,
            responses: responses.collect::<Result<_, SpecError>>()?,
            reversal_responses: raw.reversal_responses,
        })
    }

    /// A field's definition.
    pub fn field(&self, n: u8) -> Option<&FieldSpec> {
        self.fields.get(&n)
    }

    /// The message that asks for an operation.
    pub fn message(&self, operation: Operation) -> &Template {
        match operation {
            Operation::Charge => &self.messages.charge,
            Operation::Authorise => &self.messages.authorise,
            Operation::Capture => &self.messages.capture,
            Operation::Void => &self.messages.void,
            Operation::Refund => &self.messages.refund,
        }
    }

    /// The message that takes back what was never clearly answered.
    pub fn reversal(&self) -> &Template {
        &self.messages.reversal
    }

    /// The message that opens a session.
    pub fn sign_on(&self) -> &Template {
        &self.messages.sign_on
    }

    /// The message that asks whether the host is there.
    pub fn echo(&self) -> &Template {
        &self.messages.echo
    }

    /// What field 39 says of money; [`Verdict::Unclear`] for a code that is not in the table.
    pub fn verdict(&self, code: &str) -> Verdict {
        self.responses.get(code).copied().unwrap_or(Verdict::Unclear)
    }

    /// What field 39 says of a reversal; `None`: nothing, so that it must be repeated.
    pub fn reversal_verdict(&self, code: &str) -> Option<ReversalVerdict> {
        self.reversal_responses.get(code).copied()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpec {
    name: String,
    encoding: Encoding,
    length_encoding: Encoding,
    mti_encoding: Encoding,
    bitmap: Bitmap,
    amounts_echoed: bool,
    fields: BTreeMap<String, RawField>,
    messages: RawMessages,
    responses: BTreeMap<String, String>,
    reversal_responses: BTreeMap<String, ReversalVerdict>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawField {
    name: String,
    format: Format,
    length: Length,
    max: u16,
    encoding: Option<Encoding>,
    #[serde(default)]
    show: Show,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMessages {
    authorise: RawTemplate,
    charge: RawTemplate,
    capture: RawTemplate,
    refund: RawTemplate,
    void: RawTemplate,
    reversal: RawTemplate,
    sign_on: RawTemplate,
    echo: RawTemplate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTemplate {
    mti: String,
    processing_code: Option<String>,
    fields: Vec<u8>,
    #[serde(default)]
    set: BTreeMap<String, String>,
}

impl RawField {
    fn check(&self, n: u8, encoding: Encoding) -> Result<FieldSpec, SpecError> {
        let key = format!("fields.{n}");
        let rule = |ok: bool, what: &str| if ok { Ok(()) } else { Err(wrong(&key, what)) };
        let most = match self.length {
            Length::Llvar => 99,
            Length::Fixed | Length::Lllvar => 999,
        };
        rule((1..=most).contains(&self.max), &format!("max must be 1 to {most}"))?;
        let encoding = match self.format {
            Format::B => self.encoding.unwrap_or(Encoding::Binary),
            // A dialect whose digits are BCD still has letters, and those are ASCII unless it says otherwise.
            Format::A | Format::An | Format::Ans if encoding == Encoding::Bcd => self.encoding.unwrap_or(Encoding::Ascii),
            Format::N | Format::A | Format::An | Format::Ans | Format::Z => self.encoding.unwrap_or(encoding),
        };
        let fits = match (self.format, encoding) {
            (Format::B, e) => e == Encoding::Binary,
            (_, Encoding::Binary) => false,
            (Format::N | Format::Z, Encoding::Ascii | Encoding::Bcd | Encoding::Ebcdic) => true,
            (Format::A | Format::An | Format::Ans, e) => e != Encoding::Bcd,
        };
        rule(fits, "binary is for format b and the other way round; bcd is for n and z")?;
        let shown_too_much = (NEVER_SHOWN_FIELDS.contains(&n) && self.show != Show::Hidden)
            || (CARD_NUMBER_FIELDS.contains(&n) && self.show == Show::Plain);
        rule(!shown_too_much, "may not be shown so: card numbers at most by their last four digits, tracks and PIN never")?;
        Ok(FieldSpec {
            name: self.name.clone(),
            format: self.format,
            length: self.length,
            max: self.max,
            encoding,
            show: self.show,
        })
    }
}

impl RawTemplate {
    fn check(&self, key: &str, fields: &BTreeMap<u8, FieldSpec>, money: bool) -> Result<Template, SpecError> {
        let mti = self.mti.parse().map_err(|_| wrong(&format!("{key}.mti"), "must be four digits, as in 0200"))?;
        if money && self.processing_code.is_none() {
            return Err(wrong(&format!("{key}.processing_code"), "is missing: six digits, as in 000000"));
        }
        for n in &self.fields {
            let at = format!("{key}.fields");
            if !COMPUTED_FIELDS.contains(n) {
                return Err(wrong(&at, &format!("field {n} is none that is filled in; give it a value in {key}.set")));
            }
            if !fields.contains_key(n) {
                return Err(wrong(&at, &format!("field {n} is not defined in [fields]")));
            }
        }
        let set = self
            .set
            .iter()
            .map(|(n, value)| {
                let at = format!("{key}.set.{n}");
                let n = field_number(&at, n)?;
                let field = fields.get(&n).ok_or_else(|| wrong(&at, "is not defined in [fields]"))?;
                if field.format == Format::B {
                    return Err(wrong(&at, "bytes can't be set"));
                }
                Ok((n, value.clone()))
            })
            .collect::<Result<_, SpecError>>()?;
        Ok(Template { mti, processing_code: self.processing_code.clone(), fields: self.fields.clone(), set })
    }
}

fn field_number(key: &str, text: &str) -> Result<u8, SpecError> {
    // 1 and 65 say that another bitmap follows: the codec's own business.
    let n = text.parse().ok().filter(|n| (2..=128).contains(n) && *n != 65);
    n.ok_or_else(|| wrong(key, "is no field: the number must be 2 to 128, and not 65"))
}

fn verdict(code: &str, said: &str) -> Result<Verdict, SpecError> {
    match said {
        "approved" => return Ok(Verdict::Approved),
        "approved_partly" => return Ok(Verdict::ApprovedPartly),
        "still_working" => return Ok(Verdict::StillWorking),
        "unclear" => return Ok(Verdict::Unclear),
        _ => {}
    }
    let reason = DeclineReason::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(said));
    reason.map(Verdict::Declined).map_err(|_| {
        wrong(
            &format!("responses.{code}"),
            "must be approved, approved_partly, still_working, unclear or a reason such as do_not_honour",
        )
    })
}

fn wrong(key: &str, what: &str) -> SpecError {
    SpecError::Rule { key: key.to_owned(), what: what.to_owned() }
}

/// What is wrong with a dialect.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The file can't be read.
    #[error("{} can't be read: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML, or has keys or values that there are none of.
    #[error("{0}")]
    Toml(String),
    /// A value that can't work.
    #[error("`{key}`: {what}")]
    Rule {
        /// Which key.
        key: String,
        /// What is wrong and what to do.
        what: String,
    },
}
