#![no_main]
//! What strangers may have put into a store without a server: a CI key's entry, and a registry's tags.

use firn_client::ci::entry::CiEntry;
use firn_client::storage::registry::{name_of, tag_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(entry) = CiEntry::parse(bytes) {
        let written = entry.encode().expect("what was read can be written");
        let again = CiEntry::parse(&written).expect("and read again");
        // Numbers that are none have no JSON, so there are none here.
        assert_eq!(again, entry);
        for folder in &entry.folders {
            let _ = folder.list_id();
        }
    }
    if let Ok(tag) = std::str::from_utf8(bytes)
        && let Some(name) = name_of(tag)
    {
        assert_eq!(tag_of(name), tag);
        assert!(tag.len() == 86 && tag.is_ascii(), "{tag}");
    }
});
