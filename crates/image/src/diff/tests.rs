use super::*;
use crate::{
    closure::{Closure, PathInfo},
    compose::{PlannedImage, plan_image_in},
    plan::{Algorithm, History},
    spec::ImageSpec,
};
use firn_formats::Sha256;

/// Name, version of what it is built of, size, references (by name).
type Thing = (&'static str, u32, u64, &'static [&'static str]);

fn closure(things: &[Thing]) -> Closure {
    let letters = b"0123456789abcdfghijklmnpqrsvwxyz";
    let mut known: BTreeMap<&str, StorePath> = BTreeMap::new();
    let mut paths = Vec::new();
    for (name, build, size, references) in things {
        let references: Vec<StorePath> =
            references.iter().map(|name| known[name].clone()).collect();
        let seed = Sha256::of(format!("{name}{build}{references:?}").as_bytes());
        let hash: String = seed
            .0
            .iter()
            .map(|byte| char::from(letters[usize::from(byte % 32)]))
            .collect();
        let path = StorePath::parse_base_name(&format!("{hash}-{name}")).unwrap();
        known.insert(name, path.clone());
        paths.push(PathInfo {
            nar_hash: Sha256::of(path.to_string().as_bytes()),
            path,
            nar_size: *size,
            references,
            deriver: None,
            signatures: Vec::new(),
            ca: None,
        });
    }
    let roots = paths
        .last()
        .map(|info| info.path.clone())
        .into_iter()
        .collect();
    Closure::new(paths, roots).unwrap()
}

fn planned(things: &[Thing], max_layers: usize, history: History) -> PlannedImage {
    let spec = ImageSpec {
        max_layers,
        history,
        algorithm: Algorithm::History,
        root_links: false,
        users: false,
        tmp: false,
        ..ImageSpec::default()
    };
    plan_image_in(std::path::Path::new("/nonexistent"), closure(things), spec).unwrap()
}

fn compared(old: &PlannedImage, new: &PlannedImage) -> Diff {
    let mut facts = Facts::default();
    facts.add_closure(&old.closure);
    facts.add_closure(&new.closure);
    diff(&View::of_plan(old), &View::of_plan(new), &facts)
}

fn name(base: &str) -> &str {
    &base[33..]
}

const OLD: [Thing; 5] = [
    ("glibc-2.38", 1, 300, &[]),
    ("openssl-3.0.12", 1, 50, &["glibc-2.38"]),
    ("curl-8.5", 1, 20, &["openssl-3.0.12", "glibc-2.38"]),
    ("ffmpeg-6.1", 1, 800, &["glibc-2.38"]),
    ("app-1", 1, 10, &["curl-8.5", "ffmpeg-6.1"]),
];

#[test]
fn a_cause_is_followed_to_what_is_renamed_for_it() {
    let new: [Thing; 5] = [
        OLD[0],
        ("openssl-3.0.13", 1, 51, &["glibc-2.38"]),
        ("curl-8.5", 1, 20, &["openssl-3.0.13", "glibc-2.38"]),
        OLD[3],
        ("app-1", 1, 10, &["curl-8.5", "ffmpeg-6.1"]),
    ];
    let found = compared(
        &planned(&OLD, 9, History::default()),
        &planned(&new, 9, History::default()),
    );
    let layer = |wanted: &str| {
        let mut layers = found.layers.iter();
        layers
            .find(|layer| layer.paths.iter().any(|path| name(path) == wanted))
            .unwrap()
    };
    assert!(layer("glibc-2.38").reused && layer("ffmpeg-6.1").reused);
    let openssl = &layer("openssl-3.0.13").reasons[0];
    assert_eq!(openssl.what, What::Changed);
    assert_eq!(openssl.was.as_deref().map(name), Some("openssl-3.0.12"));
    let curl = &layer("curl-8.5").reasons[0];
    assert_eq!(curl.what, What::Renamed);
    assert_eq!(
        curl.because.iter().map(|p| name(p)).collect::<Vec<_>>(),
        ["openssl-3.0.13"]
    );
    let app = &layer("app-1").reasons[0];
    assert_eq!(
        app.because.iter().map(|p| name(p)).collect::<Vec<_>>(),
        ["curl-8.5", "openssl-3.0.13"]
    );
    assert_eq!(found.causes.len(), 1, "{:?}", found.causes);
    let cause = &found.causes[0];
    assert_eq!(
        (name(&cause.path), cause.paths_renamed, cause.layer_bytes),
        ("openssl-3.0.13", 3, 81)
    );
    assert_eq!(
        (found.bytes_pushed, found.bytes_reused, found.bytes_new),
        (81, 1100, 81)
    );
}

#[test]
fn what_is_the_same_is_all_reused() {
    let image = planned(&OLD, 3, History::default());
    let found = compared(&image, &image);
    assert!(found.layers.iter().all(|layer| layer.reused));
    assert_eq!(found.same_below, found.layers.len());
    assert!(found.causes.is_empty() && found.config.is_empty() && !found.order_changed);
}

/// A layer that is put together otherwise is pushed, though no path changed.
#[test]
fn a_move_is_a_reason() {
    let all = planned(&OLD, 1, History::default());
    let apart = planned(&OLD, 2, History::default());
    let found = compared(&all, &apart);
    let reasons: Vec<What> = found
        .layers
        .iter()
        .flat_map(|l| l.reasons.iter().map(|r| r.what))
        .collect();
    assert!(
        reasons
            .iter()
            .all(|what| matches!(what, What::MovedIn | What::MovedOut)),
        "{reasons:?}"
    );
    assert_eq!(found.bytes_new, 0);
    assert_eq!(found.bytes_pushed, 1180);
    assert!(!found.causes.is_empty());
}

#[test]
fn what_came_and_went_is_said() {
    let git: [Thing; 5] = [
        OLD[0],
        OLD[1],
        OLD[2],
        OLD[3],
        ("app-1", 2, 10, &["curl-8.5", "ffmpeg-6.1"]),
    ];
    let less: [Thing; 3] = [OLD[0], OLD[3], ("app-1", 1, 9, &["ffmpeg-6.1"])];
    let rebuilt = compared(
        &planned(&OLD, 9, History::default()),
        &planned(&git, 9, History::default()),
    );
    let what: Vec<What> = rebuilt.causes.iter().map(|cause| cause.what).collect();
    assert_eq!(what, [What::Changed], "the same version of another build");
    let smaller = compared(
        &planned(&OLD, 1, History::default()),
        &planned(&less, 1, History::default()),
    );
    let reasons: Vec<(What, &str)> = smaller.layers[0]
        .reasons
        .iter()
        .map(|r| (r.what, name(&r.path)))
        .collect();
    assert_eq!(
        reasons,
        [
            (What::Changed, "app-1"),
            (What::Removed, "openssl-3.0.12"),
            (What::Removed, "curl-8.5")
        ]
    );
}

#[test]
fn fields_of_the_config_are_compared_one_by_one() {
    let parse = |json: &str| serde_json::from_str(json).unwrap();
    let old = parse(
        r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
            "config":{"Env":["PATH=/bin","A=1"],"Cmd":["x"],"Labels":{"v":"1"}},"history":[]}"#,
    );
    let new = parse(
        r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
            "config":{"Env":["PATH=/bin:/sbin"],"Cmd":["x"],"Labels":{"v":"2"},"User":"me"},
            "history":[{"created_by":"x"}]}"#,
    );
    let found: Vec<(String, Option<String>, Option<String>)> = config::changes(&old, &new)
        .into_iter()
        .map(|change| (change.field, change.old, change.new))
        .collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        found,
        [
            ("Env.A".to_owned(), some("1"), None),
            ("Env.PATH".to_owned(), some("/bin"), some("/bin:/sbin")),
            ("Labels.v".to_owned(), some("1"), some("2")),
            ("User".to_owned(), None, some("me")),
        ]
    );
}
