//! The key with which a substituter signs what it offers.

use crate::{
    credentials::state_home,
    error::{ClientError, Result},
    files::write_secret,
};
use firn_formats::nix::SecretKey;
use std::{io::ErrorKind, path::Path};

/// A key that nobody keeps.
pub fn new_key(name: &str) -> Result<SecretKey> {
    Ok(SecretKey::from_seed(name, random()?))
}

/// The key of this user's agent, made when it is first wanted: `firn/agent.secret` below the user's state
/// folder, for the user alone.
pub fn key_of_user() -> Result<SecretKey> {
    let Some(home) = state_home() else {
        return Err(ClientError::Setting(
            "neither XDG_STATE_HOME nor HOME says where to keep the agent's key".to_owned(),
        ));
    };
    key_at(&home.join("firn/agent.secret"))
}

/// A name that only who has a key can know: 32 hexadecimal digits.
pub fn secret_name(key: &SecretKey) -> String {
    let text = format!("name of a door\n{}", key.to_secret_string());
    let mut name = firn_formats::Sha256::of(text.as_bytes()).hex();
    name.truncate(32);
    name
}

fn key_at(path: &Path) -> Result<SecretKey> {
    match std::fs::read_to_string(path) {
        Ok(text) => SecretKey::parse(text.trim())
            .map_err(|_| ClientError::Setting(format!("{} holds no secret key", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // Nix knows keys by their names: those of two machines must differ.
            let [a, b, c, d] = random()?;
            let key = new_key(&format!("firn-agent-{a:02x}{b:02x}{c:02x}{d:02x}-1"))?;
            write_secret(path, format!("{}\n", key.to_secret_string()).as_bytes())?;
            Ok(key)
        }
        Err(source) => Err(ClientError::io(path, source)),
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| ClientError::Setting(format!("there is no randomness: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_key_is_kept_for_its_user_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("firn/agent.secret");
        let made = key_at(&path).expect("a key");
        let read = key_at(&path).expect("the same key");
        assert_eq!(made.public(), read.public());
        let mode = std::fs::metadata(&path).expect("a file").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let other = key_at(&dir.path().join("other")).expect("a key");
        assert_ne!(other.public().name, made.public().name);
        std::fs::write(&path, "nonsense").expect("write");
        assert!(key_at(&path).is_err());
    }
}
