//! The fuzzers' corpora, replayed: whatever once went wrong or reaches far into a reader stays survived (`make fuzz`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

#[path = "../fuzz/targets.rs"]
mod targets;

/// All corpora together; they are kept minimised.
const CORPORA_LIMIT_BYTES: u64 = 200 * 1024;

#[test]
fn every_input_of_the_corpora_is_survived() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut bytes = 0;
    for (name, target) in targets::ALL {
        let mut files: Vec<_> = fs::read_dir(corpora.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{name} has no corpus");
        for file in files {
            let input = fs::read(&file).unwrap();
            bytes += u64::try_from(input.len()).unwrap();
            let survived = std::panic::catch_unwind(|| target(&input));
            assert!(survived.is_ok(), "{name} does not survive {}", file.display());
        }
    }
    assert!(bytes <= CORPORA_LIMIT_BYTES, "{bytes} bytes: minimise the corpora (scripts/fuzz.sh --minimise)");
}
