//! `voicepay card`: gives a customer a card, takes it away, and brings cards from another vault. Numbers come from a hidden prompt, from
//! standard input or from a file, never from the command line, which others on the machine can read and shells remember.

mod bring;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use zeroize::Zeroizing;

use super::Context;
use super::customer::{card_json, parse_id};
use super::data::{Data, block_on, refused, store_error, vault_error};
use super::exit::{CliError, CliResult, Exit};
use crate::ids::{CardId, CustomerId};
use crate::payment::Expiry;
use crate::secret::Pan;
use crate::store::{Brought, CardRecord, CardStatus, NewCard};
use crate::vault::Vault;
use bring::{Line, WhoseCard};

/// Arguments of `voicepay card`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay card add --customer cus_0123… --expires 09/29          asks for the number without showing it\n  voicepay card add --customer cus_0123… < number.txt             reads it from a file\n  voicepay card revoke card_0123…\n  voicepay card delete card_0123…                                erases its number for good\n  voicepay card import cards.csv                                  cards of another vault\n\nA list has the columns customer (identifier or customer number) and number, and if you like reference (what the other vault\ncalls the card) and expires (MM/YY). A card number is never taken from the command line."
)]
pub struct CardArgs {
    #[command(subcommand)]
    command: CardCommand,
}

#[derive(Debug, Subcommand)]
enum CardCommand {
    /// Add a card; its number is asked for, or read from standard input.
    Add {
        /// Whose card.
        #[arg(long, value_name = "ID")]
        customer: String,
        /// The last month in which it is good.
        #[arg(long, value_name = "MM/YY")]
        expires: Option<String>,
    },
    /// Block a card for now.
    Block {
        /// Its identifier.
        id: String,
    },
    /// Let a blocked card pay again.
    Unblock {
        /// Its identifier.
        id: String,
    },
    /// Revoke a card for good. Its number stays, sealed, for refunds.
    Revoke {
        /// Its identifier.
        id: String,
    },
    /// Revoke a card and erase its number and its key: no backup without keys opens it any more.
    Delete {
        /// Its identifier.
        id: String,
    },
    /// Bring the cards of another vault: FILE.csv, or FILE.jsonl with one object a line.
    Import {
        /// The list. Erase it afterwards.
        file: PathBuf,
        /// Only read and check it.
        #[arg(long)]
        check: bool,
    },
}

/// Runs it.
pub fn run(args: CardArgs, ctx: &Context) -> CliResult {
    block_on(async {
        let data = Data::open(ctx).await?;
        match args.command {
            CardCommand::Add { customer, expires } => add(ctx, &data, &customer, expires.as_deref()).await,
            CardCommand::Block { id } => set(ctx, &data, &id, CardStatus::Blocked).await,
            CardCommand::Unblock { id } => set(ctx, &data, &id, CardStatus::Active).await,
            CardCommand::Revoke { id } => set(ctx, &data, &id, CardStatus::Revoked).await,
            CardCommand::Delete { id } => delete(ctx, &data, &id).await,
            CardCommand::Import { file, check } => import(ctx, &data, &file, check).await,
        }
    })
}

async fn add(ctx: &Context, data: &Data, customer: &str, expires: Option<&str>) -> CliResult {
    let customer = parse_id(customer)?;
    let expiry = expires.map(str::parse::<Expiry>).transpose().map_err(|e| refused(format!("--expires: {e}")))?;
    if expiry.is_some_and(|e| e.passed(data.now())) {
        return Err(refused("--expires: this card has expired already"));
    }
    let known = data.store.customer(&customer).await.map_err(store_error)?;
    if known.is_none() {
        return Err(refused(format!("there is no customer {customer}: see `voicepay customer list`")));
    }
    let vault = data.vault().await?;
    let number = if std::io::stdin().is_terminal() { ask()? } else { read_line(std::io::stdin().lock())? };
    let pan = Pan::parse(number.trim()).map_err(refused)?;
    let card = sealed_card(data, &vault, &customer, &pan, expiry)?;
    let audit = data.audit("card.added", card.id.as_str(), json!({ "customer": customer }));
    data.store.add_card(&card, &audit).await.map_err(store_error)?;
    ctx.answer(&card_json(&card), &format!("{} ending {}", card.id, card.last4));
    Ok(())
}

async fn set(ctx: &Context, data: &Data, id: &str, status: CardStatus) -> CliResult {
    let id = CardId::parse(id).map_err(refused)?;
    let audit = data.audit(&format!("card.{}", status.as_str()), id.as_str(), json!({}));
    data.store.set_card_status(&id, status, &audit).await.map_err(store_error)?;
    ctx.answer(&json!({ "id": id, "status": status }), &format!("{id} is {}", status.as_str()));
    Ok(())
}

async fn delete(ctx: &Context, data: &Data, id: &str) -> CliResult {
    let id = CardId::parse(id).map_err(refused)?;
    let audit = data.audit("card.deleted", id.as_str(), json!({}));
    data.store.shred_card(&id, &audit).await.map_err(store_error)?;
    ctx.answer(&json!({ "deleted": id }), &format!("{id} is deleted: its number and its key are erased"));
    Ok(())
}

/// So many cards are stored in one transaction: all of them, or none.
const IMPORT_BATCH_CARDS: usize = 500;
const NO_CUSTOMER: &str = "there is no such customer: `voicepay customer add`";

/// Brings a list. Called again after it was cut short it goes on: cards that are there already are told and left alone.
async fn import(ctx: &Context, data: &Data, path: &Path, check: bool) -> CliResult {
    let unreadable = |why: &dyn std::fmt::Display| refused(format!("{}: {why}", path.display()));
    let json = match path.extension().and_then(|e| e.to_str()) {
        Some("csv") => false,
        Some("jsonl" | "ndjson") => true,
        Some(_) | None => return Err(unreadable(&"a list is called FILE.csv or FILE.jsonl")),
    };
    let file = std::fs::File::open(path).map_err(|e| unreadable(&e))?;
    let lines = bring::read(BufReader::new(file), json).map_err(|e| unreadable(&format!("nothing was imported\n{e}")))?;
    if check {
        ctx.answer(&json!({ "lines": lines.len(), "good": true }), &format!("{} cards, every line is good", lines.len()));
        return Ok(());
    }
    let vault = data.vault().await?;
    let mut customers = HashMap::new();
    let (mut added, mut known, mut not_stored) = (0_u64, 0_u64, Vec::new());
    for batch in lines.chunks(IMPORT_BATCH_CARDS) {
        let (mut cards, mut places) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for line in batch {
            match customer_of(data, &line.customer, &mut customers).await? {
                Some(customer) => {
                    cards.push(new_card(data, &vault, customer, line)?);
                    places.push(line.number);
                }
                None => not_stored.push((line.number, NO_CUSTOMER)),
            }
        }
        for (line, became) in places.into_iter().zip(data.store.bring_cards(&cards).await.map_err(store_error)?) {
            match became {
                Brought::Added => added += 1,
                Brought::Known => known += 1,
                Brought::NoCustomer => not_stored.push((line, NO_CUSTOMER)),
                Brought::ReferenceTaken => not_stored.push((line, "its reference belongs to another card")),
            }
        }
    }
    let told = format!("{added} cards imported, {known} were there already");
    if not_stored.is_empty() {
        ctx.answer(&json!({ "imported": added, "known": known }), &format!("{told}; now erase {}", path.display()));
        return Ok(());
    }
    let all = not_stored.len();
    Err(refused(format!("{told}, {all} were not:\n{}", bring::named(&not_stored, all))))
}

type Customers = HashMap<WhoseCard, Option<CustomerId>>;

async fn customer_of(data: &Data, whose: &WhoseCard, seen: &mut Customers) -> Result<Option<CustomerId>, CliError> {
    if let Some(found) = seen.get(whose) {
        return Ok(found.clone());
    }
    let found = match whose {
        WhoseCard::Id(id) => data.store.customer(id).await,
        WhoseCard::Number(digits) => data.store.customer_by_customer_number(digits).await,
    };
    let id = found.map_err(store_error)?.map(|customer| customer.id);
    seen.insert(whose.clone(), id.clone());
    Ok(id)
}

fn new_card(data: &Data, vault: &Vault, customer: CustomerId, line: &Line) -> Result<NewCard, CliError> {
    let card = sealed_card(data, vault, &customer, &line.pan, line.expiry)?;
    let detail = json!({ "customer": customer, "imported": true });
    Ok(NewCard { audit: data.audit("card.added", card.id.as_str(), detail), card, reference: line.reference.clone() })
}

/// A new card, its number sealed.
fn sealed_card(
    data: &Data,
    vault: &Vault,
    customer: &CustomerId,
    pan: &Pan,
    expiry: Option<Expiry>,
) -> Result<CardRecord, CliError> {
    let id = CardId::fresh(&*data.entropy);
    Ok(CardRecord {
        customer: customer.clone(),
        last4: pan.last4(),
        length: u8::try_from(pan.digits().len()).unwrap_or(u8::MAX),
        expiry,
        status: CardStatus::Active,
        sealed: vault.seal_card(&id, customer, pan).map_err(vault_error)?,
        digest: vault.digest_card(pan),
        created_at: data.now(),
        id,
    })
}

/// More than any card number with its spaces; what is longer is something else.
const LINE_MAX_BYTES: u64 = 256;

fn read_line(from: impl BufRead) -> Result<Zeroizing<String>, CliError> {
    let mut line = Zeroizing::new(String::with_capacity(256));
    from.take(LINE_MAX_BYTES)
        .read_line(&mut line)
        .map_err(|_| refused("the card number can't be read from standard input: give it as one line of digits"))?;
    if line.trim().is_empty() {
        return Err(refused("no card number on standard input: run this on a terminal, or pipe one line of digits in"));
    }
    Ok(line)
}

/// Asks on the terminal without showing what is typed.
fn ask() -> Result<Zeroizing<String>, CliError> {
    eprint!("Card number (not shown): ");
    let _unflushed = std::io::stderr().flush();
    let hidden = Hidden::begin().map_err(|e| CliError::new(Exit::Unexpected, format!("the terminal can't hide input: {e}")))?;
    let line = read_line(std::io::stdin().lock());
    drop(hidden);
    eprintln!();
    line
}

/// The terminal with its echo off, until dropped.
struct Hidden(libc::termios);

impl Hidden {
    #[allow(unsafe_code)] // libc's terminal calls, on a struct that we own
    fn begin() -> std::io::Result<Self> {
        let mut before = std::mem::MaybeUninit::<libc::termios>::uninit();
        // SAFETY: tcgetattr fills the struct when it returns 0, and only then is it read.
        let before = unsafe {
            if libc::tcgetattr(libc::STDIN_FILENO, before.as_mut_ptr()) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            before.assume_init()
        };
        let mut quiet = before;
        quiet.c_lflag &= !libc::ECHO;
        // SAFETY: a valid termios that we own.
        if unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSAFLUSH, &raw const quiet) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    #[allow(unsafe_code)] // as above
    fn drop(&mut self) {
        // SAFETY: the very struct that tcgetattr filled.
        unsafe {
            libc::tcsetattr(libc::STDIN_FILENO, libc::TCSAFLUSH, &raw const self.0);
        }
    }
}
