//! The little of Azure's blob storage that uploads speak: block lists, and errors.

/// Longest list, in bytes: 50,000 blocks of 88 characters between their tags.
pub const LIST_BYTES_MAX: usize = 8 << 20;
/// Longest id of a block, in bytes: 64 bytes in base64 are 88.
pub const BLOCK_ID_BYTES_MAX: usize = 256;
/// Azure's own limit.
pub const BLOCKS_MAX: usize = 50_000;

/// Why a block list is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum BlockListError {
    #[error("the body is not a block list in XML")]
    Malformed,
    #[error("the list names more than {BLOCKS_MAX} blocks")]
    TooMany,
}

/// Whether an id is one: not empty, not long, no control characters, none that XML would have to escape.
pub fn is_block_id(id: &str) -> bool {
    let sound = |c: char| !c.is_control() && !matches!(c, '<' | '>' | '&');
    !id.is_empty() && id.len() <= BLOCK_ID_BYTES_MAX && id.chars().all(sound)
}

/// What stands between `<` and `>`, and what follows.
fn tag(text: &str) -> Result<(&str, &str), BlockListError> {
    let inside = text.strip_prefix('<').ok_or(BlockListError::Malformed)?;
    inside.split_once('>').ok_or(BlockListError::Malformed)
}

/// Past white space, a declaration, and comments.
fn skip(mut text: &str) -> Result<&str, BlockListError> {
    loop {
        text = text.trim_start();
        let end = match text {
            _ if text.starts_with("<?") => "?>",
            _ if text.starts_with("<!--") => "-->",
            _ => return Ok(text),
        };
        let (_, after) = text.split_once(end).ok_or(BlockListError::Malformed)?;
        text = after;
    }
}

/// The ids of a list, in its order:
///
/// ```text
/// <?xml version="1.0" encoding="utf-8"?><BlockList><Latest>id</Latest>…</BlockList>
/// ```
/// `Uncommitted` and `Committed` mean the same here. Document types, and with them entities, are refused.
///
/// # Errors
/// If it is anything else.
pub fn block_list(body: &[u8]) -> Result<Vec<String>, BlockListError> {
    let malformed = BlockListError::Malformed;
    let text = std::str::from_utf8(body).map_err(|_| malformed)?;
    let text = skip(text.trim_start_matches('\u{FEFF}'))?;
    let (open, mut rest) = tag(text)?;
    let name = open.trim_end_matches('/').split_ascii_whitespace().next();
    if name != Some("BlockList") {
        return Err(malformed);
    }
    let mut ids = Vec::new();
    if open.ends_with('/') {
        return end(rest, ids);
    }
    loop {
        rest = skip(rest)?;
        let (name, after) = tag(rest)?;
        if name == "/BlockList" {
            return end(after, ids);
        }
        if !matches!(name, "Latest" | "Uncommitted" | "Committed") {
            return Err(malformed);
        }
        let (id, after) = after.split_once("</").ok_or(malformed)?;
        let (close, after) = after.split_once('>').ok_or(malformed)?;
        let id = id.trim();
        if close.trim_end() != name || !is_block_id(id) {
            return Err(malformed);
        }
        if ids.len() >= BLOCKS_MAX {
            return Err(BlockListError::TooMany);
        }
        ids.push(id.to_owned());
        rest = after;
    }
}

fn end(rest: &str, ids: Vec<String>) -> Result<Vec<String>, BlockListError> {
    match skip(rest)?.is_empty() {
        true => Ok(ids),
        false => Err(BlockListError::Malformed),
    }
}

/// An error's body; both texts are the server's own.
pub fn error(code: &str, message: &str) -> String {
    let message = message
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_clients_are_read() {
        let js = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><BlockList><Latest>YQ==</Latest><Latest>Yg==</Latest></BlockList>"#;
        assert_eq!(block_list(js.as_bytes()).unwrap(), ["YQ==", "Yg=="]);
        let go = "<BlockList>\n  <Latest>b</Latest>\n  <!-- x --><Uncommitted> a </Uncommitted>\n</BlockList>\n";
        assert_eq!(block_list(go.as_bytes()).unwrap(), ["b", "a"]);
        for empty in ["<BlockList/>", "<BlockList />", "<BlockList></BlockList>"] {
            assert!(block_list(empty.as_bytes()).unwrap().is_empty());
        }
    }

    #[test]
    fn hostile_lists_are_refused() {
        let long = format!(
            "<BlockList><Latest>{}</Latest></BlockList>",
            "a".repeat(300)
        );
        for bad in [
            "",
            "<",
            "<BlockList",
            "<BlockList>",
            "<BlockList><Latest>a</Latest>",
            "<BlockList><Latest></Latest></BlockList>",
            "<BlockList><Latest>a</Committed></BlockList>",
            "<BlockList><Other>a</Other></BlockList>",
            "<BlockList><Latest>a&amp;b</Latest></BlockList>",
            "<BlockList><Latest><Latest>a</Latest></Latest></BlockList>",
            "<BlockList></BlockList><BlockList></BlockList>",
            "<!DOCTYPE x [<!ENTITY a \"b\">]><BlockList></BlockList>",
            "<?xml <BlockList/>",
            &long,
        ] {
            assert!(block_list(bad.as_bytes()).is_err(), "{bad:.60}");
        }
        assert!(block_list(b"\xff<BlockList/>").is_err());
        let many = "<Latest>a</Latest>".repeat(BLOCKS_MAX + 1);
        let many = format!("<BlockList>{many}</BlockList>");
        assert_eq!(block_list(many.as_bytes()), Err(BlockListError::TooMany));
    }
}
