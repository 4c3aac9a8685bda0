//! What is read of HTTP's headers.

use firn_formats::http::{Ranged, content_range, range, token};

/// A range lies in the body that it is of, whose length is in the first eight bytes.
pub(crate) fn headers(input: &[u8]) {
    let Some((length, text)) = input.split_first_chunk::<8>() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let length = u64::from_le_bytes(*length);
    for length in [length, length % 100] {
        if let Ranged::Part(first, count) = range(Some(text), length) {
            let end = first.checked_add(count).expect("no overflow");
            assert!(count > 0 && end <= length);
        }
    }
    let _ = content_range(text);
    let _ = token(text);
}
