//! What must hold of any bytes, one function a target. The fuzzer calls these with what it makes up; an
//! ordinary test (`crates/chunks/tests/it/corpus.rs`) calls them with what was found that way and kept.

mod actions;
mod http;
mod image;
mod layer;
mod nix;
mod oci;
mod push;
mod store;
mod tar;

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets. Each has a file in `fuzz_targets/` and a folder in `corpus/`.
pub const TARGETS: &[Target] = &[
    ("nar", nix::nar),
    ("narinfo", nix::narinfo),
    ("derivation", nix::derivation),
    ("tar", tar::tar),
    ("layer", layer::layer),
    ("manifest", oci::manifest),
    ("push_wire", push::wire),
    ("push_json", push::json),
    ("nar_layout", push::layout),
    ("frame", store::frame),
    ("segment", store::segment),
    ("pack", store::pack),
    ("store_files", store::files),
    ("listing", nix::listing),
    ("names", nix::names),
    ("rewrap", nix::rewrap),
    ("image_config", oci::image_config),
    ("reference", oci::reference),
    ("image_history", image::history),
    ("http", http::headers),
    ("twirp", actions::twirp),
    ("block_list", actions::block_list),
];

/// Runs one target; it panics if something does not hold.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, check) = target.expect("a target of the table");
    check(input);
}
