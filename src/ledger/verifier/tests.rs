//! Whatever is done to a log is found, and where it was done is said.

use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;
use crate::ledger::chain::Record;
use crate::ledger::export::LogLine;

const RECORDS: u64 = 12;
/// A checkpoint after each so many records.
const EACH: u64 = 4;

fn pair(seed: u8) -> (Ed25519KeyPair, PublicKey) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let key = PublicKey::new(pair.public_key().as_ref().try_into().unwrap());
    (pair, key)
}

fn record(n: u64) -> Record {
    Record {
        seq: i64::try_from(n).unwrap() + 1,
        id: format!("aud_{n:02}"),
        at: Timestamp(1_800_000_000_000 + i64::try_from(n).unwrap()),
        actor: "processor".into(),
        action: "charge.succeeded".into(),
        subject: format!("int_{n}"),
        detail: format!("{{\"amount_minor\":{}}}", 100 + n),
    }
}

/// An export of these records, hashed and signed by `seed`'s key as the service would.
fn export_of(records: impl IntoIterator<Item = Record>, seed: u8) -> Vec<String> {
    let (pair, key) = pair(seed);
    let log = LogId::parse(&"5".repeat(32)).unwrap();
    let mut chain = Chain::new(log.clone());
    let mut lines = vec![Line::Log(LogLine { log, gapless: true, keys: vec![key] })];
    let mut checkpoints = 0;
    for record in records {
        let link = chain.append(&record);
        lines.push(Line::Record(SealedRecord { position: link.position, record, hash: link.hash }));
        if chain.size().is_multiple_of(EACH) {
            let note = Checkpoint::of(&chain, Timestamp(1)).sign(&key, |b| pair.sign(b).as_ref().try_into().unwrap());
            lines.push(Line::Checkpoint(note));
            checkpoints += 1;
        }
    }
    lines.push(Line::End { records: chain.size(), checkpoints });
    lines.iter().map(Line::to_text).collect()
}

fn export() -> Vec<String> {
    export_of((0..RECORDS).map(record), 1)
}

fn verified<S: AsRef<str>>(lines: &[S]) -> Result<Report, Fault> {
    let mut verifier = Verifier::new(Trust::Keys(vec![pair(1).1]), Vec::new());
    for line in lines {
        verifier.text(line.as_ref())?;
    }
    verifier.finish()
}

/// In which line of the export the record at a position stands, and the other way: how many records stand before a line.
fn line_of(position: u64) -> usize {
    usize::try_from(1 + position + position / EACH).unwrap()
}

fn records_before(line: usize) -> u64 {
    (0..RECORDS).filter(|p| line_of(*p) < line).count() as u64
}

#[test]
fn a_whole_log_is_well() {
    let report = verified(&export()).unwrap();
    assert_eq!((report.records, report.checkpoints), (RECORDS, 3));
    assert_eq!(report.signed.unwrap().size, RECORDS);
    assert_eq!((report.first_at, report.last_at), (Some(record(0).at), Some(record(RECORDS - 1).at)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn a_changed_byte_is_found_in_its_line(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let lines = export();
        let text = lines.join("\n");
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let line = bytes[..at].iter().filter(|b| **b == b'\n').count();
        let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
        let fault = verified(&text.split('\n').collect::<Vec<_>>()).unwrap_err();
        prop_assert_eq!(fault.position, if line == 0 { fault.position.min(EACH) } else { records_before(line) }, "{}", fault);
    }

    #[test]
    fn a_dropped_repeated_or_moved_line_is_found_where_it_was(from in 0usize..17, to in 0usize..17, how in 0u8..3) {
        let mut lines = export();
        prop_assume!(lines.len() == 17);
        let first = match how {
            0 => { lines.remove(from); from }
            1 => { let line = lines[from].clone(); lines.insert(to, line); if to <= from { to } else { to.max(from + 1) } }
            _ => { prop_assume!(from != to); lines.swap(from, to); from.min(to) }
        };
        let fault = verified(&lines).unwrap_err();
        // A checkpoint that is gone is known by the counts of the last line alone: nothing else hangs on it.
        let touched = |line: usize| line != 0 && (line + 1) % 5 == 1 && line < 16;
        prop_assume!(!(touched(from) || how == 2 && touched(to)));
        // A record that stands twice in a row is found at the second.
        let slack = u64::from(how == 1);
        let expected = records_before(first);
        prop_assert!((expected..=expected + slack).contains(&fault.position), "{how} {from} {to}: {fault}, not {expected}");
    }

    #[test]
    fn a_log_that_was_rewritten_with_new_hashes_is_found_between_its_checkpoints(n in 0..RECORDS, put_in in any::<bool>()) {
        let mut records: Vec<_> = (0..RECORDS).map(record).collect();
        let at = usize::try_from(n).unwrap();
        if put_in {
            records.insert(at, Record { id: "aud_new".into(), ..record(n) });
            records.iter_mut().zip(1..).for_each(|(r, seq)| r.seq = seq);
        } else {
            records[at].detail = "{\"amount_minor\":1}".into();
        }
        // The forger has no signing key: the true checkpoints stay where they were.
        let truth = export();
        let mut forged = export_of(records, 2);
        let notes: Vec<_> = truth.iter().filter(|l| l.contains("\"line\":\"checkpoint\"")).cloned().collect();
        let mut notes = notes.into_iter();
        forged[0] = truth[0].clone();
        forged.iter_mut().filter(|l| l.contains("\"line\":\"checkpoint\"")).for_each(|l| *l = notes.next().unwrap());
        let fault = verified(&forged).unwrap_err();
        prop_assert_eq!(fault.what, Wrong::Root { since: n / EACH * EACH });
        prop_assert_eq!(fault.position, (n / EACH + 1) * EACH);
        // Signed by the forger's own key, it is of one piece: only the key from elsewhere tells.
        let forged = export_of((0..RECORDS).map(|n| Record { actor: "x".into(), ..record(n) }), 2);
        prop_assert_eq!(verified(&forged).unwrap_err().what, Wrong::StrangeKey { id: pair(2).1.id() });
        let mut foreign = forged.clone();
        foreign[0] = truth[0].clone();
        prop_assert_eq!(verified(&foreign).unwrap_err().what, Wrong::Note(NoteError::UnknownSigner));
        let mut own = Verifier::new(Trust::TheLogsOwn, Vec::new());
        prop_assert!(forged.iter().try_for_each(|l| own.text(l)).is_ok());
    }
}

#[test]
fn a_row_that_went_before_it_was_sealed_leaves_a_gap() {
    let lines = export_of((0..RECORDS).filter(|n| *n != 6).map(record), 1);
    let fault = verified(&lines).unwrap_err();
    assert_eq!((fault.position, fault.what), (6, Wrong::Gap { after: 6, before: 8 }));
    let lines = export_of([record(0), record(1), record(1)], 1);
    assert_eq!(verified(&lines).unwrap_err().what, Wrong::Order);
}

#[test]
fn checkpoints_that_were_kept_elsewhere_must_be_in_the_log() {
    let mut chain = Chain::new(LogId::parse(&"5".repeat(32)).unwrap());
    let mut kept = vec![Checkpoint::of(&chain, Timestamp(0))];
    for n in 0..RECORDS {
        chain.append(&record(n));
        kept.push(Checkpoint::of(&chain, Timestamp(9)));
    }
    let verify = |held: Vec<Checkpoint>, lines: &[String]| {
        let mut verifier = Verifier::new(Trust::Keys(vec![pair(1).1]), held);
        lines.iter().try_for_each(|l| verifier.text(l))?;
        verifier.finish()
    };
    verify(kept.clone(), &export()).unwrap();
    // Cut back to eight records, with the signed checkpoint of then: only who holds a later one can tell.
    let cut = export_of((0..8).map(record), 1);
    verified(&cut).unwrap();
    assert_eq!(verify(kept.clone(), &cut).unwrap_err().what, Wrong::ShorterThanHeld { size: 9 });
    kept[5].root = [0; 32];
    let fault = verify(kept, &export()).unwrap_err();
    assert_eq!((fault.position, fault.what), (5, Wrong::OtherThanHeld { size: 5 }));
}
