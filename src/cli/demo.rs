//! `voicepay demo`: the service and our softphone in one process, four real calls between them over SIP/UDP and RTP on
//! loopback: a voice is enrolled, pays, and two callers who should not pay are refused. A shop's page for a browser goes with it (`--shop`).

mod data;
mod show;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Context;
use super::exit::{CliError, CliResult, Exit};
use super::serve::{harden, runtime, start_error, told_to_stop};
use crate::app::{App, Voices};
use crate::call::CallRecord;
use crate::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::config::Config;
use crate::dialogue::CallVerdict;
use crate::ids::CustomerId;
use crate::phone::{Action, PhoneEvent, Script, Step, run_script};
use crate::sip::{DialOptions, dial};
use crate::telemetry::{self, LogFormat};

/// Show it all on this machine: four real calls.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  voicepay demo                  about five minutes, as long as the calls last\n  voicepay demo --json           one line a call\n  voicepay demo --keep           leave the service up afterwards: dial it, or open its shop in a browser\n  voicepay demo --shop           only enrol Alice's voice, then open the shop for a browser\n\nThe callers are synthetic voices from audio-fixtures/. Nobody is charged: the acquirer is a sandbox in this process."
)]
pub struct DemoArgs {
    /// Leave the service up afterwards, with another request to pay, and say how to dial it.
    #[arg(long)]
    keep: bool,
    /// After Alice's enrolment leave the service up for a browser: its shop confirms payments by voice.
    #[arg(long)]
    shop: bool,
    /// TCP port of the shop; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    shop_port: u16,
    /// Where the callers' recordings are.
    #[arg(long, value_name = "DIR", default_value = "audio-fixtures")]
    fixtures: PathBuf,
    /// Keep database, key and sandbox journal here (must not exist); without it they are removed at the end.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// UDP port for SIP; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
}

/// One of the four calls: what it does and how it must end.
struct Scenario {
    key: &'static str,
    title: &'static str,
    script: &'static str,
    /// Which of Alice's two telephone numbers is shown: failures count against the number.
    from: usize,
    verdict: CallVerdict,
    /// Whether the number must have been compared, or must not.
    number_compared: bool,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario {
        key: "enrol",
        title: "Alice enrols her voice: invitation code, consent, three strings of digits",
        script: "enrol.toml",
        from: 0,
        verdict: CallVerdict::Enrolled,
        number_compared: false,
    },
    Scenario {
        key: "pay",
        title: "Alice pays: voice matched, number recognised, read back, \"yes\", charged once",
        script: "pay.toml",
        from: 0,
        verdict: CallVerdict::Paid,
        number_compared: true,
    },
    Scenario {
        key: "impostor",
        title: "Mallory calls with Alice's number and says Alice's card number: refused",
        script: "impostor.toml",
        from: 1,
        verdict: CallVerdict::Refused,
        number_compared: false,
    },
    Scenario {
        key: "other_number",
        title: "Alice's own voice says a number that is not her card's: refused",
        script: "other_number.toml",
        from: 0,
        verdict: CallVerdict::Refused,
        number_compared: true,
    },
];

/// From the end of a call until its record must be there.
const RECORD_WAIT_MS: u64 = 10_000;

/// What the softphone reports between two looks at it.
const PHONE_EVENTS_QUEUE_EVENTS: usize = 64;

/// Runs it.
pub fn run(args: DemoArgs, ctx: &Context) -> CliResult {
    telemetry::init(LogFormat::Text, "voicepay=warn,error");
    harden();
    let place = data::Place::take(args.data_dir.as_deref())?;
    let mut config = ctx.config()?;
    config.service.data_dir = place.path().to_owned();
    config.store.path = place.path().join("voicepay.db");
    config.vault.master_key_file = place.path().join("master.key");
    config.gateway.sandbox_journal = place.path().join("sandbox-journal.jsonl");
    config.sip.listen = ([127, 0, 0, 1], args.port).into();
    config.sip.public_address = None;
    config.sip.trusted_peers.clear();
    // The demo's calls come from this machine, on no trunk, in plain text.
    config.sip.trunks.clear();
    config.sip.unknown_peers = crate::sip::trunk::config::UnknownPeers::AllowPrivate;
    config.sip.private_networks = crate::sip::SipConfig::default().private_networks;
    config.media.bind_address = [127, 0, 0, 1].into();
    config.media.advertised_address = None;
    let customer = CustomerId::fresh(&SystemEntropy);
    if args.keep || args.shop {
        data::open_shop(&mut config, args.shop_port, &customer);
    }
    let show = show::Show::new(ctx);
    show.progress("Loading the speech models");
    let voices = Voices::load(&config).map_err(start_error)?;
    runtime()?.block_on(demo(&args, &config, customer, &voices, &show))
}

async fn demo(args: &DemoArgs, config: &Config, customer: CustomerId, voices: &Voices, show: &show::Show<'_>) -> CliResult {
    let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    let app = App::start(config, voices, Arc::clone(&clock), Arc::clone(&entropy)).await.map_err(start_error)?;
    let seed = data::Seed::plant(app.office(), customer, clock.as_ref(), entropy.as_ref(), &args.fixtures).await?;
    show.opening(&app, &seed);
    let mut failed = Vec::new();
    let calls = if args.shop { 1 } else { SCENARIOS.len() };
    for (index, scenario) in SCENARIOS.iter().enumerate().take(calls) {
        if scenario.key == "impostor" {
            // The first request is paid: the two that must be refused need something to refuse.
            seed.request(app.office(), clock.as_ref(), entropy.as_ref(), 4_250).await?;
        }
        show.scenario(index + 1, calls, scenario.title);
        let script = script(&args.fixtures, scenario, &seed)?;
        let record = place_call(&app, seed.number(scenario.from), &script, show).await?;
        let problems = verdict_problems(scenario, &record);
        show.outcome(scenario.key, &record, &problems);
        failed.extend(problems.into_iter().map(|p| format!("{}: {p}", scenario.key)));
    }
    if !args.shop {
        failed.extend(data::money_problems(app.office(), config).await?);
        show.closing(&app, &seed, args, config, &failed).await?;
    }
    if (args.keep || args.shop) && failed.is_empty() {
        show.how_to_dial(&app, &seed);
        told_to_stop().await?;
    }
    app.stop().await;
    if failed.is_empty() { Ok(()) } else { Err(CliError::new(Exit::Demo, format!("the demo failed: {}", failed.join("; ")))) }
}

fn script(fixtures: &Path, scenario: &Scenario, seed: &data::Seed) -> Result<Script, CliError> {
    let path = fixtures.join("scripts").join(scenario.script);
    let mut script = Script::load(&path).map_err(|e| CliError::new(Exit::Audio, e))?;
    if scenario.key == "enrol" {
        // The invitation is made afresh each time: its code takes the place of the script's.
        if let Some(step) = script.steps.iter_mut().find(|s| matches!(s.action, Action::Keys(_))) {
            *step = Step::keys(&format!("{}#", *seed.invite_code));
        }
    }
    Ok(script)
}

/// Dials, lives through the call, and returns the service's own record of it.
async fn place_call(app: &App, from: &str, script: &Script, show: &show::Show<'_>) -> Result<CallRecord, CliError> {
    let (mut watch, mut records) = (app.watch(), app.records());
    let target = format!("sip:pay@{}", app.sip_address());
    let leg = dial(DialOptions::new(target, from)).await.map_err(|e| CliError::new(Exit::Call, e))?;
    let (events_tx, mut events) = tokio::sync::mpsc::channel::<PhoneEvent>(PHONE_EVENTS_QUEUE_EVENTS);
    let phone = run_script(leg, script, move |event| {
        let _shown_or_not = events_tx.try_send(event);
    });
    tokio::pin!(phone);
    let mut phone_done = None;
    let mut record = None;
    let limit = tokio::time::sleep(Duration::from_secs(600));
    tokio::pin!(limit);
    loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => show.phone(&event),
            Ok(watched) = watch.recv() => show.service(&watched.event),
            report = &mut phone, if phone_done.is_none() => {
                phone_done = Some(report);
                limit.as_mut().reset(tokio::time::Instant::now() + Duration::from_millis(RECORD_WAIT_MS));
            }
            Ok(ended) = records.recv(), if record.is_none() => record = Some(ended),
            () = &mut limit => return Err(CliError::new(Exit::Demo, "the call did not end in time")),
        }
        if let (Some(report), Some(record)) = (&phone_done, &record) {
            if let Some(failure) = &report.failure {
                show.note(&format!("the softphone's script was not played to its end: {failure}"));
            }
            return Ok(record.clone());
        }
    }
}

fn verdict_problems(scenario: &Scenario, record: &CallRecord) -> Vec<String> {
    let mut problems = Vec::new();
    if record.verdict != scenario.verdict {
        problems.push(format!("ended as {:?}, not as {:?}", record.verdict, scenario.verdict));
    }
    if record.number_compared != scenario.number_compared {
        let (is, must) = if record.number_compared { ("was", "must not be") } else { ("was not", "must be") };
        problems.push(format!("the number {is} compared and {must}"));
    }
    problems
}
