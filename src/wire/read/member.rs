//! Reads single members of an upstream document. An unreadable member never costs the killmail: it counts as
//! unknown, and its raw JSON is kept.
//!
//! Must not know: which members there are.

use crate::domain::unreadable::UnreadableMembers;
use crate::wire::read::node::Node;
use crate::wire::read::number::{parse_flag, parse_integer};

/// Reads a member, or keeps its raw JSON. Of a repeated name the last value counts.
pub(crate) fn member<T>(
    value: &Node<'_>,
    name: &str,
    unreadable: &mut UnreadableMembers,
    read: impl FnOnce(&Node<'_>) -> Option<T>,
) -> Option<T> {
    let found = read(value);
    if found.is_some() {
        unreadable.remove(name);
    } else {
        unreadable.insert(name, value.clone().into_raw());
    }
    found
}

/// Reads an id of 32 bits; 0 is no id.
pub(crate) fn id(value: &Node<'_>, name: &str, unreadable: &mut UnreadableMembers) -> Option<u32> {
    member(value, name, unreadable, parse_integer).filter(|id| *id != 0)
}

/// Reads an integer that fits the type.
pub(crate) fn count<T: TryFrom<i128>>(
    value: &Node<'_>,
    name: &str,
    unreadable: &mut UnreadableMembers,
) -> Option<T> {
    member(value, name, unreadable, parse_integer)
}

pub(crate) fn number(value: &Node<'_>, name: &str, unreadable: &mut UnreadableMembers) -> Option<f64> {
    member(value, name, unreadable, |value| value.float())
}

/// Reads `true` or `false`, also written as 1 or 0.
pub(crate) fn flag(value: &Node<'_>, name: &str, unreadable: &mut UnreadableMembers) -> Option<bool> {
    member(value, name, unreadable, parse_flag)
}

pub(crate) fn text(value: &Node<'_>, name: &str, unreadable: &mut UnreadableMembers) -> Option<String> {
    member(value, name, unreadable, |value| value.text().map(str::to_owned))
}

/// Adds the members listed as unreadable in a document of our own format, except those that are known by now
/// according to `known`.
pub(crate) fn restore_unreadable(
    listed: Option<&Node<'_>>,
    unreadable: &mut UnreadableMembers,
    known: impl Fn(&str) -> bool,
) {
    match listed {
        Some(Node::Object(members)) => {
            for (name, value) in &members.0 {
                if *value != Node::Null {
                    unreadable.insert(name, value.clone().into_raw());
                }
            }
        }
        Some(other) => unreadable.insert("unreadable", other.clone().into_raw()),
        None => {}
    }
    unreadable.retain(|name| !known(name));
}

#[cfg(test)]
#[path = "member_tests.rs"]
mod tests;
