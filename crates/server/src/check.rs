//! Checking a store that no server has open, and reports in the API's words.

use crate::config::Config;
use firn_formats::admin::{CheckView, FindingView, ReadData};
use firn_store::{
    BackupReport, CheckReport, DataOptions, DataProgress, Finding, Store, StoreError,
};

/// How data is read, as the API says it.
pub(crate) fn data_options(read: &ReadData) -> DataOptions {
    let (part, parts) = read.part;
    DataOptions {
        part: (part, parts.max(1)),
        bytes_per_second_max: read.rate,
        resume: read.resume,
        ..DataOptions::default()
    }
}

/// A report as it is sent.
pub fn view(report: CheckReport) -> CheckView {
    CheckView {
        damaged: report.is_damaged(),
        packs: report.packs,
        chunks: report.chunks,
        blobs: report.blobs,
        entries: report.entries,
        segments: report.segments,
        bytes_read: report.bytes_read,
        chunks_read: report.chunks_read,
        chunks_quarantined: report.chunks_quarantined,
        chunks_restored: report.chunks_restored,
        findings: report.findings.into_iter().map(finding).collect(),
    }
}

fn finding(finding: Finding) -> FindingView {
    FindingView {
        what: finding.kind.name().to_owned(),
        damage: finding.kind.is_damage(),
        subject: finding.subject,
        detail: finding.detail,
        breaks: finding.breaks,
        breaks_total: finding.breaks_total,
    }
}

/// Checks the folder of a server that does not run, as its next start would open it. `told` hears of (bytes done,
/// bytes in all).
///
/// # Errors
/// If the folder is in use, or something cannot be read or written. Damage is no error but a finding.
pub fn check(
    config: &Config,
    data: Option<&ReadData>,
    told: &mut dyn FnMut(u64, u64),
) -> Result<CheckView, StoreError> {
    let findings = Store::inspect(&config.data)?;
    if !findings.is_empty() {
        let report = CheckReport {
            findings,
            ..CheckReport::default()
        };
        return Ok(view(report));
    }
    let store = Store::open(config.store_options())?;
    store.on_remade(firn_services::check::remade);
    let options = data.map(data_options);
    let mut go_on = |progress: &DataProgress| {
        told(progress.bytes_done, progress.bytes_total);
        true
    };
    let report = store.check(options.as_ref(), &firn_services::check::explain, &mut go_on)?;
    store.close()?;
    Ok(view(report))
}

/// Makes, or brings up to date, a backup of a server's folder, whether the server runs or not.
///
/// # Errors
/// If `dest` holds something else, or something cannot be read or written.
pub fn backup(
    config: &Config,
    dest: &std::path::Path,
    link: bool,
) -> Result<BackupReport, StoreError> {
    Store::backup(&config.data, dest, link)
}
