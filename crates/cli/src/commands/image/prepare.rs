//! From flags and a spec to what is planned: paths resolved, the base image found, the closure read.

use super::{
    inspect::repository,
    spec_args::{Said, SpecArgs},
};
use crate::{
    context::Global,
    failure::{Failure, Outcome},
};
use firn_client::{
    image::{base_of_file, base_of_repository},
    local_store::{LocalStore, image_database},
    progress::Progress,
    resolve::{resolve_all, store_path},
};
use firn_formats::{
    nix::{StorePath, store_path::STORE_DIR},
    oci::Platform,
};
use firn_image::{
    archive::ArchiveError,
    base::BaseImage,
    closure::Closure,
    compose::{PlanError, PlannedImage, plan_image_in},
    plan::History,
    spec::{
        Accounts, CREATED, CopiedPath, ImageSpec, LAYERS_DEFAULT, LayerGroup, Rules, SpecDocument,
        named_store_paths, texts_of_config,
    },
};
use std::{path::Path, sync::Arc};

/// An image but for its history.
pub(crate) struct Prepared {
    pub(crate) spec: ImageSpec,
    pub(crate) closure: Closure,
}

/// What `--from-image` may need.
#[derive(Clone, Copy)]
pub(crate) struct Rights<'a> {
    pub(crate) global: &'a Global,
    /// Where the image goes, and by which credentials: the base may lie in the same registry.
    pub(crate) to: Option<(&'a str, &'a str)>,
}

impl<'a> Rights<'a> {
    /// Of a command that pushes nowhere.
    pub(crate) fn of(global: &'a Global) -> Self {
        Self { global, to: None }
    }
}

impl SpecArgs {
    /// Resolves the PATHs and all that the spec names, and reads the closure.
    pub(crate) fn prepare(
        &self,
        store: &LocalStore,
        rights: Rights<'_>,
        paths: &[String],
        progress: &dyn Progress,
    ) -> Outcome<Prepared> {
        let said = self.said()?;
        let document = &said.document;
        let max_layers = document.max_layers.unwrap_or(LAYERS_DEFAULT);
        if !(1..=127).contains(&max_layers) {
            return Err(
                Failure::new(format!("--max-layers {max_layers} is not from 1 to 127"))
                    .hint("overlayfs takes 127 layers; 100 leave room to build upon the image"),
            );
        }
        let contents = resolve_all(&[paths, &document.contents].concat())?;
        let copied = resolve_all(&document.copy_to_root)?;
        let mut spec = self.spec(&said, max_layers, &contents, store)?;
        let base = document.from_image.as_ref();
        spec.base = base
            .map(|image| self.base(rights, image, &spec.platform()))
            .transpose()?;
        if spec.base.is_some() {
            // The base has its own.
            spec.users = document.fake_nss.unwrap_or(false);
            spec.tmp = document.tmp.unwrap_or(false);
        }
        let mut wanted = contents.clone();
        wanted.extend(spec.groups.iter().flat_map(|group| group.paths.clone()));
        wanted.extend(named(document, &spec, store, progress)?);
        let mut closure = closure(document, store, &wanted, &copied)?;
        spec.copy_to_root = copied_paths(&closure, &copied);
        closure.roots.retain(|root| contents.contains(root));
        let is_only_copied = |path: &StorePath| !wanted.contains(path);
        let only_copied: Vec<StorePath> = copied.into_iter().filter(is_only_copied).collect();
        closure.without_unreferenced(&only_copied);
        if document.include_nix_db {
            spec.files.extend(image_database(&closure)?);
        }
        if document.include_store_paths == Some(false) {
            closure.paths.clear();
        }
        if let Some(base) = spec.base.take() {
            spec.base = Some(with_tree(base, &spec, &closure)?);
        }
        Ok(Prepared { spec, closure })
    }

    /// [`SpecArgs::prepare`] and [`Prepared::plan`].
    pub(crate) fn plan(
        &self,
        store: &LocalStore,
        rights: Rights<'_>,
        paths: &[String],
        history: History,
        progress: &dyn Progress,
    ) -> Outcome<PlannedImage> {
        let prepared = self.prepare(store, rights, paths, progress)?;
        prepared.plan(store, history, progress)
    }

    fn spec(
        &self,
        said: &Said,
        max_layers: usize,
        roots: &[StorePath],
        store: &LocalStore,
    ) -> Outcome<ImageSpec> {
        let document = &said.document;
        let mut config = document.config.clone();
        if let Some(entrypoint) = &mut config.entrypoint
            && let Some(program) = entrypoint.first_mut()
        {
            match resolve_program(store, roots, program) {
                Ok(path) => *program = path,
                // Else whoever runs the image looks for it: it may be the base's.
                Err(failure)
                    if !self.entrypoint.is_empty() && said.document.from_image.is_none() =>
                {
                    return Err(failure);
                }
                Err(_) => {}
            }
        }
        let rules = Rules::new(document.perms.clone(), document.uid, document.gid);
        let architecture = document.architecture.clone();
        Ok(ImageSpec {
            config,
            architecture: architecture
                .unwrap_or_else(|| self::architecture(std::env::consts::ARCH).to_owned()),
            variant: document.variant.clone(),
            os: document.os.clone().unwrap_or_else(|| "linux".to_owned()),
            created: created(document.created.as_deref())?,
            annotations: document.annotations.clone(),
            max_layers,
            algorithm: said.algorithm,
            groups: groups(document)?,
            compression: said.compression,
            root_links: !self.no_root_links,
            users: document.fake_nss.unwrap_or(true),
            accounts: Accounts {
                users: document.users.clone(),
                groups: document.groups.clone(),
            },
            tmp: document.tmp.unwrap_or(true),
            rules: rules.map_err(|error| Failure::of(&error))?,
            ..ImageSpec::default()
        })
    }

    fn base(&self, rights: Rights<'_>, image: &str, platform: &Platform) -> Outcome<BaseImage> {
        let path = Path::new(image);
        if path.exists() {
            return Ok(base_of_file(path, platform)?);
        }
        if image.starts_with(['/', '.']) {
            return Err(Failure::new(format!("{image}: there is no such file")));
        }
        let same = |to: &(&str, &str)| image.split('/').next() == to.0.split('/').next();
        let theirs = rights.to.filter(same).map(|(_, creds)| creds);
        let creds = self.from_creds.as_deref().or(theirs);
        let (repository, wanted) = repository(rights.global, image, creds)?;
        Ok(base_of_repository(
            image,
            &Arc::new(repository),
            &wanted,
            platform,
        )?)
    }
}

impl Prepared {
    /// Plans the layers.
    pub(crate) fn plan(
        self,
        store: &LocalStore,
        history: History,
        progress: &dyn Progress,
    ) -> Outcome<PlannedImage> {
        let spec = ImageSpec {
            history,
            ..self.spec
        };
        let planned = plan_image_in(store.store_dir(), self.closure, spec)
            .map_err(|error| not_planned(&error))?;
        for conflict in &planned.conflicts {
            progress.note(&format!(
                "{} is {}'s; {} has one too",
                conflict.path.display(),
                conflict.kept,
                conflict.dropped
            ));
        }
        Ok(planned)
    }
}

fn not_planned(error: &PlanError) -> Failure {
    let failure = Failure::of(error);
    match error {
        PlanError::Archive(ArchiveError::Absent(path)) => failure.hint(format!(
            "bring it here with `firn pull {}`, or leave out the links with --no-root-links",
            path.absolute()
        )),
        _ => failure,
    }
}

/// What lies below matters only where something is put at the root.
fn with_tree(base: BaseImage, spec: &ImageSpec, closure: &Closure) -> Outcome<BaseImage> {
    let links = spec.root_links && !closure.roots.is_empty();
    let others = spec.users || spec.tmp || !spec.accounts.is_empty() || !spec.files.is_empty();
    match links || others || !spec.copy_to_root.is_empty() {
        true => base.with_tree().map_err(|error| Failure::of(&error)),
        false => Ok(base),
    }
}

fn created(said: Option<&str>) -> Outcome<String> {
    match said {
        None => Ok(CREATED.to_owned()),
        Some("now") => Ok(whole_second(jiff::Timestamp::now())),
        Some(time) => match time.parse::<jiff::Timestamp>() {
            // As it was written, where all who read images can: its digest stays what it was.
            Ok(_) if is_rfc_3339(time) => Ok(time.to_owned()),
            Ok(other) => Ok(other.to_string()),
            Err(_) => Err(Failure::new(format!("{time:?} is no time"))
                .hint("write RFC 3339, such as 2026-01-31T12:00:00Z, or `now`")),
        },
    }
}

/// A time as the image specification has it: `2026-01-31T12:00:00.5+01:00`. What parses times is more lenient than
/// Go's library, by which registries' clients read them.
fn is_rfc_3339(time: &str) -> bool {
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let Some(rest) = shape.strip_prefix("0000-00-00T00:00:00") else {
        return false;
    };
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches('0'),
        None => rest,
    };
    let has_digits = !rest.starts_with('.') || rest[1..].starts_with('0');
    let is_leap = time.get(17..19) == Some("60");
    has_digits && !is_leap && matches!(zone, "Z" | "+00:00" | "-00:00")
}

/// In UTC and without a fraction.
pub(super) fn whole_second(time: jiff::Timestamp) -> String {
    let whole = jiff::Timestamp::from_second(time.as_second()).unwrap_or(time);
    whole.to_string()
}

fn groups(document: &SpecDocument) -> Outcome<Vec<LayerGroup>> {
    let group = |layers: &firn_image::spec::LayersDocument| {
        let paths = layers.deps.iter().map(|path| Ok(store_path(path)?));
        Ok(LayerGroup {
            paths: paths.collect::<Outcome<_>>()?,
            max_layers: layers.max_layers,
        })
    };
    document.layers.iter().map(group).collect()
}

/// The store paths that config and annotations name. One that is not here may be a mere mention.
fn named(
    document: &SpecDocument,
    spec: &ImageSpec,
    store: &LocalStore,
    progress: &dyn Progress,
) -> Outcome<Vec<StorePath>> {
    let texts = texts_of_config(&spec.config).map_err(|error| Failure::of(&error))?;
    let annotations = document.annotations.values();
    let texts = texts.iter().chain(annotations).map(String::as_str);
    let mut found: Vec<StorePath> = named_store_paths(texts).into_iter().collect();
    found.retain(|path| !path.is_derivation());
    found.retain(|path| {
        let is_here = std::fs::symlink_metadata(store.physical(path)).is_ok();
        if !is_here {
            let path = path.absolute();
            progress.note(&format!(
                "{path}, which the config names, is not in the store"
            ));
        }
        is_here
    });
    Ok(found)
}

/// The closure of everything that is named, as the spec or Nix knows it.
fn closure(
    document: &SpecDocument,
    store: &LocalStore,
    wanted: &[StorePath],
    copied: &[StorePath],
) -> Outcome<Closure> {
    let mut roots: Vec<StorePath> = Vec::new();
    for path in wanted.iter().chain(copied) {
        if !roots.contains(path) {
            roots.push(path.clone());
        }
    }
    if roots.is_empty() {
        return Ok(Closure::default());
    }
    match document.path_infos().map_err(|error| Failure::of(&error))? {
        Some(infos) => Closure::of_graph(infos, roots).map_err(|error| Failure::of(&error)),
        None => Ok(store.closure(&roots)?),
    }
}

fn copied_paths(closure: &Closure, copied: &[StorePath]) -> Vec<CopiedPath> {
    let index = closure.index();
    let of = |path: &StorePath| {
        let info = closure.paths.get(*index.get(path)?)?;
        Some(CopiedPath {
            path: path.clone(),
            nar_hash: info.nar_hash,
        })
    };
    copied.iter().filter_map(of).collect()
}

/// A program's path in the image: as it is, or the first PATH's `bin/NAME`.
fn resolve_program(store: &LocalStore, roots: &[StorePath], program: &str) -> Outcome<String> {
    if program.contains('/') {
        return Ok(program.to_owned());
    }
    roots
        .iter()
        .find(|root| {
            let file = store.physical(root).join("bin").join(program);
            std::fs::symlink_metadata(file).is_ok()
        })
        .map(|root| format!("{STORE_DIR}/{root}/bin/{program}"))
        .ok_or_else(|| {
            Failure::new(format!("no PATH has a program bin/{program}"))
                .hint("--entrypoint also takes the full path of a program in the image")
        })
}

/// The names that OCI takes over from Go.
fn architecture(rust_name: &str) -> &str {
    match rust_name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_first_root_that_has_them() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = LocalStore::new(dir.path(), dir.path());
        let roots: Vec<StorePath> = ["1", "2"]
            .iter()
            .map(|digit| {
                let name = format!("{}-r", digit.repeat(32));
                StorePath::parse_base_name(&name).expect("a store path")
            })
            .collect();
        std::fs::create_dir_all(store.physical(&roots[1]).join("bin")).expect("folder");
        std::fs::write(store.physical(&roots[1]).join("bin/app"), "").expect("file");
        let found = resolve_program(&store, &roots, "app").expect("found");
        assert_eq!(found, format!("/nix/store/{}/bin/app", roots[1]));
        assert_eq!(resolve_program(&store, &roots, "/x").expect("path"), "/x");
        let failure = resolve_program(&store, &roots, "other").expect_err("absent");
        assert_eq!(failure.lines()[0], "error: no PATH has a program bin/other");
    }

    #[test]
    fn times_are_kept_as_written_where_go_reads_them() {
        for (said, wanted) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
            (
                "2026-01-31T12:00:00.50+01:00",
                "2026-01-31T12:00:00.50+01:00",
            ),
            ("2026-01-31 12:00Z", "2026-01-31T12:00:00Z"),
            ("2026-01-31t12:00:00z", "2026-01-31T12:00:00Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
            ("2026-01-31T12:00:00,5Z", "2026-01-31T12:00:00.5Z"),
            ("2026-01-31T12:00:00+01", "2026-01-31T11:00:00Z"),
        ] {
            assert_eq!(created(Some(said)).unwrap(), wanted, "{said}");
        }
        assert!(created(Some("yesterday")).is_err());
    }
}
