//! `hashFiles` beside the package that GitHub's runner uses: a key must be the same whoever computes it.

use firn_client::ci::{Base, hash_files::hash_files};
use firn_testkit::rigs::program::{cache_dir, command, run, workspace};
use std::os::unix::fs::symlink;
use std::path::Path;

/// Names with everything that patterns treat in a special way.
const FILES: &[&str] = &[
    "flake.lock",
    "flake.nix",
    ".hidden/flake.lock",
    ".dot",
    "a/flake.lock",
    "a/b/flake.lock",
    "a/b/c/deep.txt",
    "a-b/x",
    "a.b/x",
    "ab/x",
    "A/x",
    "[x]/y",
    "x/y",
    "star*/f",
    "q?/f",
    "back\\slash",
    "brace{1,2}",
    "!bang",
    "#hash",
    "with space/f g",
    "ünïcode/ñ",
    "𝒳/𝒴",
    "z-a",
    "]",
    "[",
    "-",
    "a]b",
    "node_modules/p/index.js",
    "p/node_modules/q/index.js",
    "empty",
];

const SETS: &[&[&str]] = &[
    &["flake.lock"],
    &["**/flake.lock"],
    &["**"],
    &["*"],
    &["./**", "!a"],
    &["**/flake.lock", "!a/b/**"],
    &["**/*", "!**/node_modules/**"],
    &["!**", "**/x"],
    &["a", "flake.nix"],
    &["flake.nix", "a"],
    &["a/"],
    &["a/**/"],
    &["flake.lock/"],
    &["flake.lock/**"],
    &["a/**/flake.lock"],
    &["a/*/flake.lock"],
    &["**/b/**"],
    &["**/**/x"],
    &["[ab]*/x"],
    &["[!a]*/x"],
    &["[^a]*/x"],
    &["[a-c]/**"],
    &["[z-a]"],
    &["[[]x]/y"],
    &["[x]/y"],
    &["\\[x\\]/y"],
    &["star\\*/f"],
    &["q[?]/f"],
    &["q?/*"],
    &["??/x"],
    &["back\\\\slash"],
    &["brace{1,2}"],
    &["+(a|b)/x"],
    &["@(a)/x"],
    &["#hash"],
    &["\\#hash"],
    &["\\!bang"],
    &["!!flake.lock"],
    &["with space/*"],
    &["  flake.nix  "],
    &["ünïcode/?"],
    &["?/?"],
    &["𝒳/*"],
    &["[]]"],
    &["[]-a]*"],
    &["[!]]"],
    &["[a"],
    &["a]b"],
    &[".*"],
    &["**/.*/**"],
    &["link-to-file", "link-to-folder", "link-to-folder/**"],
    &["nothing"],
    &["a/../flake.lock"],
    &["a/./b"],
    &["empty"],
];

/// More sets, put together from pieces by a small generator of the same numbers at every run.
fn generated() -> Vec<Vec<String>> {
    const PIECES: &[&str] = &[
        "**",
        "*",
        "a",
        "b",
        "?",
        "[a-c]",
        "[!a]",
        "flake.*",
        "x",
        "*.lock",
        "node_modules",
        ".hidden",
        "p",
        "[x]",
        "a*",
        "*b",
        "index.?s",
        "[A-Z]",
        "\\a",
    ];
    let mut state = 7u64;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    (0..400)
        .map(|_| {
            (0..=next(3))
                .map(|_| {
                    let pieces: Vec<&str> =
                        (0..=next(4)).map(|_| PIECES[next(PIECES.len())]).collect();
                    let negated = if next(4) == 0 { "!" } else { "" };
                    format!("{negated}{}", pieces.join("/"))
                })
                .collect()
        })
        .collect()
}

fn tree(root: &Path) {
    for file in FILES {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, if *file == "empty" { "" } else { file }).unwrap();
    }
    symlink("flake.lock", root.join("link-to-file")).unwrap();
    symlink("a", root.join("link-to-folder")).unwrap();
}

#[test]
fn hashes_are_those_of_github() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("work [of] *me*");
    tree(&root);
    let mut sets: Vec<Vec<String>> = SETS
        .iter()
        .map(|set| set.iter().map(|&pattern| pattern.to_owned()).collect())
        .collect();
    sets.extend(generated());
    let list = folder.path().join("sets.json");
    std::fs::write(&list, serde_json::to_vec(&sets).unwrap()).unwrap();
    let package = cache_dir().join("node/node_modules/@actions/glob");
    assert!(
        package.is_dir(),
        "@actions/glob is not there: run `make setup`"
    );
    let said = run(command("node")
        .arg(workspace().join("crates/cli/tests/it/ci/hash_files.js"))
        .args([&package, &list])
        .current_dir(&root))
    .ok();
    let expected: Vec<String> = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let base = Base {
        directory: root,
        home: None,
    };
    let mut found = 0;
    for (set, expected) in sets.iter().zip(&expected) {
        let own = hash_files(set, &base).unwrap_or_default();
        assert_eq!(own, *expected, "{set:?}");
        found += usize::from(!expected.is_empty());
    }
    assert!(found > 100, "only {found} sets match anything");
}
