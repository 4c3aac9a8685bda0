//! What the fuzzer found worth keeping, run without it: each input of `fuzz/corpus` through the function that
//! the target of its folder calls.

// The fuzz targets are a workspace of their own, for a nightly compiler; their functions need none.
#[path = "../../../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, clippy::expect_used)]
mod fuzz;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn fuzz_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz")
        .join(name)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let items = std::fs::read_dir(folder).unwrap();
    let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    items.map(|item| stem(item.unwrap().path())).collect()
}

#[test]
fn every_input_that_was_kept_passes() {
    for (target, _) in fuzz::TARGETS {
        let mut inputs = 0;
        for item in std::fs::read_dir(fuzz_folder("corpus").join(target)).unwrap() {
            let path = item.unwrap().path();
            let input = std::fs::read(&path).unwrap();
            let outcome = std::panic::catch_unwind(|| fuzz::run(target, &input));
            assert!(outcome.is_ok(), "{} fails", path.display());
            inputs += 1;
        }
        assert!(inputs > 0, "{target} has no corpus");
        // What every length of input meets first.
        for input in [&[][..], &[0], &[0xff; 100]] {
            fuzz::run(target, input);
        }
    }
}

#[test]
fn every_target_has_a_file_and_a_corpus() {
    let targets: BTreeSet<String> = fuzz::TARGETS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(names(&fuzz_folder("corpus")), targets);
    assert_eq!(names(&fuzz_folder("fuzz_targets")), targets);
}
