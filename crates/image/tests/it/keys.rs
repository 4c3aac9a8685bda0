//! The key that a layer is planned with is the one that is computed from its tar.

use crate::support::{Store, bytes};
use firn_formats::layer::{Found, Scan, Terms};
use firn_image::{
    compose::PlannedImage,
    plan::Algorithm,
    spec::{CopiedPath, ImageSpec, RootContent, RootFile, Rule, Rules},
};
use std::sync::Arc;

fn computed(image: &PlannedImage, layer: usize) -> Found {
    let recipe = image.layer_recipe(layer).unwrap();
    let terms: Option<Arc<Terms>> = recipe.map(|recipe| Arc::new(recipe.terms().unwrap()));
    let tar = bytes(&image.layer_archive(layer).unwrap());
    let pass = |mut scan: Scan| {
        tar.chunks(1000).for_each(|piece| scan.push(piece));
        scan.finish()
    };
    match pass(Scan::new(terms.clone())) {
        Found::Mixed { paths_key } => pass(Scan::mixed(terms, &paths_key)),
        found => found,
    }
}

fn rule(path: &str, regex: &str, mode: Option<&str>) -> Rule {
    Rule {
        path: Some(path.to_owned()),
        regex: Some(regex.to_owned()),
        mode: mode.map(str::to_owned),
        uid: Some(1000),
        gid: Some(1 << 40),
    }
}

/// Root files that sort before, in and behind `nix`.
fn files() -> Vec<RootFile> {
    ["aaa/x", "nix/var/nix/db/db.sqlite", "zzz/y"]
        .map(|path| RootFile {
            path: path.to_owned(),
            content: RootContent::File(b"content\n".to_vec()),
            mode: 0o640,
        })
        .to_vec()
}

#[test]
fn s1_the_key_of_each_layer_is_computed_from_its_tar() {
    let store = Store::new();
    let all_rules = [
        Rules::default(),
        Rules::new(Vec::new(), 70_000, 5).unwrap(),
        Rules::new(
            vec![
                rule("/nix", "tool$", Some("0700")),
                rule("/", "lib", None),
                rule("/etc", "passwd", Some("0600")),
                rule("/nix/store", "so.6$", Some("4755")),
            ],
            1,
            2,
        )
        .unwrap(),
    ];
    for rules in all_rules {
        for max_layers in [1, 2, 10] {
            for files in [Vec::new(), files()] {
                let spec = ImageSpec {
                    algorithm: Algorithm::Popularity,
                    max_layers,
                    files,
                    rules: rules.clone(),
                    ..ImageSpec::default()
                };
                let image = store.image(&["app"], spec);
                for (index, layer) in image.layers.iter().enumerate() {
                    let expected = Found::Key(layer.key.clone());
                    assert_eq!(computed(&image, index), expected, "{}", layer.comment);
                }
            }
        }
    }
}

#[test]
fn s1_a_layer_with_copies_has_no_key_that_could_be_computed() {
    let store = Store::new();
    let closure = store.closure(&["tool"]);
    let info = closure.paths.iter().find(|info| info.path.name() == "tool");
    let info = info.unwrap();
    for max_layers in [1, 10] {
        let spec = ImageSpec {
            max_layers,
            copy_to_root: vec![CopiedPath {
                path: info.path.clone(),
                nar_hash: info.nar_hash,
            }],
            ..ImageSpec::default()
        };
        let image = store.image(&["app"], spec);
        let index = image.layers.iter().position(|layer| layer.root_files);
        let index = index.unwrap();
        let planned = Found::Key(image.layers[index].key.clone());
        assert_ne!(computed(&image, index), planned);
    }
}
