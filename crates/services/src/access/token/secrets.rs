//! The keys that sign tokens, and their file: the newest is the last line, and signs.

use crate::{ServiceError, secret_file};
use firn_formats::Sha256;
use std::path::Path;

/// A key that signs tokens, or has signed those that are still good. Shown nowhere.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) secret: [u8; 32],
    /// Seconds since 1970.
    pub(super) until: Option<u64>,
}

impl Key {
    pub(super) fn random() -> Result<Self, ServiceError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(ServiceError::Random)?;
        Ok(Self {
            secret,
            until: None,
        })
    }

    fn parse(line: &str) -> Option<Self> {
        let (hex, until) = match line.split_once(' ') {
            Some((hex, until)) => (hex, Some(crate::access::keys::parse_until(until.trim())?)),
            None => (line, None),
        };
        Some(Self {
            secret: Sha256::from_hex(hex)?.0,
            until,
        })
    }

    pub(super) fn is_over(&self, now: u64) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

pub(super) fn write_keys(path: &Path, keys: &[Key]) -> Result<(), ServiceError> {
    let mut text = String::new();
    for key in keys {
        text.push_str(&Sha256(key.secret).hex());
        if let Some(until) = key.until {
            text.push_str(&format!(" until={until}"));
        }
        text.push('\n');
    }
    secret_file::write(path, &text)
}

pub(super) fn load_or_make_keys(path: &Path) -> Result<Vec<Key>, ServiceError> {
    let Some(text) = secret_file::read(path)? else {
        let keys = vec![Key::random()?];
        write_keys(path, &keys)?;
        return Ok(keys);
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let keys: Option<Vec<Key>> = lines.map(Key::parse).collect();
    keys.filter(|keys| !keys.is_empty())
        .ok_or_else(|| ServiceError::SecretContent {
            path: path.to_owned(),
            what: "a line is not 64 hexadecimal characters".to_owned(),
        })
}

/// Without those whose time is over; whether there were any. The newest is never over.
pub(super) fn without_old(keys: &mut Vec<Key>, now: u64) -> bool {
    let before = keys.len();
    let newest = before.saturating_sub(1);
    let mut place = 0;
    keys.retain(|key| {
        place += 1;
        place > newest || !key.is_over(now)
    });
    keys.len() < before
}
