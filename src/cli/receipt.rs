//! `voicepay receipt`: receipts that anyone can check with nothing but the document and the public keys.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::data::{Data, block_on, refused, store_error};
use super::exit::{CliError, CliResult, Exit};
use super::keys::{given, read_small, registered};
use crate::ids::IntentId;
use crate::ledger::document::{DOCUMENT_LIMIT_BYTES, SignedDocument, Verified};
use crate::ledger::keys::PublicKey;
use crate::payment::Receipt;
use crate::processor::{document, log};
use crate::store::StoreError;

/// Arguments of `voicepay receipt`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay receipt show 4821930577 > receipt.json                  as it is handed out, with its proof once there is one\n  voicepay receipt verify receipt.json --key voicepay-keys.pem     offline; `voicepay keys show` writes that file\n  voicepay receipt verify 4821930577                               the one in this database, with this database's keys"
)]
pub struct ReceiptArgs {
    #[command(subcommand)]
    command: ReceiptCommand,
}

#[derive(Debug, Subcommand)]
enum ReceiptCommand {
    /// Show a receipt as it is handed out.
    Show {
        /// Its ten digits, or the payment's identifier.
        number: String,
    },
    /// Check a receipt's signature, and its proof if it has one.
    Verify {
        /// A file, or the ten digits of a receipt in this database.
        receipt: String,
        /// Public key, as a PEM file or in base64. Without it: the keys of this machine's database.
        #[arg(long, value_name = "PUBLIC")]
        key: Vec<String>,
    },
}

/// Runs it.
pub fn run(args: ReceiptArgs, ctx: &Context) -> CliResult {
    block_on(async {
        match args.command {
            ReceiptCommand::Show { number } => {
                let document = of_number(&Data::open(ctx).await?, &number).await?;
                ctx.answer(&json!(document), document.to_text().trim_end());
                Ok(())
            }
            ReceiptCommand::Verify { receipt, key } => verify(ctx, &receipt, &key).await,
        }
    })
}

async fn verify(ctx: &Context, receipt: &str, key: &[String]) -> CliResult {
    let mut keys = given(key)?;
    let path = Path::new(receipt);
    let is_file = path.exists();
    // With file and key in hand there is no need of a database, nor of a configuration.
    let data = if is_file && !keys.is_empty() { None } else { Some(Data::open(ctx).await?) };
    if let (true, Some(data)) = (keys.is_empty(), &data) {
        keys = registered(data).await?.into_iter().map(|key| key.public).collect();
    }
    let document = match &data {
        Some(data) if !is_file => of_number(data, receipt).await?,
        Some(_) | None => {
            let text = read_small(path, DOCUMENT_LIMIT_BYTES)?;
            SignedDocument::parse(&text).map_err(|e| wrong(receipt, e))?
        }
    };
    let verified = document.verify(Receipt::KIND, log::RECEIPT_ACTION, &keys).map_err(|e| wrong(receipt, e))?;
    ctx.answer(&json_of(&document, &verified), &text_of(&document, &verified, key.is_empty()));
    Ok(())
}

/// A receipt of this database with its proof.
async fn of_number(data: &Data, number: &str) -> Result<SignedDocument, CliError> {
    let unknown = || store_error(StoreError::NotFound("receipt"));
    let receipt = if number.starts_with(IntentId::PREFIX) {
        let intent = IntentId::parse(number).map_err(refused)?;
        data.store.payment(&intent).await.map_err(store_error)?.and_then(|payment| payment.receipt)
    } else {
        data.store.receipt_by_reference(number).await.map_err(store_error)?
    };
    let receipt = receipt.ok_or_else(unknown)?;
    let proof = match &receipt.signature {
        Some(_) => log::prove_receipt(&*data.store, &receipt.id).await.map_err(store_error)?,
        None => None, // its audit row remembers no digest
    };
    Ok(SignedDocument { proof, ..document(&receipt) })
}

fn wrong(receipt: &str, why: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Audit, format!("the receipt {receipt} is not good: {why}"))
}

fn claim<'a>(document: &'a SignedDocument, pointer: &str) -> &'a str {
    document.claims.pointer(pointer).and_then(Value::as_str).unwrap_or("-")
}

fn text_of(document: &SignedDocument, verified: &Verified, own_keys: bool) -> String {
    let about = |pointer| claim(document, pointer);
    let mut lines = vec![
        format!("good: {} to {}, card ending {}", about("/amount/text"), about("/payee/name"), about("/card/last4")),
        format!(
            "receipt {} of {}, acquirer's reference {}",
            about("/reference"),
            about("/at/text"),
            about("/acquirer_reference")
        ),
        format!("allowed by policy {}", about("/decision/policy_version")),
        signer(&verified.signer, own_keys),
    ];
    lines.push(match &verified.logged {
        Some((checkpoint, _)) => {
            format!("in the audit log {}, among the {} records signed at {}", checkpoint.log, checkpoint.size, checkpoint.at)
        }
        None => "without a proof that it is in the audit log: no checkpoint covered it yet when it was handed out".to_owned(),
    });
    lines.join("\n")
}

fn signer(key: &PublicKey, own_keys: bool) -> String {
    let whose = if own_keys { "a key of this machine's database" } else { "a key that you gave" };
    format!("signed by {whose}, {}", key.id())
}

fn json_of(document: &SignedDocument, verified: &Verified) -> Value {
    json!({
        "good": true,
        "claims": document.claims,
        "key": verified.signer.id(),
        "logged": verified.logged.as_ref().map(|(c, _)| json!({ "log": c.log.as_str(), "size": c.size, "at": c.at })),
    })
}
