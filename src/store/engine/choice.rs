//! Which of the versions found in raw files count.
//!
//! - A revision was given to one killmail: the one the ledger names, else the one written last. Others never
//!   counted.
//! - Of a killmail the newest revision anything tells of counts, and only if it is whole; of equal ones the
//!   one written last.
//! - A number was given to one killmail: of several the one written last.
//! - Nothing up to the horizon counts: it was forgotten on purpose.
//!
//! Must not know: where versions stand, or how they are read.

use hashbrown::{HashMap, HashSet};

use crate::store::engine::ledger::Contents;
use crate::store::engine::raw::{Places, Raw, Version};

/// What is to be in the new store.
#[derive(Debug, Default)]
pub struct Choice {
    /// Versions to keep, by number, each with when it was written.
    pub chosen: Vec<(Version, u64)>,
    /// Killmails whose newest revision is destroyed while an older one is not.
    pub stale: Vec<u32>,
    /// Versions that never counted.
    pub unfinished: u64,
    /// The greatest number anything tells of.
    pub head: u64,
    /// The greatest revision anything tells of.
    pub rev: u64,
    /// Up to here everything was forgotten.
    pub horizon: u64,
}

/// Chooses.
pub fn choose(raw: &Raw, ledger: &Contents) -> Choice {
    let mark = ledger.mark;
    let mut choice = Choice {
        head: mark.map_or(0, |mark| mark.head.0),
        rev: ledger.rev(),
        horizon: mark.map_or(0, |mark| mark.horizon.0),
        ..Choice::default()
    };
    let owners = owners(raw, ledger);
    let newest = newest(raw, ledger, &owners);
    let mut by_killmail: HashMap<u64, (Version, u64)> = HashMap::new();
    let mut older = HashSet::new();
    for (version, places) in &raw.versions {
        choice.head = choice.head.max(version.seq.0);
        choice.rev = choice.rev.max(version.rev);
        if version.seq.0 <= choice.horizon {
            continue;
        }
        if !owns(&owners, version) {
            choice.unfinished += 1;
            continue;
        }
        if newest.get(&version.killmail_id).is_some_and(|rev| version.rev < *rev) || !places.whole() {
            older.insert(version.killmail_id);
            continue;
        }
        keep_last(&mut by_killmail, version.killmail_id, (*version, places.written), &mut choice.unfinished);
    }
    choice.rev =
        choice.rev.max(raw.lines.keys().filter(|rev| **rev <= plausible(raw)).max().copied().unwrap_or(0));
    let mut by_number: HashMap<u64, (Version, u64)> = HashMap::new();
    for (version, written) in by_killmail.into_values() {
        keep_last(&mut by_number, version.seq.0, (version, written), &mut choice.unfinished);
    }
    choice.chosen = by_number.into_values().collect();
    choice.chosen.sort_unstable_by_key(|(version, _)| version.seq);
    let chosen: HashSet<u64> = choice.chosen.iter().map(|(version, _)| version.killmail_id).collect();
    choice.stale =
        older.into_iter().filter(|id| !chosen.contains(id)).filter_map(|id| u32::try_from(id).ok()).collect();
    choice.stale.sort_unstable();
    choice
}

/// Keeps what was written last under a key; the other one never counted.
fn keep_last(kept: &mut HashMap<u64, (Version, u64)>, key: u64, new: (Version, u64), unfinished: &mut u64) {
    let slot = kept.entry(key).or_insert(new);
    if slot.0 != new.0 {
        *unfinished += 1;
        if (slot.1, slot.0) < (new.1, new.0) {
            *slot = new;
        }
    }
}

/// The killmail of each revision of which there are frames.
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

fn owns(owners: &HashMap<u64, u64>, version: &Version) -> bool {
    version.rev == 0 || owners.get(&version.rev).is_none_or(|id| *id == version.killmail_id)
}

/// The newest revision anything tells of, by killmail.
fn newest(raw: &Raw, ledger: &Contents, owners: &HashMap<u64, u64>) -> HashMap<u64, u64> {
    let mut newest: HashMap<u64, u64> =
        ledger.newest().into_iter().map(|(id, rev)| (u64::from(id), rev)).collect();
    let mut tell = |id: u64, rev: u64| {
        let known = newest.entry(id).or_default();
        *known = rev.max(*known);
    };
    for version in raw.versions.keys().filter(|version| owns(owners, version)) {
        tell(version.killmail_id, version.rev);
    }
    for (rev, killmails) in &raw.lines {
        let owner = owners.get(rev);
        for id in killmails.iter().map(|id| u64::from(*id)).filter(|id| owner.is_none_or(|owner| owner == id))
        {
            tell(id, *rev);
        }
    }
    newest
}

/// No store has more revisions than bytes were looked at; what claims more is no line.
fn plausible(raw: &Raw) -> u64 {
    raw.bytes
}
