//! `voicepay call`: the built-in softphone, playing a script over real SIP and RTP.

use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::exit::{CliError, CliResult, Exit};
use super::serve::start_error;
use super::{Context, outbound};
use crate::app::outbound::{Reached, who_answered};
use crate::app::voice_activity;
use crate::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::media::leg::{Leg, LegEnd};
use crate::media::wav;
use crate::phone::{PhoneEnd, PhoneEvent, PhoneEventKind, PhoneReport, Script, ScriptError, run_script};
use crate::sip::dial::place;
use crate::sip::stir::passport::Attest;
use crate::sip::stir::sign::Signer;
use crate::sip::{DialError, DialOptions, TlsConfig, dial};

/// Place a call with the built-in softphone.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  voicepay call sip:pay@127.0.0.1:5060 --script pay.toml --from +447700900123\n  voicepay call sip:pay@127.0.0.1 --script pay.toml --record heard.wav --json\n  voicepay call sip:+448081570000@127.0.0.1 --script pay.toml --from +447700900123 --identity-key leaf.key --identity-x5u https://localhost:8443/leaf.pem\n  voicepay call sip:+447700900123@127.0.0.1 --who --beep      a person, a machine, the network, nobody?\n\nA script is a list of steps, one [[step]] table each:\n  [[step]]\n  wait_prompt = 700      # until the other side has spoken and then been silent for 700 ms\n  timeout_ms = 20000     # a step fails after 60 s unless it says so itself\n  [[step]]\n  say = \"number.wav\"     # beside the script; `text` names it in the timeline, `barge_in = 500` talks over a prompt\n  [[step]]\n  keys = \"1234#\"\n  [[step]]\n  wait_ms = 300\n  [[step]]\n  wait_hang_up = true    # or: hang_up = true\n\nThe exit code is 0 if every step was done, else 19. With --who it is 19 too unless a person answered."
)]
pub struct CallArgs {
    /// Whom to call: sip:USER@HOST or sip:USER@HOST:PORT; sips: is over TLS, with `sip.tls` of the configuration.
    uri: String,
    /// What to say and press, and when.
    #[arg(long, value_name = "FILE", required_unless_present = "who")]
    script: Option<PathBuf>,
    /// Listen first who answers (`speech.pickup` of the configuration), and tell. A script is then played to a person only.
    #[arg(long)]
    who: bool,
    /// Wait for the beep of a machine that answered, and tell when it ended: from then on a message is recorded.
    #[arg(long, requires = "who")]
    beep: bool,
    /// The number to call from.
    #[arg(long, value_name = "NUMBER", default_value = "anonymous")]
    from: String,
    /// Also assert this number (P-Asserted-Identity), as a trusted trunk would; believed only if we are in `sip.trusted_peers`.
    #[arg(long, value_name = "NUMBER")]
    assert: Option<String>,
    /// Sign the number (STIR/SHAKEN) with this key, a PKCS#8 PEM file, as the caller's provider would.
    #[arg(long, value_name = "KEY.PEM", requires = "identity_x5u")]
    identity_key: Option<PathBuf>,
    /// Where the key's certificate is, an https URL.
    #[arg(long, value_name = "URL", requires = "identity_key")]
    identity_x5u: Option<String>,
    /// How well the provider knows the caller.
    #[arg(long, value_name = "LEVEL", default_value = "A", value_parser = ["A", "B", "C"], requires = "identity_key")]
    identity_attest: String,
    /// Write what was heard to a WAV file.
    #[arg(long, value_name = "OUT.WAV")]
    record: Option<PathBuf>,
    /// How long the other side may take to answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    answer_within: u64,
}

/// Runs it.
pub fn run(args: CallArgs, ctx: &Context) -> CliResult {
    let script = args.script.as_deref().map(Script::load).transpose().map_err(|e| CliError::new(script_exit(&e), e))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| CliError::new(Exit::Unexpected, e))?;
    let Some(report) = runtime.block_on(call(&args, script.as_ref(), ctx))? else { return Ok(()) };
    if let Some(path) = &args.record {
        save(path, &report)?;
    }
    ctx.answer(&summary(&report), &sentence(&report));
    match &report.failure {
        None => Ok(()),
        Some(failure) => Err(CliError::new(Exit::Call, format!("the call did not go as the script says: {failure}"))),
    }
}

/// `None`: there was only to be told who answers, and it was.
async fn call(args: &CallArgs, script: Option<&Script>, ctx: &Context) -> Result<Option<PhoneReport>, CliError> {
    let mut options = DialOptions {
        asserted_identity: args.assert.clone(),
        timeout: Duration::from_secs(args.answer_within),
        early_media: args.who,
        ..DialOptions::new(&args.uri, &args.from)
    };
    if calls_over_tls(&args.uri) {
        // The service's own certificate and authorities, but not its port.
        options.tls = TlsConfig { listen: None, ..ctx.config()?.sip.tls };
    }
    if let Some(identity) = identity(args)? {
        options.headers.push("Identity", identity);
    }
    let report = if args.who { call_who(args, script, options, ctx).await } else { call_at_once(script, options, ctx).await };
    // The last BYE and its answer are the dialler's to see through; the process must not end before them.
    tokio::time::sleep(Duration::from_millis(GOODBYE_MS)).await;
    report
}

async fn call_at_once(script: Option<&Script>, options: DialOptions, ctx: &Context) -> Result<Option<PhoneReport>, CliError> {
    let leg = dial(options).await.map_err(|e| {
        let exit = match e {
            DialError::Target { .. }
            | DialError::Refused { .. }
            | DialError::NoAnswer(_)
            | DialError::Answer(_)
            | DialError::Failed(_) => Exit::Call,
            DialError::Bind(_) => Exit::Port,
        };
        CliError::new(exit, e)
    })?;
    Ok(played(leg, script, ctx).await)
}

async fn call_who(
    args: &CallArgs,
    script: Option<&Script>,
    options: DialOptions,
    ctx: &Context,
) -> Result<Option<PhoneReport>, CliError> {
    let speech = ctx.config()?.speech;
    let voices = voice_activity(speech.vad).map_err(start_error)?;
    let mut outcome = match place(options).await {
        Ok(placed) => who_answered(placed, speech.pickup, voices).await,
        Err(error) => Reached::Unanswered((&error).into()),
    };
    outbound::tell(ctx, &mut outcome, args.beep).await?;
    match outcome {
        Reached::Person(line) => Ok(played(line.into_parts().0, script, ctx).await),
        Reached::Other(_) | Reached::HungUp | Reached::Unanswered(_) => Ok(None),
    }
}

async fn played(leg: Leg, script: Option<&Script>, ctx: &Context) -> Option<PhoneReport> {
    let told = |event: PhoneEvent| ctx.answer(&event_json(&event), &event_text(&event));
    Some(run_script(leg, script?, told).await)
}

/// Is the configuration needed to verify whom we call? A call in the clear needs none, and must not fail for a broken one.
fn calls_over_tls(uri: &str) -> bool {
    let uri = uri.trim().to_ascii_lowercase();
    uri.starts_with("sips:") || uri.split(';').any(|p| p == "transport=tls")
}

/// The signed number, where one was asked for.
fn identity(args: &CallArgs) -> Result<Option<String>, CliError> {
    let (Some(file), Some(x5u)) = (&args.identity_key, &args.identity_x5u) else { return Ok(None) };
    let wrong = |e: String| CliError::new(Exit::Config, e);
    let key = std::fs::read(file).map(Zeroizing::new).map_err(|e| wrong(format!("{} can't be read: {e}", file.display())))?;
    let signer = Signer::from_pem(&key, x5u).map_err(|e| wrong(e.to_string()))?;
    let attest = match args.identity_attest.as_str() {
        "A" => Attest::A,
        "B" => Attest::B,
        _ => Attest::C, // clap takes no other
    };
    let entropy: &dyn Entropy = &SystemEntropy;
    signer
        .identity_for(&args.from, &args.uri, attest, SystemClock.now(), entropy.bytes())
        .map(Some)
        .map_err(|e| wrong(e.to_string()))
}

/// What a BYE needs on any network that carries speech.
pub(super) const GOODBYE_MS: u64 = 300;

fn script_exit(error: &ScriptError) -> Exit {
    match error {
        ScriptError::Step { key: "say" | "repeat_digits", .. } => Exit::Audio,
        ScriptError::Step { .. }
        | ScriptError::Unreadable { .. }
        | ScriptError::TooLong { .. }
        | ScriptError::Malformed { .. }
        | ScriptError::Count { .. } => Exit::Config,
    }
}

fn save(path: &Path, report: &PhoneReport) -> CliResult {
    wav::write_wav(path, &report.received).map_err(|e| CliError::new(Exit::Audio, e))
}

fn event_text(event: &PhoneEvent) -> String {
    let what = match &event.kind {
        PhoneEventKind::Step { step, what } => format!("step {step}: {what}"),
        PhoneEventKind::HeardSpeech => "they speak".to_owned(),
        PhoneEventKind::HeardSilence { spoke } => format!("they have spoken for {:.1} s", spoke.as_secs_f32()),
        PhoneEventKind::Saying { label, lasting } => format!("we say: {label} ({:.1} s)", lasting.as_secs_f32()),
        PhoneEventKind::Said { completed: true } => "we have spoken".to_owned(),
        PhoneEventKind::Said { completed: false } => "we were cut off".to_owned(),
        PhoneEventKind::Keys { count } => format!("we press {count} keys"),
        PhoneEventKind::Ended(end) => end_text(*end).to_owned(),
    };
    format!("{:>8.2} s  {what}", event.at.as_secs_f32())
}

fn event_json(event: &PhoneEvent) -> serde_json::Value {
    let at_ms = millis(event.at);
    match &event.kind {
        PhoneEventKind::Step { step, what } => serde_json::json!({ "at_ms": at_ms, "event": "step", "step": step, "what": what }),
        PhoneEventKind::HeardSpeech => serde_json::json!({ "at_ms": at_ms, "event": "heard_speech" }),
        PhoneEventKind::HeardSilence { spoke } => {
            serde_json::json!({ "at_ms": at_ms, "event": "heard_silence", "spoke_ms": millis(*spoke) })
        }
        PhoneEventKind::Saying { label, lasting } => {
            serde_json::json!({ "at_ms": at_ms, "event": "saying", "label": label, "lasting_ms": millis(*lasting) })
        }
        PhoneEventKind::Said { completed } => serde_json::json!({ "at_ms": at_ms, "event": "said", "completed": completed }),
        PhoneEventKind::Keys { count } => serde_json::json!({ "at_ms": at_ms, "event": "keys", "count": count }),
        PhoneEventKind::Ended(end) => serde_json::json!({ "at_ms": at_ms, "event": "ended", "by": end_word(*end) }),
    }
}

fn summary(report: &PhoneReport) -> serde_json::Value {
    serde_json::json!({
        "event": "report",
        "ended_by": end_word(report.ended_by),
        "steps_done": report.steps_done,
        "steps": report.steps,
        "failure": report.failure.as_ref().map(ToString::to_string),
        "duration_ms": millis(report.duration),
        "heard_speech_ms": millis(report.heard_speech),
    })
}

fn sentence(report: &PhoneReport) -> String {
    format!(
        "{} of {} steps done in {:.1} s; {}; they spoke for {:.1} s in all",
        report.steps_done,
        report.steps,
        report.duration.as_secs_f32(),
        end_text(report.ended_by),
        report.heard_speech.as_secs_f32()
    )
}

fn end_text(end: PhoneEnd) -> &'static str {
    match end {
        PhoneEnd::Us => "we hung up",
        PhoneEnd::Far(LegEnd::Caller) => "they hung up",
        PhoneEnd::Far(LegEnd::Abandoned) => "the call was given up",
        PhoneEnd::Far(LegEnd::MediaTimeout) => "nothing more was heard from them",
        PhoneEnd::Far(LegEnd::Failed) => "the line failed",
    }
}

fn end_word(end: PhoneEnd) -> &'static str {
    match end {
        PhoneEnd::Us => "us",
        PhoneEnd::Far(LegEnd::Caller) => "them",
        PhoneEnd::Far(LegEnd::Abandoned) => "abandoned",
        PhoneEnd::Far(LegEnd::MediaTimeout) => "media_timeout",
        PhoneEnd::Far(LegEnd::Failed) => "failed",
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
