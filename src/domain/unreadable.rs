//! Members a source sent that cannot be read as what they are: they count as unknown, and their raw JSON is
//! kept by name.
//!
//! Must not know: what the members mean, or how they are read.

use serde_json::Value;

use crate::domain::killmail::Extra;

/// Members that cannot be read, by name. Nearly every killmail has none: then this is one empty word.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Unreadable(Option<Box<Extra>>);

impl Unreadable {
    /// Whether all could be read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether there is a member of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.as_ref().is_some_and(|members| members.contains_key(name))
    }

    /// Keeps a member.
    pub fn insert(&mut self, name: &str, raw: Value) {
        self.0.get_or_insert_default().insert(name.to_owned(), raw);
    }

    /// Forgets a member: it has become known.
    pub fn remove(&mut self, name: &str) {
        self.retain(|kept| kept != name);
    }

    /// Forgets the members whose names are not to be kept.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let Some(members) = &mut self.0 else { return };
        members.retain(|name, _| keep(name));
        if members.is_empty() {
            self.0 = None;
        }
    }

    /// Takes up what another account could not read either, but for names that are here already.
    pub fn add(&mut self, others: &Self) {
        for (name, raw) in others.iter() {
            if !self.contains(name) {
                self.insert(name, raw.clone());
            }
        }
    }

    /// The members by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().flat_map(|members| members.iter()).map(|(name, raw)| (name.as_str(), raw))
    }

    /// The members; `None`: all could be read.
    #[must_use]
    pub fn members(&self) -> Option<&Extra> {
        self.0.as_deref()
    }
}

impl From<Extra> for Unreadable {
    fn from(members: Extra) -> Self {
        Self((!members.is_empty()).then(|| Box::new(members)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_kept_costs_one_word() {
        assert_eq!(size_of::<Unreadable>(), size_of::<usize>());
        let mut unreadable = Unreadable::default();
        unreadable.insert("points", json!(1.5));
        unreadable.remove("other");
        assert!(unreadable.contains("points"));
        unreadable.remove("points");
        assert_eq!(unreadable, Unreadable::default());
        assert_eq!(Unreadable::from(Extra::new()), Unreadable::default());
    }

    #[test]
    fn what_is_kept_first_stays() {
        let mut ours = Unreadable::default();
        ours.insert("points", json!(1.5));
        let mut theirs = Unreadable::default();
        theirs.insert("points", json!(2.5));
        theirs.insert("npc", json!("x"));
        ours.add(&theirs);
        assert_eq!(ours.iter().collect::<Vec<_>>(), [("npc", &json!("x")), ("points", &json!(1.5))]);
    }
}
