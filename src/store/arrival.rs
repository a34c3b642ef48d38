//! How an incoming killmail compares with the stored one: how old it is, whether it is newer, and when it
//! counts as published.
//!
//! Must not know: what the store does with the result.

use crate::domain::entry::Entry;
use crate::domain::killmail::Killmail;
use crate::domain::provenance::{BODY, ZKB};
use crate::store::incoming::{AgeRule, Incoming, ZkbRule};

/// Whether its values replace those of a source of the same rank.
pub fn is_newer(stored: &Entry, incoming: &Incoming) -> bool {
    match incoming.zkb {
        ZkbRule::Keep => false,
        ZkbRule::Always => true,
        ZkbRule::IfNewer => {
            incoming.uploaded_at.is_none_or(|at| stored.uploaded_at.is_none_or(|stored| at >= stored))
        }
    }
}

/// When the merged killmail counts as published: the time comes from the source of the higher rank, so that
/// a lower one never blocks its updates.
pub fn uploaded_at(stored: &Entry, incoming: &Incoming) -> Option<i64> {
    let raises = incoming.killmail.zkb.is_some() && !is_lower(&incoming.killmail);
    match (is_lower(&stored.killmail), is_lower(&incoming.killmail)) {
        (true, _) if raises => incoming.uploaded_at,
        (false, true) => stored.uploaded_at,
        _ if is_newer(stored, incoming) => incoming.uploaded_at.or(stored.uploaded_at),
        _ => stored.uploaded_at.or(incoming.uploaded_at),
    }
}

/// Whether its zkb block comes from a source of the lower rank; without a zkb block, whether its body does.
fn is_lower(killmail: &Killmail) -> bool {
    killmail.provenance.source(if killmail.zkb.is_some() { ZKB } else { BODY }).is_some()
}

/// Its age when it arrived, seconds.
pub fn age_secs(incoming: &Incoming) -> u32 {
    let time = incoming.killmail.time;
    let by_upload = incoming.uploaded_at.map(|at| at.saturating_sub(time)).filter(|age| *age >= 0);
    let age = match incoming.age {
        AgeRule::Zero => 0,
        AgeRule::ByUpload => {
            by_upload.unwrap_or_else(|| incoming.received_at_ms.div_euclid(1000).saturating_sub(time))
        }
    };
    u32::try_from(age.max(0)).unwrap_or(u32::MAX)
}
