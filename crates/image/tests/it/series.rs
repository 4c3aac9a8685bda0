//! Series of revisions out of real dependency graphs, as `tools/mkseries` makes them.

use firn_formats::{
    Sha256,
    nix::{StorePath, base32},
};
use firn_image::{
    closure::{Closure, PathInfo},
    replay::Series,
};

/// Packages, each after what it refers to; the last is the application.
#[derive(Clone)]
pub(crate) struct Graph(Vec<Package>);

#[derive(Clone)]
struct Package {
    name: String,
    size: u64,
    references: Vec<usize>,
}

/// What changes from revision to revision.
pub(crate) enum Schedule {
    /// The application, always.
    App,
    /// The application, and in the middle of the series once this package.
    Once(&'static str),
    /// The application, packages at rates drawn once, and libc6 twice.
    Mixture(Mixture),
}

pub(crate) struct Mixture {
    pub(crate) seed: u64,
}

/// xorshift64*: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..16 {
            let _first = random.next();
        }
        random
    }

    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Graph {
    pub(crate) fn ffmpeg() -> Self {
        Self::read(include_str!("../fixtures/graphs/ffmpeg.txt"))
    }

    pub(crate) fn scipy() -> Self {
        Self::read(include_str!("../fixtures/graphs/scipy.txt"))
    }

    fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let package = |line: &str| {
            let mut words = line.split(' ');
            Package {
                name: words.next().unwrap().to_owned(),
                size: words.next().unwrap().parse().unwrap(),
                references: words.map(|word| word.parse().unwrap()).collect(),
            }
        };
        Self(lines.map(package).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The same with another application on top.
    pub(crate) fn with_app(&self, name: &str, size: u64) -> Self {
        let mut graph = self.clone();
        let app = graph.0.last_mut().unwrap();
        app.name = name.to_owned();
        app.size = size;
        graph
    }

    pub(crate) fn series(&self, revisions: usize, schedule: &Schedule) -> Series {
        let mut versions = vec![0_u32; self.len()];
        let mut random = Random::new(match schedule {
            Schedule::Mixture(mixture) => mixture.seed,
            _ => 0,
        });
        let rates = self.rates(&mut random);
        let third = revisions / 3;
        let mut closures = vec![self.closure(&versions)];
        for revision in 1..revisions {
            *versions.last_mut().unwrap() += 1;
            for (i, package) in self.0.iter().enumerate().take(self.len() - 1) {
                let changes = match schedule {
                    Schedule::App => false,
                    Schedule::Once(name) => revision == revisions / 2 && package.name == *name,
                    Schedule::Mixture(_) if package.name == "libc6" => {
                        revision == third || revision == 2 * third
                    }
                    Schedule::Mixture(_) => random.next() < rates[i],
                };
                versions[i] += u32::from(changes);
            }
            closures.push(self.closure(&versions));
        }
        Series {
            revisions: closures,
        }
    }

    fn rates(&self, random: &mut Random) -> Vec<f64> {
        const RATES: [f64; 5] = [0.002, 0.004, 0.01, 0.02, 0.06];
        let mut users = vec![0; self.len()];
        for package in &self.0 {
            package.references.iter().for_each(|&i| users[i] += 1);
        }
        let rate = |users: &i32| {
            let drawn = RATES[(random.next() * 5.0) as usize];
            drawn / (1.0 + f64::from(*users) / 3.0)
        };
        users.iter().map(rate).collect()
    }

    /// A path's hash depends on its version and on all it refers to.
    fn closure(&self, versions: &[u32]) -> Closure {
        let mut paths: Vec<PathInfo> = Vec::with_capacity(self.len());
        for (package, version) in self.0.iter().zip(versions) {
            let mut references: Vec<StorePath> = package
                .references
                .iter()
                .map(|&i| paths[i].path.clone())
                .collect();
            references.sort_unstable();
            let text = format!("{} {version} {references:?}", package.name);
            let digest = Sha256::of(text.as_bytes());
            let base = format!("{}-{}", base32::encode(&digest.0[..20]), package.name);
            paths.push(PathInfo {
                path: StorePath::parse_base_name(&base).unwrap(),
                nar_hash: digest,
                nar_size: package.size,
                references,
                deriver: None,
                signatures: Vec::new(),
                ca: None,
            });
        }
        let root = paths.last().unwrap().path.clone();
        Closure::new(paths, vec![root]).unwrap()
    }
}
