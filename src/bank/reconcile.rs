//! The end of a day: the bank's file of what it did is held against our journal. Streamed: of the file only the names of
//! instructions are kept, to see which come twice and which are missing. Changes nothing.
//!
//! A line an instruction, `instruction_id,reference,amount_minor,currency,account,result,at`, the names of the columns perhaps
//! first, and `total,COUNT,CUR=SUM,…` last: how many lines there are, and the sum of their amounts by currency, whatever the
//! result.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufRead, Read};
use std::time::Duration;

use serde::Serialize;
use time::macros::{format_description, time};

use super::journal::pairing;
use crate::clock::Timestamp;
use crate::ids::{InstructionId, RequestId};
use crate::payment::pairing::{Answer, Event, Instruction, InstructionKind};
use crate::store::{Store, StoreError};

/// A line is no longer than this.
const LINE_LIMIT_BYTES: u64 = 512;
/// A file has no more lines than this: their names must fit into memory.
const LINES_LIMIT: u64 = 5_000_000;
/// How many answers are read at a time.
const PAGE: u32 = 500;
/// The names of the columns, if they stand there.
const COLUMNS: &str = "instruction_id,reference,amount_minor,currency,account,result,at";

/// A day, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    from: Timestamp,
}

impl Day {
    /// From `2026-11-22`.
    pub fn parse(text: &str) -> Option<Self> {
        let date = time::Date::parse(text, format_description!("[year]-[month]-[day]")).ok()?;
        Some(Self { from: Timestamp(date.with_time(time!(0:00)).assume_utc().unix_timestamp().checked_mul(1_000)?) })
    }

    fn of(at: Timestamp) -> Self {
        const DAY_MS: i64 = 86_400_000;
        Self { from: Timestamp(at.0.div_euclid(DAY_MS).saturating_mul(DAY_MS)) }
    }

    fn until(self) -> Timestamp {
        self.from.plus(Duration::from_secs(86_400))
    }
}

/// In what the bank's file and our journal differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A line that can't be read.
    Malformed,
    /// An instruction stands there twice.
    Duplicate,
    /// An instruction that we never gave.
    MissingHere,
    /// The bank answered it on this day, and the file has it not.
    MissingThere,
    /// Another amount.
    Amount,
    /// Another currency.
    Currency,
    /// Another account.
    Account,
    /// Another result.
    Result,
    /// We have no answer of the bank to it yet.
    NoAnswerHere,
    /// The bank said two things about it.
    Contradicted,
    /// It was done on another day than the file is about.
    OtherDay,
    /// The last line says another number of lines.
    TotalCount,
    /// The last line says other sums.
    TotalAmount,
    /// There is no last line with totals, or it is not the last.
    TotalLine,
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// In which line of the file, from 1.
    pub line: Option<u64>,
    /// Which instruction.
    pub instruction: Option<String>,
    /// What the bank says.
    pub bank: String,
    /// What we have.
    pub ours: String,
}

/// What was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Instructions in the file.
    pub instructions: u64,
    /// Differences.
    pub findings: u64,
    /// Sums of the file's amounts, in minor units.
    pub sums: BTreeMap<String, i64>,
}

/// Why nothing can be compared.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The file.
    #[error("the file can't be read: {0}")]
    File(#[from] io::Error),
    /// It is no such file.
    #[error("line {0} is longer than {LINE_LIMIT_BYTES} bytes: this is no file of a day's instructions")]
    Line(u64),
    /// It is too long.
    #[error("the file has more than {LINES_LIMIT} lines")]
    TooLong,
    /// Nothing says which day.
    #[error("the file has no line that tells its day: say which with --date 2026-11-22")]
    NoDay,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct Line<'a> {
    instruction: &'a str,
    reference: &'a str,
    minor: i64,
    currency: &'a str,
    account: &'a str,
    result: &'a str,
    at: Timestamp,
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let fields: Vec<_> = text.split(',').collect();
        let [instruction, reference, minor, currency, account, result, at] = fields.try_into().ok()?;
        let (minor, at) = (minor.parse().ok()?, Timestamp::parse(at)?);
        Some(Self { instruction, reference, minor, currency, account, result, at })
    }
}

/// Lines of a file, each bounded.
struct Lines<R> {
    reader: R,
    number: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    fn new(reader: R) -> Self {
        Self { reader, number: 0, buffer: Vec::new() }
    }

    /// The next line that is not empty, with its number. What is no UTF-8 can't be a line, and reads as one that is malformed.
    fn next(&mut self) -> Result<Option<(u64, String)>, ReconcileError> {
        loop {
            self.buffer.clear();
            let read = (&mut self.reader).take(LINE_LIMIT_BYTES.saturating_add(1)).read_until(b'\n', &mut self.buffer)?;
            if read == 0 {
                return Ok(None);
            }
            self.number = self.number.saturating_add(1);
            if u64::try_from(read).unwrap_or(u64::MAX) > LINE_LIMIT_BYTES {
                return Err(ReconcileError::Line(self.number));
            }
            if self.number > LINES_LIMIT {
                return Err(ReconcileError::TooLong);
            }
            let text = String::from_utf8_lossy(&self.buffer);
            let text = text.trim_end_matches(['\n', '\r']);
            if !text.is_empty() && text != COLUMNS {
                return Ok(Some((self.number, text.to_owned())));
            }
        }
    }
}

/// Compares a day's file with the journal. `also`: files of the days around it; what stands there is not missed here, as around
/// midnight both sides may count an instruction to different days. `found` is told each difference as it is met.
pub async fn reconcile(
    store: &dyn Store,
    file: impl BufRead,
    also: impl IntoIterator<Item = impl BufRead>,
    day: Option<Day>,
    mut found: impl FnMut(Finding),
) -> Result<Summary, ReconcileError> {
    let (mut summary, mut seen, mut day) = (Summary::default(), HashSet::new(), day);
    let mut findings: u64 = 0;
    let mut tell = |kind, line, instruction: Option<&str>, bank: String, ours: String| {
        findings = findings.saturating_add(1);
        found(Finding { kind, line, instruction: instruction.map(str::to_owned), bank, ours });
    };
    let mut total = None;
    let mut lines = Lines::new(file);
    while let Some((number, text)) = lines.next()? {
        if let Some((before, _)) = &total {
            tell(Kind::TotalLine, Some(*before), None, "lines after the totals".into(), String::new());
            total = None;
        }
        if let Some(totals) = text.strip_prefix("total,") {
            total = Some((number, totals.to_owned()));
            continue;
        }
        let Some(line) = Line::parse(&text) else {
            tell(Kind::Malformed, Some(number), None, String::new(), String::new());
            continue;
        };
        let id = Some(line.instruction);
        summary.instructions = summary.instructions.saturating_add(1);
        let sum = summary.sums.entry(line.currency.to_owned()).or_default();
        *sum = sum.saturating_add(line.minor);
        let of = *day.get_or_insert(Day::of(line.at));
        if Day::of(line.at) != of {
            tell(Kind::OtherDay, Some(number), id, line.at.to_string(), of.from.to_string());
        }
        if !seen.insert(line.instruction.to_owned()) {
            tell(Kind::Duplicate, Some(number), id, String::new(), String::new());
            continue;
        }
        for (kind, bank, ours) in compare(store, &line).await? {
            tell(kind, Some(number), id, bank, ours);
        }
    }
    match total {
        None => tell(Kind::TotalLine, None, None, "none".into(), String::new()),
        Some((number, text)) => {
            let (count, sums) = text.split_once(',').unwrap_or((&text, ""));
            if count.parse() != Ok(summary.instructions) {
                tell(Kind::TotalCount, Some(number), None, count.into(), summary.instructions.to_string());
            }
            let ours: Vec<_> = summary.sums.iter().map(|(currency, minor)| format!("{currency}={minor}")).collect();
            let mut theirs: Vec<_> = sums.split(',').filter(|s| !s.is_empty()).collect();
            theirs.sort_unstable();
            if theirs != ours {
                tell(Kind::TotalAmount, Some(number), None, sums.into(), ours.join(","));
            }
        }
    }
    let day = day.ok_or(ReconcileError::NoDay)?;
    for file in also {
        let mut lines = Lines::new(file);
        while let Some((_, text)) = lines.next()? {
            if let Some(line) = Line::parse(&text) {
                seen.insert(line.instruction.to_owned());
            }
        }
    }
    let mut after = None;
    loop {
        let page = store.bank_answers(day.from, day.until(), after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        for answer in &page {
            let Event::Answered { attempt, .. } = &answer.entry.event else { continue };
            let id = InstructionId::of(attempt);
            if !seen.contains(id.as_str()) {
                let ours = format!("{} at {}", answer.reference, answer.entry.at);
                tell(Kind::MissingThere, None, Some(id.as_str()), String::new(), ours);
            }
        }
    }
    summary.findings = findings;
    Ok(summary)
}

/// A line of the file against our journal.
async fn compare(store: &dyn Store, line: &Line<'_>) -> Result<Vec<(Kind, String, String)>, StoreError> {
    let missing = || vec![(Kind::MissingHere, line.reference.to_owned(), String::new())];
    let Ok(reference) = RequestId::parse(line.reference) else { return Ok(missing()) };
    let pairing = pairing(store, &reference).await?;
    let Some((instruction, order)) = pairing.instructions().find(|(i, _)| i.id.as_str() == line.instruction) else {
        return Ok(missing());
    };
    let mut differs = Vec::new();
    let mut hold = |kind, bank: String, ours: String| {
        if bank != ours {
            differs.push((kind, bank, ours));
        }
    };
    hold(Kind::Amount, line.minor.to_string(), moved(&instruction, order.answer.as_ref()).to_string());
    hold(Kind::Currency, line.currency.to_owned(), instruction.facts.amount.currency.code().to_owned());
    hold(Kind::Account, line.account.to_owned(), instruction.facts.account.to_string());
    match &order.answer {
        None => differs.push((Kind::NoAnswerHere, line.result.to_owned(), String::new())),
        Some(answer) => hold(Kind::Result, line.result.to_owned(), result(&instruction, answer).to_owned()),
    }
    if order.contradiction.is_some() {
        differs.push((Kind::Contradicted, line.result.to_owned(), String::new()));
    }
    Ok(differs)
}

/// How much was moved, or was to be.
fn moved(instruction: &Instruction, answer: Option<&Answer>) -> i64 {
    match answer {
        Some(Answer::Done { amount }) => amount.minor.get(),
        Some(Answer::Refused { .. }) | None => instruction.facts.amount.minor.get(),
    }
}

fn result(instruction: &Instruction, answer: &Answer) -> &'static str {
    match (answer, instruction.kind) {
        (Answer::Done { .. }, InstructionKind::Deduct) => "deducted",
        (Answer::Done { .. }, InstructionKind::Refund) => "refunded",
        (Answer::Refused { .. }, _) => "refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_in_utc() {
        let day = Day::parse("2026-11-22").unwrap();
        assert_eq!((day.from.to_string(), day.until().to_string()), {
            ("2026-11-22T00:00:00.000Z".to_owned(), "2026-11-23T00:00:00.000Z".to_owned())
        });
        let at = |text| Day::of(Timestamp::parse(text).unwrap());
        assert_eq!((at("2026-11-22T23:59:59.999Z"), at("2026-11-23T00:59:59+01:00")), (day, day));
        assert!(at("2026-11-23T00:00:00Z") != day);
        for wrong in ["", "22.11.2026", "2026-11-31", "2026-11-22T00:00:00Z"] {
            assert_eq!(Day::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn lines_are_bounded_and_need_no_last_newline() {
        let read = |text: &str| {
            let mut lines = Lines::new(text.as_bytes());
            let mut all = Vec::new();
            while let Some((number, line)) = lines.next()? {
                all.push((number, line));
            }
            Ok::<_, ReconcileError>(all)
        };
        let text = format!("{COLUMNS}\r\n\na,b\r\ntotal,0");
        assert_eq!(read(&text).unwrap(), [(3, "a,b".to_owned()), (4, "total,0".to_owned())]);
        let longest = "x".repeat(511);
        assert_eq!(read(&format!("{longest}\n")).unwrap().len(), 1);
        assert!(matches!(read(&format!("ok\n{longest}xx\nok")), Err(ReconcileError::Line(2))));
    }

    #[test]
    fn a_line_is_seven_fields_of_their_kind() {
        let good = "ins_1,req_1,1999,USD,00ff,deducted,2026-11-22T10:00:04Z";
        assert_eq!(Line::parse(good).map(|l| (l.minor, l.result)), Some((1999, "deducted")));
        for bad in [
            "",
            "a,b",
            "ins_1,req_1,19.99,USD,00ff,deducted,2026-11-22T10:00:04Z",
            "ins_1,req_1,99999999999999999999,USD,00ff,deducted,2026-11-22T10:00:04Z",
            "ins_1,req_1,1999,USD,00ff,deducted,yesterday",
            "ins_1,req_1,1999,USD,00ff,deducted,2026-11-22T10:00:04Z,more",
        ] {
            assert!(Line::parse(bad).is_none(), "{bad}");
        }
    }
}
