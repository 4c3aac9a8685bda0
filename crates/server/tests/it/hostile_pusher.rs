//! A pusher never changes what others get.
//!
//! A hostile pusher acts at random at every door, beside readers. It may pull and push, and it may not delete, move
//! tags it has no right to, or administer; in a cache of its own that shares its chunks with the victim's it may do
//! everything. Whatever a reader got before, the reader still gets: bytes, the fields of
//! narinfos, manifests, listings. Nothing that a client believes (the descriptor of a layer's key, "present") is
//! chosen by the pusher.
//!
//! `FIRN_HOSTILE_SEED=N` repeats one run.

use crate::actions::Job;
use crate::http::Client;
use crate::registry::{digest, manifest, push_blob, put_manifest};
use crate::samples::{Upload, file_nar, noise, store_path};
use firn_chunks::{Encoder, Format, FormatChunker, boundaries};
use firn_formats::actions::Scope;
use firn_formats::admin::{CacheCreate, Right};
use firn_formats::nix::{Compression, NarInfo};
use firn_formats::oci::media_type::OCI_MANIFEST;
use firn_formats::push::{
    BlobKind, Proposal, ProposalAnswer, decode_answers, encode_frame, encode_proposals,
};
use firn_formats::tar::{self, Entry, EntryKind};
use firn_formats::{Sha256, nix::base32};
use firn_testkit::TestServer;
use firn_testkit::hostile::Random;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Hostile requests of one run.
const STEPS: usize = 150;
/// All that readers got is asked for again after so many of them.
const LOOK_EVERY: usize = 10;

/// What a pusher of this run may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rights {
    /// New images only.
    Create,
    /// Everything but deleting and administering: moving tags is its right.
    Push,
}

#[test]
fn who_may_create_changes_nothing_for_others() {
    runs(Rights::Create, 4);
}

#[test]
fn who_may_push_changes_nothing_for_others() {
    runs(Rights::Push, 4);
}

fn runs(rights: Rights, count: u64) {
    let given = std::env::var("FIRN_HOSTILE_SEED").ok();
    let seeds = match given {
        Some(seed) => vec![seed.parse().expect("FIRN_HOSTILE_SEED is a number")],
        None => (1..=count).collect(),
    };
    for seed in seeds {
        run(rights, seed);
    }
}

fn run(rights: Rights, seed: u64) {
    let server = TestServer::start_with(|config| {
        config.limits.actions_uploads_per_minute_max = 0;
    });
    let world = World::new(&server);
    let before = world.seen(rights);
    let mut pusher = Pusher::new(&server, &world, rights, seed);
    let mut done = Vec::new();
    for step in 1..=STEPS {
        let (what, status) = pusher.act();
        assert!(status < 500, "seed {seed}: {what}: {status}");
        done.push(format!("{what}: {status}"));
        if step % LOOK_EVERY == 0 {
            let faults = differences(&before, &world.seen(rights));
            let last = &done[done.len() - LOOK_EVERY..];
            assert!(
                faults.is_empty(),
                "{rights:?}, seed {seed}: after {last:#?}\nreaders get something else:\n{faults:#?}"
            );
        }
    }
    // A pusher whose every request is refused would show nothing.
    let taken = done
        .iter()
        .filter(|line| line.ends_with(": 200") || line.ends_with(": 201"));
    assert!(taken.count() > STEPS / 10, "{done:#?}");
    world.layers_are_true(&pusher);
}

/// What must be the same, and what may only grow.
#[derive(Default)]
struct Seen {
    same: BTreeMap<String, Vec<u8>>,
    grows: BTreeMap<String, BTreeSet<String>>,
}

fn differences(before: &Seen, after: &Seen) -> Vec<String> {
    let text = |bytes: Option<&Vec<u8>>| {
        let bytes = bytes.map_or(&b"nothing"[..], |bytes| &bytes[..bytes.len().min(300)]);
        String::from_utf8_lossy(bytes).into_owned()
    };
    let changed = before
        .same
        .iter()
        .filter(|(name, bytes)| after.same.get(*name) != Some(bytes))
        .map(|(name, bytes)| {
            format!(
                "{name}: {} -> {}",
                text(Some(bytes)),
                text(after.same.get(name))
            )
        });
    let shrunk = before.grows.iter().filter_map(|(name, members)| {
        let now = after.grows.get(name)?;
        let gone: Vec<_> = members.difference(now).collect();
        (!gone.is_empty()).then(|| format!("{name}: {gone:?} is gone"))
    });
    changed.chain(shrunk).collect()
}

/// A layer, the text that its key hashes, and the tar.
#[derive(Clone)]
struct Layer {
    recipe: Vec<u8>,
    tar: Vec<u8>,
}

impl Layer {
    /// Of root files: the recipe holds the tar itself.
    fn of_root(content: &[u8]) -> Self {
        let mut tar = Vec::new();
        put_file(&mut tar, b"etc/motd", 0o644, content);
        end(&mut tar);
        let recipe = [b"firn root layer 1\n", &tar[..]].concat();
        Self { recipe, tar }
    }

    /// Of one store path.
    fn of_path(upload: &Upload, content: &[u8]) -> Self {
        let name = upload.path.to_string();
        let recipe = format!(
            "firn layer 1\nowner 0:0\nmtime 1\nmodes 0444 0555\n/nix/store/{name} {}\n",
            upload.narinfo.nar_hash.nix()
        );
        let mut tar = Vec::new();
        for (path, mode) in [
            ("nix", 0o755),
            ("nix/store", 0o755),
            (&format!("nix/store/{name}"), 0o555),
        ] {
            put(&mut tar, path.as_bytes(), EntryKind::Directory, mode);
        }
        put_file(
            &mut tar,
            format!("nix/store/{name}/data").as_bytes(),
            0o444,
            content,
        );
        end(&mut tar);
        Self {
            recipe: recipe.into_bytes(),
            tar,
        }
    }

    fn key(&self) -> String {
        Sha256::of(&self.recipe).hex()
    }

    fn diff_id(&self) -> String {
        digest(&self.tar)
    }
}

fn put(tar: &mut Vec<u8>, path: &[u8], kind: EntryKind, mode: u32) {
    let entry = Entry {
        path: path.to_vec(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: 1,
    };
    tar::header(&entry, tar).unwrap();
}

fn put_file(tar: &mut Vec<u8>, path: &[u8], mode: u32, content: &[u8]) {
    let size = content.len() as u64;
    put(tar, path, EntryKind::Regular { size }, mode);
    tar.extend_from_slice(content);
    tar.resize(tar.len() + tar::padding(size), 0);
}

fn end(tar: &mut Vec<u8>) {
    tar.resize(tar.len() + 1024, 0);
}

/// Chunks of `bytes`, sent in a push session; the handle of the proposal.
fn propose(client: &Client, session: &str, kind: BlobKind, bytes: &[u8]) -> Option<u32> {
    let format = if kind == BlobKind::Nar {
        Format::Nar
    } else {
        Format::Tar
    };
    let mut encoder = Encoder::new(boundaries::V1.zstd_level);
    let mut frames = Vec::new();
    let mut chunker = FormatChunker::new(format, boundaries::V1);
    let mut sink = |chunk: &[u8]| frames.push(encoder.encode(chunk));
    // What is no NAR is cut as any bytes are.
    if chunker
        .push(bytes, &mut sink)
        .and_then(|()| chunker.finish(&mut sink))
        .is_err()
    {
        frames = bytes
            .chunks(32 << 10)
            .map(|chunk| encoder.encode(chunk))
            .collect();
    }
    let chunks = frames
        .iter()
        .map(|f| (f.record().id.0, f.record().raw_length))
        .collect();
    let body = encode_proposals(&[Proposal { kind, chunks }]);
    let answer = client.send("POST", &format!("/api/v1/push/{session}/blobs"), &[], &body);
    if answer.status != 200 {
        return None;
    }
    let answers: Vec<ProposalAnswer> = decode_answers(&answer.body).unwrap();
    let mut body = Vec::new();
    for frame in &frames {
        encode_frame(&frame.record().id.0, frame.frame(), &mut body);
    }
    client.send(
        "POST",
        &format!("/api/v1/push/{session}/frames"),
        &[],
        &body,
    );
    Some(answers[0].handle)
}

/// A session to push into `cache`, if one is given.
fn session(client: &Client, cache: &str) -> Option<String> {
    // A path that nobody has, so that there is something to push.
    let nobody = base32::encode(&Sha256::of(&noise(99, 20)).0[..20]);
    let body = json!({"paths": [nobody]});
    let answer = client.post_json(&format!("/api/v1/push/begin?cache={cache}"), &body);
    (answer.status == 200).then(|| answer.json()["session"].as_str().unwrap().to_owned())
}

fn publish_layer(key: &str, blob: u32) -> Value {
    json!({"layers": [{"key": key, "blob": blob}]})
}

/// What the owner has put into the caches, and who reads it.
struct World {
    owner: Client,
    anyone: Client,
    main_job: Job,
    private: Upload,
    private_blob: String,
    base: Upload,
    above: Upload,
    nar_url: String,
    log: String,
    realisation: String,
    manifest_digest: String,
    blobs: Vec<String>,
    /// What the owner has pushed, and what the owner is going to push.
    layers: Vec<Layer>,
    future: Vec<Layer>,
}

impl World {
    fn new(server: &TestServer) -> Self {
        let url = server.url();
        let owner = Client::new(&url, Some(server.admin_token()));
        for (name, public) in [("evil", true), ("vault", false)] {
            let cache = json!({"name": name, "public": public});
            let cache: CacheCreate = serde_json::from_value(cache).unwrap();
            owner.post_json("/api/v1/caches", &cache).expect(200);
        }
        let base = Upload::new("owned-base", &noise(1, 60_000), &[], Compression::Xz);
        base.push(&owner).expect(201);
        let above = Upload::new(
            "owned-above",
            &noise(2, 90_000),
            &[&base.path],
            Compression::None,
        );
        above.push(&owner).expect(201);
        let private = Upload::new("private", &noise(3, 70_000), &[], Compression::None);
        owner
            .put(&format!("/vault/{}", private.narinfo.url), &private.file)
            .expect(201);
        owner
            .put(
                &format!("/vault/{}.narinfo", private.path.hash()),
                private.narinfo.to_string().as_bytes(),
            )
            .expect(201);
        let private_blob = push_blob(&owner, "vault/app", &noise(4, 5_000));
        let log = format!("/main/log/{}", store_path("owned", "owned.drv"));
        owner.put(&log, b"built\n").expect(201);
        let id = format!("sha256:{}!out", "ab".repeat(32));
        let out = &base.path;
        let realisation = json!({"id": id, "outPath": out.to_string(), "signatures": [], "dependentRealisations": {}});
        let realisation_path = format!("/main/realisations/{}.doi", id.replace('!', "%21"));
        owner
            .put(&realisation_path, realisation.to_string().as_bytes())
            .expect(201);
        let config =
            br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let tar = noise(5, 40_000);
        let blobs = vec![
            push_blob(&owner, "main/app", config),
            push_blob(&owner, "main/app", &tar),
        ];
        let bytes = manifest((&blobs[0], config.len()), &[(&blobs[1], tar.len())]);
        put_manifest(&owner, "/v2/main/app/manifests/1", OCI_MANIFEST, &bytes).expect(201);
        let layers = vec![
            Layer::of_root(b"welcome\n"),
            Layer::of_path(&base, &noise(1, 60_000)),
        ];
        let open = session(&owner, "main").unwrap();
        for layer in &layers {
            let blob = propose(&owner, &open, BlobKind::Layer, &layer.tar).unwrap();
            let body = publish_layer(&layer.key(), blob);
            owner
                .post_json(&format!("/api/v1/push/{open}/publish"), &body)
                .expect(200);
        }
        let future = vec![
            Layer::of_root(b"tomorrow\n"),
            Layer::of_path(&above, &noise(2, 90_000)),
        ];
        let main_job = Job::on_main(server);
        main_job.save("deps-1", b"what main has saved");
        let mut world = Self {
            anyone: Client::new(&url, None),
            owner,
            main_job,
            private,
            private_blob,
            nar_url: String::new(),
            base,
            above,
            log,
            realisation: realisation_path,
            manifest_digest: digest(&bytes),
            blobs,
            layers,
            future,
        };
        let narinfo = world.anyone.get(&world.base.narinfo_path()).expect(200);
        world.nar_url = format!("/main/{}", NarInfo::parse(&narinfo.text()).unwrap().url);
        world
    }

    /// All that readers get.
    fn seen(&self, rights: Rights) -> Seen {
        let mut seen = Seen::default();
        for upload in [&self.base, &self.above] {
            self.see_path(upload, &mut seen);
        }
        let realisation = self.anyone.get(&self.realisation);
        let mut value = realisation.json();
        // Signatures of others may come in.
        if let Some(fields) = value.as_object_mut() {
            fields.remove("signatures");
        }
        seen.same
            .insert(self.realisation.clone(), value.to_string().into_bytes());
        let mut plain = vec![self.nar_url.clone(), self.base.nar_path(), self.log.clone()];
        plain.extend(
            self.blobs
                .iter()
                .map(|digest| format!("/v2/main/app/blobs/{digest}")),
        );
        plain.push(format!("/v2/main/app/manifests/{}", self.manifest_digest));
        if rights == Rights::Create {
            plain.push("/v2/main/app/manifests/1".to_owned());
        }
        for path in plain {
            let answer = self.anyone.get(&path);
            seen.same.insert(
                path,
                [format!("{} ", answer.status).as_bytes(), &answer.body].concat(),
            );
        }
        for path in ["/v2/main/app/tags/list", "/v2/_catalog"] {
            let answer = self.anyone.get(path).json();
            let list = answer["tags"]
                .as_array()
                .or(answer["repositories"].as_array());
            let members = list
                .into_iter()
                .flatten()
                .map(|name| name.to_string())
                .collect();
            seen.grows.insert(path.to_owned(), members);
        }
        let restored = self.main_job.restore("deps-2", &["deps-"]);
        seen.same.insert(
            "main restores".to_owned(),
            format!("{restored:?}").into_bytes(),
        );
        seen
    }

    fn see_path(&self, upload: &Upload, seen: &mut Seen) {
        let path = upload.narinfo_path();
        let answer = self.anyone.get(&path);
        let mut narinfo =
            NarInfo::parse(&answer.text()).unwrap_or_else(|error| panic!("{path}: {error}"));
        let signatures = narinfo
            .signatures
            .drain(..)
            .map(|signature| signature.to_string())
            .collect();
        seen.grows.insert(path.clone(), signatures);
        seen.same.insert(path, narinfo.to_string().into_bytes());
        let hash = upload.path.hash();
        for path in [
            format!("/main/{hash}.ls"),
            format!("/main/{}", narinfo.url),
            format!("/api/v1/chunks/{hash}?cache=main"),
            format!("/api/v1/nars/{hash}?cache=main"),
        ] {
            let answer = self.owner.get(&path);
            seen.same.insert(
                path,
                [format!("{} ", answer.status).as_bytes(), &answer.body].concat(),
            );
        }
    }

    /// What the server answers to a key is the layer that the key names, or nothing; and the owner's own push gives the
    /// owner's bytes.
    fn layers_are_true(&self, pusher: &Pusher<'_>) {
        let all: Vec<&Layer> = self.layers.iter().chain(&self.future).collect();
        for cache in ["main", "evil"] {
            let keys: Vec<String> = all.iter().map(|layer| layer.key()).collect();
            let body = json!({"layers": keys});
            let begun = self
                .owner
                .post_json(&format!("/api/v1/push/begin?cache={cache}"), &body)
                .expect(200)
                .json();
            for layer in &all {
                let found = &begun["layers"][layer.key()];
                assert!(
                    found.is_null() || found["diff_id"] == layer.diff_id(),
                    "{:?}: in {cache} the key of a layer {} stands for {found}",
                    pusher.rights,
                    layer.diff_id()
                );
            }
        }
        let open = session(&self.owner, "main").unwrap();
        for layer in &self.future {
            let blob = propose(&self.owner, &open, BlobKind::Layer, &layer.tar).unwrap();
            let body = publish_layer(&layer.key(), blob);
            let path = format!("/api/v1/push/{open}/publish");
            let published = self.owner.post_json(&path, &body).expect(200).json();
            assert_eq!(published["layers"][layer.key()]["diff_id"], layer.diff_id());
        }
    }
}

struct Pusher<'a> {
    world: &'a World,
    rights: Rights,
    random: Random,
    client: Client,
    /// With every right in a cache of its own, which shares its chunks with the victim's.
    own: Client,
    job: Job,
    /// A push under way, and whether into its own cache.
    session: Option<(String, bool)>,
    count: u64,
}

impl<'a> Pusher<'a> {
    fn new(server: &TestServer, world: &'a World, rights: Rights, seed: u64) -> Self {
        let mut allowed = vec![Right::Pull, Right::Create];
        if rights == Rights::Push {
            allowed.push(Right::Push);
        }
        let token = server.token(&["main"], &allowed);
        let own = server.token(
            &["evil"],
            &[Right::Pull, Right::Push, Right::Delete, Right::Admin],
        );
        let scopes = [
            Scope::write("refs/pull/7/merge"),
            Scope::read("refs/heads/main"),
        ];
        Self {
            world,
            rights,
            random: Random::new(seed),
            client: Client::new(&server.url(), Some(&token)).patient(),
            own: Client::new(&server.url(), Some(&own)).patient(),
            job: Job::new(server, "acme/web", &scopes),
            session: None,
            count: 0,
        }
    }

    /// One hostile request: its name and the last status.
    fn act(&mut self) -> (&'static str, u16) {
        self.count += 1;
        match self.random.below(16) {
            0 => ("narinfo", self.narinfo()),
            1 => ("nar", self.nar()),
            2 => ("listing", self.extra_document(true)),
            3 => ("log", self.client.put(&self.world.log, b"forged\n").status),
            4 => ("realisation", self.realisation()),
            5 | 6 => ("publish a path", self.publish_path()),
            7..=9 => ("publish a layer", self.publish_layer()),
            10 => ("blob", self.blob()),
            11 => ("manifest", self.manifest()),
            12 => ("delete", self.delete()),
            13 => ("Actions", self.actions()),
            14 => ("administer", self.administer()),
            _ => ("private", self.private()),
        }
    }

    fn victim(&mut self) -> &'a Upload {
        let world = self.world;
        if self.random.below(2) == 0 {
            &world.base
        } else {
            &world.above
        }
    }

    fn noise(&mut self) -> Vec<u8> {
        // A refused request's body is not read; a short one is sent before the connection ends.
        let length = 1 + self.random.below(2_000);
        noise(self.random.next(), length)
    }

    /// The narinfo of a path that is there, with one field changed.
    fn narinfo(&mut self) -> u16 {
        let victim = self.victim();
        let other = Upload::new("hostile", &self.noise(), &[], Compression::None);
        self.client.put(&other.nar_path(), &other.file);
        let mut forged = victim.narinfo.clone();
        match self.random.below(7) {
            0 => {
                forged.ca = Some(format!(
                    "fixed:r:sha256:{}",
                    other.narinfo.nar_hash.base32()
                ))
            }
            1 => forged.deriver = Some(store_path("hostile", "hostile.drv")),
            2 => forged.references = Vec::new(),
            3 => forged.references.push(victim.path.clone()),
            4 => forged.nar_size += 1,
            5 => forged.compression = Compression::Zstd,
            _ => {
                forged.url = other.narinfo.url.clone();
                forged.compression = Compression::None;
                forged.file_size = other.narinfo.file_size;
                if self.random.below(2) == 0 {
                    forged.nar_hash = other.narinfo.nar_hash;
                    forged.nar_size = other.narinfo.nar_size;
                }
            }
        }
        self.client
            .put(&victim.narinfo_path(), forged.to_string().as_bytes())
            .status
    }

    /// Other bytes under the name of a NAR that is there.
    fn nar(&mut self) -> u16 {
        let nar = file_nar(&self.noise());
        let path = match self.random.below(3) {
            0 => self.world.nar_url.clone(),
            1 => self.world.base.nar_path(),
            _ => format!("/main/nar/{}.nar", Sha256::of(&nar).base32()),
        };
        self.client.put(&path, &nar).status
    }

    fn extra_document(&mut self, known: bool) -> u16 {
        let victim = self.victim();
        let listing = json!({"version": 1, "root": {"type": "directory", "entries":
            {"data": {"type": "regular", "size": 4, "executable": true, "narOffset": 200}}}});
        let hash = if known {
            victim.path.hash().to_string()
        } else {
            store_path("no", "no").hash().to_string()
        };
        self.client
            .put(&format!("/main/{hash}.ls"), listing.to_string().as_bytes())
            .status
    }

    fn realisation(&mut self) -> u16 {
        let id = ["ab", "cd"][self.random.below(2)].repeat(32);
        let forged = json!({"id": format!("sha256:{id}!out"), "outPath": self.world.above.path.to_string(),
            "signatures": ["hostile-1:AAAA"], "dependentRealisations": {}});
        self.client
            .put(&self.world.realisation, forged.to_string().as_bytes())
            .status
    }

    /// Joins or opens a push, into the victim's cache or its own.
    fn push(&mut self) -> Option<(&Client, String)> {
        if self.session.is_none() || self.random.below(4) == 0 {
            let own = self.random.below(3) == 0;
            let (client, cache) = if own {
                (&self.own, "evil")
            } else {
                (&self.client, "main")
            };
            self.session = session(client, cache).map(|id| (id, own));
        }
        let (id, own) = self.session.clone()?;
        Some((if own { &self.own } else { &self.client }, id))
    }

    /// A path that is there, or a new one, by the push protocol.
    fn publish_path(&mut self) -> u16 {
        let victim = self.victim();
        let own = Upload::new(
            &format!("own-{}", self.count),
            &self.noise(),
            &[],
            Compression::None,
        );
        let nar = [&victim.nar, &own.nar][self.random.below(2)];
        let path = [&victim.path, &own.path][self.random.below(2)];
        let mut fields = json!({"path": path.to_string(), "nar_hash": Sha256::of(nar).base32(), "nar_size": nar.len()});
        if self.random.below(2) == 0 {
            fields["deriver"] = json!(store_path("hostile", "hostile.drv").to_string());
        }
        if self.random.below(4) == 0 {
            fields["ca"] = json!(format!("fixed:r:sha256:{}", Sha256::of(b"else").base32()));
        }
        let Some((client, session)) = self.push() else {
            return 403;
        };
        let Some(blob) = propose(client, &session, BlobKind::Nar, nar) else {
            return 400;
        };
        fields["blob"] = json!(blob);
        let body = json!({"paths": [fields]});
        client
            .post_json(&format!("/api/v1/push/{session}/publish"), &body)
            .status
    }

    /// A tar of its own under the key of a layer of the owner's, or of one that the owner will push.
    fn publish_layer(&mut self) -> u16 {
        let world = self.world;
        let all: Vec<&Layer> = world.layers.iter().chain(&world.future).collect();
        let victim = *self.random.pick(&all);
        let tar = match self.random.below(3) {
            0 => Layer::of_root(&self.noise()).tar,
            1 => Layer::of_path(&world.above, &self.noise()).tar,
            _ => {
                let mut tar = victim.tar.clone();
                let at = self.random.below(tar.len());
                tar[at] ^= 1 << self.random.below(8);
                tar
            }
        };
        let Some((client, session)) = self.push() else {
            return 403;
        };
        let Some(blob) = propose(client, &session, BlobKind::Layer, &tar) else {
            return 400;
        };
        let body = publish_layer(&victim.key(), blob);
        client
            .post_json(&format!("/api/v1/push/{session}/publish"), &body)
            .status
    }

    fn blob(&mut self) -> u16 {
        let bytes = self.noise();
        let begun = self
            .client
            .send("POST", "/v2/main/app/blobs/uploads/", &[], b"");
        let Some(location) = begun.header("location").map(str::to_owned) else {
            return begun.status;
        };
        // Under a digest that is another blob's, or its own.
        let name = match self.random.below(2) {
            0 => self.random.pick(&self.world.blobs).clone(),
            _ => digest(&bytes),
        };
        self.client
            .put(&format!("{location}?digest={name}"), &bytes)
            .status
    }

    fn manifest(&mut self) -> u16 {
        let blobs = &self.world.blobs;
        let bytes = manifest((&blobs[0], 78), &[(&blobs[0], 78)]);
        let reference = match self.random.below(3) {
            0 if self.rights == Rights::Create => "1".to_owned(),
            1 => self.world.manifest_digest.clone(),
            _ => format!("hostile-{}", self.count),
        };
        let path = format!("/v2/main/app/manifests/{reference}");
        put_manifest(&self.client, &path, OCI_MANIFEST, &bytes).status
    }

    /// It has no right to any of these.
    fn delete(&mut self) -> u16 {
        let world = self.world;
        let path = match self.random.below(4) {
            0 => format!("/v2/main/app/manifests/{}", world.manifest_digest),
            1 => "/v2/main/app/manifests/1".to_owned(),
            2 => format!("/v2/main/app/blobs/{}", self.random.pick(&world.blobs)),
            _ => "/api/v1/caches/main".to_owned(),
        };
        let status = self.client.delete(&path).status;
        assert!(matches!(status, 400..=405), "DELETE {path}: {status}");
        status
    }

    /// A pull request's job saves under keys that main restores.
    fn actions(&mut self) -> u16 {
        let key = ["deps-1", "deps-2", "deps-3"][self.random.below(3)];
        let created = self.job.create(key);
        if created.status != 200 || created.json()["ok"] != true {
            return created.status;
        }
        let url = created.json()["signed_upload_url"]
            .as_str()
            .unwrap()
            .to_owned();
        let upload = self.job.path(&url);
        let bytes = self.noise();
        self.job.put(&upload, &bytes);
        self.job.finalize(key, bytes.len()).status
    }

    fn administer(&mut self) -> u16 {
        let (path, body) = match self.random.below(5) {
            0 => (
                "/api/v1/caches",
                json!({"name": "main/app", "public": true}),
            ),
            1 => ("/api/v1/evict?cache=main", json!({})),
            2 => (
                "/api/v1/keys/rotate?cache=main",
                json!({"overlap_seconds": 0}),
            ),
            3 => ("/api/v1/gc", json!({})),
            _ => (
                "/api/v1/tokens",
                json!({"caches": ["main"], "allow": ["admin"]}),
            ),
        };
        let status = self.client.post_json(path, &body).status;
        assert!(matches!(status, 400..=404), "POST {path}: {status}");
        status
    }

    /// What lies in a private cache is not had, and not brought out by a mount or by naming its chunks.
    fn private(&mut self) -> u16 {
        let world = self.world;
        let blob = &world.private_blob;
        let status = match self.random.below(3) {
            0 => {
                self.client
                    .get(&format!("/vault/{}.narinfo", world.private.path.hash()))
                    .status
            }
            1 => {
                self.client
                    .get(&format!("/v2/vault/app/blobs/{blob}"))
                    .status
            }
            _ => {
                let mount = format!("/v2/main/app/blobs/uploads/?mount={blob}&from=vault/app");
                let status = self.client.send("POST", &mount, &[], b"").status;
                self.client
                    .get(&format!("/v2/main/app/blobs/{blob}"))
                    .expect(404);
                return status;
            }
        };
        assert!(matches!(status, 401..=404), "{status}");
        status
    }
}
