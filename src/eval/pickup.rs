//! Who answered, on files: short utterances as people answer a telephone, long ones as machines do, greetings that a synthesiser speaks, each on
//! a line of its own with ringing before and noise all the while; machines' with a beep behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::EvalError;
use super::data::{Material, Recipe, Table, recording};
use super::degrade::RATE;
use super::number::{default_list, genuine};
use super::plan::Plan;
use super::random::Random;
use super::results::{Latency, Rate, percent_of};
use super::splice::{assemble, load};
use super::work::{self, Progress};
use crate::media::frame::{Frame, SampleRate};
use crate::speech::pickup::{Answerer, Beep, Pickup, PickupConfig, PickupEar};
use crate::speech::vad::VoiceActivity;

/// Natural recordings, long and short.
const RECORDINGS: &str = "natural_trials.csv";
/// A recording up to this long is what a person may say, in milliseconds …
const PERSON_MOST_MS: u32 = 1_500;
/// … and one from this on is what only machines say.
const MACHINE_LEAST_MS: u32 = 3_000;
/// From the answer to the first word.
const BEFORE_MS: std::ops::Range<usize> = 200..1_800;
/// From a machine's last word to its beep.
const TO_BEEP_MS: std::ops::Range<usize> = 150..1_200;
/// Nothing more is said for this long.
const AFTER_MS: u32 = 4_000;
/// Frequencies, lengths and levels of beeps: 440, 640 and 1,000 Hz are what FreeSWITCH, Asterisk and most machines send.
const BEEP_HZ: [f64; 8] = [440.0, 500.0, 640.0, 850.0, 1_000.0, 1_400.0, 1_700.0, 1_980.0];
const BEEP_MS: [u32; 5] = [200, 300, 500, 800, 1_500];
/// Against the level that speech is brought to, in dB.
const BEEP_DB: [f64; 3] = [-6.0, 0.0, 6.0];
/// A beep that is found ended this near to where it did.
const BEEP_OFF_MS: u32 = 100;
/// A line at rest is not dead: −66 dB relative to full scale.
const LINE_NOISE: f64 = 0.000_5;
/// Ringing before the answer: Europe's 425 Hz, at the beep's reference level.
const RINGING_HZ: f64 = 425.0;
const RINGING_MS: u32 = 1_000;
/// Amplitude of a tone that is as loud as speech is made: −23 dBFS (`degrade`) as a sine.
const TONE_AMPLITUDE: f64 = 0.1;
/// A packet.
const FRAME_MS: u64 = 20;

/// One call.
#[derive(Clone, Debug)]
struct Call {
    id: String,
    /// What kind it is, for the table.
    kind: &'static str,
    sound: Sound,
    is_machine: bool,
}

#[derive(Clone, Debug)]
enum Sound {
    Recipe(Recipe),
    File(PathBuf),
}

/// What came of it.
#[derive(Clone, Debug)]
struct Heard {
    kind: &'static str,
    is_machine: bool,
    /// The first verdict.
    first: Option<Pickup>,
    /// What it was at the end of the line.
    last: Option<Pickup>,
    /// From the end of what is said to the verdict, for persons.
    waited_ms: f64,
    /// The beep that was there, and whether it was found.
    beep_found: Option<bool>,
    false_beep: bool,
    spoken_ms: u32,
}

/// Runs it. `greetings`: a folder of recordings that are machines' greetings, beside those of the data.
pub fn run(plan: &Plan, config: PickupConfig, voices: &VoiceActivity, greetings: &Path) -> Result<(Value, String), EvalError> {
    let list = plan.list.clone().unwrap_or_else(|| default_list(plan));
    let calls = calls(plan, &list, greetings)?;
    let progress = Progress::new("who answered", calls.len());
    let heard: Vec<Heard> =
        work::map(&calls, plan.threads, &progress, |call| answer(plan, call, config, voices))?.into_iter().flatten().collect();
    let (machines, persons): (Vec<&Heard>, Vec<&Heard>) = heard.iter().partition(|h| h.is_machine);
    let mut kinds: BTreeMap<&str, Value> = BTreeMap::new();
    for kind in heard.iter().map(|h| h.kind).collect::<BTreeSet<_>>() {
        let of: Vec<&Heard> = heard.iter().filter(|h| h.kind == kind).collect();
        kinds.insert(kind, figures(&of));
    }
    let hours = heard.iter().map(|h| f64::from(h.spoken_ms)).sum::<f64>() / 3_600_000.0;
    let json = json!({
        "persons": figures(&persons),
        "machines": figures(&machines),
        "kinds": kinds,
        "false_beeps": { "beeps": heard.iter().filter(|h| h.false_beep).count(), "hours_of_speech": hours },
        "config": config,
        "conditions": plan.conditions(&list, &[("voice_activity", "silero-vad 6.2".to_owned())]),
    });
    let text = text(plan, &list, &json);
    Ok((json, text))
}

fn calls(plan: &Plan, list: &str, greetings: &Path) -> Result<Vec<Call>, EvalError> {
    let words = plan.draw(&genuine(plan, list)?);
    let of_words = |kind: &'static str, from: usize, n: usize| {
        words.iter().filter_map(move |recipe| {
            let Material::Spliced { clips, gaps_ms, .. } = &recipe.material else { return None };
            let material = Material::Spliced {
                clips: clips.get(from..from + n)?.to_vec(),
                gaps_ms: gaps_ms.get(from..from + n - 1)?.to_vec(),
                lead_ms: 0,
                tail_ms: 0,
            };
            let id = format!("{} {kind}", recipe.id);
            Some(Call {
                id: id.clone(),
                kind,
                sound: Sound::Recipe(Recipe { id, material, ..recipe.clone() }),
                is_machine: false,
            })
        })
    };
    let mut calls: Vec<Call> = of_words("one word", 0, 1).chain(of_words("two words", 1, 2)).collect();
    let table = Table::read(&plan.split.trials(RECORDINGS))?;
    let mut natural = BTreeSet::new();
    for row in table.rows() {
        natural.insert((row.filled("test_path")?.to_owned(), row.filled("kind")?.starts_with("spoof")));
    }
    let natural: Vec<_> = natural.into_iter().collect();
    for (path, cloned) in plan.draw(&natural) {
        let recipe = recording(&path, "", "");
        let ms = millis(assemble(&plan.split, &recipe, RATE)?.len());
        let (kind, is_machine) = match ms {
            ..=PERSON_MOST_MS => ("short phrase", false),
            MACHINE_LEAST_MS.. if cloned => ("cloned speech", true),
            MACHINE_LEAST_MS.. => ("running speech", true),
            // What a person may say and a machine too.
            _ => continue,
        };
        calls.push(Call { id: recipe.id.clone(), kind, sound: Sound::Recipe(recipe), is_machine });
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(greetings)
        .map_err(|e| {
            EvalError::Conditions(format!("{} can't be read: {e}; give a folder with --greetings", greetings.display()))
        })?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "wav" || e == "flac"))
        .collect();
    files.sort();
    for file in files {
        let id = file.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        calls.push(Call { id, kind: "greeting", sound: Sound::File(file), is_machine: true });
    }
    Ok(calls)
}

/// A call on its line: with a beep where it is a machine's, and without one again.
fn answer(plan: &Plan, call: &Call, config: PickupConfig, voices: &VoiceActivity) -> Result<Vec<Heard>, EvalError> {
    let spoken = match &call.sound {
        Sound::Recipe(recipe) => assemble(&plan.split, recipe, RATE)?,
        Sound::File(file) => load(file, RATE)?,
    };
    let mut random = Random::from_text(&format!("{}{}", plan.seed, call.id));
    let mut between = |range: &std::ops::Range<usize>| u32::try_from(range.start + random.below(range.len())).unwrap_or(0);
    let (before_ms, to_beep_ms) = (between(&BEFORE_MS), between(&TO_BEEP_MS));
    let spoken_ms = millis(spoken.len());
    let said_by = before_ms + spoken_ms;
    let hush = |ms: u32| vec![0.0; samples(ms)];
    let drawn = (pick(&BEEP_HZ, &mut random), pick(&BEEP_MS, &mut random), pick(&BEEP_DB, &mut random));
    let lines = if call.is_machine { vec![Some(drawn), None] } else { vec![None] };
    let mut out = Vec::new();
    for beep in lines {
        let behind = match beep {
            Some((hz, ms, db)) => [hush(to_beep_ms), tone(hz, ms, TONE_AMPLITUDE * 10f64.powf(db / 20.0))].concat(),
            None => Vec::new(),
        };
        let mut line =
            [tone(RINGING_HZ, RINGING_MS, TONE_AMPLITUDE), hush(500), hush(before_ms), spoken.clone(), behind, hush(AFTER_MS)]
                .concat();
        line.iter_mut().for_each(|s| *s += random.normal() * LINE_NOISE);
        let line = plan.line.through(&call.id, line);
        let (early, answered) = line.split_at(samples(RINGING_MS + 500).min(line.len()));
        let (first, last, found) = listen(config, voices, early, answered);
        let ended = beep.map(|(_, ms, _)| said_by + to_beep_ms + ms);
        let is_it = |b: &Beep| ended.is_some_and(|at| b.ended_ms.abs_diff(at) <= BEEP_OFF_MS);
        out.push(Heard {
            kind: call.kind,
            is_machine: call.is_machine,
            first,
            last,
            waited_ms: first.map_or(f64::NAN, |p| f64::from(p.after_ms) - f64::from(said_by)),
            beep_found: beep.map(|_| found.as_ref().is_some_and(is_it)),
            false_beep: found.is_some_and(|b| !is_it(&b)),
            spoken_ms,
        });
    }
    Ok(out)
}

/// The first verdict, the last one, and the last beep.
fn listen(
    config: PickupConfig,
    voices: &VoiceActivity,
    early: &[i16],
    answered: &[i16],
) -> (Option<Pickup>, Option<Pickup>, Option<Beep>) {
    let rate = SampleRate::HZ_8000;
    let frame = rate.samples_in(std::time::Duration::from_millis(FRAME_MS));
    let mut ear = PickupEar::new(config, voices.clone(), rate);
    for samples in early.chunks(frame) {
        ear.push(&Frame { rate, samples: samples.to_vec() });
    }
    ear.answered();
    let mut first = None;
    for samples in answered.chunks(frame) {
        ear.push(&Frame { rate, samples: samples.to_vec() });
        first = first.or(ear.pickup());
    }
    (first, ear.pickup(), ear.beep())
}

fn figures(all: &[&Heard]) -> Value {
    let count = |test: &dyn Fn(&Heard) -> bool| Rate::wilson(all.iter().filter(|h| test(h)).count(), all.len());
    let by = |p: &Option<Pickup>, who: Answerer| p.is_some_and(|p| p.by == who);
    let wrong = |h: &Heard, p: &Option<Pickup>| by(p, if h.is_machine { Answerer::Person } else { Answerer::Machine });
    let beeps: Vec<bool> = all.iter().filter_map(|h| h.beep_found).collect();
    json!({
        "calls": all.len(),
        "taken_for_the_other": count(&|h| wrong(h, &h.first)),
        "still_so_at_the_end": count(&|h| wrong(h, &h.last)),
        "neither": count(&|h| !by(&h.first, Answerer::Person) && !by(&h.first, Answerer::Machine)),
        "after_the_answer": Latency::of(all.iter().map(|h| h.first.map_or(f64::NAN, |p| f64::from(p.after_ms)))),
        "after_the_last_word": Latency::of(all.iter().filter(|h| !h.is_machine).map(|h| h.waited_ms)),
        "beeps_found": Rate::wilson(beeps.iter().filter(|found| **found).count(), beeps.len()),
    })
}

fn text(plan: &Plan, list: &str, json: &Value) -> String {
    let rate = |v: &Value| {
        let part = |k: &str| v.get(k).and_then(Value::as_u64).unwrap_or(0);
        let end = |k: &str| percent_of(v.get("interval_95").and_then(|i| i.get(k)).and_then(Value::as_f64));
        format!("{} of {} ({} to {})", part("hits"), part("of"), end("low"), end("high"))
    };
    let time = |v: &Value| {
        let ms = |k: &str| v.get(k).and_then(Value::as_f64).unwrap_or(f64::NAN);
        format!("{:.0} ms (p95 {:.0})", ms("p50_ms"), ms("p95_ms"))
    };
    let line = |name: &str, v: &Value, machine: bool| {
        let other = if machine { "a person" } else { "a machine" };
        let mut said = format!(
            "{name}: taken for {other} {}, still at the end {}, neither {}; known ",
            rate(&v["taken_for_the_other"]),
            rate(&v["still_so_at_the_end"]),
            rate(&v["neither"])
        );
        said.push_str(&time(&v["after_the_answer"]));
        said.push_str(" after the answer");
        if machine {
            said.push_str(&format!("; beeps found {}", rate(&v["beeps_found"])));
        } else {
            said.push_str(&format!(", {} after the last word", time(&v["after_the_last_word"])));
        }
        said.push('\n');
        said
    };
    let mut out = format!("who answered, {}\n", plan.words(list));
    out.push_str(&line("persons", &json["persons"], false));
    out.push_str(&line("machines", &json["machines"], true));
    for (kind, v) in json["kinds"].as_object().into_iter().flatten() {
        out.push_str(&line(&format!("  {kind}"), v, v["beeps_found"]["of"].as_u64() != Some(0)));
    }
    let beeps = &json["false_beeps"];
    out.push_str(&format!(
        "false beeps: {} in {:.2} hours of speech\n",
        beeps["beeps"],
        beeps["hours_of_speech"].as_f64().unwrap_or(0.0)
    ));
    out
}

fn pick<T: Copy, const N: usize>(of: &[T; N], random: &mut Random) -> T {
    of[random.below(N)]
}

fn samples(ms: u32) -> usize {
    (ms * (RATE / 1_000)) as usize
}

fn millis(samples: usize) -> u32 {
    u32::try_from(samples).unwrap_or(u32::MAX) / (RATE / 1_000)
}

fn tone(hz: f64, ms: u32, amplitude: f64) -> Vec<f64> {
    (0..samples(ms)).map(|i| (std::f64::consts::TAU * hz * i as f64 / f64::from(RATE)).sin() * amplitude).collect()
}
