//! What the services know, in the words of the messages.

use firn_formats::actions::github::CacheEntry;
use firn_formats::admin::{
    ActionsGoneView, ActionsHitView, ActionsLookupView, ActionsMissView, ActionsRepositoryView,
    EvictionCause,
};
use firn_services::access::token::rfc3339;
use firn_services::actions::{Entry, Form, Gone, Looked, MissReason, Outcome, Repository, Usage};
use firn_store::EvictionReason;

pub(super) fn repository(repository: &Repository, usage: Usage) -> ActionsRepositoryView {
    ActionsRepositoryView {
        repository: repository.name.to_string(),
        entries: usage.entries,
        bytes: usage.bytes,
        stored_bytes: usage.stored_bytes,
        quota_bytes: usage.quota_bytes,
        keep_for_seconds: usage.keep_for_seconds,
    }
}

pub(super) fn entry(entry: &Entry) -> CacheEntry {
    let time = |seconds: i64| u64::try_from(seconds).ok().and_then(rfc3339);
    CacheEntry {
        id: entry.id,
        scope: entry.scope.clone(),
        key: entry.key.clone(),
        version: entry.version.clone(),
        last_accessed_at: time(entry.used_at_ms / 1000).unwrap_or_default(),
        created_at: time(entry.created_at).unwrap_or_default(),
        size_in_bytes: entry.size,
        form: match entry.form {
            Form::Exact => "exact",
            Form::Decoded => "decoded",
        }
        .to_owned(),
    }
}

pub(super) fn looked(looked: Looked) -> ActionsLookupView {
    let (hit, miss) = match looked.outcome {
        Outcome::Hit {
            id,
            key,
            scope,
            exact,
            size,
        } => {
            let hit = ActionsHitView {
                id,
                key,
                scope,
                exact,
                size,
                restored_ms: looked.restored_ms,
            };
            (Some(hit), None)
        }
        Outcome::Miss(reason) => (None, Some(miss(reason))),
    };
    ActionsLookupView {
        at: looked.at,
        key: looked.key,
        restore_keys: looked.restore_keys,
        version: looked.version,
        scope: looked.scope,
        hit,
        miss,
    }
}

fn miss(reason: MissReason) -> ActionsMissView {
    match reason {
        MissReason::Saving => ActionsMissView::Saving,
        MissReason::Evicted { why, at } => ActionsMissView::Evicted {
            why: match why.as_str() {
                "unused" => EvictionCause::Unused,
                "deleted" => EvictionCause::Deleted,
                "replaced" => EvictionCause::Replaced,
                _ => EvictionCause::Quota,
            },
            at,
        },
        MissReason::OtherVersion => ActionsMissView::OtherVersion,
        MissReason::OtherScope { scope } => ActionsMissView::OtherScope { scope },
        MissReason::KeyChanged { newest } => ActionsMissView::KeyChanged { newest },
        MissReason::NeverSaved => ActionsMissView::NeverSaved,
    }
}

pub(super) fn gone(gone: Gone) -> ActionsGoneView {
    ActionsGoneView {
        at: gone.at,
        key: gone.key,
        version: gone.version,
        scope: gone.scope,
        size: gone.size,
        reason: match gone.reason {
            EvictionReason::Unused => EvictionCause::Unused,
            EvictionReason::Quota => EvictionCause::Quota,
            EvictionReason::Deleted => EvictionCause::Deleted,
            EvictionReason::Replaced => EvictionCause::Replaced,
        },
        used_at: gone.used_at,
    }
}
