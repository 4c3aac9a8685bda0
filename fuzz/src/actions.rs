//! What Actions' cache clients send.

use firn_formats::actions::twirp::{Encoding, Method, Request};
use firn_formats::actions::{Scopes, attempts, azure, check_keys, rest};

/// Requests of Twirp: the first byte says which method and encoding. What is read of one encoding means the same when
/// it is written in JSON, and the order of looks is within its bounds.
pub(crate) fn twirp(input: &[u8]) {
    let Some((choice, body)) = input.split_first() else {
        return;
    };
    let method = [Method::Create, Method::Finalize, Method::Get][usize::from(choice % 3)];
    let encoding = match choice & 0x80 {
        0 => Encoding::Json,
        _ => Encoding::Protobuf,
    };
    if let Ok(request) = Request::parse(method, encoding, body) {
        let json = serde_json::json!({
            "key": request.key, "version": request.version, "restoreKeys": request.restore_keys,
            "size_bytes": request.size_bytes.to_string(),
        });
        let again = Request::parse(method, Encoding::Json, json.to_string().as_bytes());
        assert_eq!(again.expect("its own JSON"), request);
        let keys = request.keys();
        let looks = attempts(["a", "b"], &keys).count();
        assert!(looks <= 4 * keys.len());
        // It says so or not; it does not panic.
        let _ = check_keys(&keys);
    }
    if let Ok(claim) = std::str::from_utf8(body)
        && let Ok(scopes) = Scopes::parse(claim)
    {
        assert_eq!(
            Scopes::parse(&scopes.claim()).expect("its own claim"),
            scopes
        );
    }
    let _ = serde_json::from_slice::<rest::Reserve>(body);
    let _ = serde_json::from_slice::<rest::Commit>(body);
}

/// Azure's block lists: what is read is written as what reads the same.
pub(crate) fn block_list(body: &[u8]) {
    let Ok(ids) = azure::block_list(body) else {
        return;
    };
    let list: String = ids
        .iter()
        .map(|id| format!("<Latest>{id}</Latest>"))
        .collect();
    let list = format!("<BlockList>{list}</BlockList>");
    assert_eq!(azure::block_list(list.as_bytes()).as_ref(), Ok(&ids));
}
