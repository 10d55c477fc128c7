//! `voicepay trunk`: which trunks are configured, whether one works, and who answers a call over it.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::call::GOODBYE_MS;
use super::exit::{CliError, CliResult, Exit};
use super::serve::{runtime, start_error};
use super::{Context, outbound};
use crate::app::outbound::{Reached, who_answered};
use crate::app::{StartError, voice_activity};
use crate::config::Config;
use crate::sip;
use crate::sip::headers::Headers;
use crate::sip::trunk::config::TrunkConfig;
use crate::sip::trunk::outbound::TrunkCall;
use crate::sip::trunk::probe::{Finding, Outcome, ProbeError, probe};

/// Arguments of `voicepay trunk`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay trunk list\n  voicepay trunk test carrier             is it found, does it answer, is our password right?\n  voicepay --json trunk test carrier      one object a finding, the last one says whether all is well\n  voicepay trunk call carrier +447700900123 --from +448081570000      who answers? says nothing, and hangs up\n\nA test changes nothing at the other end and can run beside a service; it calls from a port of its own, so a firewall that\nlets only the service's port through makes it fail. Exit code 23: something is amiss. A call goes from such a port too; its exit code is 0 if a person\nanswered, else 19."
)]
pub struct TrunkArgs {
    #[command(subcommand)]
    command: TrunkCommand,
}

#[derive(Debug, Subcommand)]
enum TrunkCommand {
    /// List the trunks of the configuration.
    List,
    /// Look a trunk up, connect, and ask it by OPTIONS and REGISTER.
    Test {
        /// Its name.
        name: String,
    },
    /// Call a number over a trunk, tell who answered, and hang up.
    Call(CallArgs),
}

#[derive(Debug, Args)]
struct CallArgs {
    /// The trunk's name.
    name: String,
    /// The called number.
    number: String,
    /// The number that the called party sees.
    #[arg(long, value_name = "NUMBER", default_value = "anonymous")]
    from: String,
    /// Wait for the beep of a machine that answered, and tell when it ended.
    #[arg(long)]
    beep: bool,
    /// How long it may ring, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    answer_within: u64,
}

/// Runs it.
pub fn run(args: TrunkArgs, ctx: &Context) -> CliResult {
    let config = ctx.config()?;
    match args.command {
        TrunkCommand::List => {
            list(ctx, &config);
            Ok(())
        }
        TrunkCommand::Test { name } => test(ctx, &config, &name),
        TrunkCommand::Call(args) => call(ctx, config, args),
    }
}

fn call(ctx: &Context, config: Config, args: CallArgs) -> CliResult {
    let Config { mut sip, media, speech, .. } = config;
    let voices = voice_activity(speech.vad).map_err(start_error)?;
    // As the service would call, but from a port of its own, and without telling any registrar that calls go there now.
    sip.listen.set_port(0);
    sip.tls.listen = None;
    for trunk in &mut sip.trunks {
        (trunk.register, trunk.options_ping_s) = (None, 0);
    }
    let wanted = TrunkCall {
        trunk: args.name,
        number: args.number,
        from: args.from,
        asserted_identity: None,
        withheld: false,
        ring_timeout: Duration::from_secs(args.answer_within),
        early_media: true,
        headers: Headers::new(),
    };
    let beep = args.beep;
    runtime()?.block_on(async {
        // Nobody is meant to call here.
        let (legs, _unanswered) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let listener = sip::listen(sip, media, legs, stop.clone()).await.map_err(|e| start_error(StartError::Sip(e)))?;
        let mut outcome = match listener.trunks().call(&listener.dialler(), wanted).await {
            Ok(placed) => who_answered(placed, speech.pickup, voices).await,
            Err(error) => Reached::Unanswered((&error).into()),
        };
        let told = outbound::tell(ctx, &mut outcome, beep).await;
        drop(outcome);
        tokio::time::sleep(Duration::from_millis(GOODBYE_MS)).await;
        listener.close();
        stop.cancel();
        listener.ended().await;
        told
    })
}

fn list(ctx: &Context, config: &Config) {
    let trunks = &config.sip.trunks;
    let lines: Vec<String> = trunks.iter().map(line).collect();
    let text = if lines.is_empty() {
        "no trunks: see [[sip.trunk]] in `voicepay config print --defaults`".to_owned()
    } else {
        lines.join("\n")
    };
    // As configured; passwords are in their files.
    ctx.answer(&json!({ "trunks": trunks }), &text);
}

fn line(trunk: &TrunkConfig) -> String {
    let hosts: Vec<String> = trunk.hosts.iter().map(ToString::to_string).collect();
    let from = match (hosts.is_empty(), trunk.register.is_some()) {
        (false, false) => format!("from {}", hosts.join(", ")),
        (false, true) => format!("from {} and its registrar", hosts.join(", ")),
        (true, true) => "from its registrar".to_owned(),
        (true, false) => "no calls from it".to_owned(),
    };
    let to = trunk.target.as_ref().map_or("no calls to it".to_owned(), |t| format!("to {t}"));
    let mut said = vec![format!("{}  {}  {from}  {to}", trunk.name, trunk.transport)];
    if trunk.private {
        said.push("private".to_owned());
    }
    if trunk.trusted {
        said.push("trusted".to_owned());
    }
    if !trunk.inbound_auth.is_empty() {
        said.push(format!("{} accounts", trunk.inbound_auth.len()));
    }
    said.join("  ")
}

fn test(ctx: &Context, config: &Config, name: &str) -> CliResult {
    let mut tell = |finding: &Finding| ctx.answer(&json!(finding), &shown(finding));
    let well = runtime()?.block_on(probe(&config.sip, name, &mut tell)).map_err(|error| match error {
        ProbeError::Unknown { .. } => CliError::new(Exit::Refused, error),
        ProbeError::Config(_) => CliError::new(Exit::Config, error),
        ProbeError::Start(_) => CliError::new(Exit::Port, error),
    })?;
    if ctx.json {
        ctx.answer(&json!({ "trunk": name, "well": well }), "");
    }
    if well { Ok(()) } else { Err(CliError::new(Exit::Trunk, format!("trunk `{name}`: something is amiss"))) }
}

fn shown(finding: &Finding) -> String {
    let outcome = match finding.outcome {
        Outcome::Well => "well",
        Outcome::Note => "note",
        Outcome::Amiss => "AMISS",
    };
    let took = finding.took_ms.map_or_else(String::new, |ms| format!("{ms} ms"));
    let place = finding.place.as_ref().map_or_else(String::new, |p| format!("{p}: "));
    format!("{:<13}  {outcome:<5}  {took:>8}  {place}{}", finding.step, finding.said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trunk_is_listed_in_a_line() {
        let trunk: TrunkConfig = toml::from_str(
            "name = \"pbx\"\nhosts = [\"10.0.0.5\"]\ntransport = \"udp\"\nprivate = true\ntarget = \"10.0.0.5:5070\"\n\
             inbound_auth = [{ username = \"a\", password_file = \"f\" }]",
        )
        .unwrap();
        assert_eq!(line(&trunk), "pbx  UDP  from 10.0.0.5/32  to 10.0.0.5:5070  private  1 accounts");
        assert_eq!(line(&TrunkConfig { name: "x".into(), ..TrunkConfig::default() }), "x  TLS  no calls from it  no calls to it");
    }
}
