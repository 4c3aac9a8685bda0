//! Realisations: the first stays, later ones of the same output add signatures.
//!
//! Nix up to 2.34 writes `{"id", "outPath", "signatures", …}`, later ones `{"key", "value": {"outPath", "signatures"}}`
//! or the value alone.

use super::ExtraKind;
use crate::ServiceError;
use firn_formats::nix::realisation::RealisationName;
use serde_json::Value;

/// Most signatures kept on one realisation.
const SIGNATURES_MAX: usize = 64;
const SIGNATURES: &str = "signatures";

/// Reads one, refusing what is of another name than it is put under.
pub(super) fn checked(kind: ExtraKind, name: &str, bytes: &[u8]) -> Result<Value, ServiceError> {
    let unsound = |what: &str| ServiceError::BadRequest(format!("{name} {what}"));
    let realisation: Value =
        serde_json::from_slice(bytes).map_err(|_| unsound("is not a realisation"))?;
    if kind == ExtraKind::Realisation {
        let stem = name.strip_suffix(".doi").unwrap_or(name);
        let own = RealisationName::parse_id(stem)
            .map_err(|_| unsound("is not named <hash>!<output>.doi"))?;
        let id = realisation.get("id").and_then(Value::as_str);
        if id.and_then(|id| RealisationName::parse_id(id).ok()) != Some(own) {
            return Err(unsound("is a realisation with another id"));
        }
    } else if !realisation.is_object() {
        return Err(unsound("is not a realisation"));
    }
    Ok(realisation)
}

/// `known` with the signatures of `new` added; `None` if there is nothing to add, or they are not the same.
pub(super) fn signed(known: &[u8], new: &Value) -> Result<Option<Vec<u8>>, ServiceError> {
    let mut merged: Value = serde_json::from_slice(known)?;
    let added: Vec<Value> = signatures(new).cloned().collect();
    if without_signatures(&merged) != without_signatures(new) {
        return Ok(None);
    }
    let place = match merged.get("value") {
        Some(Value::Object(_)) => merged.get_mut("value"),
        _ => Some(&mut merged),
    };
    let Some(Value::Object(place)) = place else {
        return Ok(None);
    };
    let list = place
        .entry(SIGNATURES)
        .or_insert_with(|| Value::Array(Vec::new()));
    let Value::Array(list) = list else {
        return Ok(None);
    };
    let before = list.len();
    for signature in added {
        if list.len() < SIGNATURES_MAX && !list.contains(&signature) {
            list.push(signature);
        }
    }
    match list.len() == before {
        true => Ok(None),
        false => Ok(Some(serde_json::to_vec(&merged)?)),
    }
}

fn signatures(realisation: &Value) -> impl Iterator<Item = &Value> {
    let place = match realisation.get("value") {
        Some(value @ Value::Object(_)) => value,
        _ => realisation,
    };
    let list = place.get(SIGNATURES).and_then(Value::as_array);
    list.into_iter().flatten()
}

fn without_signatures(realisation: &Value) -> Value {
    let mut rest = realisation.clone();
    for place in ["", "/value"] {
        if let Some(Value::Object(fields)) = rest.pointer_mut(place) {
            fields.remove(SIGNATURES);
        }
    }
    rest
}
