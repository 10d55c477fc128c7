//! Measuring on files, no phone: what `voicepay eval` runs and every claim about accuracy or speed is made with.
//!
//! `data` reads lists and sound, `people` and `holdout` know the speakers, `checks` refuses what would prove nothing, `splice` and
//! `degrade` make telephone audio, `metrics` and `neighbours` are pure arithmetic, `work` spreads inference over threads;
//! `voiceprint`, `number` and `decision` each measure one thing; `results` are what they
//! hand over, `plot` draws it, `all` runs everything and `report` writes it down.

pub mod all;
pub mod bench;
pub mod calibrate;
pub mod calibrate_number;
pub mod checks;
pub mod clones;
pub mod data;
pub mod decision;
pub mod decision_figures;
pub mod degrade;
pub mod holdout;
pub mod metrics;
pub mod neighbours;
pub mod number;
pub mod people;
pub mod pickup;
pub mod plan;
pub mod plot;
pub mod random;
pub mod render;
pub mod report;
pub mod results;
pub mod reuse;
pub mod rivals;
pub mod splice;
pub mod vad;
pub mod voice_figures;
pub mod voiceprint;
pub mod work;

use std::path::PathBuf;

/// Why an evaluation can't run. Every message says which file, where in it, and what is wrong or to be done.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The folder named by `--data` isn't there.
    #[error("there is no folder {}: give the root of a speech data folder with --data (it holds SPLIT/trials/*.csv)", .0.display())]
    NoRoot(PathBuf),
    /// The root has no such split.
    #[error("{root} has no split \"{split}\" (a folder with trials/ in it); it has: {have}", root = .root.display())]
    NoSplit {
        /// The data root.
        root: PathBuf,
        /// What was asked for.
        split: String,
        /// What is there.
        have: String,
    },
    /// A list is nowhere to be found.
    #[error("there is no list {list}: looked for {looked}")]
    NoList {
        /// As it was named.
        list: String,
        /// Where it was looked for.
        looked: String,
    },
    /// Something in a list is wrong.
    #[error("{file}, line {line}, column \"{column}\": {what}", file = .file.display())]
    Cell {
        /// The list.
        file: PathBuf,
        /// Counted from 1, the header being line 1.
        line: usize,
        /// The column's name in the header.
        column: String,
        /// What is wrong with it.
        what: String,
    },
    /// A list as a whole is wrong.
    #[error("{file}: {what}", file = .file.display())]
    List {
        /// The list.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A sound file can't be used.
    #[error("{file} can't be used as sound: {what}", file = .file.display())]
    Sound {
        /// The sound file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The conditions don't go together.
    #[error("{0}")]
    Conditions(String),
    /// An engine refused an utterance or failed.
    #[error("{what} of {utterance}: {why}")]
    Engine {
        /// What was being done.
        what: &'static str,
        /// The utterance or speaker.
        utterance: String,
        /// The engine's own words.
        why: String,
    },
}
