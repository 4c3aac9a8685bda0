//! The suite of stores without a server, in a folder.

use super::{KIND, folder, place_in, write};
use firn_store::StoreError;
use firn_store::shared::FolderBackend;
use firn_testkit::shared_store::{Client, Place};
use std::sync::Arc;

fn new_place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    Box::new(move || Arc::new(FolderBackend::new(dir.path()).unwrap()))
}

firn_testkit::shared_store_suite!(new_place);

#[test]
fn the_folder_of_a_server_is_refused_and_a_server_refuses_this_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = firn_store::Store::open(crate::support::options(dir.path())).unwrap();
    let refused = FolderBackend::new(dir.path()).unwrap_err();
    assert!(matches!(refused, StoreError::ServerFolder(_)), "{refused}");
    drop(server);

    let dir = tempfile::tempdir().unwrap();
    let client = Client::new(&place_in(dir.path()));
    write(&client, KIND, "a");
    let refused = firn_store::Store::open(crate::support::options(dir.path()))
        .err()
        .unwrap();
    assert!(
        matches!(refused, StoreError::FormatVersion { .. }),
        "{refused}"
    );
}

/// Names come out of segments, which anybody may have written.
#[test]
fn a_name_never_leads_out_of_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let backend = folder(dir.path());
    for name in [
        "../../../etc/passwd",
        "",
        "ab",
        "/etc/passwd",
        "AB345678901234567890123456789012",
    ] {
        assert!(
            matches!(backend.read(name, 0..1), Err(StoreError::Damaged(_))),
            "{name}"
        );
        assert!(
            matches!(backend.delete_pack(name), Err(StoreError::Damaged(_))),
            "{name}"
        );
        assert!(
            matches!(backend.segment(name), Err(StoreError::Damaged(_))),
            "{name}"
        );
    }
}
