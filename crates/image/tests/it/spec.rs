//! What a spec asks for, in the layers: copies, rules, users, groups of layers.

use crate::support::{HASHES, Store, bytes, run, text, write};
use firn_image::{
    compose::{PlanError, PlannedImage, plan_image_in},
    plan::{Algorithm, GroupError},
    sbom::{Sbom, SbomFormat},
    spec::{Accounts, CopiedPath, Group, ImageSpec, LayerGroup, Rule, Rules, User},
};
use std::fs;

fn bare() -> ImageSpec {
    ImageSpec {
        root_links: false,
        users: false,
        tmp: false,
        ..ImageSpec::default()
    }
}

fn listing(store: &Store, image: &PlannedImage, layer: usize) -> Vec<String> {
    let file = store.dir().join("layer.tar");
    fs::write(&file, bytes(&image.layer_archive(layer).unwrap())).unwrap();
    let listed = run("tar", &["--numeric-owner", "-tvf", text(&file)]);
    let columns = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        format!("{} {} {}", columns[0], columns[1], columns[5..].join(" "))
    };
    String::from_utf8(listed)
        .unwrap()
        .lines()
        .map(columns)
        .collect()
}

fn copied(store: &Store, name: &str) -> CopiedPath {
    let closure = store.closure(&[name]);
    let info = closure
        .paths
        .iter()
        .find(|info| info.path == store.path(name));
    CopiedPath {
        path: store.path(name),
        nar_hash: info.unwrap().nar_hash,
    }
}

fn rule(path: Option<&str>, regex: Option<&str>, mode: Option<&str>, uid: Option<u64>) -> Rule {
    Rule {
        path: path.map(str::to_owned),
        regex: regex.map(str::to_owned),
        mode: mode.map(str::to_owned),
        uid,
        gid: uid,
    }
}

#[test]
fn copies_lie_at_the_root_by_the_rules_and_links_beside_them() {
    let store = Store::new();
    let rules = vec![
        rule(Some("/etc"), None, None, Some(5)),
        rule(None, Some("/bin/tool$"), Some("4711"), None),
    ];
    let spec = ImageSpec {
        root_links: true,
        copy_to_root: vec![copied(&store, "tool")],
        rules: Rules::new(rules, 0, 0).unwrap(),
        ..bare()
    };
    let image = store.image(&["app"], spec);
    let app = format!("/nix/store/{}-app", HASHES[2]);
    let top = image.layers.len() - 1;
    assert_eq!(
        listing(&store, &image, top),
        [
            "drwxr-xr-x 0/0 bin/".to_owned(),
            format!("lrwxrwxrwx 0/0 bin/app -> {app}/bin/app"),
            "-rws--x--x 0/0 bin/tool".to_owned(),
            "drwxr-xr-x 5/5 etc/".to_owned(),
            "-rw-r--r-- 5/5 etc/tool.conf".to_owned(),
            format!("lrwxrwxrwx 0/0 long -> {app}/long"),
            "drwxr-xr-x 0/0 share/".to_owned(),
            format!("lrwxrwxrwx 0/0 share/doc -> {app}/share/doc"),
            "-rw-r--r-- 0/0 share/notes".to_owned(),
        ]
    );
}

/// A layer's key says what is in it: without reading, so by the copied path's hash, and by the rules.
#[test]
fn keys_change_with_what_is_copied_and_with_rules_alone_where_they_can_match() {
    let store = Store::new();
    let keys = |spec: ImageSpec| -> Vec<String> {
        let image = store.image(&["app"], spec);
        image.layers.into_iter().map(|layer| layer.key).collect()
    };
    let copy = |store: &Store| ImageSpec {
        copy_to_root: vec![copied(store, "tool")],
        ..bare()
    };
    let plain = keys(bare());
    let before = keys(copy(&store));
    assert_eq!(before, keys(copy(&store)));
    assert_eq!(before[..plain.len()], plain[..]);
    let file = store.local("tool").join("etc/tool.conf");
    fs::remove_file(&file).unwrap();
    write(&file, b"x = 2\n", 0o444);
    let after = keys(copy(&store));
    assert_ne!(before.last(), after.last(), "the content is another");

    let ruled = |rules: Vec<Rule>, uid| {
        let rules = Rules::new(rules, uid, uid).unwrap();
        keys(ImageSpec { rules, ..bare() })
    };
    let plain = keys(bare());
    assert_eq!(
        ruled(vec![rule(Some("/etc"), None, Some("700"), None)], 0),
        plain
    );
    assert_ne!(
        ruled(vec![rule(None, Some("x"), Some("700"), None)], 0),
        plain
    );
    assert_ne!(ruled(Vec::new(), 1000), plain);
    let app = store.path("app").absolute();
    let some = ruled(vec![rule(Some(&app), None, None, Some(9))], 0);
    let changed = some.iter().filter(|key| !plain.contains(key)).count();
    assert_eq!(changed, 1, "the layer of the one path");
}

#[test]
fn rules_and_owners_reach_into_the_store() {
    let store = Store::new();
    let rules = vec![rule(None, Some("/bin/app$"), Some("0500"), Some(3))];
    let spec = ImageSpec {
        max_layers: 1,
        rules: Rules::new(rules, 10, 20).unwrap(),
        ..bare()
    };
    let image = store.image(&["app"], spec);
    let listed = listing(&store, &image, 0);
    let app = format!("nix/store/{}-app", HASHES[2]);
    assert!(
        listed.contains(&format!("-r-x------ 3/3 {app}/bin/app")),
        "{listed:#?}"
    );
    assert!(
        listed.contains(&"drwxr-xr-x 10/20 nix/".to_owned()),
        "{listed:#?}"
    );
}

#[test]
fn users_have_lines_and_homes() {
    let store = Store::new();
    let spec = ImageSpec {
        accounts: Accounts {
            users: vec![User {
                name: "app".to_owned(),
                uid: 1000,
                gid: Some(50),
                home: Some("/home/app".to_owned()),
                shell: None,
                description: "The app".to_owned(),
            }],
            groups: vec![Group {
                name: "staff".to_owned(),
                gid: 50,
                members: vec!["app".to_owned()],
            }],
        },
        users: true,
        ..bare()
    };
    let image = store.image(&["app"], spec);
    let top = image.layers.len() - 1;
    let listed = listing(&store, &image, top);
    assert!(
        listed.contains(&"drwx------ 1000/50 home/app/".to_owned()),
        "{listed:#?}"
    );
    let tar = String::from_utf8_lossy(&bytes(&image.layer_archive(top).unwrap())).into_owned();
    assert!(tar.contains("app:x:1000:50:The app:/home/app:/bin/sh\n"));
    assert!(tar.contains("root:x:0:\nnobody:x:65534:\nstaff:x:50:app\n"));
}

#[test]
fn groups_have_layers_of_their_own_and_no_path_is_in_two() {
    let store = Store::new();
    let group = |name: &str| LayerGroup {
        paths: vec![store.path(name)],
        max_layers: 1,
    };
    let names = |image: &PlannedImage| -> Vec<Vec<String>> {
        let name = |&path: &usize| image.closure.paths[path].path.name().to_owned();
        let layers = image.layers.iter();
        layers
            .map(|layer| layer.paths.iter().map(name).collect())
            .collect()
    };
    let with = |groups: Vec<LayerGroup>, max_layers| {
        let spec = ImageSpec {
            groups,
            max_layers,
            algorithm: Algorithm::One,
            ..bare()
        };
        plan_image_in(store.dir(), store.closure(&["app"]), spec)
    };
    let image = with(vec![group("tool"), group("libc")], 5).unwrap();
    assert_eq!(names(&image), [vec!["libc", "tool"], vec!["app"]]);
    let image = with(vec![group("libc"), group("tool")], 3).unwrap();
    assert_eq!(names(&image), [vec!["libc"], vec!["tool"], vec!["app"]]);
    let refused = with(vec![group("libc"), group("tool")], 2);
    let too_many = GroupError::TooMany {
        needed: 3,
        limit: 2,
    };
    assert!(matches!(refused, Err(PlanError::Group(error)) if error == too_many));
}

#[test]
fn bills_of_materials_say_the_same_whatever_the_order() {
    let store = Store::new();
    let closure = store.closure(&["app"]);
    let bill = |closure: &firn_image::closure::Closure, format| {
        let sbom = Sbom {
            name: "app:1",
            created: "1970-01-01T00:00:01Z",
            closure,
        };
        sbom.to_json(format).unwrap()
    };
    let mut turned = closure.clone();
    turned.paths.reverse();
    for format in [SbomFormat::Spdx, SbomFormat::CycloneDx] {
        assert_eq!(bill(&closure, format), bill(&turned, format));
    }
    let spdx: serde_json::Value =
        serde_json::from_slice(&bill(&closure, SbomFormat::Spdx)).unwrap();
    assert_eq!(spdx["spdxVersion"], "SPDX-2.3");
    assert_eq!(spdx["packages"].as_array().unwrap().len(), 4);
    let relations = spdx["relationships"].as_array().unwrap();
    let depends = relations
        .iter()
        .filter(|r| r["relationshipType"] == "DEPENDS_ON");
    assert_eq!(depends.count(), 3, "{relations:?}");
    let cyclone: serde_json::Value =
        serde_json::from_slice(&bill(&closure, SbomFormat::CycloneDx)).unwrap();
    assert_eq!(cyclone["components"].as_array().unwrap().len(), 3);
    let top = &cyclone["dependencies"][0];
    assert_eq!(top["dependsOn"][0], store.path("app").to_string());
}
