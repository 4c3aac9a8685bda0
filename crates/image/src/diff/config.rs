//! Which fields of two configs differ.

use firn_formats::oci::ImageConfig;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A field that is another one, as JSON; None where it is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct ConfigChange {
    /// `Cmd`, `Env.PATH`, `Labels.version`, `architecture`.
    pub field: String,
    pub old: Option<String>,
    pub new: Option<String>,
}

/// Layers and history follow from the layers, and are left out.
pub(super) fn changes(old: &ImageConfig, new: &ImageConfig) -> Vec<ConfigChange> {
    let (old, mut new) = (fields(old), fields(new));
    let mut changes = Vec::new();
    for (field, before) in old {
        let after = new.remove(&field);
        if after.as_ref() != Some(&before) {
            changes.push(ConfigChange {
                field,
                old: Some(before),
                new: after,
            });
        }
    }
    changes.extend(new.into_iter().map(|(field, after)| ConfigChange {
        field,
        old: None,
        new: Some(after),
    }));
    changes.sort_by(|a, b| a.field.cmp(&b.field));
    changes
}

/// One entry a field; maps and the environment one a member.
fn fields(image: &ImageConfig) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let Ok(Value::Object(mut whole)) = serde_json::to_value(image) else {
        return out;
    };
    let inner = whole.remove("config");
    whole.retain(|name, _| !matches!(name.as_str(), "rootfs" | "history"));
    flatten(&whole, &mut out);
    if let Some(Value::Object(inner)) = inner {
        flatten(&inner, &mut out);
    }
    out
}

fn flatten(object: &Map<String, Value>, out: &mut BTreeMap<String, String>) {
    for (name, value) in object {
        match value {
            Value::Null => {}
            Value::Object(members) => {
                let members = members.iter().filter(|(_, value)| !value.is_null());
                out.extend(
                    members.map(|(member, value)| (format!("{name}.{member}"), text(value))),
                );
            }
            Value::Array(entries) if name == "Env" => {
                let entries = entries.iter().filter_map(Value::as_str);
                out.extend(entries.map(|entry| {
                    let (variable, value) = entry.split_once('=').unwrap_or((entry, ""));
                    (format!("Env.{variable}"), value.to_owned())
                }));
            }
            value => {
                out.insert(name.clone(), text(value));
            }
        }
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
