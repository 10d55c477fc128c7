//! `voicepay calls`: which calls there were, and what happened in one.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::data::{Data, block_on, refused, store_error};
use super::exit::{CliError, CliResult, Exit};
use crate::clock::Timestamp;
use crate::ids::CallId;
use crate::store::{CallRecord, StoreError};

/// Calls looked at when a list is filtered by time.
const SINCE_LIMIT_CALLS: u32 = 10_000;

/// Arguments of `voicepay calls`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay calls list --limit 20\n  voicepay calls list --since 24h\n  voicepay calls list --since 2026-11-01T00:00:00Z --verdict Paid\n  voicepay calls show call_0123…"
)]
pub struct CallsArgs {
    #[command(subcommand)]
    command: CallsCommand,
}

#[derive(Debug, Subcommand)]
enum CallsCommand {
    /// List the latest calls, newest first.
    List {
        /// How many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Only those that began since: an age such as 30m, 24h or 7d, or a time in UTC such as 2026-11-01T00:00:00Z.
        #[arg(long, value_name = "WHEN")]
        since: Option<String>,
        /// Only those with this verdict (Paid, Refused, Abandoned…).
        #[arg(long)]
        verdict: Option<String>,
    },
    /// Show one call with what happened in it, in order.
    Show {
        /// Its identifier.
        id: String,
    },
}

/// Runs it.
pub fn run(args: CallsArgs, ctx: &Context) -> CliResult {
    block_on(async {
        let data = Data::open(ctx).await?;
        match args.command {
            CallsCommand::List { limit, since, verdict } => {
                let since = since.map(|text| begun_since(&text, data.now())).transpose()?;
                list(ctx, &data, limit, since, verdict.as_deref()).await
            }
            CallsCommand::Show { id } => show(ctx, &data, &id).await,
        }
    })
}

async fn list(ctx: &Context, data: &Data, limit: u32, since: Option<Timestamp>, verdict: Option<&str>) -> CliResult {
    let filtered = since.is_some() || verdict.is_some();
    let looked_at = if filtered { SINCE_LIMIT_CALLS } else { limit };
    let mut calls = data.store.calls(looked_at).await.map_err(store_error)?;
    let whole = calls.len() < usize::try_from(looked_at).unwrap_or(usize::MAX);
    calls.retain(|c| since.is_none_or(|at| c.started_at >= at));
    calls.retain(|c| verdict.is_none_or(|v| c.verdict.as_deref().is_some_and(|is| is.eq_ignore_ascii_case(v))));
    calls.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let lines: Vec<_> = calls
        .iter()
        .map(|c| {
            let lasted = c.ended_at.map_or("up, or cut off".to_owned(), |end| seconds(end.since(c.started_at)));
            let (verdict, customer) = (c.verdict.as_deref().unwrap_or("-"), c.customer.as_ref().map_or("-", |id| id.as_str()));
            format!("{}  {}  {verdict:<15} {lasted:>9}  {}  {customer}", c.started_at, c.id, c.trunk)
        })
        .collect();
    let mut text = if lines.is_empty() { "no such calls".to_owned() } else { lines.join("\n") };
    if filtered && !whole {
        text.push_str(&format!("\n(looked at the latest {SINCE_LIMIT_CALLS} calls only)"));
    }
    let json = json!({ "calls": calls.iter().map(summary).collect::<Vec<_>>(), "complete": whole || !filtered });
    ctx.answer(&json, &text);
    Ok(())
}

async fn show(ctx: &Context, data: &Data, id: &str) -> CliResult {
    let id = CallId::parse(id).map_err(refused)?;
    let call = data.store.call(&id).await.map_err(store_error)?.ok_or_else(|| store_error(StoreError::NotFound("call")))?;
    let field = |name: &str| call.record.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let mut lines = vec![
        format!("{}  {}", call.id, call.verdict.as_deref().unwrap_or("up, or cut off")),
        format!("began       {}", call.started_at),
        format!("lasted      {}", call.ended_at.map_or("-".to_owned(), |end| seconds(end.since(call.started_at)))),
        format!("trunk       {} ({}, {})", call.trunk, field("codec"), field("attestation")),
        format!("customer    {}", call.customer.as_ref().map_or("-", |c| c.as_str())),
    ];
    for event in call.record.get("events").and_then(Value::as_array).into_iter().flatten() {
        let at = event.get("at_ms").and_then(Value::as_u64).unwrap_or(0);
        let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or("");
        lines.push(format!("{:>9}  {:<8} {}", seconds(Duration::from_millis(at)), text("who"), text("what")));
    }
    let mut json = summary(&call);
    if let Value::Object(map) = &mut json {
        map.insert("record".into(), call.record.clone());
    }
    ctx.answer(&json, &lines.join("\n"));
    Ok(())
}

fn summary(call: &CallRecord) -> Value {
    json!({
        "id": call.id,
        "started_at": call.started_at.to_string(),
        "ended_at": call.ended_at.map(|t| t.to_string()),
        "verdict": call.verdict,
        "trunk": call.trunk,
        "customer": call.customer,
        "calling": call.calling,
    })
}

fn seconds(d: Duration) -> String {
    format!("{:.1} s", d.as_secs_f64())
}

/// An age, or a time.
pub(super) fn begun_since(text: &str, now: Timestamp) -> Result<Timestamp, CliError> {
    let wrong = || {
        let what = format!("--since {text}: give an age such as 30m, 24h or 7d, or a time such as 2026-11-01T00:00:00Z");
        CliError::new(Exit::Refused, what)
    };
    let unit_s = match text.chars().last() {
        Some('s') => Some(1),
        Some('m') => Some(60),
        Some('h') => Some(3_600),
        Some('d') => Some(86_400),
        _ => None,
    };
    if let Some(unit_s) = unit_s {
        let count: u64 = text.get(..text.len() - 1).and_then(|n| n.parse().ok()).ok_or_else(wrong)?;
        return Ok(now.minus(Duration::from_secs(count.saturating_mul(unit_s))));
    }
    let format = &time::format_description::well_known::Iso8601::PARSING;
    let at = time::OffsetDateTime::parse(text, format).map_err(|_| wrong())?;
    Ok(Timestamp(at.unix_timestamp().saturating_mul(1_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_an_age_or_a_moment() {
        let now = Timestamp(1_790_000_000_000);
        assert_eq!(begun_since("90m", now).unwrap(), Timestamp(1_790_000_000_000 - 5_400_000));
        assert_eq!(begun_since("7d", now).unwrap(), Timestamp(1_790_000_000_000 - 604_800_000));
        assert_eq!(begun_since("1970-01-01T00:01:00Z", now).unwrap(), Timestamp(60_000));
        assert_eq!(begun_since("1970-01-01T01:00:00+01:00", now).unwrap(), Timestamp(0));
        for wrong in ["", "h", "-1h", "yesterday", "5", "1.5h", "２h"] {
            assert!(begun_since(wrong, now).is_err(), "{wrong}");
        }
        assert!(begun_since("99999999999999999999h", now).is_err());
    }
}
