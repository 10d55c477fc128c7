//! `voicepay audit`: the log of every decision and money movement, sealed, exported, proven and verified.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::data::{Data, Progress, block_on, refused, store_error, unlock_error};
use super::exit::{CliError, CliResult, Exit};
use super::keys::{given, read_small, registered};
use crate::clock::SystemClock;
use crate::ids::{AuditId, ReceiptId};
use crate::ledger::checkpoint::{Checkpoint, NOTE_LIMIT_BYTES};
use crate::ledger::document::DOCUMENT_LIMIT_BYTES;
use crate::ledger::export::LINE_LIMIT_BYTES;
use crate::ledger::keys::PublicKey;
use crate::ledger::proof::InclusionProof;
use crate::ledger::verifier::{Report, Trust, Verifier};
use crate::payment::Receipt;
use crate::processor::log::{self, ReadError};
use crate::processor::sealer::Sealer;
use crate::store::StoreError;
use crate::store::chain::CheckpointRecord;

/// Disagreements between books and audit that are told; more would not help.
const DISAGREEMENTS_LIMIT: u32 = 10;

/// Rows that are gone, likewise.
const LOST_LIMIT: u32 = 100;

/// Arguments of `voicepay audit`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay audit verify                                        this database, and its books against it\n  voicepay audit export audit.jsonl                            for somebody else to verify\n  voicepay audit verify audit.jsonl --key voicepay-keys.pem    offline, with nothing but the file and the public keys\n  voicepay audit verify audit.jsonl --key keys.pem --checkpoint last-month.txt\n  voicepay audit proof 4821930577 > proof.json                 that a receipt is in the log\n  voicepay audit verify proof.json --key voicepay-keys.pem\n  voicepay audit checkpoint > today.txt                        keep it elsewhere: the log can't be rewritten behind it"
)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Verify chain, tree and signatures, and say the first record that is wrong.
    Verify {
        /// An export, or a proof. Without it: this database, and its books against the log.
        file: Option<PathBuf>,
        /// Public key, as a PEM file or in base64; all that ever signed. Without it, signatures only show that the log is of one
        /// piece.
        #[arg(long, value_name = "PUBLIC")]
        key: Vec<String>,
        /// A checkpoint that was kept elsewhere: the log must contain it.
        #[arg(long, value_name = "FILE")]
        checkpoint: Vec<PathBuf>,
    },
    /// Write the whole log to a new file, a JSON object a line.
    Export {
        /// Which file; it must not exist.
        file: PathBuf,
        /// Leave out sealing and signing what is new, which needs the master key.
        #[arg(long)]
        no_checkpoint: bool,
    },
    /// Prove that one record is in the log, as JSON.
    Proof {
        /// Its identifier (aud_…), its position, a receipt's identifier (rcp_…) or a receipt's ten digits.
        record: String,
    },
    /// Seal what is new and sign the log as it stands.
    Checkpoint,
}

/// Runs it.
pub fn run(args: AuditArgs, ctx: &Context) -> CliResult {
    block_on(async {
        match args.command {
            AuditCommand::Verify { file: Some(file), key, checkpoint } => verify_file(ctx, &file, &key, &checkpoint),
            AuditCommand::Verify { file: None, key, checkpoint } => {
                verify_database(ctx, &Data::open(ctx).await?, &key, &checkpoint).await
            }
            AuditCommand::Export { file, no_checkpoint } => export(ctx, &Data::open(ctx).await?, &file, no_checkpoint).await,
            AuditCommand::Proof { record } => proof(ctx, &Data::open(ctx).await?, &record).await,
            AuditCommand::Checkpoint => checkpoint(ctx, &Data::open(ctx).await?).await,
        }
    })
}

fn verify_file(ctx: &Context, file: &Path, key: &[String], checkpoints: &[PathBuf]) -> CliResult {
    let keys = given(key)?;
    if keys.is_empty() && !checkpoints.is_empty() {
        return Err(refused("give --key too: without it nobody knows whose the checkpoint is"));
    }
    let of = |why: String| CliError::new(Exit::Refused, format!("{} can't be read: {why}", file.display()));
    let mut input = BufReader::new(std::fs::File::open(file).map_err(|e| of(e.to_string()))?);
    let start = input.fill_buf().map_err(|e| of(e.to_string()))?;
    if !start.starts_with(b"{\"line\":") {
        return verify_proof(ctx, file, &keys);
    }
    let trust = if keys.is_empty() { Trust::TheLogsOwn } else { Trust::Keys(keys.clone()) };
    let mut verifier = Verifier::new(trust, held(checkpoints, &keys)?);
    let (mut progress, mut line) = (Progress::start(), Vec::new());
    let limit = u64::try_from(LINE_LIMIT_BYTES).unwrap_or(u64::MAX).saturating_add(2);
    loop {
        line.clear();
        let n = (&mut input).take(limit).read_until(b'\n', &mut line).map_err(|e| of(e.to_string()))?;
        if n == 0 {
            break;
        }
        let text =
            std::str::from_utf8(&line).map_err(|_| wrong(format!("at position {}: it is no UTF-8 text", verifier.records())))?;
        // Exactly one end: a line without one was cut, and the last line's counts would not tell.
        let text =
            text.strip_suffix('\n').ok_or_else(|| wrong(format!("at position {}: the line has no end", verifier.records())))?;
        verifier.text(text).map_err(wrong)?;
        progress.tell(|| records_so_far(verifier.records()));
    }
    let report = verifier.finish().map_err(wrong)?;
    ctx.answer(&json_of(&report, !keys.is_empty()), &text_of(&report, !keys.is_empty()));
    Ok(())
}

fn verify_proof(ctx: &Context, file: &Path, keys: &[PublicKey]) -> CliResult {
    let text = read_small(file, DOCUMENT_LIMIT_BYTES)?;
    let proof: InclusionProof = serde_json::from_str(&text).map_err(|e| {
        let why = format!("is neither an export (its first line is wrong) nor a proof: {e}");
        wrong(format!("{} {why}", file.display()))
    })?;
    if keys.is_empty() {
        return Err(refused("give --key: a proof leads to a checkpoint, and only a public key tells whose that is"));
    }
    let (record, checkpoint, _) = proof.verify(keys).map_err(wrong)?;
    let text = format!("{} is one of the {} records that were signed at {}", record.id, checkpoint.size, checkpoint.at);
    let json = json!({ "well": true, "record": record.id, "action": record.action, "subject": record.subject,
        "log": checkpoint.log.as_str(), "size": checkpoint.size, "signed_at": checkpoint.at });
    ctx.answer(&json, &text);
    Ok(())
}

async fn verify_database(ctx: &Context, data: &Data, key: &[String], checkpoints: &[PathBuf]) -> CliResult {
    let keys = given(key)?;
    let own: Vec<_> = registered(data).await?.into_iter().map(|key| key.public).collect();
    let held = held(checkpoints, if keys.is_empty() { &own } else { &keys })?;
    let trust = if keys.is_empty() { Trust::TheLogsOwn } else { Trust::Keys(keys.clone()) };
    let (mut verifier, mut progress) = (Verifier::new(trust, held), Progress::start());
    let read = log::lines(&*data.store, |line| {
        progress.tell(|| records_so_far(verifier.records()));
        verifier.line(line)
    });
    read.await.map_err(|error| read_error(error, wrong))?;
    let report = verifier.finish().map_err(wrong)?;
    let unsealed = data.store.unsealed().await.map_err(store_error)?;
    let disagreements = data.store.disagreements(DISAGREEMENTS_LIMIT).await.map_err(store_error)?;
    if !disagreements.is_empty() {
        let list: Vec<_> = disagreements.iter().map(|d| format!("{} {}", d.subject, d.what.text())).collect();
        return Err(wrong(format!("the log is well, but books and audit do not agree: {}", list.join("; "))));
    }
    let lost = data.store.lost(LOST_LIMIT).await.map_err(store_error)?;
    if !lost.is_empty() {
        let list: Vec<_> = lost.iter().map(i64::to_string).collect();
        return Err(wrong(format!(
            "the log is well, but audit rows are gone that were never sealed, of numbers {}",
            list.join(", ")
        )));
    }
    let mut json = json_of(&report, !keys.is_empty());
    if let Value::Object(map) = &mut json {
        map.insert("unsealed".into(), json!(unsealed));
        map.insert("books_agree".into(), json!(true));
    }
    let text = format!("{}\nbooks and audit agree; {unsealed} rows wait to be sealed", text_of(&report, !keys.is_empty()));
    ctx.answer(&json, &text);
    Ok(())
}

async fn export(ctx: &Context, data: &Data, file: &Path, no_checkpoint: bool) -> CliResult {
    if !no_checkpoint {
        sealed_and_signed(ctx, data).await?;
    }
    let of = |e: std::io::Error| CliError::new(Exit::Refused, format!("{} can't be written: {e}", file.display()));
    // Identifiers of customers' payments: not for everybody.
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut out = BufWriter::new(opened.map_err(of)?);
    let (mut progress, mut written) = (Progress::start(), 0u64);
    let read = log::lines(&*data.store, |line| {
        written += 1;
        progress.tell(|| records_so_far(written));
        writeln!(out, "{}", line.to_text())
    });
    let done = match read.await {
        Ok(()) => out.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|f| f.sync_all()).map_err(of),
        Err(error) => Err(read_error(error, of)),
    };
    if let Err(error) = done {
        // What was begun here is no export; a cut file that lies about would only mislead.
        let _gone = std::fs::remove_file(file);
        return Err(error);
    }
    ctx.answer(&json!({ "file": file, "lines": written }), &format!("{written} lines written to {}", file.display()));
    Ok(())
}

async fn proof(ctx: &Context, data: &Data, record: &str) -> CliResult {
    let position = position_of(data, record).await?;
    let proof = match position {
        Some(position) => log::prove(&*data.store, position).await.map_err(store_error)?,
        None => None,
    };
    let proof = proof.ok_or_else(|| refused("no checkpoint covers this record yet: `voicepay audit checkpoint` makes one"))?;
    let text = serde_json::to_string_pretty(&proof).map_err(|e| CliError::new(Exit::Unexpected, e))?;
    ctx.answer(&json!(proof), &text);
    Ok(())
}

/// Where a record stands. `None`: it is not sealed yet.
async fn position_of(data: &Data, record: &str) -> Result<Option<u64>, CliError> {
    let store = &*data.store;
    let receipt = if Receipt::is_reference(record) {
        let receipt = store.receipt_by_reference(record).await.map_err(store_error)?;
        Some(receipt.ok_or_else(|| store_error(StoreError::NotFound("receipt")))?.id)
    } else if record.starts_with(ReceiptId::PREFIX) {
        Some(ReceiptId::parse(record).map_err(refused)?)
    } else {
        None
    };
    let id = match receipt {
        Some(receipt) => log::audit_row_of(&receipt).ok_or_else(|| store_error(StoreError::NotFound("receipt")))?,
        None if record.bytes().all(|b| b.is_ascii_digit()) => {
            let position: u64 = record.parse().map_err(refused)?;
            let size = store.chain().await.map_err(store_error)?.map_or(0, |chain| chain.size());
            return if position < size { Ok(Some(position)) } else { Err(refused(format!("the log has {size} records"))) };
        }
        None => AuditId::parse(record).map_err(refused)?,
    };
    store.position_of(&id).await.map_err(store_error)
}

async fn checkpoint(ctx: &Context, data: &Data) -> CliResult {
    let record = sealed_and_signed(ctx, data).await?.ok_or_else(|| refused("there is nothing to seal: no audit row yet"))?;
    ctx.answer(&json!({ "size": record.size, "at": record.at, "note": record.note }), record.note.trim_end());
    Ok(())
}

async fn sealed_and_signed(ctx: &Context, data: &Data) -> Result<Option<CheckpointRecord>, CliError> {
    let cfg = ctx.config()?.audit;
    let sealer = Sealer::new(Arc::clone(&data.store), data.vault().await?, Arc::new(SystemClock), Arc::clone(&data.entropy), cfg);
    sealer.seal_all().await.map_err(store_error)?;
    sealer.checkpoint().await.map_err(unlock_error)
}

/// Checkpoints that were kept elsewhere, each signed by one of `keys`.
fn held(files: &[PathBuf], keys: &[PublicKey]) -> Result<Vec<Checkpoint>, CliError> {
    let mut held = Vec::new();
    for file in files {
        let note = read_small(file, NOTE_LIMIT_BYTES)?;
        // An editor, or a shell that cut the line's end, is forgiven: signed is the text before it.
        let note = format!("{}\n", note.trim_end());
        let (checkpoint, _) = Checkpoint::open(&note, keys).map_err(|e| wrong(format!("{}: {e}", file.display())))?;
        held.push(checkpoint);
    }
    Ok(held)
}

fn records_so_far(records: u64) -> String {
    format!("… {records} records")
}

fn wrong(what: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Audit, what)
}

/// `taker`: what to say of the one that took the lines.
fn read_error<E: std::error::Error>(error: ReadError<E>, taker: impl FnOnce(E) -> CliError) -> CliError {
    match error {
        ReadError::Taker(e) => taker(e),
        ReadError::Store { records, error: error @ StoreError::Damaged { .. } } => {
            wrong(format!("at position {records}: {error}"))
        }
        ReadError::Store { error, .. } => store_error(error),
        ReadError::Empty => refused(error),
    }
}

fn text_of(report: &Report, with_keys: bool) -> String {
    let (first, last) = (report.first_at.unwrap_or_default(), report.last_at.unwrap_or_default());
    let mut lines = vec![format!("the audit log {} is well: {} records from {first} to {last}", report.log, report.records)];
    lines.push(match &report.signed {
        Some(c) => {
            let rest = report.records.saturating_sub(c.size);
            format!(
                "{} checkpoints; the last, of {}, signs {} records; {rest} later ones are chained and not signed yet",
                report.checkpoints, c.at, c.size
            )
        }
        None => "no checkpoint: nothing is signed yet".to_owned(),
    });
    lines.push(if with_keys {
        "every checkpoint is signed by a key that you gave".to_owned()
    } else {
        "signed by keys that the log itself names: it is of one piece, but only --key tells whose it is".to_owned()
    });
    lines.join("\n")
}

fn json_of(report: &Report, with_keys: bool) -> Value {
    json!({
        "well": true,
        "log": report.log.as_str(),
        "records": report.records,
        "checkpoints": report.checkpoints,
        "signed_records": report.signed.as_ref().map_or(0, |c| c.size),
        "signed_at": report.signed.as_ref().map(|c| c.at),
        "keys": if with_keys { "given" } else { "the log's own" },
    })
}

#[cfg(test)]
mod tests;
