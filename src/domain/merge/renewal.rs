//! What becomes of the hash and of zKillboard's block when a killmail comes again, member by member: absent
//! ones are filled in, a value of a lower rank gives way to one of a higher rank, and within a rank to a
//! newer one.
//!
//! Must not know: the body, or when a source is newer.

use crate::domain::hash::given;
use crate::domain::killmail::{Extra, Killmail};
use crate::domain::provenance::{HASH, Provenance};
use crate::domain::zkb::Zkb;

/// The hash and the block as they are then, with the sources of what is of the lower rank.
#[derive(Debug)]
pub struct Renewed {
    hash: Option<String>,
    hash_source: Option<String>,
    zkb: Option<Zkb>,
    members: Vec<(String, String)>,
    present: usize,
}

impl Renewed {
    /// Of the stored and the incoming account; `newer`: the incoming one replaces values of its own rank.
    #[must_use]
    pub fn new(stored: &Killmail, incoming: &Killmail, newer: bool) -> Self {
        let mut choice = Choice {
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
                    choice.zkb(ours.as_ref().unwrap_or(&nothing), theirs.as_ref().unwrap_or(&nothing));
                zkb.unreadable =
                    ours.as_ref().or(theirs.as_ref()).map(|zkb| zkb.unreadable.clone()).unwrap_or_default();
                Some(zkb)
            }
        };
        let of = |provenance: &Provenance| provenance.source(HASH).map(str::to_owned);
        let theirs = given(incoming).map(str::to_owned);
        let ranks = (stored.provenance.source(HASH), incoming.provenance.source(HASH));
        let taken = takes(stored.hash.as_ref(), theirs.as_ref(), ranks, newer);
        let (hash, hash_source) = if taken {
            (theirs, of(&incoming.provenance))
        } else {
            (stored.hash.clone(), of(&stored.provenance))
        };
        if let (Some(old), Some(new), Some(zkb)) =
            (given(stored), hash.as_deref().filter(|_| taken), &mut zkb)
        {
            follow(zkb, old, new);
        }
        Self { hash, hash_source, zkb, members: choice.members, present: choice.present }
    }

    /// Whether that is what the killmail has, where nothing is of the lower rank.
    #[must_use]
    pub fn is_in(&self, killmail: &Killmail) -> bool {
        self.hash == killmail.hash && self.zkb == killmail.zkb
    }

    /// Puts it into the killmail.
    pub fn put(self, killmail: &mut Killmail) {
        (killmail.hash, killmail.zkb) = (self.hash, self.zkb);
        killmail.provenance.set_members(self.members, self.present);
        match self.hash_source {
            Some(source) => killmail.provenance.set(HASH, &source),
            None => killmail.provenance.remove(HASH),
        }
    }
}

/// A corrected hash shows wherever the old one did.
fn follow(zkb: &mut Zkb, old: &str, new: &str) {
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

/// Whether the incoming value is taken. The ranks are the lower rank's sources, if they are of that rank.
fn takes<T: PartialEq>(
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

struct Choice<'a> {
    stored: &'a Provenance,
    incoming: &'a Provenance,
    newer: bool,
    members: Vec<(String, String)>,
    present: usize,
}

impl Choice<'_> {
    fn zkb(&mut self, ours: &Zkb, theirs: &Zkb) -> Zkb {
        Zkb {
            location_id: self.member("locationID", ours.location_id.as_ref(), theirs.location_id.as_ref()),
            hash: self.member("hash", ours.hash.as_ref(), theirs.hash.as_ref()),
            fitted_value: self.member(
                "fittedValue",
                ours.fitted_value.as_ref(),
                theirs.fitted_value.as_ref(),
            ),
            dropped_value: self.member(
                "droppedValue",
                ours.dropped_value.as_ref(),
                theirs.dropped_value.as_ref(),
            ),
            destroyed_value: self.member(
                "destroyedValue",
                ours.destroyed_value.as_ref(),
                theirs.destroyed_value.as_ref(),
            ),
            total_value: self.member("totalValue", ours.total_value.as_ref(), theirs.total_value.as_ref()),
            points: self.member("points", ours.points.as_ref(), theirs.points.as_ref()),
            npc: self.member("npc", ours.npc.as_ref(), theirs.npc.as_ref()),
            solo: self.member("solo", ours.solo.as_ref(), theirs.solo.as_ref()),
            awox: self.member("awox", ours.awox.as_ref(), theirs.awox.as_ref()),
            labels: self.member("labels", ours.labels.as_ref(), theirs.labels.as_ref()),
            attacker_count: self.member(
                "attackerCount",
                ours.attacker_count.as_ref(),
                theirs.attacker_count.as_ref(),
            ),
            href: self.member("href", ours.href.as_ref(), theirs.href.as_ref()),
            extra: self.extra(&ours.extra, &theirs.extra),
            ..Zkb::default()
        }
    }

    fn extra(&mut self, ours: &Extra, theirs: &Extra) -> Extra {
        let names = ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name)));
        names
            .filter_map(|name| Some((name.clone(), self.member(name, ours.get(name), theirs.get(name))?)))
            .collect()
    }

    fn member<T: Clone + PartialEq>(
        &mut self,
        name: &str,
        ours: Option<&T>,
        theirs: Option<&T>,
    ) -> Option<T> {
        let ranks = (self.stored.source_of_member(name), self.incoming.source_of_member(name));
        let (value, source) =
            if takes(ours, theirs, ranks, self.newer) { (theirs, ranks.1) } else { (ours, ranks.0) };
        self.present += usize::from(value.is_some());
        if let (Some(_), Some(source)) = (value, source) {
            self.members.push((name.to_owned(), source.to_owned()));
        }
        value.cloned()
    }
}
