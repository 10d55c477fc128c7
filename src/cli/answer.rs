//! `voicepay answer`: every call is answered with a prompt, and what is said is end-pointed; no dialogue, no database, nobody is
//! charged. What a load test needs, and a quick look whether a trunk's audio comes through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::exit::{CliError, CliResult, Exit};
use super::serve::{runtime, start_error, told_to_stop};
use crate::app::{StartError, voice_activity};
use crate::dialogue::{Again, Prompt};
use crate::language::Language;
use crate::media::frame::SampleRate;
use crate::media::leg::{Leg, LegCommand, LegEvent, Sound};
use crate::prompts::{Bank, Pace};
use crate::speech::endpoint::{Endpointer, ListenSpec, SpeechEvent};
use crate::speech::vad::VoiceActivity;
use crate::{sip, telemetry};

/// Answer calls with a prompt, for load tests.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  voicepay answer\n  VOICEPAY__SIP__MAX_CALLS=1000 voicepay answer --json      counts when it stops\n\nEach call hears the same question again and again; what its caller says is decoded, taken through the jitter buffer\nand end-pointed as in a paying call, and then forgotten. Stops at Ctrl-C or SIGTERM."
)]
pub struct AnswerArgs {}

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    frames: AtomicU64,
    turns: AtomicU64,
}

impl Counts {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What every call is given.
struct Ward {
    sound: Arc<Sound>,
    activity: VoiceActivity,
    listen: ListenSpec,
    counts: Counts,
}

/// Runs it.
pub fn run(_args: AnswerArgs, ctx: &Context) -> CliResult {
    let config = ctx.config()?;
    telemetry::init(if ctx.json { telemetry::LogFormat::Json } else { telemetry::LogFormat::Text }, &config.service.log);
    let bank = Bank::load().map_err(|e| CliError::new(Exit::Unexpected, e))?;
    let ward = Arc::new(Ward {
        sound: bank.book(Language::English).sound(
            &Prompt::AskCard { attempt: 1, why: Again::First },
            None,
            SampleRate::HZ_8000,
            Pace::Usual,
        ),
        activity: voice_activity(config.speech.vad).map_err(start_error)?,
        listen: config.speech.card,
        counts: Counts::default(),
    });
    runtime()?.block_on(async {
        let (legs, mut arriving) = mpsc::channel(config.sip.max_calls);
        let cut = CancellationToken::new();
        let listener = sip::listen(config.sip.clone(), config.media.clone(), legs, cut.clone())
            .await
            .map_err(|e| start_error(StartError::Sip(e)))?;
        let address = listener.local_addr;
        ctx.answer(
            &serde_json::json!({ "event": "listening", "sip": address.to_string() }),
            &format!("Calls to sip:anything@{address} are answered with a prompt; Ctrl-C stops it."),
        );
        let mut calls = JoinSet::new();
        let mut stop = std::pin::pin!(told_to_stop());
        loop {
            tokio::select! {
                told = &mut stop => break told?,
                Some(leg) = arriving.recv() => drop(calls.spawn(answer(leg, Arc::clone(&ward)))),
                Some(_ended) = calls.join_next(), if !calls.is_empty() => {}
            }
        }
        listener.close();
        cut.cancel();
        listener.ended().await;
        while calls.join_next().await.is_some() {}
        let at = |c: &AtomicU64| c.load(Ordering::Relaxed);
        let Counts { calls, frames, turns } = &ward.counts;
        let text = format!("{} calls, {} frames heard, {} turns end-pointed", at(calls), at(frames), at(turns));
        ctx.answer(&serde_json::json!({ "calls": at(calls), "frames": at(frames), "turns": at(turns) }), &text);
        Ok(())
    })
}

async fn answer(mut leg: Leg, ward: Arc<Ward>) {
    Counts::add(&ward.counts.calls);
    let rate = leg.info.rate;
    // The end-pointer itself: nobody reads what is said, so no utterance is put together at pauses.
    let mut ears = Endpointer::with_vad(ward.listen, rate, ward.activity.clone());
    let mut id = 0;
    let play = |id| LegCommand::Play { id, audio: Arc::clone(&ward.sound) };
    if leg.commands.send(play(id)).await.is_err() {
        return;
    }
    while let Some(event) = leg.events.recv().await {
        match event {
            LegEvent::Frame(frame) => {
                Counts::add(&ward.counts.frames);
                let over = |e: &SpeechEvent| matches!(e, SpeechEvent::Ended(_) | SpeechEvent::NoSpeech);
                if ears.push(&frame).iter().any(over) {
                    Counts::add(&ward.counts.turns);
                    ears.listen(ward.listen);
                }
            }
            LegEvent::PlayEnded { .. } => {
                id += 1;
                if leg.commands.send(play(id)).await.is_err() {
                    return;
                }
            }
            LegEvent::Ended(_) => return,
            _ => {} // keys, and what signalling tells of a call that goes on
        }
    }
}
