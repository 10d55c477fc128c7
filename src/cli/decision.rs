//! `voicepay decision`: which thresholds stand, and what another policy would have decided on stored evidence.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::data::{Data, block_on, refused, store_error};
use super::exit::{CliError, CliResult, Exit};
use crate::config::Config;
use crate::decision::replay::{Outcome, StoredEvidence, decide_again};
use crate::decision::{Calibration, NumberEvidence, Policy};
use crate::ids::CallId;
use crate::store::{CallRecord, StoreError};

/// Arguments of `voicepay decision`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay decision show                        thresholds in nats, and the false-accept rates they are named by\n  voicepay decision replay --policy strict.toml   what strict.toml would have decided on the last 1000 calls\n  voicepay decision replay --policy strict.toml --call call_0123… --json\n\nOnly scores are stored, never audio: a replay changes thresholds and rules, not models."
)]
pub struct DecisionArgs {
    #[command(subcommand)]
    command: DecisionCommand,
}

#[derive(Debug, Subcommand)]
enum DecisionCommand {
    /// Show the thresholds in force.
    Show,
    /// Decide stored evidence again under another policy.
    Replay {
        /// A configuration file whose [decision] section is tried; default: the configuration in force.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Only this call.
        #[arg(long, value_name = "ID")]
        call: Option<String>,
        /// The latest calls, so many.
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000), conflicts_with = "call")]
        limit: u32,
        /// Print every decision, not only those that change.
        #[arg(long)]
        all: bool,
    },
}

/// Runs it.
pub fn run(args: DecisionArgs, ctx: &Context) -> CliResult {
    match args.command {
        DecisionCommand::Show => show(ctx),
        DecisionCommand::Replay { policy, call, limit, all } => {
            let config = match policy {
                Some(path) => Config::load(Some(&path)).map_err(|e| CliError::new(Exit::Config, e))?,
                None => ctx.config()?,
            };
            let judge = Judge::of(config)?;
            block_on(async {
                let data = Data::open(ctx).await?;
                let calls = match call {
                    Some(id) => {
                        let id = CallId::parse(&id).map_err(refused)?;
                        vec![
                            data.store
                                .call(&id)
                                .await
                                .map_err(store_error)?
                                .ok_or_else(|| store_error(StoreError::NotFound("call")))?,
                        ]
                    }
                    None => data.store.calls(limit).await.map_err(store_error)?,
                };
                replay(ctx, &judge, &calls, all)
            })
        }
    }
}

/// A configuration's rules with the calibration that turns its rates into thresholds.
struct Judge {
    config: Config,
    calibration: Calibration,
}

impl Judge {
    fn of(config: Config) -> Result<Self, CliError> {
        let calibration = crate::app::calibration(&config).map_err(|e| CliError::new(Exit::Config, e))?;
        Ok(Self { config, calibration })
    }

    fn policy(&self, voice_model: &str, engine: &str) -> Result<Policy, CliError> {
        let c = &self.config;
        Policy::resolve(
            &c.dialogue.policy_version,
            &c.decision,
            &self.calibration,
            voice_model,
            engine,
            c.voice.min_net_speech_ms,
        )
        .map_err(|e| CliError::new(Exit::Config, e))
    }
}

fn show(ctx: &Context) -> CliResult {
    let judge = Judge::of(ctx.config()?)?;
    let (c, d) = (&judge.calibration, &judge.config.decision);
    let mut text = format!("calibration {} ({})\n", c.version, c.made_from);
    let mut engines = BTreeMap::new();
    for number in &c.numbers {
        let p = judge.policy(&c.voice.model, &number.engine)?;
        if engines.is_empty() {
            text += &format!(
                "voice   {:>28}   accept from {:6.2} nats (FAR {}), reject below {:6.2} (FAR {})\n",
                c.voice.model, p.voice.accept_llr, d.voice_accept_far, p.voice.reject_llr, d.voice_unsure_far
            );
        }
        text += &format!(
            "number  {:>28}   accept from {:6.2} nats (FAR {}), reject below {:6.2} (FAR {})\n",
            number.engine, p.number.accept_llr, d.number_accept_far, p.number.reject_llr, d.number_unsure_far
        );
        engines.insert(number.engine.clone(), p);
    }
    text += "With k authorised cards a number needs ln k nats more. Rates of numbers are of near misses.";
    ctx.answer(&json!({ "calibration": c.version, "decision": d, "policies": engines }), &text);
    Ok(())
}

/// One decision, then and now.
struct Again<'a> {
    call: &'a CallId,
    evidence: StoredEvidence,
    now: Outcome,
}

fn replay(ctx: &Context, judge: &Judge, calls: &[CallRecord], all: bool) -> CliResult {
    let mut again = Vec::new();
    for call in calls {
        for evidence in stored(call)? {
            let engine = match &evidence.number {
                Some(NumberEvidence::Spoken { engine, .. }) => engine.clone(),
                // Keyed, or never looked at: any recogniser's thresholds do.
                Some(NumberEvidence::Keyed { .. }) | None => {
                    judge.calibration.numbers.first().map(|n| n.engine.clone()).unwrap_or_default()
                }
            };
            let policy = judge.policy(&evidence.voice.model, &engine)?;
            let now = decide_again(&policy, &evidence);
            again.push(Again { call: &call.id, evidence, now });
        }
    }
    let changed = again.iter().filter(|a| a.now != a.evidence.outcome).count();
    let shown: Vec<&Again<'_>> = again.iter().filter(|a| all || a.now != a.evidence.outcome).collect();
    let mut text = String::new();
    for a in &shown {
        text += &format!("{}  {}  {} → {}\n", a.evidence.at, a.call, word(&a.evidence.outcome), word(&a.now));
    }
    text += &match again.len() {
        0 => "no stored decision: the calls asked for never came to one".to_owned(),
        n => format!("{n} decisions of {} calls, {changed} would change", calls.len()),
    };
    let lines: Vec<Value> = shown
        .iter()
        .map(|a| json!({ "call": a.call, "at": a.evidence.at, "policy": a.evidence.policy, "was": a.evidence.outcome, "would_be": a.now }))
        .collect();
    ctx.answer(&json!({ "decisions": again.len(), "changed": changed, "shown": lines }), &text);
    Ok(())
}

/// The decisions of a call. Calls of versions that kept none have none.
fn stored(call: &CallRecord) -> Result<Vec<StoredEvidence>, CliError> {
    match call.record.get("evidence") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(kept) => serde_json::from_value(kept.clone())
            .map_err(|e| CliError::new(Exit::Database, format!("the evidence of {} can't be read: {e}", call.id))),
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted(_) => "accepted",
        Outcome::StepUp => "fresh digits",
        Outcome::Inconclusive => "asked again",
        Outcome::Rejected => "rejected",
        Outcome::NumberUnknown => "voice accepted, number never looked at",
    }
}
