//! Decides which of the versions found in the raw files of a damaged store `salvage` recovers.
//!
//! - A revision belongs to one killmail: the one in the ledger, or else the one written last. Versions of other
//!   killmails with this revision were never committed.
//! - Only the newest known revision of a killmail is recovered, and only if it is intact; of equal ones, the one
//!   written last.
//! - A number belongs to one killmail: of several, the one written last.
//! - Nothing up to the horizon is recovered, because it was deleted on purpose.
//!
//! Must not know: where versions are in the files, or how they are read.

use hashbrown::{HashMap, HashSet};

use crate::store::engine::ledger::Contents;
use crate::store::engine::raw::{Places, Raw, Version};

/// What the new store will contain.
#[derive(Debug, Default)]
pub struct Choice {
    /// Versions to recover, by number.
    pub chosen: Vec<Version>,
    /// Killmails whose newest revision is destroyed although an older one is not.
    pub stale: Vec<u32>,
    /// How many versions were never committed.
    pub unfinished: u64,
    /// The greatest number found.
    pub head: u64,
    /// The greatest revision found.
    pub rev: u64,
    /// Entries up to this number were deleted on purpose.
    pub horizon: u64,
}

#[derive(Clone, Copy)]
struct Written {
    version: Version,
    /// When it was last written: the engine's count of bytes.
    at: u64,
}

pub fn choose(raw: &Raw, ledger: &Contents) -> Choice {
    let mark = ledger.mark;
    let mut choice = Choice {
        head: mark.map_or(0, |mark| mark.head.0),
        rev: ledger.rev(),
        horizon: mark.map_or(0, |mark| mark.horizon.0),
        ..Choice::default()
    };
    let owners = owners(raw, ledger);
    let newest = newest_revisions(raw, ledger, &owners);
    let mut by_killmail: HashMap<u64, Written> = HashMap::new();
    let mut older = HashSet::new();
    for (version, places) in &raw.versions {
        choice.head = choice.head.max(version.seq.0);
        choice.rev = choice.rev.max(version.rev);
        if version.seq.0 <= choice.horizon {
            continue;
        }
        if !owns_revision(&owners, version) {
            choice.unfinished += 1;
            continue;
        }
        if newest.get(&version.killmail_id).is_some_and(|rev| version.rev < *rev) || !places.are_complete() {
            older.insert(version.killmail_id);
            continue;
        }
        let written = Written { version: *version, at: places.written };
        keep_last(&mut by_killmail, version.killmail_id, written, &mut choice.unfinished);
    }
    // A store has fewer revisions than bytes. A greater revision does not come from a log entry.
    let in_log_entries = raw.revised.keys().filter(|rev| **rev <= raw.bytes).max();
    choice.rev = choice.rev.max(in_log_entries.copied().unwrap_or(0));
    let mut by_number: HashMap<u64, Written> = HashMap::new();
    for written in by_killmail.into_values() {
        keep_last(&mut by_number, written.version.seq.0, written, &mut choice.unfinished);
    }
    choice.chosen = by_number.into_values().map(|written| written.version).collect();
    choice.chosen.sort_unstable_by_key(|version| version.seq);
    let chosen: HashSet<u64> = choice.chosen.iter().map(|version| version.killmail_id).collect();
    choice.stale =
        older.into_iter().filter(|id| !chosen.contains(id)).filter_map(|id| u32::try_from(id).ok()).collect();
    choice.stale.sort_unstable();
    choice
}

/// Keeps the version that was written last under a key; the other one was never committed.
fn keep_last(kept: &mut HashMap<u64, Written>, key: u64, new: Written, unfinished: &mut u64) {
    let known = kept.entry(key).or_insert(new);
    if known.version != new.version {
        *unfinished += 1;
        if (known.at, known.version) < (new.at, new.version) {
            *known = new;
        }
    }
}

/// Revision -> the killmail it belongs to.
fn owners(raw: &Raw, ledger: &Contents) -> HashMap<u64, u64> {
    let mut owners: HashMap<u64, (u64, u64)> = HashMap::new();
    for (version, Places { written, .. }) in raw.versions.iter().filter(|(version, _)| version.rev > 0) {
        let claim = (*written, version.killmail_id);
        owners.entry(version.rev).and_modify(|owner| *owner = claim.max(*owner)).or_insert(claim);
    }
    let mut owners: HashMap<u64, u64> = owners.into_iter().map(|(rev, (_, id))| (rev, id)).collect();
    owners.extend((1..).zip(&ledger.revised).filter_map(|(rev, id)| id.map(|id| (rev, u64::from(id)))));
    owners
}

fn owns_revision(owners: &HashMap<u64, u64>, version: &Version) -> bool {
    version.rev == 0 || owners.get(&version.rev).is_none_or(|id| *id == version.killmail_id)
}

/// Killmail -> its newest revision according to the ledger, frames and log entries.
fn newest_revisions(raw: &Raw, ledger: &Contents, owners: &HashMap<u64, u64>) -> HashMap<u64, u64> {
    let mut newest: HashMap<u64, u64> =
        ledger.newest_revisions().into_iter().map(|(id, rev)| (u64::from(id), rev)).collect();
    let mut add = |id: u64, rev: u64| {
        let known = newest.entry(id).or_default();
        *known = rev.max(*known);
    };
    for version in raw.versions.keys().filter(|version| owns_revision(owners, version)) {
        add(version.killmail_id, version.rev);
    }
    for (rev, killmails) in &raw.revised {
        let owner = owners.get(rev);
        for id in killmails.iter().map(|id| u64::from(*id)).filter(|id| owner.is_none_or(|owner| owner == id))
        {
            add(id, *rev);
        }
    }
    newest
}
