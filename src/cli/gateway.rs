//! `voicepay gateway`: whether the acquirer can be reached as configured.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::exit::{CliError, CliResult, Exit};
use super::serve::runtime;
use crate::clock::SystemClock;
use crate::gateway::iso8583::config::Iso8583Config;
use crate::gateway::iso8583::{Finding, probe};
use crate::gateway::stripe::{StripeConfig, StripeGateway};
use crate::gateway::{GatewayConfig, GatewayKind};

/// Arguments of `voicepay gateway`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay gateway test           can the acquirer be reached, does it know us?\n  voicepay --json gateway test    one object a finding, the last one says whether all is well\n\nA test asks for no money and can run beside a service. Exit code 24: something is amiss."
)]
pub struct GatewayArgs {
    #[command(subcommand)]
    command: GatewayCommand,
}

#[derive(Debug, Subcommand)]
enum GatewayCommand {
    /// Try the configured acquirers, the main one and [gateway.banks]: a bank host by connection, sign-on and echo, Stripe by a look at our balance.
    Test,
}

/// Runs it.
pub fn run(args: GatewayArgs, ctx: &Context) -> CliResult {
    let config = ctx.config()?.gateway;
    match args.command {
        GatewayCommand::Test => {
            // Each is tried, whatever becomes of the others.
            let all = std::iter::once(&config).chain(config.banks.values());
            let tried: Vec<CliResult> = all.map(|one| test(ctx, one)).collect();
            tried.into_iter().collect()
        }
    }
}

fn test(ctx: &Context, config: &GatewayConfig) -> CliResult {
    match config.kind {
        GatewayKind::Sandbox => {
            said(ctx, true, "the sandbox is in this process and charges nobody; there is nothing to test");
            Ok(())
        }
        GatewayKind::Iso8583 => test_iso8583(ctx, &config.iso8583),
        GatewayKind::Stripe => test_stripe(ctx, &config.stripe),
        GatewayKind::BankFeedback => {
            said(ctx, true, "the bank is only ever told to deduct; there is nothing to ask it that changes nothing");
            Ok(())
        }
    }
}

fn test_iso8583(ctx: &Context, config: &Iso8583Config) -> CliResult {
    let mut tell = |finding: &Finding| ctx.answer(&json!(finding), &shown(finding));
    let well = runtime()?.block_on(probe(config, Arc::new(SystemClock), &mut tell));
    let well = well.map_err(|e| CliError::new(Exit::Config, e))?;
    if ctx.json {
        said(ctx, well, "");
    }
    if well { Ok(()) } else { Err(CliError::new(Exit::Gateway, "a host of the bank can't be used: see above")) }
}

fn test_stripe(ctx: &Context, config: &StripeConfig) -> CliResult {
    let env = |name: &str| std::env::var(name).ok();
    let gateway = StripeGateway::open(config, env, Arc::new(SystemClock)).map_err(|e| CliError::new(Exit::Config, e))?;
    runtime()?.block_on(gateway.check()).map_err(|why| CliError::new(Exit::Gateway, why))?;
    said(ctx, true, &format!("{} answers and takes our key", config.url));
    Ok(())
}

fn said(ctx: &Context, well: bool, text: &str) {
    ctx.answer(&json!({ "well": well }), text);
}

fn shown(finding: &Finding) -> String {
    let outcome = if finding.error.is_none() { "well" } else { "AMISS" };
    let why = finding.error.as_ref().map_or_else(String::new, |e| format!("  {e}"));
    format!("{}  {:<8}  {outcome:<5}  {:>6} ms{why}", finding.host, finding.step, finding.took_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line() {
        let well = Finding { host: "bank:5000".into(), step: "echo", took_ms: 12, error: None };
        assert_eq!(shown(&well), "bank:5000  echo      well       12 ms");
        let amiss = Finding { error: Some("the host closed the connection".into()), ..well };
        assert_eq!(shown(&amiss), "bank:5000  echo      AMISS      12 ms  the host closed the connection");
    }
}
