//! `voicepay card`: gives a customer a card. Its number comes from a hidden prompt or from standard input, never from the command line, which
//! others on the machine can read and shells remember.

use std::io::{BufRead, IsTerminal, Write};

use clap::{Args, Subcommand};
use serde_json::json;
use zeroize::Zeroizing;

use super::Context;
use super::customer::{card_json, parse_id};
use super::data::{Data, block_on, refused, store_error, vault_error};
use super::exit::{CliError, CliResult, Exit};
use crate::ids::CardId;
use crate::payment::Expiry;
use crate::secret::Pan;
use crate::store::{CardRecord, CardStatus};

/// Arguments of `voicepay card`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay card add --customer cus_0123… --expires 09/29          asks for the number without showing it\n  voicepay card add --customer cus_0123… < number.txt             reads it from a file\n  voicepay card revoke card_0123…\n\nA card number is never taken from the command line."
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
    /// Revoke a card for good.
    Revoke {
        /// Its identifier.
        id: String,
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
    let id = CardId::fresh(&*data.entropy);
    let card = CardRecord {
        id: id.clone(),
        customer: customer.clone(),
        last4: pan.last4(),
        length: u8::try_from(pan.digits().len()).unwrap_or(u8::MAX),
        expiry,
        status: CardStatus::Active,
        sealed: vault.seal_card(&id, &customer, &pan).map_err(vault_error)?,
        digest: vault.digest_card(&pan),
        created_at: data.now(),
    };
    let audit = data.audit("card.added", id.as_str(), json!({ "customer": customer }));
    data.store.add_card(&card, &audit).await.map_err(store_error)?;
    ctx.answer(&card_json(&card), &format!("{id} ending {}", card.last4));
    Ok(())
}

async fn set(ctx: &Context, data: &Data, id: &str, status: CardStatus) -> CliResult {
    let id = CardId::parse(id).map_err(refused)?;
    let audit = data.audit(&format!("card.{}", status.as_str()), id.as_str(), json!({}));
    data.store.set_card_status(&id, status, &audit).await.map_err(store_error)?;
    ctx.answer(&json!({ "id": id, "status": status }), &format!("{id} is {}", status.as_str()));
    Ok(())
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
