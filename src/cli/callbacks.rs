//! `voicepay callbacks`: calls that we owe to those who have to agree, and to payers who wait for them.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::data::{Data, block_on, store_error};
use super::exit::CliResult;
use crate::store::{Callback, CallbackState};

/// Arguments of `voicepay callbacks`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay callbacks list\n  voicepay callbacks list --limit 5\n  voicepay --json callbacks list      one object, for scripts\n\nCalls are placed by a service whose `[callbacks] trunk` names a trunk; see docs/OUTBOUND.md."
)]
pub struct CallbacksArgs {
    #[command(subcommand)]
    command: CallbacksCommand,
}

#[derive(Debug, Subcommand)]
enum CallbacksCommand {
    /// List the latest, newest first.
    List {
        /// At most so many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        limit: u32,
    },
}

/// Runs it.
pub fn run(args: &CallbacksArgs, ctx: &Context) -> CliResult {
    let CallbacksCommand::List { limit } = args.command;
    block_on(async {
        let data = Data::open(ctx).await?;
        let all = data.store.callbacks(limit).await.map_err(store_error)?;
        let lines: Vec<String> = all.iter().map(line).collect();
        let text = if lines.is_empty() { "no calls are owed, or were".to_owned() } else { lines.join("\n") };
        ctx.answer(&json!({ "callbacks": all }), &text);
        Ok(())
    })
}

fn line(c: &Callback) -> String {
    let state = match c.state {
        CallbackState::Waiting => format!("due {}", c.due_at),
        CallbackState::Over | CallbackState::GivenUp => c.state.as_str().replace('_', " "),
    };
    let last = c.last_outcome.as_deref().map_or_else(String::new, |outcome| format!("  last: {outcome}"));
    format!("{}  {}  {} {}  tries {}  {state}{last}", c.id, c.approval, c.purpose.as_str(), c.customer, c.tries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ids::{ApprovalId, CallbackId, CustomerId};
    use crate::store::CallbackPurpose;

    #[test]
    fn a_call_that_is_owed_is_a_line_without_a_number() {
        let mut owed = Callback {
            id: CallbackId::parse("cbk_1").unwrap(),
            approval: ApprovalId::parse("apr_1").unwrap(),
            customer: CustomerId::parse("cus_1").unwrap(),
            purpose: CallbackPurpose::Decide,
            state: CallbackState::Waiting,
            tries: 1,
            due_at: Timestamp(0),
            expires_at: Timestamp(9),
            created_at: Timestamp(0),
            last_outcome: Some("no_answer".into()),
            last_call: None,
        };
        assert_eq!(line(&owed), "cbk_1  apr_1  decide cus_1  tries 1  due 1970-01-01T00:00:00.000Z  last: no_answer");
        owed.state = CallbackState::GivenUp;
        assert!(line(&owed).contains("tries 1  given up  last"));
    }
}
