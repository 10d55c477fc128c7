//! Voice activity and end-pointing on files: energy alone beside energy and network. Each utterance is put on a line of which nothing is
//! said before and after, but the noise goes on: what noise begins a turn, how soon the speech is heard, how soon its end is, and what
//! that costs.

use std::time::Duration;

use serde_json::{Value, json};

use super::EvalError;
use super::data::{Material, Recipe};
use super::metrics::percentile;
use super::number::{default_list, genuine};
use super::plan::Plan;
use super::results::{Rate, percent};
use super::splice::assemble;
use super::work::{self, Progress, timed};
use crate::media::frame::{Frame, SampleRate};
use crate::speech::endpoint::ListenSpec;
use crate::speech::turn::{Turn, TurnEvent};
use crate::speech::vad::VoiceActivity;

/// Nothing is said for this long before the utterance …
const BEFORE_MS: u32 = 3_000;
/// … and after it.
const AFTER_MS: u32 = 8_000;
/// A turn that begins this much before the speech was begun by the noise.
const TOO_EARLY_MS: u32 = 100;
/// A packet.
const FRAME_MS: u32 = 20;

/// One utterance by one way of listening; times against the speech's true beginning and end, in milliseconds.
#[derive(Clone, Debug)]
struct Heard {
    began_by_noise: bool,
    /// Speech until the turn began.
    onset_ms: Option<f64>,
    /// The end of speech until the first pause at it or after it.
    pause_ms: Option<f64>,
    /// The end of speech until the end of the turn, by the long pause alone.
    end_ms: Option<f64>,
    /// The turn was over before the speech was.
    cut_short: bool,
    /// Pauses that set the models to work.
    pauses: usize,
    net_share: f64,
    /// What the utterance's quality says of the noise, in dB.
    snr_db: f64,
    cpu_ms_per_s: f64,
}

/// Runs it: `network` beside the same without one.
pub fn run(plan: &Plan, listen: ListenSpec, network: &VoiceActivity) -> Result<(Value, String), EvalError> {
    let name = plan.list.clone().unwrap_or_else(|| default_list(plan));
    let recipes = plan.draw(&genuine(plan, &name)?);
    let energy = VoiceActivity { network: None, ..network.clone() };
    let progress = Progress::new("voice activity", recipes.len());
    let heard = work::map(&recipes, plan.threads, &progress, |recipe| {
        let line = line(plan, recipe)?;
        Ok::<_, EvalError>((hear(&line, listen, &energy), hear(&line, listen, network)))
    })?;
    let (by_energy, by_both): (Vec<Heard>, Vec<Heard>) = heard.into_iter().unzip();
    let json = json!({
        "energy": figures(&by_energy),
        "energy_and_network": figures(&by_both),
        "utterances": recipes.len(),
        "conditions": plan.conditions(&name, &[("voice_activity", "silero-vad 6.2".to_owned())]),
    });
    let text = format!(
        "voice activity, {name}\n{}{}",
        lines("energy", &json["energy"]),
        lines("energy + network", &json["energy_and_network"])
    );
    Ok((json, text))
}

/// Samples, and where the speech in them begins and ends, in milliseconds.
struct Line {
    samples: Vec<i16>,
    from_ms: u32,
    to_ms: u32,
}

fn line(plan: &Plan, recipe: &Recipe) -> Result<Line, EvalError> {
    let rate = super::degrade::RATE;
    let per_ms = usize::try_from(rate / 1_000).unwrap_or(8);
    let spoken = assemble(&plan.split, recipe, rate)?;
    let (lead_ms, tail_ms) = match &recipe.material {
        Material::Spliced { lead_ms, tail_ms, .. } => (*lead_ms, *tail_ms),
        Material::Recording(_) => (0, 0),
    };
    let spoken_ms = u32::try_from(spoken.len() / per_ms).unwrap_or(u32::MAX);
    let hush = |ms: u32| vec![0.0; usize::try_from(ms).unwrap_or(0) * per_ms];
    let all = [hush(BEFORE_MS), spoken, hush(AFTER_MS)].concat();
    Ok(Line {
        samples: plan.line.through(&recipe.id, all),
        from_ms: BEFORE_MS + lead_ms,
        to_ms: BEFORE_MS + spoken_ms.saturating_sub(tail_ms),
    })
}

fn hear(line: &Line, listen: ListenSpec, activity: &VoiceActivity) -> Heard {
    let rate = SampleRate::HZ_8000;
    let spec = ListenSpec { no_speech_ms: u32::MAX, ..listen };
    let frame = rate.samples_in(Duration::from_millis(u64::from(FRAME_MS)));
    let (from, to) = (f64::from(line.from_ms), f64::from(line.to_ms));
    let (mut began, mut pause, mut end, mut net, mut snr, mut pauses) = (None, None, None, f64::NAN, f64::NAN, 0);
    let ((), cpu_ms) = timed(|| {
        let mut turn = Turn::begin(spec, activity.clone(), rate, None);
        for (n, chunk) in line.samples.chunks(frame).enumerate() {
            let at = f64::from(u32::try_from(n + 1).unwrap_or(u32::MAX)) * f64::from(FRAME_MS);
            for event in turn.push(&Frame { rate, samples: chunk.to_vec() }) {
                match event {
                    TurnEvent::Started => began = Some(at),
                    TurnEvent::Paused { so_far, .. } => {
                        pauses += 1;
                        (net, snr) = (f64::from(so_far.net_speech_ms), f64::from(so_far.quality.snr_db));
                        if at >= to && pause.is_none() {
                            pause = Some(at - to);
                        }
                    }
                    TurnEvent::Over(spoken) => {
                        let heard = &spoken.utterance;
                        (net, snr) = (f64::from(heard.net_speech_ms), f64::from(heard.quality.snr_db));
                        end = Some(at - to);
                    }
                    TurnEvent::WentOn | TurnEvent::Nothing => {}
                }
            }
            // Noise that began a turn may end it: the caller would be asked again. Here the turn begins anew.
            if end.is_some_and(|e| e < 0.0) && at < from {
                turn = Turn::begin(spec, activity.clone(), rate, Some(turn.end()));
                end = None;
            }
        }
    });
    let heard_s = f64::from(u32::try_from(line.samples.len() / 8).unwrap_or(u32::MAX)) / 1_000.0;
    let early = |b: f64| b < from - f64::from(TOO_EARLY_MS);
    Heard {
        began_by_noise: began.is_some_and(early),
        onset_ms: began.filter(|b| !early(*b)).map(|b| b - from),
        pause_ms: pause,
        end_ms: end.filter(|e| *e >= 0.0),
        cut_short: end.is_some_and(|e| e < 0.0),
        pauses,
        net_share: net / (to - from),
        snr_db: snr,
        cpu_ms_per_s: cpu_ms / heard_s,
    }
}

fn figures(all: &[Heard]) -> Value {
    let share = |test: &dyn Fn(&Heard) -> bool| Rate::plain(all.iter().filter(|h| test(h)).count(), all.len());
    let at = |of: &dyn Fn(&Heard) -> Option<f64>, p: f64| percentile(&mut all.iter().filter_map(of).collect::<Vec<_>>(), p);
    json!({
        "turn_begun_by_noise": share(&|h| h.began_by_noise),
        "cut_short": share(&|h| h.cut_short),
        "pause_found": share(&|h| h.pause_ms.is_some()),
        "end_found": share(&|h| h.end_ms.is_some()),
        "onset_p50_ms": at(&|h| h.onset_ms, 0.5),
        "onset_p95_ms": at(&|h| h.onset_ms, 0.95),
        "pause_p50_ms": at(&|h| h.pause_ms, 0.5),
        "pause_p95_ms": at(&|h| h.pause_ms, 0.95),
        "end_p50_ms": at(&|h| h.end_ms, 0.5),
        "end_p95_ms": at(&|h| h.end_ms, 0.95),
        "pauses_p50": at(&|h| Some(h.pauses as f64), 0.5),
        "net_share_p50": at(&|h| Some(h.net_share), 0.5),
        "snr_p50_db": at(&|h| Some(h.snr_db), 0.5),
        "cpu_ms_per_s_p50": at(&|h| Some(h.cpu_ms_per_s), 0.5),
    })
}

fn lines(name: &str, v: &Value) -> String {
    let f = |k: &str| v.get(k).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let r = |k: &str| percent(v.get(k).and_then(|r| r.get("rate")).and_then(Value::as_f64).unwrap_or(f64::NAN));
    format!(
        "{name}: begun by noise {}; heard after {:.0} ms (p95 {:.0}); its end: pause after {:.0} ms (p95 {:.0}, found in {}), turn over after \
         {:.0} ms (found in {}), cut short {}; {:.0} pauses; net speech {} of its length; SNR as told {:.0} dB; {:.2} ms a second\n",
        r("turn_begun_by_noise"),
        f("onset_p50_ms"),
        f("onset_p95_ms"),
        f("pause_p50_ms"),
        f("pause_p95_ms"),
        r("pause_found"),
        f("end_p50_ms"),
        r("end_found"),
        r("cut_short"),
        f("pauses_p50"),
        percent(f("net_share_p50")),
        f("snr_p50_db"),
        f("cpu_ms_per_s_p50"),
    )
}
