//! Members of a source's JSON that do not have the expected form. They count as unknown, and their raw JSON
//! is kept by name.
//!
//! Must not know: what the members mean, or how they are parsed.

use serde_json::Value;

use crate::domain::killmail::Extra;

/// Raw JSON by name. Nearly every killmail has none of it, so that an empty one takes only a null pointer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UnreadableMembers(Option<Box<Extra>>);

impl UnreadableMembers {
    /// Whether every member could be read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the member of this name could not be read.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.as_ref().is_some_and(|members| members.contains_key(name))
    }

    /// Keeps the raw JSON of a member.
    pub fn insert(&mut self, name: &str, raw: Value) {
        self.0.get_or_insert_default().insert(name.to_owned(), raw);
    }

    /// Removes a member that has become known.
    pub fn remove(&mut self, name: &str) {
        self.retain(|kept| kept != name);
    }

    /// Removes the members for whose names `keep` is false.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let Some(members) = &mut self.0 else { return };
        members.retain(|name, _| keep(name));
        if members.is_empty() {
            self.0 = None;
        }
    }

    /// Adds the members of another copy, except for names that are present already.
    pub fn add(&mut self, others: &Self) {
        for (name, raw) in others.iter() {
            if !self.contains(name) {
                self.insert(name, raw.clone());
            }
        }
    }

    /// Names and raw JSON.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().flat_map(|members| members.iter()).map(|(name, raw)| (name.as_str(), raw))
    }

    /// The members; `None` if every member could be read.
    #[must_use]
    pub fn members(&self) -> Option<&Extra> {
        self.0.as_deref()
    }
}

impl From<Extra> for UnreadableMembers {
    fn from(members: Extra) -> Self {
        Self((!members.is_empty()).then(|| Box::new(members)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_one_takes_one_word() {
        assert_eq!(size_of::<UnreadableMembers>(), size_of::<usize>());
        let mut unreadable = UnreadableMembers::default();
        unreadable.insert("points", json!(1.5));
        unreadable.remove("other");
        assert!(unreadable.contains("points"));
        unreadable.remove("points");
        assert_eq!(unreadable, UnreadableMembers::default());
        assert_eq!(UnreadableMembers::from(Extra::new()), UnreadableMembers::default());
    }

    #[test]
    fn the_value_kept_first_stays() {
        let mut ours = UnreadableMembers::default();
        ours.insert("points", json!(1.5));
        let mut theirs = UnreadableMembers::default();
        theirs.insert("points", json!(2.5));
        theirs.insert("npc", json!("x"));
        ours.add(&theirs);
        assert_eq!(ours.iter().collect::<Vec<_>>(), [("npc", &json!("x")), ("points", &json!(1.5))]);
    }
}
