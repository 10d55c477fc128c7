//! What the softphone is told to do: a list of steps, from TOML or built in code.
//!
//! ```toml
//! [[step]]
//! wait_prompt = 700          # until the other side has spoken and then been silent for 700 ms
//! at_least_ms = 2000         # with wait_prompt: and has spoken this long in all, so that a short "one moment" doesn't count
//! timeout_ms = 20000         # every step may have one
//!
//! [[step]]
//! say = "number.wav"         # beside this file; mono 16-bit
//! text = "four two …"        # for timelines only
//! barge_in = 500             # speak over the other side once it has spoken for 500 ms
//!
//! [[step]]
//! keys = "1234#"
//!
//! [[step]]
//! repeat_digits = "../alice" # say the digits that the prompt ended with, by digit_0.wav … digit_9.wav in that folder
//! if_asked = true            # only if it asked for some; then wait as the last wait_prompt did, and again
//!
//! [[step]]
//! wait_ms = 300
//!
//! [[step]]
//! hold_ms = 5000             # the other side is put on hold, and back
//!
//! [[step]]
//! wait_hang_up = true        # or: hang_up = true
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::digits::{DigitEar, DigitVoice};
use crate::media::leg::{Key, Sound};

/// Steps in one script.
pub const SCRIPT_LIMIT_STEPS: usize = 500;
/// A script file longer than this is a mistake.
pub const SCRIPT_LIMIT_BYTES: u64 = 1024 * 1024;
/// Keys in one step.
pub const KEYS_LIMIT: usize = 64;
/// How long a step may take unless it says so itself.
pub const STEP_TIMEOUT_MS: u64 = 60_000;
/// The longest wait that a script may ask for, in milliseconds.
pub const WAIT_LIMIT_MS: u64 = 3_600_000;

/// A scripted caller.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Script {
    /// In order. When they are done the phone hangs up.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// The step fails, and the phone hangs up, when it takes longer.
    pub timeout: Duration,
}

/// What a step does.
#[derive(Clone, PartialEq, Eq)]
pub enum Action {
    /// Wait until the other side has spoken, for `at_least` in all, and then been silent for `silence`.
    WaitPrompt { silence: Duration, at_least: Duration },
    /// Wait.
    Wait(Duration),
    /// Speak. With `barge_in`, over the other side, once it has spoken that long; without, at once.
    Say { audio: Arc<Sound>, label: String, barge_in: Option<Duration> },
    /// Say the digits that the last prompt asked for. With `if_asked`, as often as prompts ask for some, which may be never.
    RepeatDigits { voice: DigitVoice, if_asked: bool },
    /// Press keys, one after another.
    Keys(Vec<Key>),
    /// Put the call on hold for so long.
    Hold(Duration),
    /// Wait until the other side hangs up.
    WaitHangUp,
    /// Hang up.
    HangUp,
}

impl std::fmt::Debug for Action {
    /// Neither keys nor audio.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

impl Action {
    /// In a few words, for timelines; keys are only counted.
    pub fn describe(&self) -> String {
        match self {
            Self::WaitPrompt { silence, at_least: _ } => format!("wait for {} ms of silence after a prompt", silence.as_millis()),
            Self::Wait(d) => format!("wait {} ms", d.as_millis()),
            Self::Say { label, barge_in: None, .. } => format!("say {label}"),
            Self::Say { label, barge_in: Some(d), .. } => format!("say {label} over the other side after {} ms", d.as_millis()),
            Self::RepeatDigits { if_asked: false, .. } => "say the digits that were asked for".to_owned(),
            Self::RepeatDigits { if_asked: true, .. } => "say the digits that were asked for, if any".to_owned(),
            Self::Keys(keys) => format!("press {} keys", keys.len()),
            Self::Hold(d) => format!("hold the call for {} ms", d.as_millis()),
            Self::WaitHangUp => "wait for the other side to hang up".to_owned(),
            Self::HangUp => "hang up".to_owned(),
        }
    }
}

impl From<Action> for Step {
    fn from(action: Action) -> Self {
        Self { action, timeout: Duration::from_millis(STEP_TIMEOUT_MS) }
    }
}

impl Step {
    /// Wait until the other side has spoken and then been silent for `silence_ms`.
    pub fn wait_prompt(silence_ms: u64) -> Self {
        Action::WaitPrompt { silence: Duration::from_millis(silence_ms), at_least: Duration::ZERO }.into()
    }

    /// Say a sound.
    pub fn say(label: &str, audio: Arc<Sound>) -> Self {
        Action::Say { audio, label: label.to_owned(), barge_in: None }.into()
    }

    /// Press keys; characters that aren't on a keypad are left out.
    pub fn keys(keys: &str) -> Self {
        Action::Keys(keys.chars().filter_map(Key::from_char).collect()).into()
    }

    /// With its own limit.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Script {
    /// Of these steps.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect() }
    }

    /// Reads a script and every sound that it names. Paths in it count from the script's own folder.
    pub fn load(path: &Path) -> Result<Self, ScriptError> {
        let unreadable = |source| ScriptError::Unreadable { file: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > SCRIPT_LIMIT_BYTES {
            return Err(ScriptError::TooLong { file: path.to_owned(), bytes: size });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, path, |name| crate::media::wav::read_wav(&folder.join(name)).map_err(|e| e.to_string()))
    }

    /// Reads a script from `text`; `file` is only for error messages, `sound` finds the sounds that it names.
    pub fn parse(text: &str, file: &Path, mut sound: impl FnMut(&str) -> Result<Sound, String>) -> Result<Self, ScriptError> {
        let written: WrittenScript = toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(1, |s| text.get(..s.start).map_or(1, |t| t.matches('\n').count() + 1));
            ScriptError::Malformed { file: file.to_owned(), line, detail: without_digits(e.message()) }
        })?;
        if written.step.is_empty() || written.step.len() > SCRIPT_LIMIT_STEPS {
            return Err(ScriptError::Count { file: file.to_owned(), steps: written.step.len() });
        }
        let mut steps = Vec::with_capacity(written.step.len());
        for (i, step) in written.step.into_iter().enumerate() {
            let step = step.checked(&mut sound);
            steps.push(step.map_err(|(key, problem)| ScriptError::Step { file: file.to_owned(), step: i + 1, key, problem })?);
        }
        Ok(Self { steps })
    }
}

/// Why a script can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// It can't be read.
    #[error("cannot read the script {}: {source}", file.display())]
    Unreadable {
        /// The script.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is absurdly long.
    #[error("the script {} is {bytes} bytes long; 1 MiB is the limit", file.display())]
    TooLong {
        /// The script.
        file: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It isn't TOML, or holds an unknown key.
    #[error("the script {}, line {line}: {detail}", file.display())]
    Malformed {
        /// The script.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// From the TOML reader.
        detail: String,
    },
    /// No steps, or too many.
    #[error("the script {} has {steps} steps; it needs 1 to 500 [[step]] tables", file.display())]
    Count {
        /// The script.
        file: PathBuf,
        /// How many it has.
        steps: usize,
    },
    /// A step makes no sense.
    #[error("the script {}, step {step}, key `{key}`: {problem}", file.display())]
    Step {
        /// The script.
        file: PathBuf,
        /// From 1.
        step: usize,
        /// The key at fault.
        key: &'static str,
        /// What is wrong and what to write.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenScript {
    #[serde(default)]
    step: Vec<WrittenStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStep {
    wait_prompt: Option<u64>,
    at_least_ms: Option<u64>,
    wait_ms: Option<u64>,
    say: Option<String>,
    text: Option<String>,
    barge_in: Option<u64>,
    repeat_digits: Option<String>,
    if_asked: Option<bool>,
    keys: Option<String>,
    hold_ms: Option<u64>,
    wait_hang_up: Option<bool>,
    hang_up: Option<bool>,
    timeout_ms: Option<u64>,
}

type Problem = (&'static str, String);

impl WrittenStep {
    fn checked(self, sound: &mut impl FnMut(&str) -> Result<Sound, String>) -> Result<Step, Problem> {
        let mut actions: Vec<(&'static str, Result<Action, Problem>)> = Vec::new();
        if let Some(ms) = self.wait_prompt {
            let at_least = self.at_least_ms.map_or(Ok(Duration::ZERO), |ms| millis("at_least_ms", ms));
            let action = millis("wait_prompt", ms).and_then(|silence| Ok(Action::WaitPrompt { silence, at_least: at_least? }));
            actions.push(("wait_prompt", action));
        }
        if let Some(ms) = self.wait_ms {
            actions.push(("wait_ms", millis("wait_ms", ms).map(Action::Wait)));
        }
        if let Some(name) = &self.say {
            let label = self.text.clone().unwrap_or_else(|| name.clone());
            let barge_in = self.barge_in.map(|ms| millis("barge_in", ms)).transpose();
            let action = barge_in.and_then(|barge_in| {
                let audio = sound(name).map_err(|e| ("say", e))?;
                Ok(Action::Say { audio: Arc::new(audio), label, barge_in })
            });
            actions.push(("say", action));
        }
        if let Some(folder) = &self.repeat_digits {
            let if_asked = self.if_asked.map_or(Ok(false), |yes| flag("if_asked", yes).map(|()| true));
            // What takes a moment to load is there before the call.
            let ear = DigitEar::of_the_service().map(|_| ());
            let voice = ear.and_then(|()| DigitVoice::new(|name| sound(&format!("{folder}/{name}"))));
            let voice = voice.map_err(|e| ("repeat_digits", e));
            let action = if_asked.and_then(|if_asked| Ok(Action::RepeatDigits { voice: voice?, if_asked }));
            actions.push(("repeat_digits", action));
        }
        if let Some(text) = &self.keys {
            actions.push(("keys", keys(text).map(Action::Keys)));
        }
        if let Some(ms) = self.hold_ms {
            actions.push(("hold_ms", millis("hold_ms", ms).map(Action::Hold)));
        }
        if let Some(yes) = self.wait_hang_up {
            actions.push(("wait_hang_up", flag("wait_hang_up", yes).map(|()| Action::WaitHangUp)));
        }
        if let Some(yes) = self.hang_up {
            actions.push(("hang_up", flag("hang_up", yes).map(|()| Action::HangUp)));
        }
        if actions.len() > 1 {
            let (second, _) = actions.pop().unwrap_or(("step", Err(("step", String::new()))));
            return Err((second, "a step does one thing: put this into a [[step]] of its own".to_owned()));
        }
        let Some((_, action)) = actions.pop() else {
            return Err((
                "step",
                "it does nothing: give it one of wait_prompt, wait_ms, say, repeat_digits, keys, hold_ms, wait_hang_up, hang_up"
                    .to_owned(),
            ));
        };
        let action = action?;
        if self.say.is_none() {
            if self.text.is_some() {
                return Err(("text", "only a `say` has a text".to_owned()));
            }
            if self.barge_in.is_some() {
                return Err(("barge_in", "only a `say` can barge in".to_owned()));
            }
        }
        if self.if_asked.is_some() && self.repeat_digits.is_none() {
            return Err(("if_asked", "only `repeat_digits` depends on what was asked".to_owned()));
        }
        if self.at_least_ms.is_some() && self.wait_prompt.is_none() {
            return Err(("at_least_ms", "only a `wait_prompt` asks for so much speech".to_owned()));
        }
        let timeout = millis("timeout_ms", self.timeout_ms.unwrap_or(STEP_TIMEOUT_MS))?;
        if let Action::Wait(d) | Action::Hold(d) = &action
            && *d > timeout
        {
            return Err(("timeout_ms", format!("it ends the step before its {} ms are over", d.as_millis())));
        }
        Ok(Step { action, timeout })
    }
}

fn millis(key: &'static str, ms: u64) -> Result<Duration, Problem> {
    if (1..=WAIT_LIMIT_MS).contains(&ms) {
        Ok(Duration::from_millis(ms))
    } else {
        Err((key, format!("{ms} is out of range: 1 to {WAIT_LIMIT_MS} milliseconds")))
    }
}

fn flag(key: &'static str, yes: bool) -> Result<(), Problem> {
    if yes { Ok(()) } else { Err((key, "it can only be true; leave the step out instead".to_owned())) }
}

/// A reader's complaint may quote a value, and that value may be a card number.
fn without_digits(message: &str) -> String {
    message.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect()
}

/// Never repeats the keys in its error: they may be a card number.
fn keys(text: &str) -> Result<Vec<Key>, Problem> {
    let keys: Vec<Key> = text
        .chars()
        .filter(|c| *c != ' ')
        .map(Key::from_char)
        .collect::<Option<_>>()
        .ok_or(("keys", "only 0-9, * and # are keys".to_owned()))?;
    if keys.is_empty() || keys.len() > KEYS_LIMIT {
        return Err(("keys", format!("{} keys: give 1 to {KEYS_LIMIT}", keys.len())));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::frame::SampleRate;

    fn parse(text: &str) -> Result<Script, ScriptError> {
        Script::parse(text, Path::new("calls/pay.toml"), |name| {
            if name == "missing.wav" {
                Err("no such file".to_owned())
            } else {
                Ok(Sound { rate: SampleRate::HZ_8000, samples: vec![1; 8] })
            }
        })
    }

    #[test]
    fn a_script_holds_its_steps_in_order() {
        let script = parse(
            "[[step]]\nwait_prompt = 700\ntimeout_ms = 5000\n[[step]]\nsay = \"a.wav\"\nbarge_in = 300\n\
             [[step]]\nkeys = \"12*#\"\n[[step]]\nwait_ms = 10\n[[step]]\nwait_hang_up = true\n[[step]]\nhang_up = true\n",
        )
        .unwrap();
        assert_eq!(script.steps.len(), 6);
        assert_eq!(script.steps[0], Step::wait_prompt(700).within(Duration::from_secs(5)));
        assert!(
            matches!(&script.steps[1].action, Action::Say { label, barge_in: Some(d), .. } if label == "a.wav" && d.as_millis() == 300)
        );
        assert_eq!(script.steps[2], Step::keys("12*#"));
        assert!(!format!("{script:?}").contains("12"), "keys must not print");
    }

    #[test]
    fn a_bad_script_names_file_step_and_key() {
        let cases = [
            ("[[step]]\nwait_ms = 5\n[[step]]\nkeys = \"12a4\"", "step 2, key `keys`"),
            ("[[step]]\nsay = \"missing.wav\"", "step 1, key `say`: no such file"),
            ("[[step]]\nsay = \"a.wav\"\nkeys = \"1\"", "step 1, key `keys`: a step does one thing"),
            ("[[step]]\ntimeout_ms = 5", "step 1, key `step`: it does nothing"),
            ("[[step]]\nwait_ms = 0", "step 1, key `wait_ms`: 0 is out of range"),
            ("[[step]]\nwait_ms = 50\ntimeout_ms = 10", "step 1, key `timeout_ms`"),
            ("[[step]]\nkeys = \"1\"\nbarge_in = 5", "step 1, key `barge_in`"),
            ("[[step]]\nrepeat_digits = \"missing\"\nif_asked = false", "step 1, key `if_asked`"),
            ("[[step]]\nwait_ms = 5\nif_asked = true", "step 1, key `if_asked`"),
            ("[[step]]\nhang_up = false", "step 1, key `hang_up`"),
            ("[[step]]\nhangup = true", "hangup"),
            ("", "has 0 steps"),
        ];
        for (text, want) in cases {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(want) && error.contains("calls/pay.toml"), "{text:?} gave {error}");
        }
        for leaky in ["[[step]]\nkeys = \"4242x\"", "[[step]]\nkeys = 4242424242424242", "[[step]]\nkeys = \"4242"] {
            let error = parse(leaky).unwrap_err().to_string();
            assert!(!error.contains("4242"), "{error}");
        }
        assert!(parse("[[step]]\nwait_ms = 1\nkeis = 1").unwrap_err().to_string().contains("line 3: unknown field `keis`"));
    }

    #[test]
    fn sounds_are_found_beside_the_script() {
        let dir = tempfile::tempdir().unwrap();
        let error = Script::load(&dir.path().join("none.toml")).unwrap_err().to_string();
        assert!(error.contains("none.toml"), "{error}");
        let path = dir.path().join("s.toml");
        std::fs::write(&path, "[[step]]\nsay = \"not-there.wav\"").unwrap();
        let error = Script::load(&path).unwrap_err().to_string();
        assert!(error.contains("step 1") && error.contains("not-there.wav"), "{error}");
    }
}
