//! `voicepay serve`: takes calls until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Context;
use super::data::{store_error, vault_error};
use super::exit::{CliError, CliResult, Exit};
use crate::app::{App, StartError, Voices};
use crate::clock::{SystemClock, SystemEntropy};
use crate::config::Config;
use crate::gateway::{GatewayError, GatewayKind};
use crate::models::ModelError;
use crate::ops::notify::Notify;
use crate::sip::SipError;
use crate::sip::wire::WireError;
use crate::speech::SpeechError;
use crate::store::UnlockError;
use crate::telemetry::{self, LogFormat};
use crate::voiceprint::EmbedError;

/// Take calls.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  voicepay serve\n  VOICEPAY__SIP__LISTEN=0.0.0.0:5060 voicepay serve\n  voicepay --config prod.toml --json serve      logs as JSON\n\nStops at Ctrl-C or SIGTERM: no new calls, those that are up may end by themselves (service.drain_s); a second one cuts them off.\nSIGHUP reads the configuration again: new calls go by it, calls that are up are left alone, a wrong one is refused whole.\nTells systemd what it does (Type=notify-reload, WatchdogSec=)."
)]
pub struct ServeArgs {}

/// Runs it.
pub fn run(_args: ServeArgs, ctx: &Context) -> CliResult {
    let config = ctx.config()?;
    telemetry::init(if ctx.json { LogFormat::Json } else { LogFormat::Text }, &config.service.log);
    harden();
    let voices = Voices::load(&config).map_err(start_error)?;
    runtime()?.block_on(async {
        let app = App::start(&config, &voices, Arc::new(SystemClock), Arc::new(SystemEntropy)).await.map_err(start_error)?;
        let address = app.sip_address();
        let text = format!("Voicepay takes calls at sip:pay@{address} ({}); Ctrl-C stops it.", gateway(&config));
        let metrics = app.ops_address().map(|a| a.to_string());
        let api = app.api_address().map(|a| a.to_string());
        let event = serde_json::json!({ "event": "listening", "sip": address.to_string(), "metrics": metrics, "api": api });
        ctx.answer(&event, &text);
        let notify = Notify::from_env();
        notify.ready(&format!("takes calls at {address}"));
        until_stopped(&app, &notify, ctx).await?;
        tracing::info!(calls = app.calls_up(), "stopping: no new calls");
        notify.stopping(app.drain());
        let second = async { drop(told_to_stop().await) };
        app.stop_unless(second).await;
        Ok(())
    })
}

/// Serves until it is told to stop: reloads when told to, and tells the watchdog that all is well.
async fn until_stopped(app: &App, notify: &Notify, ctx: &Context) -> CliResult {
    let mut hang_up = watched(SignalKind::hangup())?;
    // An hour stands for "never": nobody waits for it.
    let mut watchdog = tokio::time::interval(notify.watchdog_every().unwrap_or(Duration::from_secs(3_600)));
    let mut stop = std::pin::pin!(told_to_stop());
    loop {
        tokio::select! {
            stopped = &mut stop => return stopped,
            _ = watchdog.tick() => notify.alive(),
            _ = hang_up.recv() => {
                notify.reloading();
                let status = reload(app, ctx);
                notify.ready(&status);
            }
        }
    }
}

/// Reads the configuration again; what came of it, in a sentence.
fn reload(app: &App, ctx: &Context) -> String {
    match ctx.config().and_then(|new| app.reload(&new).map_err(start_error)) {
        Ok(changes) => {
            tracing::info!(live = ?changes.live, needs_restart = ?changes.restart, "the configuration was read again");
            let event = serde_json::json!({ "event": "reloaded", "live": changes.live, "needs_restart": changes.restart });
            ctx.answer(&event, &format!("Read the configuration again; {}.", changes.summary()));
            changes.summary()
        }
        Err(error) => {
            crate::telemetry::metrics::metrics().config_reloads.inc(["refused"]);
            tracing::error!(%error, "the configuration can't be used; the one in force stays");
            let event = serde_json::json!({ "event": "reload_refused", "error": error.message });
            ctx.answer(&event, &format!("The configuration in force stays: {error}"));
            format!("the last configuration was refused: {error}")
        }
    }
}

fn gateway(config: &Config) -> &'static str {
    match config.gateway.kind {
        GatewayKind::Sandbox => "sandbox acquirer: nobody is charged",
        GatewayKind::Iso8583 => "a bank host by ISO 8583: cards are charged",
        GatewayKind::Stripe => "Stripe: cards are charged",
        GatewayKind::BankFeedback => "a bank that announces deductions: accounts are debited once both sides agree",
    }
}

/// A runtime for calls: their tasks on all cores, models on blocking threads of their own.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::new(Exit::Unexpected, format!("the runtime can't be started: {e}")))
}

/// Ctrl-C or SIGTERM.
pub(super) async fn told_to_stop() -> Result<(), CliError> {
    let (mut interrupt, mut terminate) = (watched(SignalKind::interrupt())?, watched(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

fn watched(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(|e| CliError::new(Exit::Unexpected, format!("signals can't be watched: {e}")))
}

/// Whisper's buffers and the vault hold card-derived bytes: no core dump of this process, and its memory is not for other
/// processes of the same user to read.
#[allow(unsafe_code)] // two calls into libc without pointers to anything of ours
pub(super) fn harden() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` lives through the call and is only read; `prctl` takes plain integers.
    let failed =
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) != 0 || libc::prctl(libc::PR_SET_DUMPABLE, 0) != 0 };
    if failed {
        tracing::warn!("core dumps could not be switched off: a crash may leave card-derived memory on disk");
    }
}

/// The exit code of a service that does not start.
pub(super) fn start_error(error: StartError) -> CliError {
    match error {
        StartError::Config(e) => CliError::new(Exit::Config, e),
        e @ (StartError::Policy(_) | StartError::Calibration { .. }) => CliError::new(Exit::Config, e),
        e @ (StartError::Records(_) | StartError::Log(_) | StartError::Rules(_)) => CliError::new(Exit::Config, e),
        StartError::Api(e) if e.key == "api.listen" => CliError::new(Exit::Port, e),
        StartError::Api(e) => CliError::new(Exit::Config, e),
        e @ StartError::Ops { .. } => CliError::new(Exit::Port, e),
        e @ StartError::NoCalibration(_) => CliError::new(Exit::Unexpected, e),
        StartError::Store(e) | StartError::Unlock(UnlockError::Store(e)) => store_error(e),
        StartError::Unlock(UnlockError::Vault(e)) => vault_error(e),
        StartError::Model(e) => {
            let exit = if matches!(e, ModelError::Missing { .. }) { Exit::ModelMissing } else { Exit::ModelCorrupt };
            CliError::new(exit, e)
        }
        StartError::Voice(e @ EmbedError::Missing { .. }) => CliError::new(Exit::ModelMissing, e),
        StartError::Voice(e) => CliError::new(Exit::ModelCorrupt, e),
        StartError::Speech(e @ SpeechError::ModelMissing(_)) => CliError::new(Exit::ModelMissing, e),
        StartError::Speech(e) => CliError::new(Exit::ModelCorrupt, e),
        StartError::Prompts(e) => CliError::new(Exit::Unexpected, e),
        StartError::Gateway(e @ GatewayError::Sandbox(_)) => CliError::new(Exit::Database, e),
        StartError::Gateway(e @ GatewayError::Iso8583(_)) => CliError::new(Exit::Config, e),
        StartError::Gateway(e @ GatewayError::Stripe(_)) => CliError::new(Exit::Config, e),
        StartError::Gateway(e @ (GatewayError::BankFeedback(_) | GatewayError::ServiceOnly)) => CliError::new(Exit::Config, e),
        StartError::Sip(e @ SipError::Wire(WireError::Bind { .. })) => CliError::new(Exit::Port, e),
        StartError::Sip(e @ (SipError::Stir(_) | SipError::Trunk(_) | SipError::Wire(_))) => CliError::new(Exit::Config, e),
        StartError::Sip(e) => CliError::new(Exit::Unexpected, e),
    }
}
