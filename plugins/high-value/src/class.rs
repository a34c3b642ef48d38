//! The entries of `ship_groups`: the id of a group, or a word for several groups.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A group of ships or a word: `capital`, `supercapital`, `freighter`, `capsule`, `structure`.
#[derive(Debug)]
pub enum Class {
    /// One group, by id.
    Group(u32),
    /// Several groups.
    Groups(&'static [u32]),
    /// All groups of a category.
    Category(u32),
}

const WORDS: [(&str, Class); 5] = [
    // Carrier, dreadnought, lancer dreadnought, force auxiliary, command carrier, capital industrial, supercarrier, titan.
    ("capital", Class::Groups(&[547, 485, 4594, 1538, 5120, 883, 659, 30])),
    ("supercapital", Class::Groups(&[30, 659])),
    // Freighter, jump freighter.
    ("freighter", Class::Groups(&[513, 902])),
    ("capsule", Class::Groups(&[29])),
    // Upwell structures and similar ones.
    ("structure", Class::Category(65)),
];

impl Class {
    /// Whether it contains this group; the category is looked up only if it matters.
    pub fn holds(&self, group: u32, category: impl FnOnce() -> u32) -> bool {
        match self {
            Self::Group(id) => *id == group,
            Self::Groups(ids) => ids.contains(&group),
            Self::Category(id) => *id == category(),
        }
    }

    /// Its groups, if they can be listed.
    pub fn groups(&self) -> Option<Vec<u32>> {
        match self {
            Self::Group(id) => Some(vec![*id]),
            Self::Groups(ids) => Some(ids.to_vec()),
            Self::Category(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Class {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ClassVisitor)
    }
}

struct ClassVisitor;

impl Visitor<'_> for ClassVisitor {
    type Value = Class;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a group id or one of")?;
        WORDS.iter().try_for_each(|(word, _)| write!(f, " {word}"))
    }

    fn visit_u64<E: de::Error>(self, id: u64) -> Result<Class, E> {
        match u32::try_from(id) {
            Ok(id) if id != 0 => Ok(Class::Group(id)),
            _ => Err(E::custom(format_args!("{id} is no ship group; it may be {}", Expected))),
        }
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Class, E> {
        let found = WORDS.into_iter().find(|(known, _)| *known == word);
        found.map(|(_, class)| class).ok_or_else(|| E::custom(format_args!("{word:?} is no ship group; it may be {}", Expected)))
    }
}

/// What the visitor expects, for error messages.
struct Expected;

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ClassVisitor.expecting(f)
    }
}
