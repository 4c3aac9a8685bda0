//! Files at the root: links, merged directories, conflicts, users, temporary directories.

use crate::support::{HASHES, Store, bytes, run, text, write};
use firn_formats::Sha256;
use firn_image::{
    compose::{PlannedImage, plan_image_in},
    spec::{CopiedPath, ImageSpec},
};
use std::{fs, os::unix::fs::symlink, path::Path};

/// Mode, path and target of each entry of the top layer.
fn entries(store: &Store, image: &PlannedImage) -> Vec<String> {
    let top = image.layers.len() - 1;
    let file = store.dir().join("root.tar");
    fs::write(&file, bytes(&image.layer_archive(top).unwrap())).unwrap();
    let output = run("tar", &["-tvf", text(&file)]);
    let output = String::from_utf8(output).unwrap();
    let columns = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        format!("{} {}", columns[0], columns[5..].join(" "))
    };
    output.lines().map(columns).collect()
}

fn links_only() -> ImageSpec {
    ImageSpec {
        users: false,
        tmp: false,
        ..ImageSpec::default()
    }
}

fn store_path(index: usize, name: &str) -> String {
    format!("/nix/store/{}-{name}", HASHES[index])
}

#[test]
fn one_root_is_linked_whole() {
    let store = Store::new();
    let image = store.image(&["app"], links_only());
    let app = store_path(2, "app");
    assert_eq!(
        entries(&store, &image),
        [
            format!("lrwxrwxrwx bin -> {app}/bin"),
            format!("lrwxrwxrwx long -> {app}/long"),
            format!("lrwxrwxrwx share -> {app}/share"),
        ]
    );
    assert_eq!(image.conflicts, []);
}

#[test]
fn several_roots_are_merged_and_the_first_wins() {
    let store = Store::new();
    fs::create_dir(store.local("tool").join("nix-support")).unwrap();
    let image = store.image(&["app", "tool", "libc"], links_only());
    let (libc, tool, app) = (
        store_path(0, "libc"),
        store_path(1, "tool"),
        store_path(2, "app"),
    );
    assert_eq!(
        entries(&store, &image),
        [
            "drwxr-xr-x bin/".to_owned(),
            format!("lrwxrwxrwx bin/app -> {app}/bin/app"),
            format!("lrwxrwxrwx bin/tool -> {tool}/bin/tool"),
            "drwxr-xr-x etc/".to_owned(),
            format!("lrwxrwxrwx etc/tool.conf -> {tool}/etc/tool.conf"),
            format!("lrwxrwxrwx lib -> {libc}/lib"),
            format!("lrwxrwxrwx long -> {app}/long"),
            "drwxr-xr-x share/".to_owned(),
            format!("lrwxrwxrwx share/doc -> {app}/share/doc"),
            format!("lrwxrwxrwx share/notes -> {tool}/share/notes"),
        ]
    );
    let [conflict] = image.conflicts.as_slice() else {
        panic!("{:?}", image.conflicts)
    };
    assert_eq!(conflict.path, Path::new("/share/notes"));
    assert_eq!(conflict.kept, store.path("tool"));
    assert_eq!(conflict.dropped, store.path("libc"));
}

#[test]
fn the_same_file_is_no_conflict_and_circles_end() {
    let store = Store::new();
    let (tool, app) = (store.local("tool"), store.local("app"));
    symlink(tool.join("bin/tool"), app.join("bin/tool")).unwrap();
    for root in [&tool, &app] {
        symlink(".", root.join("bin/X11")).unwrap();
        symlink("../b", {
            fs::create_dir(root.join("a")).unwrap();
            root.join("a/x")
        })
        .unwrap();
        symlink("../a", {
            fs::create_dir(root.join("b")).unwrap();
            root.join("b/y")
        })
        .unwrap();
    }
    let image = store.image(&["app", "tool"], links_only());
    let conflicts: Vec<_> = image.conflicts.iter().map(|c| c.path.as_path()).collect();
    assert!(!conflicts.contains(&Path::new("/bin/tool")));
    assert!(conflicts.contains(&Path::new("/bin/X11")));
    assert!(conflicts.len() < 10, "{conflicts:?}");
}

#[test]
fn generated_files_go_beside_what_the_roots_have() {
    let store = Store::new();
    write(
        &store.local("tool").join("etc/group"),
        b"mine:x:7:\n",
        0o444,
    );
    let image = store.image(&["tool"], ImageSpec::default());
    let tool = store_path(1, "tool");
    assert_eq!(
        entries(&store, &image),
        [
            format!("lrwxrwxrwx bin -> {tool}/bin"),
            "drwxr-xr-x etc/".to_owned(),
            format!("lrwxrwxrwx etc/group -> {tool}/etc/group"),
            "-rw-r--r-- etc/nsswitch.conf".to_owned(),
            "-rw-r--r-- etc/passwd".to_owned(),
            format!("lrwxrwxrwx etc/tool.conf -> {tool}/etc/tool.conf"),
            "drwx------ root/".to_owned(),
            format!("lrwxrwxrwx share -> {tool}/share"),
            "drwxrwxrwt tmp/".to_owned(),
            "drwxr-xr-x var/".to_owned(),
            "dr-xr-xr-x var/empty/".to_owned(),
            "drwxrwxrwt var/tmp/".to_owned(),
        ]
    );
}

#[test]
fn a_root_that_is_a_file_is_not_linked() {
    let store = Store::new();
    fs::remove_dir_all(store.local("tool")).unwrap();
    write(&store.local("tool"), b"#!/bin/sh\n", 0o555);
    let image = store.image(&["tool"], links_only());
    assert!(image.layers.iter().all(|layer| !layer.root_files));
}

/// What lies at the root is not known without the files; an image without its links would be a wrong one.
#[test]
fn a_path_that_is_absent_is_an_error_where_its_files_decide_about_the_root() {
    let store = Store::new();
    symlink(
        format!("{}/share", store_path(0, "libc")),
        store.local("tool").join("linked"),
    )
    .unwrap();
    let plan = |roots: &[&str], spec: ImageSpec, absent: &str| {
        let closure = store.closure(roots);
        let away = store.dir().join("away");
        fs::rename(store.local(absent), &away).unwrap();
        let planned = plan_image_in(store.dir(), closure, spec);
        fs::rename(&away, store.local(absent)).unwrap();
        planned.map(|_| ()).map_err(|error| error.to_string())
    };
    let copies = |name: &str| ImageSpec {
        root_links: false,
        copy_to_root: vec![CopiedPath {
            path: store.path(name),
            nar_hash: Sha256::of(b""),
        }],
        ..links_only()
    };
    let without_links = || ImageSpec {
        root_links: false,
        ..links_only()
    };
    for (roots, spec, absent) in [
        (&["app"][..], links_only(), "app"),
        (&["app", "tool"], links_only(), "tool"),
        // A link of a root leads there, and whether it leads to a directory decides.
        (&["tool"], links_only(), "libc"),
        (&["app"], copies("tool"), "tool"),
    ] {
        let refused = plan(roots, spec, absent).unwrap_err();
        let path = store.path(absent).absolute();
        assert!(
            refused.contains(&path) && refused.contains("is not on this machine"),
            "{refused}"
        );
    }
    plan(&["app"], without_links(), "app").unwrap();
    plan(&["app"], links_only(), "libc").unwrap();
}
