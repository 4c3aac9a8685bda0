//! What is known of an image's past.

use firn_image::plan::History;

/// A history that is read is written as one that reads the same.
pub(crate) fn history(input: &[u8]) {
    if let Ok(history) = History::parse(input) {
        let written = history.to_json().expect("a history is JSON");
        assert_eq!(History::parse(&written).expect("its own JSON"), history);
    }
}
