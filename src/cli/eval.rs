//! `voicepay eval`: voiceprint, number, decision on files, all of it with a report; and what `make bench` asks of this side.

pub(super) mod kit;

use std::path::PathBuf;

use super::Context;
use super::exit::{CliError, CliResult, Exit};
use crate::clock::{Clock, SystemClock};
use crate::eval::all::{self, Everywhere};
use crate::eval::bench::Bench;
use crate::eval::data::Split;
use crate::eval::degrade::{Codec, Line, Network, Noise};
use crate::eval::holdout::TrainedOn;
use crate::eval::people::People;
use crate::eval::plan::Plan;
use crate::eval::rivals::Rivals;
use crate::eval::{EvalError, decision, number, pickup, render, reuse, vad, voiceprint};
use kit::{Judging, Sections, activity, embedder, numbers, trained_on};

/// Measure voice and number recognition on files.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  voicepay eval voiceprint --data speechdata --codec mulaw\n  voicepay eval voiceprint --data speechdata --digits 4 --pairs all\n  voicepay eval number --data speechdata --codec mulaw --snr 15 --noise noise/babble8 --limit 50 --json\n  voicepay eval decision --data speechdata --split dev --codec mulaw --json\n  voicepay eval all --data speechdata --out models\n\nThe data folder holds SPLIT/trials/*.csv; clip paths in the lists are relative to it. Rates are fractions in JSON.\nUtterances are spliced, brought to -23 dBFS, mixed with noise, coded at 8 kHz, and heard as the service hears them."
)]
pub struct EvalArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// How well voices are told apart.
    Voiceprint {
        #[command(flatten)]
        common: Common,
        /// Only the first N digits of each spliced utterance.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=19))]
        digits: Option<u8>,
        /// The list's own trials, or every utterance against every enrolled speaker of its source.
        #[arg(long, value_enum, default_value_t = PairsArg::Listed)]
        pairs: PairsArg,
        /// Recordings as they are at 16 kHz and voices over all of that band, which the service does not do: what it would bring.
        #[arg(long, conflicts_with_all = ["noise", "loss", "jitter", "enrol_codec"])]
        wide: bool,
    },
    /// How well card numbers are heard, and what passes that should not.
    Number {
        #[command(flatten)]
        common: Common,
        /// Wrong numbers one slip away that are tried against each utterance: `all` (about 325) or how many to draw.
        #[arg(long, value_name = "all|N", default_value = "all", value_parser = neighbours)]
        neighbours: Neighbours,
        /// Random other numbers tried against each utterance.
        #[arg(long, value_name = "N", default_value_t = 40)]
        random: usize,
        /// Luhn-valid numbers two digits away that are tried against each utterance: `all` (1080 for 16 digits) or how many to draw.
        #[arg(long, value_name = "all|N", default_value = "all", value_parser = neighbours)]
        luhn_pairs: Neighbours,
    },
    /// Voice and number together, as the service judges them.
    Decision {
        #[command(flatten)]
        common: Common,
        /// Near misses that could be real cards, tried against each genuine utterance.
        #[arg(long, value_name = "N", default_value_t = NEAR_MISSES)]
        near_misses: usize,
    },
    /// Everything under every condition, with a report and charts. Noise and codec are part of it: --codec, --noise and --list don't count.
    All {
        #[command(flatten)]
        common: Common,
        /// The folder for REPORT.md and plots/.
        #[arg(long, value_name = "DIR", default_value = "models")]
        out: PathBuf,
        /// What benches/peers.py measured in the same run.
        #[arg(long, value_name = "FILE")]
        peers: Option<PathBuf>,
        /// Leave parts out: voice, number, decision, reuse.
        #[arg(long, value_name = "PART,…", value_delimiter = ',')]
        without: Vec<all::Part>,
    },
    /// When the caller speaks, pauses and ends: energy alone beside energy and network.
    Vad {
        #[command(flatten)]
        common: Common,
    },
    /// Who answered a call of ours: persons taken for machines and the other way round, beeps.
    Pickup {
        #[command(flatten)]
        common: Common,
        /// A folder of recordings that are machines' greetings.
        #[arg(long, value_name = "DIR", default_value = "audio-fixtures/machine")]
        greetings: PathBuf,
    },
    /// Whether audio that was heard before is known again, and natural speech is not taken for it.
    Reuse {
        #[command(flatten)]
        common: Common,
    },
    /// Write the utterances as 8 kHz WAV, as they are measured, with an index.csv.
    Render {
        #[command(flatten)]
        common: Common,
        /// Leave out speakers who trained the recogniser.
        #[arg(long)]
        unheard: bool,
        /// Only the first N digits of each spliced utterance.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=19))]
        digits: Option<u8>,
        /// The folder to write to.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Speed and memory of this side, asked on standard input by `scripts/bench.sh`, which runs the peers in turns with it.
    #[command(hide = true)]
    Bench,
}

/// What all evaluations share.
#[derive(Debug, clap::Args)]
struct Common {
    /// Root of the speech data.
    #[arg(long, value_name = "ROOT", env = "VOICEPAY_SPEECHDATA")]
    data: PathBuf,
    /// Which split: a folder of the root.
    #[arg(long, value_name = "NAME", default_value = "dev")]
    split: String,
    /// Another list: a path, or a name in the split or its trials/.
    #[arg(long, value_name = "FILE")]
    list: Option<String>,
    /// A seeded sample of this size instead of the whole list.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// The line's codec, at 8 kHz; Opus codes 16 kHz.
    #[arg(long, value_enum, default_value_t = Codec::Mulaw)]
    codec: Codec,
    /// Another codec that voices are enrolled over: whoever enrolled by telephone may confirm in an app.
    #[arg(long, value_enum)]
    enrol_codec: Option<Codec>,
    /// Speech level over noise level, in dB; needs --noise.
    #[arg(long, value_name = "DB", requires = "noise", allow_negative_numbers = true)]
    snr: Option<f64>,
    /// What is behind the speech: a sound file, a folder of them (one drawn an utterance), white or pink. 15 dB unless --snr.
    #[arg(long, value_name = "DIR|FILE|white|pink")]
    noise: Option<String>,
    /// Packets of the call that are lost, in percent: they go through the receiver of a real call.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=50))]
    loss: Option<u32>,
    /// Packets are 0 to so many milliseconds late, evenly; through the receiver of a real call, too.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=400))]
    jitter: Option<u32>,
    /// Seeds the sample, the noise, the network, the random numbers and the intervals.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Inferences at once, one thread each; default: one a core. Latencies are best measured with 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PairsArg {
    /// As listed.
    Listed,
    /// All within a source.
    All,
}

#[derive(Clone, Copy, Debug)]
struct Neighbours(Option<usize>);

fn neighbours(text: &str) -> Result<Neighbours, String> {
    match text {
        "all" => Ok(Neighbours(None)),
        n => n.parse().map(|n| Neighbours(Some(n))).map_err(|_| "give `all` or a whole number".to_owned()),
    }
}

/// Near misses that could be real cards, tried against each genuine utterance.
const NEAR_MISSES: usize = 6;

/// Noise is this far under the speech unless told otherwise, in dB.
const SNR_DEFAULT_DB: f64 = 15.0;

impl Common {
    fn plan(self) -> Result<Plan, EvalError> {
        let split = Split::open(&self.data, &self.split)?;
        if self.snr.is_some_and(|s| !s.is_finite()) {
            return Err(EvalError::Conditions("--snr must be a number of decibels".to_owned()));
        }
        let noise = match &self.noise {
            Some(name) => Noise::find(name, &split.root, &split.name)?,
            None => Noise::None,
        };
        let network = (self.loss.is_some() || self.jitter.is_some())
            .then(|| Network { loss_permille: self.loss.unwrap_or(0) * 10, jitter_ms: self.jitter.unwrap_or(0) });
        if network.is_some() && self.codec == Codec::None {
            return Err(EvalError::Conditions("--loss and --jitter need packets: give --codec mulaw, alaw or Opus".to_owned()));
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let line = Line { codec: self.codec, noise, snr_db: self.snr.unwrap_or(SNR_DEFAULT_DB), network, seed: self.seed };
        Ok(Plan {
            enrol_codec: self.enrol_codec,
            list: self.list,
            noise_name: self.noise,
            limit: self.limit.and_then(|n| usize::try_from(n).ok()),
            seed: self.seed,
            threads: self.threads.map_or(cores, usize::from),
            ..Plan::new(split, line)
        })
    }
}

/// Runs it.
pub fn run(args: EvalArgs, ctx: &Context) -> CliResult {
    let config = Sections::of(ctx)?;
    let (json, text) = match args.what {
        What::Voiceprint { common, digits, pairs, wide } => {
            let plan = Plan { wide, ..common.plan()? };
            let embedder = embedder()?;
            let pairs = match pairs {
                PairsArg::Listed => voiceprint::Pairs::Listed,
                PairsArg::All => voiceprint::Pairs::All,
            };
            let judge = voiceprint::Judge { policy: &config.voice_policy(&embedder)?, calibration: &config.calibration };
            let embedder = if wide { embedder.over_the_whole_band() } else { embedder };
            voiceprint::run(&plan, &embedder, &config.voice, judge, digits.map(usize::from), pairs)?
        }
        What::Number { common, neighbours: Neighbours(neighbours), random, luhn_pairs: Neighbours(luhn_pairs) } => {
            let plan = common.plan()?;
            let numbers = numbers(&config.number, plan.threads, &config.calibration)?;
            let judge = number::Judge {
                numbers: numbers.as_ref(),
                thresholds: config.raw_number_thresholds(numbers.as_ref()),
                trained_on: &trained_on(&config.number)?,
                people: &People::of(&plan.split)?,
                rivals: Rivals { neighbours, luhn_pairs, random },
            };
            number::run(&plan, judge)?
        }
        What::Decision { common, near_misses } => {
            let plan = common.plan()?;
            let judging = Judging::of(&config, &plan)?;
            decision::run(&plan, judging.judges(&config, near_misses))?
        }
        What::All { common, out, peers, without } => {
            let plan = common.plan()?;
            let judging = Judging::of(&config, &plan)?;
            let judges = judging.judges(&config, NEAR_MISSES);
            let thresholds = config.raw_number_thresholds(judges.numbers);
            let everywhere = Everywhere { plan, judges, thresholds, peers, without };
            all::run(&everywhere, &out, &today())?
        }
        What::Reuse { common } => reuse::run(&common.plan()?)?.told(),
        What::Render { common, out, unheard, digits } => {
            let leave_out = if unheard { trained_on(&config.number)? } else { TrainedOn::default() };
            render::run(&common.plan()?, &out, &leave_out, digits.map(usize::from))?
        }
        What::Vad { common } => vad::run(&common.plan()?, config.speech.card, &activity(&config.speech, true)?)?,
        What::Pickup { common, greetings } => {
            pickup::run(&common.plan()?, config.speech.pickup, &activity(&config.speech, config.speech.vad.neural)?, &greetings)?
        }
        What::Bench => {
            let (embedder, numbers) = (embedder()?, numbers(&config.number, 1, &config.calibration)?);
            let policy = config.policy(&embedder, numbers.as_ref())?;
            let bench = Bench {
                embedder: &embedder,
                numbers: numbers.as_ref(),
                voice: &config.voice,
                policy: &policy,
                calibration: &config.calibration,
            };
            return Ok(bench.serve(std::io::stdin().lock(), std::io::stdout().lock())?);
        }
    };
    ctx.answer(&json, &text);
    Ok(())
}

/// The day, UTC.
fn today() -> String {
    day(SystemClock.now())
}

/// The day of a moment, UTC.
pub(super) fn day(at: crate::clock::Timestamp) -> String {
    let now = time::OffsetDateTime::from_unix_timestamp(at.0 / 1000);
    now.map_or_else(|_| "an unknown day".to_owned(), |t| t.date().to_string())
}

impl From<EvalError> for CliError {
    fn from(error: EvalError) -> Self {
        Self::new(Exit::Eval, error)
    }
}
