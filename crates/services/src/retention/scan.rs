//! A cache's entries as a graph: which need which, which have to stay.
//!
//! ```text
//! Narinfo  needs its references' narinfos, its NarFile and NarAlias, listing, log, realisations
//! NarFile  needs the debug info that names it
//! Manifest needs the manifests it lists, those that refer to it, its layers' RegistryBlob and Layer
//! Manifest and its tags, and its place among its subject's referrers, need each other
//! ```

use super::graph::{Graph, Index, NodeId};
use super::roots::{Root, Target};
use crate::nix_cache::{HashText, hash_text};
use crate::registry::index_children;
use crate::{ServiceError, document};
use firn_formats::nix::{NarInfo, base32};
use firn_store::{BlobId, CacheId, Entry, EntryKind, HeldEntry, Store};
use std::collections::HashMap;

/// What is found to be of a kind when it is published while a plan is carried out.
pub(crate) const NEEDING: &[EntryKind] = &[
    EntryKind::Narinfo,
    EntryKind::Manifest,
    EntryKind::Referrer,
    EntryKind::Tag,
    EntryKind::Root,
];

/// A node's entry.
pub(crate) struct Held {
    pub(crate) sequence: u64,
    pub(crate) kind: EntryKind,
    pub(crate) used_at_ms: i64,
}

/// Nodes by what others name them by.
#[derive(Default)]
pub(crate) struct Names {
    narinfos: Index<HashText>,
    nar_files: Index<[u8; 32]>,
    nar_aliases: HashMap<BlobId, Vec<NodeId>>,
    layers: HashMap<BlobId, Vec<NodeId>>,
    manifests: Index<String>,
}

/// A cache as it was looked at.
pub(crate) struct Scan {
    pub(crate) graph: Graph,
    pub(crate) held: Vec<Held>,
    pub(crate) names: Names,
    /// The database's time at the beginning.
    pub(crate) now_ms: i64,
    /// What was published after this may not have been seen.
    pub(crate) newest: u64,
}

/// Entries that are there for the sake of others.
struct Helper {
    node: NodeId,
    blobs: Vec<BlobId>,
    lapses: bool,
}

struct Scanner<'a> {
    store: &'a Store,
    cache: CacheId,
    scan: Scan,
    blobs: HashMap<BlobId, (u32, bool)>,
    helpers: Vec<Helper>,
    has_owner: Vec<bool>,
}

/// Looks at all of a cache.
pub(crate) fn scan(store: &Store, cache: CacheId) -> Result<Scan, ServiceError> {
    let (now_ms, newest) = store.now_and_newest()?;
    let mut scanner = Scanner {
        store,
        cache,
        scan: Scan {
            graph: Graph::default(),
            held: Vec::new(),
            names: Names::default(),
            now_ms,
            newest,
        },
        blobs: HashMap::new(),
        helpers: Vec::new(),
        has_owner: Vec::new(),
    };
    scanner.blobs()?;
    let beside = scanner.beside_paths()?;
    scanner.nars(&beside)?;
    scanner.paths(&beside)?;
    scanner.layers()?;
    scanner.images()?;
    scanner.actions()?;
    scanner.roots()?;
    scanner.settle();
    Ok(scanner.scan)
}

/// Documents that stand beside paths, by what names their paths.
#[derive(Default)]
struct Beside {
    listings: HashMap<HashText, NodeId>,
    logs: HashMap<String, NodeId>,
    realisations: HashMap<HashText, Vec<NodeId>>,
    /// By the NAR's file name.
    debug_info: HashMap<String, Vec<NodeId>>,
}

impl Scanner<'_> {
    fn blobs(&mut self) -> Result<(), ServiceError> {
        let (graph, blobs) = (&mut self.scan.graph, &mut self.blobs);
        self.store.held_blobs(self.cache, &mut |blob| {
            let number = graph.add_blob(blob.stored_bytes);
            blobs.insert(blob.id, (number, blob.leased));
        })?;
        Ok(())
    }

    /// All entries of a kind.
    fn each(
        &mut self,
        kind: EntryKind,
        values: bool,
        mut take: impl FnMut(&mut Self, HeldEntry),
    ) -> Result<(), ServiceError> {
        let store = self.store.clone();
        let cache = self.cache;
        store.held_entries(cache, kind, values, &mut |entry| take(self, entry))?;
        Ok(())
    }

    fn add(&mut self, kind: EntryKind, entry: &HeldEntry, stays: bool) -> NodeId {
        self.scan.held.push(Held {
            sequence: entry.sequence,
            kind,
            used_at_ms: entry.used_at_ms,
        });
        self.has_owner.push(false);
        self.scan.graph.add(entry.used_at_ms, stays)
    }

    fn leased(&self, entry: &HeldEntry) -> bool {
        let leased = |blob: &BlobId| self.blobs.get(blob).is_some_and(|(_, leased)| *leased);
        entry.leased || entry.blobs.iter().any(leased)
    }

    fn names(&mut self, node: NodeId, blobs: &[BlobId]) {
        for blob in blobs {
            if let Some((number, _)) = self.blobs.get(blob) {
                self.scan.graph.names(node, *number);
            }
        }
    }

    /// An entry for the sake of others: its bytes count with theirs.
    fn helper(&mut self, kind: EntryKind, entry: HeldEntry) -> NodeId {
        let node = self.add(kind, &entry, self.leased(&entry));
        self.helpers.push(Helper {
            node,
            blobs: entry.blobs,
            lapses: entry.lapses,
        });
        node
    }

    fn document(&mut self, kind: EntryKind, entry: &HeldEntry) -> NodeId {
        let node = self.add(kind, entry, false);
        self.names(node, &entry.blobs);
        node
    }

    fn owns(&mut self, owner: NodeId, helper: NodeId) {
        self.scan.graph.needs(owner, helper);
        self.has_owner[helper as usize] = true;
    }

    fn beside_paths(&mut self) -> Result<Beside, ServiceError> {
        let mut beside = Beside::default();
        self.each(EntryKind::Listing, false, |this, entry| {
            let node = this.document(EntryKind::Listing, &entry);
            beside
                .listings
                .extend(hash_text(&entry.key).map(|hash| (hash, node)));
        })?;
        self.each(EntryKind::Log, false, |this, entry| {
            let node = this.document(EntryKind::Log, &entry);
            beside.logs.insert(entry.key, node);
        })?;
        for kind in [EntryKind::Realisation, EntryKind::BuildTrace] {
            self.each(kind, true, |this, entry| {
                let node = this.document(kind, &entry);
                let path = field(&entry.value, "outPath");
                if let Some(hash) = path.as_deref().and_then(hash_of_path) {
                    beside.realisations.entry(hash).or_default().push(node);
                }
            })?;
        }
        self.each(EntryKind::DebugInfo, true, |this, entry| {
            let node = this.document(EntryKind::DebugInfo, &entry);
            if let Some(archive) = field(&entry.value, "archive") {
                let name = archive.rsplit('/').next().unwrap_or_default();
                let nodes = beside.debug_info.entry(name.to_owned()).or_default();
                nodes.push(node);
            }
        })?;
        Ok(beside)
    }

    fn nars(&mut self, beside: &Beside) -> Result<(), ServiceError> {
        self.each(EntryKind::NarFile, false, |this, entry| {
            let digest = base32::decode(&entry.key);
            let names = [".nar.zst", ".nar"].map(|ending| format!("{}{ending}", entry.key));
            let node = this.helper(EntryKind::NarFile, entry);
            if let Ok(digest) = digest {
                this.scan.names.nar_files.insert(digest, node);
            }
            for name in names {
                this.own_debug_info(node, beside, &name);
            }
        })?;
        self.each(EntryKind::NarAlias, false, |this, entry| {
            let (name, blob) = (entry.key.clone(), entry.blobs.first().copied());
            let node = this.helper(EntryKind::NarAlias, entry);
            if let Some(blob) = blob {
                let aliases = &mut this.scan.names.nar_aliases;
                aliases.entry(blob).or_default().push(node);
            }
            this.own_debug_info(node, beside, &name);
        })
    }

    fn own_debug_info(&mut self, owner: NodeId, beside: &Beside, nar: &str) {
        for node in beside.debug_info.get(nar).into_iter().flatten() {
            self.owns(owner, *node);
        }
    }

    fn paths(&mut self, beside: &Beside) -> Result<(), ServiceError> {
        self.each(EntryKind::Narinfo, false, |this, entry| {
            let node = this.add(EntryKind::Narinfo, &entry, this.leased(&entry));
            this.names(node, &entry.blobs);
            if let Some(hash) = hash_text(&entry.key) {
                this.scan.names.narinfos.insert(hash, node);
            }
        })?;
        self.each(EntryKind::Narinfo, true, |this, entry| {
            let hash = hash_text(&entry.key);
            // One that came after the first look is seen when the plan is carried out.
            let Some(node) = hash.and_then(|hash| this.scan.names.narinfos.get(&hash).copied())
            else {
                return;
            };
            match NarInfo::parse(&String::from_utf8_lossy(&entry.value)) {
                Ok(narinfo) => this.path(node, &narinfo, &entry.blobs, beside),
                // No client can read it either, so it needs nothing.
                Err(error) => tracing::warn!(key = entry.key, %error, "a narinfo is damaged"),
            }
        })
    }

    fn path(&mut self, node: NodeId, narinfo: &NarInfo, blobs: &[BlobId], beside: &Beside) {
        for needed in self.scan.names.needed_by_path(narinfo) {
            self.scan.graph.needs(node, needed);
        }
        for nar in self.scan.names.nars_of(narinfo, blobs) {
            self.owns(node, nar);
            // Who remembers a narinfo asks for the NAR alone.
            let used = self.scan.held[nar as usize].used_at_ms;
            self.scan.graph.used(node, used);
        }
        let Some(hash) = hash_text(&narinfo.store_path.hash().to_string()) else {
            return;
        };
        let log = narinfo
            .deriver
            .as_ref()
            .and_then(|deriver| beside.logs.get(&deriver.to_string()));
        let listing = beside.listings.get(&hash);
        let realisations = beside.realisations.get(&hash).into_iter().flatten();
        for document in log.into_iter().chain(listing).chain(realisations) {
            self.owns(node, *document);
        }
    }

    fn layers(&mut self) -> Result<(), ServiceError> {
        for kind in [EntryKind::RegistryBlob, EntryKind::Layer] {
            self.each(kind, false, |this, entry| {
                let blob = entry.blobs.first().copied();
                let node = this.helper(kind, entry);
                if let Some(blob) = blob {
                    this.scan.names.layers.entry(blob).or_default().push(node);
                }
            })?;
        }
        Ok(())
    }

    fn images(&mut self) -> Result<(), ServiceError> {
        let lease_ms = i64::try_from(self.store.lease().as_millis()).unwrap_or(i64::MAX);
        let mut lists: Vec<(NodeId, Vec<String>)> = Vec::new();
        let mut unread: Vec<(NodeId, HeldEntry)> = Vec::new();
        self.each(EntryKind::Manifest, true, |this, entry| {
            // Its layers' leases say nothing of it: every push of another image renews those it shares.
            let fresh = entry.published_at_ms.saturating_add(lease_ms) > this.scan.now_ms;
            let node = this.add(EntryKind::Manifest, &entry, fresh);
            this.names(node, &entry.blobs);
            for layer in this.scan.names.layers_of(&entry.blobs) {
                this.owns(node, layer);
            }
            match document::inline(&entry.value) {
                Some((media_type, bytes)) => {
                    let children = index_children(&entry.key, media_type, bytes);
                    if !children.is_empty() {
                        lists.push((node, children));
                    }
                }
                None => unread.push((node, entry.clone())),
            }
            this.scan.names.manifests.insert(entry.key, node);
        })?;
        for (node, entry) in unread {
            let found = self
                .store
                .entry(self.cache, EntryKind::Manifest, &entry.key)?;
            if let Some(found) = found {
                let document = document::open(self.store, &found)?;
                let media_type = document.media_type.clone();
                let bytes = document.into_bytes()?;
                lists.push((node, index_children(&entry.key, &media_type, &bytes)));
            }
        }
        for (node, children) in lists {
            for child in children {
                if let Some(child) = self.scan.names.manifests.get(&child) {
                    self.scan.graph.needs(node, *child);
                }
            }
        }
        self.tags_and_referrers()
    }

    fn tags_and_referrers(&mut self) -> Result<(), ServiceError> {
        self.each(EntryKind::Tag, true, |this, entry| {
            let node = this.add(EntryKind::Tag, &entry, false);
            if let Some(manifest) = this.scan.names.tagged(&entry.key, &entry.value) {
                this.scan.graph.needs(manifest, node);
                this.scan.graph.needs(node, manifest);
            }
        })?;
        self.each(EntryKind::Referrer, false, |this, entry| {
            let node = this.add(EntryKind::Referrer, &entry, false);
            let (subject, referrer) = this.scan.names.referrer(&entry.key);
            if let Some(referrer) = referrer {
                this.scan.graph.needs(referrer, node);
                this.scan.graph.needs(node, referrer);
                if let Some(subject) = subject {
                    this.scan.graph.needs(subject, referrer);
                }
            }
        })
    }

    /// Actions entries need nothing, and nothing needs them.
    fn actions(&mut self) -> Result<(), ServiceError> {
        self.each(EntryKind::ActionsEntry, false, |this, entry| {
            let node = this.add(EntryKind::ActionsEntry, &entry, this.leased(&entry));
            this.names(node, &entry.blobs);
        })
    }

    fn roots(&mut self) -> Result<(), ServiceError> {
        self.each(EntryKind::Root, true, |this, entry| {
            for node in this.scan.names.rooted(&entry.value) {
                this.scan.graph.stays(node);
            }
        })
    }

    /// Helpers that help nobody count by themselves; those that were only lent go first.
    fn settle(&mut self) {
        for (node, owned) in (0..).zip(&self.has_owner) {
            if *owned {
                self.scan.graph.owned(node);
            }
        }
        for helper in std::mem::take(&mut self.helpers) {
            if self.has_owner[helper.node as usize] {
                continue;
            }
            if helper.lapses {
                self.scan.graph.owned(helper.node);
            }
            self.names(helper.node, &helper.blobs);
        }
    }
}

impl Names {
    fn needed_by_path(&self, narinfo: &NarInfo) -> impl Iterator<Item = NodeId> {
        narinfo.references.iter().filter_map(|reference| {
            let hash = hash_text(&reference.hash().to_string())?;
            self.narinfos.get(&hash).copied()
        })
    }

    fn nars_of(&self, narinfo: &NarInfo, blobs: &[BlobId]) -> Vec<NodeId> {
        let stored = narinfo
            .url
            .strip_prefix("nar/")
            .and_then(|name| name.split_once('.'))
            .and_then(|(stem, _)| base32::decode(stem).ok());
        let files = [Some(narinfo.nar_hash.0), stored];
        let files = files.iter().flatten();
        let mut nodes: Vec<NodeId> = files
            .filter_map(|digest| self.nar_files.get(digest))
            .copied()
            .collect();
        let aliases = blobs.iter().filter_map(|blob| self.nar_aliases.get(blob));
        nodes.extend(aliases.flatten());
        nodes
    }

    fn layers_of(&self, blobs: &[BlobId]) -> Vec<NodeId> {
        let layers = blobs.iter().filter_map(|blob| self.layers.get(blob));
        layers.flatten().copied().collect()
    }

    fn tagged(&self, tag: &str, digest: &[u8]) -> Option<NodeId> {
        let (repository, _) = tag.rsplit_once(':')?;
        let digest = std::str::from_utf8(digest).ok()?;
        self.manifests
            .get(&format!("{repository}@{digest}"))
            .copied()
    }

    /// The subject and the one that refers to it.
    fn referrer(&self, key: &str) -> (Option<NodeId>, Option<NodeId>) {
        let mut parts = key.splitn(3, '@');
        let (Some(repository), Some(subject), Some(digest)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return (None, None);
        };
        let find = |digest: &str| self.manifests.get(&format!("{repository}@{digest}"));
        (find(subject).copied(), find(digest).copied())
    }

    fn rooted(&self, value: &[u8]) -> Vec<NodeId> {
        let targets = Root::parse(value).map_or_else(Vec::new, |root| root.pinned);
        let find = |target: &Target| match target {
            Target::Path(path) => self.narinfos.get(&hash_of_path(path)?).copied(),
            Target::Image(image) => self.manifests.get(image).copied(),
        };
        targets
            .iter()
            .filter_map(|pinned| find(&pinned.target))
            .collect()
    }

    /// The manifests that one lists. What a large one lists is not read: it may be any of its repository.
    fn children(&self, entry: &Entry) -> Vec<NodeId> {
        if let Some((media_type, bytes)) = document::inline(&entry.value) {
            let children = index_children(&entry.key, media_type, bytes);
            let found = children.iter().filter_map(|key| self.manifests.get(key));
            return found.copied().collect();
        }
        let repository = entry.key.split('@').next();
        let same = self
            .manifests
            .iter()
            .filter(|(key, _)| key.split('@').next() == repository);
        same.map(|(_, node)| *node).collect()
    }

    /// What has to stay because of an entry that was published after the scan.
    pub(crate) fn needed_by(&self, entry: &Entry) -> Vec<NodeId> {
        let mut needed = Vec::new();
        match entry.kind {
            EntryKind::Narinfo => {
                let own = hash_text(&entry.key).and_then(|hash| self.narinfos.get(&hash));
                needed.extend(own);
                if let Ok(narinfo) = NarInfo::parse(&String::from_utf8_lossy(&entry.value)) {
                    needed.extend(self.needed_by_path(&narinfo));
                    needed.extend(self.nars_of(&narinfo, &entry.blobs));
                }
            }
            EntryKind::Manifest => {
                needed.extend(self.manifests.get(&entry.key));
                needed.extend(self.layers_of(&entry.blobs));
                needed.extend(self.children(entry));
            }
            EntryKind::Tag => needed.extend(self.tagged(&entry.key, &entry.value)),
            EntryKind::Referrer => {
                let (_, referrer) = self.referrer(&entry.key);
                needed.extend(referrer);
            }
            EntryKind::Root => needed.extend(self.rooted(&entry.value)),
            _ => {}
        }
        needed
    }
}

/// The hash part of a store path, or of its base name.
fn hash_of_path(path: &str) -> Option<HashText> {
    let base_name = path.rsplit('/').next()?;
    hash_text(base_name.get(..32)?)
}

/// A text field of a small JSON document.
fn field(value: &[u8], name: &str) -> Option<String> {
    let (_, json) = document::inline(value)?;
    let parsed: serde_json::Value = serde_json::from_slice(json).ok()?;
    Some(parsed.get(name)?.as_str()?.to_owned())
}
