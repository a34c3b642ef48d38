//! Which parts of a killmail came from a source of the lower rank, and from which.
//!
//! Queues (`redisq`) and websockets have the lower rank, everything else the higher one, whose parts are not
//! noted. A lower rank never replaces a value of a higher one, a higher one replaces whatever a lower one
//! gave. Parts are named as in our JSON: `body` (all that ESI reports), `killmail_hash`, `zkb` (the whole
//! block), `zkb.points`, `victim.character_id`, `attackers.3.ship_type_id` (the fourth).
//!
//! Must not know: what is done with it.

use std::collections::BTreeMap;

use crate::domain::killmail::Killmail;

/// All that ESI reports of a killmail.
pub const BODY: &str = "body";
/// The hash.
pub const HASH: &str = "killmail_hash";
/// zKillboard's block.
pub const ZKB: &str = "zkb";
/// What the names of its members begin with.
const MEMBER: &str = "zkb.";

/// Sources by the parts they gave; nothing in the usual case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provenance(BTreeMap<String, String>);

impl Provenance {
    /// Every part of a killmail is from this source.
    #[must_use]
    pub fn all(killmail: &Killmail, source: &str) -> Self {
        let parts = [(BODY, true), (HASH, killmail.hash.is_some()), (ZKB, killmail.zkb.is_some())];
        parts
            .into_iter()
            .filter(|(_, there)| *there)
            .map(|(part, _)| (part.to_owned(), source.to_owned()))
            .collect()
    }

    /// Whether nothing is of the lower rank.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The source of a part that is noted by itself.
    #[must_use]
    pub fn source(&self, part: &str) -> Option<&str> {
        self.0.get(part).map(String::as_str)
    }

    /// The source of a member of zKillboard's block: its own, or that of the whole block.
    #[must_use]
    pub fn source_of_member(&self, member: &str) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        self.source(&format!("{MEMBER}{member}")).or_else(|| self.source(ZKB))
    }

    /// Notes the source of a part.
    pub fn set(&mut self, part: impl Into<String>, source: &str) {
        self.0.insert(part.into(), source.to_owned());
    }

    /// Notes the sources of the members of zKillboard's block, `all` of them there are: as one, where one
    /// source gave them all.
    pub fn set_members(&mut self, members: Vec<(String, String)>, all: usize) {
        self.0.retain(|part, _| !is_of_zkb(part));
        if let Some((_, first)) = members.first()
            && members.len() == all
            && members.iter().all(|(_, source)| source == first)
        {
            self.0.insert(ZKB.to_owned(), first.clone());
            return;
        }
        self.0.extend(members.into_iter().map(|(member, source)| (format!("{MEMBER}{member}"), source)));
    }

    /// Forgets a part.
    pub fn remove(&mut self, part: &str) {
        self.0.remove(part);
    }

    /// Forgets where the body and its parts are from.
    pub fn remove_body(&mut self) {
        self.0.retain(|part, _| part == HASH || is_of_zkb(part));
    }

    /// The parts of the body that are noted by themselves.
    #[must_use]
    pub fn body_parts(&self) -> Vec<String> {
        self.0.keys().filter(|part| !is_reserved(part)).cloned().collect()
    }

    /// Every part with its source.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(part, source)| (part.as_str(), source.as_str()))
    }

    /// The parts each source gave.
    #[must_use]
    pub fn by_source(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut sources: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (part, source) in self.iter() {
            sources.entry(source).or_default().push(part);
        }
        sources
    }
}

impl FromIterator<(String, String)> for Provenance {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(parts: I) -> Self {
        Self(parts.into_iter().collect())
    }
}

/// Whether a name stands for more than one part of the body, or for none.
#[must_use]
pub fn is_reserved(part: &str) -> bool {
    part == BODY || part == HASH || is_of_zkb(part)
}

fn is_of_zkb(part: &str) -> bool {
    part == ZKB || part.starts_with(MEMBER)
}
