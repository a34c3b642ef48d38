//! On which line of a configuration file each setting stands.
//!
//! Must not know: what the settings mean.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use crate::config::File;

/// The lines of the settings and sections of one file, by name.
#[derive(Debug, Default)]
pub struct Locations {
    file: String,
    /// By section (empty: none) and key (empty: the section itself).
    lines: BTreeMap<(String, String), Line>,
}

#[derive(Debug, Clone)]
struct Line {
    number: usize,
    /// The name in the file, where it is not the current one.
    old_name: Option<String>,
}

impl Locations {
    /// Finds the lines of a file; none in a file that is not valid TOML.
    #[must_use]
    pub fn of(file: File<'_>) -> Self {
        let mut lines = BTreeMap::new();
        let Ok(table) = DeTable::parse(file.text) else { return Self::default() };
        let line = |at: usize| Line { number: file.text[..at].matches('\n').count() + 1, old_name: None };
        // The keys of a list of tables are found under the list's name, whatever section it is in.
        let mut lists = BTreeMap::new();
        let mut list = |name: &str, value: &DeValue<'_>| {
            let DeValue::Array(tables) = value else { return };
            let tables = tables
                .iter()
                .filter_map(|one| if let DeValue::Table(keys) = one.get_ref() { Some(keys) } else { None });
            for key in tables.flat_map(|keys| keys.keys()) {
                lists
                    .entry((name.to_owned(), key.get_ref().to_string()))
                    .or_insert_with(|| line(key.span().start));
            }
        };
        for (name, value) in table.get_ref() {
            let section = name.get_ref().to_string();
            list(&section, value.get_ref());
            if let DeValue::Table(inner) = value.get_ref() {
                for (key, value) in inner {
                    list(key.get_ref(), value.get_ref());
                    lines.insert((section.clone(), key.get_ref().to_string()), line(key.span().start));
                }
                lines.insert((section, String::new()), line(name.span().start));
            } else {
                lines.insert((String::new(), section), line(name.span().start));
            }
        }
        lines.extend(lists);
        Self { file: file.name.to_owned(), lines }
    }

    /// Where a setting stands, to be appended to a message: ` (killstream.toml, line 7)`. Empty if unknown.
    #[must_use]
    pub fn describe(&self, section: &str, key: &str) -> String {
        let top_level = || self.lines.get(&(String::new(), key.to_owned()));
        let Some(line) = self.lines.get(&(section.to_owned(), key.to_owned())).or_else(top_level) else {
            return String::new();
        };
        let name = line.old_name.as_ref().map_or_else(String::new, |name| format!(", as {name}"));
        format!(" ({}, line {}{name})", self.file, line.number)
    }

    /// As [`Self::describe`], for `section.key`, a key before the first section, or a section.
    #[must_use]
    pub fn of_name(&self, name: &str) -> String {
        match name.split_once('.') {
            Some((section, key)) => self.describe(section, key),
            None if self.is_top_level_key(name) => self.describe("", name),
            None => self.describe(name, ""),
        }
    }

    fn is_top_level_key(&self, name: &str) -> bool {
        self.lines.contains_key(&(String::new(), name.to_owned()))
    }

    /// Files the lines of a setting or section under its current name as well.
    pub fn rename(&mut self, old: &str, new: &str) {
        let split = |name: &str, key: &str| match name.split_once('.') {
            Some((section, key)) => (section.to_owned(), key.to_owned()),
            None if self.is_top_level_key(old) => (String::new(), name.to_owned()),
            None => (name.to_owned(), key.to_owned()),
        };
        let moved: Vec<_> = self
            .lines
            .iter()
            .filter(|((section, key), _)| split(old, key) == (section.clone(), key.clone()))
            .map(|((section, key), line)| {
                let dot = if section.is_empty() || key.is_empty() { "" } else { "." };
                let old_name = Some(format!("{section}{dot}{key}"));
                (split(new, key), Line { old_name, ..line.clone() })
            })
            .collect();
        self.lines.extend(moved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_line() {
        let text =
            "# one\nport = 1\nsources = []\n\n[http]\ncached_max = 5\nsystems_max = 6\n\n[[more]]\nx = 1\n";
        let locations = Locations::of(File { name: "a.toml", text });
        assert_eq!(locations.describe("", "port"), " (a.toml, line 2)");
        assert_eq!(locations.describe("ingest", "sources"), " (a.toml, line 3)");
        assert_eq!(locations.describe("http", "systems_max"), " (a.toml, line 7)");
        assert_eq!(locations.describe("http", ""), " (a.toml, line 5)");
        assert_eq!(locations.describe("http", "none"), "");
    }
}
