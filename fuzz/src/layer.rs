//! Keys of layers, computed from their tars; and the recipes that come with them.

use firn_formats::layer::{Found, Recipe, Scan, Terms};
use std::sync::Arc;

fn scan(tar: &[u8], piece: usize, terms: Option<&Arc<Terms>>) -> Found {
    let pass = |mut scan: Scan| {
        tar.chunks(piece).for_each(|piece| scan.push(piece));
        scan.finish()
    };
    match pass(Scan::new(terms.cloned())) {
        Found::Mixed { paths_key } => {
            let found = pass(Scan::mixed(terms.cloned(), &paths_key));
            // A second pass ends with what the layer is.
            assert!(!matches!(found, Found::Mixed { .. }));
            found
        }
        found => found,
    }
}

/// A line of JSON may come before the tar. A key is the same in pieces of any size, and no other tar of this length
/// that differs in a byte has it.
pub(crate) fn layer(input: &[u8]) {
    let line = input.iter().position(|byte| *byte == b'\n');
    let (recipe, rest) = line.map_or((&[][..], &[][..]), |at| (&input[..at], &input[at + 1..]));
    let recipe = serde_json::from_slice::<Recipe>(recipe).ok();
    let terms = recipe.and_then(|recipe| recipe.terms().ok()).map(Arc::new);
    let tar = if terms.is_some() { rest } else { input };
    let found = scan(tar, tar.len().max(1), terms.as_ref());
    let piece = usize::from(tar.first().copied().unwrap_or(1)).max(1);
    assert_eq!(scan(tar, piece, terms.as_ref()), found);
    if let (Found::Key(_), Some(middle)) = (&found, tar.get(tar.len() / 2)) {
        let mut other = tar.to_vec();
        other[tar.len() / 2] = middle ^ 1;
        assert_ne!(scan(&other, piece, terms.as_ref()), found);
    }
}
