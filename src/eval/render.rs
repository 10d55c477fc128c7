//! Writes utterances as they are measured, for ears and for peers: 16-bit WAV at 8 kHz and an index (file, source, speaker, digits, seconds).

use std::path::Path;

use serde_json::{Value, json};

use super::EvalError;
use super::data::{Recipe, read_recipes};
use super::degrade::RATE;
use super::holdout::TrainedOn;
use super::number::default_list;
use super::plan::Plan;
use super::work::{self, Progress};

/// Renders the list's genuine and enrolment utterances to `out`, but for those of speakers in `leave_out`.
pub fn run(plan: &Plan, out: &Path, leave_out: &TrainedOn, digits: Option<usize>) -> Result<(Value, String), EvalError> {
    let name = plan.list.clone().unwrap_or_else(|| default_list(plan));
    let mut listed = read_recipes(&plan.split.find_list(&name)?)?;
    listed.retain(|r| r.role != "impostor" && !leave_out.heard(&r.source, &r.speaker));
    if listed.is_empty() {
        return Err(EvalError::Conditions(format!("{name} holds nothing to render")));
    }
    let recipes: Vec<Recipe> = plan.draw(&listed).iter().map(|r| digits.map_or_else(|| r.clone(), |n| r.truncated(n))).collect();
    let unwritable =
        |file: &Path, e: &dyn std::fmt::Display| EvalError::Conditions(format!("{} can't be written: {e}", file.display()));
    std::fs::create_dir_all(out).map_err(|e| unwritable(out, &e))?;
    let progress = Progress::new("rendering", recipes.len());
    let rows = work::map(&recipes, plan.threads, &progress, |recipe| {
        let samples = plan.samples(recipe)?;
        // Identifiers come from a list: only what can't leave the folder goes into a file's name.
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
        let file = out.join(format!("{}.wav", recipe.id.chars().map(safe).collect::<String>()));
        let spec =
            hound::WavSpec { channels: 1, sample_rate: RATE, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
        let write = || -> Result<(), hound::Error> {
            let mut writer = hound::WavWriter::create(&file, spec)?;
            samples.iter().try_for_each(|s| writer.write_sample(*s))?;
            writer.finalize()
        };
        write().map_err(|e| unwritable(&file, &e))?;
        let digits: String = recipe.digits.iter().map(|d| char::from(b'0' + d.min(&9))).collect();
        let shown = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let plain = |text: &str| text.replace(',', "_");
        let seconds = samples.len() as f64 / f64::from(RATE);
        Ok(format!("{shown},{},{},{digits},{seconds:.2}\n", plain(&recipe.source), plain(&recipe.speaker)))
    })?;
    let index = out.join("index.csv");
    let text = format!("file,source,speaker,text,duration_s\n{}", rows.concat());
    std::fs::write(&index, text).map_err(|e| unwritable(&index, &e))?;
    let told = format!("{} utterances rendered to {}", rows.len(), out.display());
    Ok((json!({ "rendered": rows.len(), "out": out, "conditions": plan.conditions(&name, &[]) }), told))
}
