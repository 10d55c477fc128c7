//! `voicepay calibrate`: from trial lists to the file that turns scores into likelihood ratios and false-accept rates into thresholds.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::eval::kit::{Sections, embedder, numbers, trained_on};
use super::exit::{CliError, CliResult, Exit};
use crate::clock::{Clock, SystemClock};
use crate::decision::{Calibration, Policy};
use crate::eval::calibrate::{self, Wanted};
use crate::eval::calibrate_number;
use crate::eval::data::Split;
use crate::eval::degrade::{Codec, Line};
use crate::eval::number;
use crate::eval::people::People;
use crate::eval::plan::Plan;
use crate::eval::rivals::Rivals;
use crate::eval::voiceprint::Judge;

/// Make or check a calibration.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay calibrate voice --data speechdata --out calibration.json --report calibration.txt\n  voicepay calibrate voice --data speechdata --list a.csv --list b.csv --name mine-1 --out mine.json\n  voicepay calibrate number --data speechdata --out numbers.json\n  voicepay calibrate check mine.json\n\nThe file is put to use by decision.calibration. Refused (exit 22): lists that are empty or overlap, a speaker both in the\ncohort and tested; (exit 18): a file for another model, an output that exists."
)]
pub struct CalibrateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Fit the voice's ratios and thresholds; the numbers' part is taken over from the calibration in force.
    Voice {
        /// Trials: every genuine utterance is tried against every enrolled speaker of its source. May be given several times.
        #[arg(long, value_name = "FILE", default_values_t = ["sv_card_trials.csv".to_owned()])]
        list: Vec<String>,
        /// The voices that the mean in force was made of (columns source, speaker): then it is that mean that scores. Without, each
        /// trial is scored by the mean of the list's other speakers.
        #[arg(long, value_name = "FILE")]
        cohort: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// Fit the ratios and thresholds of the recogniser in force; the voice's part and other recognisers' are taken over.
    Number {
        /// Genuine card numbers; each is tried against all its one-slip neighbours, clean and in babble of the enrolled voices.
        #[arg(long, value_name = "FILE", default_value = "card_utterances_confirmed.csv")]
        list: String,
        #[command(flatten)]
        how: How,
    },
    /// Whether a calibration can be read and was made for the voice model of this program.
    Check {
        /// The file.
        file: PathBuf,
    },
}

/// What both ask.
#[derive(Debug, Args)]
struct How {
    /// Root of the speech data.
    #[arg(long, value_name = "ROOT", env = "VOICEPAY_SPEECHDATA")]
    data: PathBuf,
    /// Which split: a folder of the root.
    #[arg(long, value_name = "NAME", default_value = "dev")]
    split: String,
    /// A seeded sample of so many trials or utterances.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// The line's codec, at 8 kHz.
    #[arg(long, value_enum, default_value_t = Codec::Mulaw)]
    codec: Codec,
    /// Seeds the sample and the noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Inferences at once; default: one a core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// The new calibration's name, kept with every score.
    #[arg(long = "name", value_name = "NAME", default_value = "calibration-mine")]
    name: String,
    /// Where to write it; an existing file is left alone.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Where to write its report, besides standard output.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

impl How {
    /// The plan; refused before anything is measured if the output is there.
    fn plan(&self) -> Result<Plan, CliError> {
        if self.out.exists() {
            let out = self.out.display();
            let text = format!("{out} is there already: a calibration is never overwritten, give another --out");
            return Err(CliError::new(Exit::Refused, text));
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Plan {
            limit: self.limit.and_then(|n| usize::try_from(n).ok()),
            seed: self.seed,
            threads: self.threads.map_or(cores, usize::from),
            ..Plan::new(Split::open(&self.data, &self.split)?, Line { seed: self.seed, ..Line::clean(self.codec) })
        })
    }

    fn hand_over(&self, (made, json, text): &(Calibration, Value, String), ctx: &Context) -> CliResult {
        let file = serde_json::to_string_pretty(made).map_err(|e| CliError::new(Exit::Unexpected, e))?;
        write(&self.out, &format!("{file}\n"))?;
        if let Some(report) = &self.report {
            write(report, &format!("{text}\n"))?;
        }
        ctx.answer(json, text);
        Ok(())
    }
}

/// Runs it.
pub fn run(args: CalibrateArgs, ctx: &Context) -> CliResult {
    let today = crate::cli::eval::day(SystemClock.now());
    match args.what {
        What::Voice { list, cohort, how } => {
            let (plan, sections) = (how.plan()?, Sections::of(ctx)?);
            let before = &sections.calibration;
            let judge = Judge { policy: &Policy::nobody(), calibration: before };
            let wanted = Wanted { lists: list, cohort, version: how.name.clone(), today, before };
            how.hand_over(&calibrate::voice(&plan, &embedder()?, &sections.voice, judge, &wanted)?, ctx)
        }
        What::Number { list, how } => {
            let (plan, sections) = (how.plan()?, Sections::of(ctx)?);
            let before = &sections.calibration;
            let engine = numbers(&sections.number, plan.threads, before)?;
            let judge = number::Judge {
                numbers: engine.as_ref(),
                thresholds: number::RawThresholds { accept_log_ratio: 0.0, reject_log_ratio: 0.0 },
                trained_on: &trained_on(&sections.number)?,
                people: &People::of(&plan.split)?,
                rivals: Rivals { neighbours: None, luhn_pairs: Some(0), random: 0 },
            };
            let wanted = calibrate_number::Wanted { list, version: how.name.clone(), today, before };
            how.hand_over(&calibrate_number::number(&plan, judge, &wanted)?, ctx)
        }
        What::Check { file } => check(&file, ctx),
    }
}

fn write(path: &Path, text: &str) -> CliResult {
    std::fs::write(path, text).map_err(|e| CliError::new(Exit::Eval, format!("{} can't be written: {e}", path.display())))
}

fn check(file: &Path, ctx: &Context) -> CliResult {
    let refused = |why: String| CliError::new(Exit::Refused, format!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| refused(e.to_string()))?;
    let calibration = Calibration::from_json(&text).map_err(|e| refused(e.to_string()))?;
    let embedder = embedder()?;
    calibration.voice_for(embedder.version().as_str()).map_err(|e| refused(e.to_string()))?;
    let engines: Vec<&str> = calibration.numbers.iter().map(|n| n.engine.as_str()).collect();
    let json = json!({ "version": calibration.version, "voice_model": calibration.voice.model, "engines": engines });
    let words = format!("{}: for {} and {}", calibration.version, calibration.voice.model, engines.join(", "));
    ctx.answer(&json, &words);
    Ok(())
}
