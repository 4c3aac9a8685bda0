//! CycloneDX 1.6.

use super::{
    Sbom,
    names::{name_and_version, purl},
};
use crate::closure::PathInfo;
use serde::Serialize;

const IMAGE: &str = "image";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    bom_format: &'static str,
    spec_version: &'static str,
    serial_number: String,
    version: u32,
    metadata: Metadata<'a>,
    components: Vec<Component>,
    dependencies: Vec<Dependency>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    timestamp: &'a str,
    tools: Tools,
    component: Component,
}

#[derive(Serialize)]
struct Tools {
    components: [Component; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "bom-ref", skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property>,
}

#[derive(Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

#[derive(Serialize)]
struct Property {
    name: &'static str,
    value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    #[serde(rename = "ref")]
    reference: String,
    depends_on: Vec<String>,
}

pub(super) fn document(sbom: &Sbom<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let paths = sbom.sorted();
    let image = Dependency {
        reference: IMAGE.to_owned(),
        depends_on: sbom.tops().iter().map(|top| top.path.to_string()).collect(),
    };
    let dependencies = std::iter::once(image).chain(paths.iter().map(|info| dependency(info)));
    serde_json::to_vec(&Document {
        schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
        bom_format: "CycloneDX",
        spec_version: "1.6",
        serial_number: format!("urn:uuid:{}", uuid(&sbom.identity())),
        version: 1,
        metadata: Metadata {
            timestamp: sbom.time(),
            tools: Tools {
                components: [component(
                    "application",
                    None,
                    "firn",
                    Some(env!("CARGO_PKG_VERSION")),
                )],
            },
            component: component("container", Some(IMAGE.to_owned()), sbom.name, None),
        },
        dependencies: dependencies.collect(),
        components: paths.iter().map(|info| of_path(info)).collect(),
    })
}

/// A UUID of version 8, whose bits are the maker's own, out of hexadecimal digits.
fn uuid(hex: &str) -> String {
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-8{}-a{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 15),
        part(15, 18),
        part(18, 30)
    )
}

fn component(
    kind: &'static str,
    reference: Option<String>,
    name: &str,
    version: Option<&str>,
) -> Component {
    Component {
        kind,
        reference,
        name: name.to_owned(),
        version: version.map(str::to_owned),
        hashes: Vec::new(),
        purl: None,
        properties: Vec::new(),
    }
}

fn of_path(info: &PathInfo) -> Component {
    let (name, version) = name_and_version(&info.path);
    Component {
        hashes: vec![Hash {
            alg: "SHA-256",
            content: info.nar_hash.hex(),
        }],
        purl: Some(purl(&info.path)),
        properties: vec![Property {
            name: "nix:store_path",
            value: info.path.absolute(),
        }],
        ..component("library", Some(info.path.to_string()), name, version)
    }
}

fn dependency(info: &PathInfo) -> Dependency {
    let others = info.references.iter().filter(|path| **path != info.path);
    Dependency {
        reference: info.path.to_string(),
        depends_on: others.map(ToString::to_string).collect(),
    }
}
