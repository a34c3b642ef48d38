//! Merges the hash and zKillboard's block, member by member: an absent member is filled in, a value of higher
//! rank replaces one of lower rank, and within a rank a newer value replaces an older one.
//!
//! Must not know: the body, or when a source is newer.

use crate::domain::hash::from_source;
use crate::domain::killmail::{Extra, Killmail};
use crate::domain::provenance::{HASH, Provenance};
use crate::domain::zkb::Zkb;

/// The merged hash and block, and the sources of the members that are of lower rank.
#[derive(Debug)]
pub struct RenewedFields {
    hash: Option<String>,
    hash_source: Option<String>,
    zkb: Option<Zkb>,
    members: Vec<(String, String)>,
    present: usize,
}

impl RenewedFields {
    /// Merges the stored and the incoming copy. With `newer` the incoming one replaces values of its own
    /// rank.
    #[must_use]
    pub fn new(stored: &Killmail, incoming: &Killmail, newer: bool) -> Self {
        let mut merger = FieldMerger {
            stored: &stored.provenance,
            incoming: &incoming.provenance,
            newer,
            members: Vec::new(),
            present: 0,
        };
        let mut zkb = match (&stored.zkb, &incoming.zkb) {
            (None, None) => None,
            (ours, theirs) => {
                let nothing = Zkb::default();
                let mut zkb =
                    merger.merge_zkb(ours.as_ref().unwrap_or(&nothing), theirs.as_ref().unwrap_or(&nothing));
                zkb.unreadable =
                    ours.as_ref().or(theirs.as_ref()).map(|zkb| zkb.unreadable.clone()).unwrap_or_default();
                Some(zkb)
            }
        };
        let of = |provenance: &Provenance| provenance.source(HASH).map(str::to_owned);
        let theirs = from_source(incoming).map(str::to_owned);
        let ranks = (stored.provenance.source(HASH), incoming.provenance.source(HASH));
        let replaced = prefers_incoming(stored.hash.as_ref(), theirs.as_ref(), ranks, newer);
        let (hash, hash_source) = if replaced {
            (theirs, of(&incoming.provenance))
        } else {
            (stored.hash.clone(), of(&stored.provenance))
        };
        if let (Some(old), Some(new), Some(zkb)) =
            (from_source(stored), hash.as_deref().filter(|_| replaced), &mut zkb)
        {
            replace_hash(zkb, old, new);
        }
        Self { hash, hash_source, zkb, members: merger.members, present: merger.present }
    }

    /// Whether the killmail has this hash and block already. Ranks are not compared.
    #[must_use]
    pub fn matches(&self, killmail: &Killmail) -> bool {
        self.hash == killmail.hash && self.zkb == killmail.zkb
    }

    /// Writes hash, block and sources into the killmail.
    pub fn apply(self, killmail: &mut Killmail) {
        (killmail.hash, killmail.zkb) = (self.hash, self.zkb);
        killmail.provenance.set_members(self.members, self.present);
        match self.hash_source {
            Some(source) => killmail.provenance.set(HASH, &source),
            None => killmail.provenance.remove(HASH),
        }
    }
}

/// Replaces an old hash in the block by the corrected one.
fn replace_hash(zkb: &mut Zkb, old: &str, new: &str) {
    if old == new {
        return;
    }
    if zkb.hash.as_deref() == Some(old) {
        zkb.hash = Some(new.to_owned());
    }
    if let Some(href) = zkb.href.as_mut().filter(|href| !old.is_empty() && href.contains(old)) {
        *href = href.replace(old, new);
    }
}

/// Whether the incoming value is used. `ranks` has the source of each value that is of lower rank.
fn prefers_incoming<T: PartialEq>(
    ours: Option<&T>,
    theirs: Option<&T>,
    ranks: (Option<&str>, Option<&str>),
    newer: bool,
) -> bool {
    match (ours, theirs) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(ours), Some(theirs)) => match ranks {
            (Some(_), None) => true,
            (None, Some(_)) => false,
            _ => newer && ours != theirs,
        },
    }
}

struct FieldMerger<'a> {
    stored: &'a Provenance,
    incoming: &'a Provenance,
    newer: bool,
    members: Vec<(String, String)>,
    present: usize,
}

impl FieldMerger<'_> {
    fn merge_zkb(&mut self, ours: &Zkb, theirs: &Zkb) -> Zkb {
        Zkb {
            location_id: self.merge_member(
                "locationID",
                ours.location_id.as_ref(),
                theirs.location_id.as_ref(),
            ),
            hash: self.merge_member("hash", ours.hash.as_ref(), theirs.hash.as_ref()),
            fitted_value: self.merge_member(
                "fittedValue",
                ours.fitted_value.as_ref(),
                theirs.fitted_value.as_ref(),
            ),
            dropped_value: self.merge_member(
                "droppedValue",
                ours.dropped_value.as_ref(),
                theirs.dropped_value.as_ref(),
            ),
            destroyed_value: self.merge_member(
                "destroyedValue",
                ours.destroyed_value.as_ref(),
                theirs.destroyed_value.as_ref(),
            ),
            total_value: self.merge_member(
                "totalValue",
                ours.total_value.as_ref(),
                theirs.total_value.as_ref(),
            ),
            points: self.merge_member("points", ours.points.as_ref(), theirs.points.as_ref()),
            npc: self.merge_member("npc", ours.npc.as_ref(), theirs.npc.as_ref()),
            solo: self.merge_member("solo", ours.solo.as_ref(), theirs.solo.as_ref()),
            awox: self.merge_member("awox", ours.awox.as_ref(), theirs.awox.as_ref()),
            labels: self.merge_member("labels", ours.labels.as_ref(), theirs.labels.as_ref()),
            attacker_count: self.merge_member(
                "attackerCount",
                ours.attacker_count.as_ref(),
                theirs.attacker_count.as_ref(),
            ),
            href: self.merge_member("href", ours.href.as_ref(), theirs.href.as_ref()),
            extra: self.merge_extra(&ours.extra, &theirs.extra),
            ..Zkb::default()
        }
    }

    fn merge_extra(&mut self, ours: &Extra, theirs: &Extra) -> Extra {
        let names = ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name)));
        names
            .filter_map(|name| {
                Some((name.clone(), self.merge_member(name, ours.get(name), theirs.get(name))?))
            })
            .collect()
    }

    fn merge_member<T: Clone + PartialEq>(
        &mut self,
        name: &str,
        ours: Option<&T>,
        theirs: Option<&T>,
    ) -> Option<T> {
        let ranks = (self.stored.source_of_member(name), self.incoming.source_of_member(name));
        let (value, source) = if prefers_incoming(ours, theirs, ranks, self.newer) {
            (theirs, ranks.1)
        } else {
            (ours, ranks.0)
        };
        self.present += usize::from(value.is_some());
        if let (Some(_), Some(source)) = (value, source) {
            self.members.push((name.to_owned(), source.to_owned()));
        }
        value.cloned()
    }
}
