//! SPDX 2.3.

use super::{
    Sbom,
    names::{name_and_version, purl},
};
use crate::closure::PathInfo;
use firn_formats::nix::StorePath;
use serde::Serialize;

const NONE: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-image";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: &'a str,
    document_namespace: String,
    creation_info: CreationInfo<'a>,
    packages: Vec<Package>,
    relationships: Vec<Relationship>,
}

#[derive(Serialize)]
struct CreationInfo<'a> {
    created: &'a str,
    creators: [&'static str; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    #[serde(rename = "SPDXID")]
    id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<String>,
    download_location: &'static str,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
    license_concluded: &'static str,
    license_declared: &'static str,
    copyright_text: &'static str,
    primary_package_purpose: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

pub(super) fn document(sbom: &Sbom<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let image = Package {
        checksums: Vec::new(),
        external_refs: Vec::new(),
        primary_package_purpose: "CONTAINER",
        ..package(IMAGE.to_owned(), sbom.name.to_owned(), None)
    };
    let paths = sbom.sorted();
    let mut relationships = vec![relationship(DOCUMENT, "DESCRIBES", IMAGE)];
    let tops = sbom.tops();
    relationships.extend(
        tops.iter()
            .map(|top| relationship(IMAGE, "CONTAINS", &id(&top.path))),
    );
    for info in &paths {
        let from = id(&info.path);
        let others = info.references.iter().filter(|path| **path != info.path);
        relationships.extend(others.map(|path| relationship(&from, "DEPENDS_ON", &id(path))));
    }
    let packages = std::iter::once(image).chain(paths.into_iter().map(of_path));
    serde_json::to_vec(&Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: DOCUMENT,
        name: sbom.name,
        document_namespace: format!("https://spdx.org/spdxdocs/firn-{}", sbom.identity()),
        creation_info: CreationInfo {
            created: sbom.time(),
            creators: [concat!("Tool: firn-", env!("CARGO_PKG_VERSION"))],
        },
        packages: packages.collect(),
        relationships,
    })
}

/// Ids have letters, digits, dots and dashes.
fn id(path: &StorePath) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    format!(
        "SPDXRef-{}",
        path.to_string().chars().map(plain).collect::<String>()
    )
}

fn package(id: String, name: String, version: Option<String>) -> Package {
    Package {
        id,
        name,
        version_info: version,
        download_location: NONE,
        files_analyzed: false,
        checksums: Vec::new(),
        license_concluded: NONE,
        license_declared: NONE,
        copyright_text: NONE,
        primary_package_purpose: "OTHER",
        external_refs: Vec::new(),
    }
}

/// The checksum is that of the NAR: the archive that the package is, wherever it is downloaded from.
fn of_path(info: &PathInfo) -> Package {
    let (name, version) = name_and_version(&info.path);
    let reference = |category, kind, locator| ExternalRef {
        reference_category: category,
        reference_type: kind,
        reference_locator: locator,
    };
    Package {
        checksums: vec![Checksum {
            algorithm: "SHA256",
            checksum_value: info.nar_hash.hex(),
        }],
        external_refs: vec![
            reference("PACKAGE-MANAGER", "purl", purl(&info.path)),
            reference("OTHER", "nix-store-path", info.path.absolute()),
        ],
        ..package(id(&info.path), name.to_owned(), version.map(str::to_owned))
    }
}

fn relationship(from: &str, kind: &'static str, to: &str) -> Relationship {
    Relationship {
        spdx_element_id: from.to_owned(),
        relationship_type: kind,
        related_spdx_element: to.to_owned(),
    }
}
