//! Which parts of a killmail came from a source of lower rank, and from which source.
//!
//! Queues (`redisq`) and websockets have the lower rank. All other sources have the higher rank, and their
//! parts are not recorded. A value of lower rank never replaces one of higher rank; a value of higher rank
//! always replaces one of lower rank. Parts are named as in our JSON: `body` (everything ESI reports),
//! `killmail_hash`, `zkb` (the whole block), `zkb.points`, `victim.character_id`, `attackers.3.ship_type_id`
//! (counted from 0).
//!
//! Must not know: how killmails are merged.

use std::collections::BTreeMap;

use crate::domain::killmail::Killmail;

/// Name of the body: everything ESI reports about a killmail.
pub const BODY: &str = "body";
/// Name of the hash.
pub const HASH: &str = "killmail_hash";
/// Name of zKillboard's whole block.
pub const ZKB: &str = "zkb";
/// Prefix of the names of its members.
const MEMBER: &str = "zkb.";

/// The source of each part of lower rank; usually empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provenance(BTreeMap<String, String>);

impl Provenance {
    /// Every part of this killmail came from this source.
    #[must_use]
    pub fn all(killmail: &Killmail, source: &str) -> Self {
        let parts = [(BODY, true), (HASH, killmail.hash.is_some()), (ZKB, killmail.zkb.is_some())];
        parts
            .into_iter()
            .filter(|(_, present)| *present)
            .map(|(part, _)| (part.to_owned(), source.to_owned()))
            .collect()
    }

    /// Whether every part is of the higher rank.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The source recorded for exactly this part.
    #[must_use]
    pub fn source(&self, part: &str) -> Option<&str> {
        self.0.get(part).map(String::as_str)
    }

    /// The source of a member of zKillboard's block: recorded for the member, or else for the whole block.
    #[must_use]
    pub fn source_of_member(&self, member: &str) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        self.source(&format!("{MEMBER}{member}")).or_else(|| self.source(ZKB))
    }

    /// Records the source of a part.
    pub fn set(&mut self, part: impl Into<String>, source: &str) {
        self.0.insert(part.into(), source.to_owned());
    }

    /// Records the sources of members of zKillboard's block, which has `all` members. If one source gave all
    /// of them, that is recorded once for the block.
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

    /// Removes the record of a part.
    pub fn remove(&mut self, part: &str) {
        self.0.remove(part);
    }

    /// Removes the records of the body and its parts.
    pub fn remove_body(&mut self) {
        self.0.retain(|part, _| part == HASH || is_of_zkb(part));
    }

    /// The parts of the body that have their own record.
    #[must_use]
    pub fn body_parts(&self) -> Vec<String> {
        self.0.keys().filter(|part| !is_reserved(part)).cloned().collect()
    }

    /// Parts and their sources.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(part, source)| (part.as_str(), source.as_str()))
    }

    /// The parts that came from each source.
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

/// Whether a name stands for the whole body, or for something outside the body.
#[must_use]
pub fn is_reserved(part: &str) -> bool {
    part == BODY || part == HASH || is_of_zkb(part)
}

fn is_of_zkb(part: &str) -> bool {
    part == ZKB || part.starts_with(MEMBER)
}
