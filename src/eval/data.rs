//! Reads a folder of speech data: `ROOT/SPLIT/trials/*.csv` name clips by paths relative to ROOT. Any folder laid out so and
//! any split name will do. Every complaint names file, line and column.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::EvalError;

/// Longest silence a list may ask for, so that a slip in a list can't fill the memory.
const MAX_GAP_MS: u32 = 30_000;
/// Longest sound file taken, in seconds.
const MAX_SOUND_S: usize = 600;

/// One split of a data root.
#[derive(Clone, Debug)]
pub struct Split {
    /// The data root.
    pub root: PathBuf,
    /// The split's name: a folder in the root.
    pub name: String,
}

impl Split {
    /// Checks that both are there; an unknown split is answered with those that exist.
    pub fn open(root: &Path, name: &str) -> Result<Self, EvalError> {
        if !root.is_dir() {
            return Err(EvalError::NoRoot(root.to_path_buf()));
        }
        let plain = !name.is_empty() && !name.contains(['/', '\\']) && name != "." && name != "..";
        if !plain || !root.join(name).join("trials").is_dir() {
            let mut have: Vec<String> = std::fs::read_dir(root)
                .into_iter()
                .flatten()
                .flatten()
                .filter(|e| e.path().join("trials").is_dir())
                .map(|e| e.file_name().to_string_lossy().into_owned())
                .collect();
            have.sort();
            let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
            return Err(EvalError::NoSplit { root: root.to_path_buf(), split: name.to_owned(), have });
        }
        Ok(Self { root: root.to_path_buf(), name: name.to_owned() })
    }

    /// A list of this split's `trials/`.
    pub fn trials(&self, list: &str) -> PathBuf {
        self.root.join(&self.name).join("trials").join(list)
    }

    /// A list as `--list` names it: a path, or a name in the split or in its `trials/`.
    pub fn find_list(&self, list: &str) -> Result<PathBuf, EvalError> {
        let places = [PathBuf::from(list), self.root.join(&self.name).join(list), self.trials(list)];
        let found = places.iter().find(|p| p.is_file()).cloned();
        found.ok_or_else(|| EvalError::NoList {
            list: list.to_owned(),
            looked: places.map(|p| p.display().to_string()).join(", "),
        })
    }

    /// A clip: paths in lists are relative to the root. Paths that leave it are refused.
    pub fn clip(&self, path: &str) -> Result<PathBuf, EvalError> {
        let relative = Path::new(path);
        let inside = relative.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if !inside || path.is_empty() {
            let what = "clip paths are relative to the data root and stay inside it".to_owned();
            return Err(EvalError::Sound { file: relative.to_path_buf(), what });
        }
        Ok(self.root.join(relative))
    }
}

/// A CSV file with a header (RFC 4180: quotes, doubled quotes, commas and line ends inside quotes).
#[derive(Debug)]
pub struct Table {
    /// Where it was read from.
    pub file: PathBuf,
    header: Vec<String>,
    rows: Vec<(usize, Vec<String>)>,
}

impl Table {
    /// Reads a file.
    pub fn read(file: &Path) -> Result<Self, EvalError> {
        let list = |what: String| EvalError::List { file: file.to_path_buf(), what };
        let bytes = std::fs::read(file).map_err(|e| list(format!("can't be read: {e}")))?;
        let text = String::from_utf8(bytes).map_err(|e| list(format!("is no UTF-8 text: {e}")))?;
        Self::parse(file, &text)
    }

    /// Parses a text; `file` is for messages.
    pub fn parse(file: &Path, text: &str) -> Result<Self, EvalError> {
        let mut records = records(text).map_err(|line| EvalError::List {
            file: file.to_path_buf(),
            what: format!("line {line}: a quote is opened and never closed"),
        })?;
        records.retain(|(_, cells)| !matches!(cells.as_slice(), [only] if only.is_empty()));
        let mut records = records.into_iter();
        let Some((_, header)) = records.next() else {
            return Err(EvalError::List { file: file.to_path_buf(), what: "is empty: it needs a header line".to_owned() });
        };
        let table = Self { file: file.to_path_buf(), header, rows: records.collect() };
        for (line, cells) in &table.rows {
            if cells.len() != table.header.len() {
                let what = format!("line {line} has {} cells, the header {}", cells.len(), table.header.len());
                return Err(EvalError::List { file: table.file, what });
            }
        }
        Ok(table)
    }

    /// Whether there is such a column.
    pub fn has(&self, column: &str) -> bool {
        self.header.iter().any(|h| h == column)
    }

    /// The rows.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|(line, cells)| Row { table: self, line: *line, cells })
    }

    /// Complaint about the whole.
    pub fn complaint(&self, what: impl Into<String>) -> EvalError {
        EvalError::List { file: self.file.clone(), what: what.into() }
    }
}

/// A row, for asking by column.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    table: &'a Table,
    line: usize,
    cells: &'a [String],
}

impl<'a> Row<'a> {
    /// The text in a column; complains where there is no such column.
    pub fn get(&self, column: &str) -> Result<&'a str, EvalError> {
        let found = self.table.header.iter().position(|h| h == column).and_then(|at| self.cells.get(at));
        found.map(String::as_str).ok_or_else(|| self.complaint(column, "there is no such column"))
    }

    /// The text in a column, which may not be empty.
    pub fn filled(&self, column: &str) -> Result<&'a str, EvalError> {
        let text = self.get(column)?;
        if text.is_empty() { Err(self.complaint(column, "is empty")) } else { Ok(text) }
    }

    /// Milliseconds in a column.
    pub fn millis(&self, column: &str) -> Result<u32, EvalError> {
        self.parse_millis(column, self.get(column)?)
    }

    /// Digit values in a column.
    pub fn digits(&self, column: &str) -> Result<Vec<u8>, EvalError> {
        let text = self.filled(column)?;
        let digit = |b: u8| if b.is_ascii_digit() { Some(b - b'0') } else { None };
        text.bytes().map(digit).collect::<Option<_>>().ok_or_else(|| self.complaint(column, "should be digits only"))
    }

    /// `0` or `1`.
    pub fn flag(&self, column: &str) -> Result<bool, EvalError> {
        match self.get(column)? {
            "0" => Ok(false),
            "1" => Ok(true),
            other => Err(self.complaint(column, format!("should be 0 or 1, is \"{other}\""))),
        }
    }

    /// A complaint about this row.
    pub fn complaint(&self, column: &str, what: impl Into<String>) -> EvalError {
        EvalError::Cell { file: self.table.file.clone(), line: self.line, column: column.to_owned(), what: what.into() }
    }

    fn parse_millis(&self, column: &str, text: &str) -> Result<u32, EvalError> {
        match text.parse::<u32>() {
            Ok(ms) if ms <= MAX_GAP_MS => Ok(ms),
            Ok(ms) => Err(self.complaint(column, format!("{ms} ms is longer than {MAX_GAP_MS} ms"))),
            Err(_) => Err(self.complaint(column, format!("\"{text}\" is no whole number of milliseconds"))),
        }
    }
}

/// What an utterance is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Material {
    /// Clips joined with gaps between them, silence before and after. `gaps_ms` is one shorter than `clips`.
    Spliced { clips: Vec<String>, gaps_ms: Vec<u32>, lead_ms: u32, tail_ms: u32 },
    /// One recording as it is.
    Recording(String),
}

/// One utterance of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Its identifier; seeds everything random about it.
    pub id: String,
    /// `genuine`, `impostor` or `enrol`.
    pub role: String,
    /// Which collection it is from.
    pub source: String,
    /// Who speaks.
    pub speaker: String,
    /// Whom the speaker says to be.
    pub claimed: String,
    /// The digits said; empty where the list doesn't tell.
    pub digits: Vec<u8>,
    /// What it is made of.
    pub material: Material,
}

impl Recipe {
    /// A genuine utterance of these digits, for tests of what needs no sound.
    #[cfg(test)]
    pub(super) fn said(digits: &str) -> Self {
        Self {
            id: "u".to_owned(),
            role: "genuine".to_owned(),
            source: "s".to_owned(),
            speaker: "a".to_owned(),
            claimed: "a".to_owned(),
            digits: digits.bytes().map(|b| b - b'0').collect(),
            material: Material::Recording("x".to_owned()),
        }
    }

    /// Only its first `n` digits: the clips after them are left out. Recordings stay whole.
    #[must_use]
    pub fn truncated(&self, n: usize) -> Self {
        let mut short = self.clone();
        if let Material::Spliced { clips, gaps_ms, .. } = &mut short.material {
            clips.truncate(n);
            gaps_ms.truncate(n.saturating_sub(1));
            short.digits.truncate(n);
        }
        short
    }
}

/// Reads utterances: spliced ones (`utt_id … clips gaps_ms lead_ms tail_ms`) or recordings with their digits (`path speaker text`).
pub fn read_recipes(file: &Path) -> Result<Vec<Recipe>, EvalError> {
    let table = Table::read(file)?;
    let spliced = table.has("clips");
    let mut out = Vec::new();
    let mut seen = HashSet::new();
    for row in table.rows() {
        let recipe = if spliced { spliced_recipe(&row)? } else { recorded_recipe(&row)? };
        if !seen.insert(recipe.id.clone()) {
            return Err(
                row.complaint(if spliced { "utt_id" } else { "path" }, format!("\"{}\" stands twice in the list", recipe.id))
            );
        }
        out.push(recipe);
    }
    if out.is_empty() {
        return Err(table.complaint("lists nothing"));
    }
    Ok(out)
}

fn spliced_recipe(row: &Row<'_>) -> Result<Recipe, EvalError> {
    let clips: Vec<String> = row.filled("clips")?.split(';').map(str::to_owned).collect();
    if clips.iter().any(String::is_empty) {
        return Err(row.complaint("clips", "names an empty path"));
    }
    let gaps = row.get("gaps_ms")?;
    let gaps_ms: Vec<u32> =
        gaps.split(';').filter(|g| !g.is_empty()).map(|g| row.parse_millis("gaps_ms", g)).collect::<Result<_, _>>()?;
    if gaps_ms.len() + 1 != clips.len() {
        return Err(
            row.complaint("gaps_ms", format!("{} gaps don't fit {} clips: one fewer is needed", gaps_ms.len(), clips.len()))
        );
    }
    let digits = row.digits("text")?;
    if digits.len() != clips.len() {
        return Err(row.complaint("text", format!("{} digits don't fit {} clips", digits.len(), clips.len())));
    }
    Ok(Recipe {
        id: row.filled("utt_id")?.to_owned(),
        role: row.filled("role")?.to_owned(),
        source: row.filled("source")?.to_owned(),
        speaker: row.filled("speaker")?.to_owned(),
        claimed: row.filled("claimed_speaker")?.to_owned(),
        digits,
        material: Material::Spliced { clips, gaps_ms, lead_ms: row.millis("lead_ms")?, tail_ms: row.millis("tail_ms")? },
    })
}

fn recorded_recipe(row: &Row<'_>) -> Result<Recipe, EvalError> {
    let path = row.filled("path")?;
    let speaker = row.filled("speaker")?.to_owned();
    Ok(Recipe {
        id: recording_id(path),
        role: "genuine".to_owned(),
        source: recording_source(path),
        claimed: speaker.clone(),
        speaker,
        digits: row.digits("text")?,
        material: Material::Recording(path.to_owned()),
    })
}

/// A recording as an utterance of its own, digits unknown.
pub fn recording(path: &str, speaker: &str, claimed: &str) -> Recipe {
    Recipe {
        id: recording_id(path),
        role: if speaker == claimed { "genuine" } else { "impostor" }.to_owned(),
        source: recording_source(path),
        speaker: speaker.to_owned(),
        claimed: claimed.to_owned(),
        digits: Vec::new(),
        material: Material::Recording(path.to_owned()),
    }
}

fn recording_id(path: &str) -> String {
    path.rsplit_once('.').map_or(path, |(stem, _)| stem).replace('/', "__")
}

/// `SPLIT/SOURCE/…`.
fn recording_source(path: &str) -> String {
    path.split('/').nth(1).unwrap_or("recordings").to_owned()
}

/// Samples of a FLAC or WAV file as fractions of full scale, channels averaged, at the file's own rate.
pub fn read_sound(file: &Path) -> Result<(Vec<f64>, u32), EvalError> {
    let complain = |what: String| EvalError::Sound { file: file.to_path_buf(), what };
    let wav = file.extension().is_some_and(|e| e.eq_ignore_ascii_case("wav"));
    let (samples, rate) = if wav { read_wav(file) } else { read_flac(file) }.map_err(complain)?;
    if samples.is_empty() {
        return Err(complain("it holds no samples".to_owned()));
    }
    Ok((samples, rate))
}

fn read_flac(file: &Path) -> Result<(Vec<f64>, u32), String> {
    let mut reader = claxon::FlacReader::open(file).map_err(|e| e.to_string())?;
    let info = reader.streaminfo();
    let limit = limit_samples(info.sample_rate, info.channels);
    let full = full_scale(info.bits_per_sample);
    let mut raw = Vec::new();
    for sample in reader.samples() {
        if raw.len() >= limit {
            return Err(format!("it is longer than {MAX_SOUND_S} s"));
        }
        raw.push(f64::from(sample.map_err(|e| e.to_string())?) / full);
    }
    Ok((mono(&raw, info.channels), info.sample_rate))
}

fn read_wav(file: &Path) -> Result<(Vec<f64>, u32), String> {
    let mut reader = hound::WavReader::open(file).map_err(|e| e.to_string())?;
    let spec = reader.spec();
    let limit = limit_samples(spec.sample_rate, u32::from(spec.channels));
    if usize::try_from(reader.len()).map_or(true, |n| n > limit) {
        return Err(format!("it is longer than {MAX_SOUND_S} s"));
    }
    let raw: Vec<f64> = match spec.sample_format {
        hound::SampleFormat::Int => {
            let full = full_scale(u32::from(spec.bits_per_sample));
            reader.samples::<i32>().map(|s| s.map(|s| f64::from(s) / full)).collect::<Result<_, _>>()
        }
        hound::SampleFormat::Float => reader.samples::<f32>().map(|s| s.map(f64::from)).collect(),
    }
    .map_err(|e: hound::Error| e.to_string())?;
    if raw.iter().any(|s| !s.is_finite()) {
        return Err("it holds samples that are no numbers".to_owned());
    }
    Ok((mono(&raw, u32::from(spec.channels)), spec.sample_rate))
}

fn limit_samples(rate: u32, channels: u32) -> usize {
    MAX_SOUND_S.saturating_mul(rate as usize).saturating_mul(channels.max(1) as usize)
}

fn full_scale(bits: u32) -> f64 {
    2f64.powf(f64::from(bits.max(1)) - 1.0)
}

fn mono(raw: &[f64], channels: u32) -> Vec<f64> {
    let channels = channels.max(1) as usize;
    raw.chunks_exact(channels).map(|frame| frame.iter().sum::<f64>() / channels as f64).collect()
}

/// Splits CSV into records with the line on which each begins; `Err(line)` where an unclosed quote begins.
fn records(text: &str) -> Result<Vec<(usize, Vec<String>)>, usize> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut out, mut cells, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut began, mut quoted) = (1usize, 1usize, None::<usize>);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quoted) {
            ('"', Some(_)) if chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            ('"', Some(_)) => quoted = None,
            ('"', None) if cell.is_empty() => quoted = Some(line),
            (',', None) => cells.push(std::mem::take(&mut cell)),
            ('\r', None) if chars.peek() == Some(&'\n') => {}
            ('\n', None) => {
                cells.push(std::mem::take(&mut cell));
                out.push((began, std::mem::take(&mut cells)));
                line += 1;
                began = line;
            }
            (c, _) => {
                line += usize::from(c == '\n');
                cell.push(c);
            }
        }
    }
    if let Some(line) = quoted {
        return Err(line);
    }
    if !cell.is_empty() || !cells.is_empty() {
        cells.push(cell);
        out.push((began, cells));
    }
    Ok(out)
}

#[cfg(test)]
#[path = "data_tests.rs"]
mod tests;
