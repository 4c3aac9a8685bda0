//! Checking a store without a server.

use firn_formats::nix::NarInfo;
use firn_store::shared::{PackPart, SharedEntry, SharedStore};
use firn_store::{CheckReport, EntryKind, Meaning, StoreError};

/// Checks a store: what its segments say against what its place has, and with `data` every byte of a part of
/// its packs. `told` hears of bytes that were read.
///
/// # Errors
/// If the place or the local index fails. Damage is no error but a finding.
pub fn check_storage(
    store: &SharedStore,
    data: Option<PackPart>,
    told: &mut dyn FnMut(u64),
) -> Result<CheckReport, StoreError> {
    store.check(data, &explain, told)
}

/// References are not asked for: what an upstream has was never pushed, and the store does not know which it is.
fn explain(cache: &str, entry: &SharedEntry) -> Meaning {
    match entry.kind {
        EntryKind::Narinfo => match NarInfo::parse(&String::from_utf8_lossy(&entry.value)) {
            Ok(narinfo) => Meaning {
                name: Some(format!(
                    "narinfo /nix/store/{} in {cache}",
                    narinfo.store_path
                )),
                faults: match narinfo.store_path.hash().to_string() == entry.key {
                    true => Vec::new(),
                    false => vec!["it is of another path than its key".to_owned()],
                },
                ..Meaning::default()
            },
            Err(_) => Meaning {
                name: Some(format!("narinfo {} in {cache}", entry.key)),
                faults: vec!["it does not parse".to_owned()],
                ..Meaning::default()
            },
        },
        EntryKind::CiKey => Meaning {
            name: Some(format!("CI key {} in {cache}", entry.key)),
            ..Meaning::default()
        },
        _ => Meaning::default(),
    }
}
