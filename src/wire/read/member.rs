//! Members of an upstream document, one by one. What cannot be read never costs the killmail: it counts as
//! unknown and is kept raw.
//!
//! Must not know: which members there are.

use crate::domain::unreadable::Unreadable;
use crate::wire::read::node::Node;
use crate::wire::read::number::{flag, whole};

/// Reads a member. Of a name that comes twice the last counts.
pub fn member<T>(
    value: &Node<'_>,
    name: &str,
    unreadable: &mut Unreadable,
    read: impl FnOnce(&Node<'_>) -> Option<T>,
) -> Option<T> {
    let found = read(value);
    if found.is_some() {
        unreadable.remove(name);
    } else {
        unreadable.insert(name, value.clone().raw());
    }
    found
}

/// An id of 32 bits; 0 is none.
pub fn id(value: &Node<'_>, name: &str, unreadable: &mut Unreadable) -> Option<u32> {
    member(value, name, unreadable, whole).filter(|id| *id != 0)
}

/// A whole number of a type that holds it.
pub fn count<T: TryFrom<i128>>(value: &Node<'_>, name: &str, unreadable: &mut Unreadable) -> Option<T> {
    member(value, name, unreadable, whole)
}

/// Any number.
pub fn number(value: &Node<'_>, name: &str, unreadable: &mut Unreadable) -> Option<f64> {
    member(value, name, unreadable, |value| value.float())
}

/// true or false.
pub fn yes_or_no(value: &Node<'_>, name: &str, unreadable: &mut Unreadable) -> Option<bool> {
    member(value, name, unreadable, flag)
}

/// A text.
pub fn text(value: &Node<'_>, name: &str, unreadable: &mut Unreadable) -> Option<String> {
    member(value, name, unreadable, |value| value.text().map(str::to_owned))
}

/// Takes up what our own form tells of members that could not be read, but for those that are known here.
/// `known` says which are.
pub fn take_unreadable(told: Option<&Node<'_>>, unreadable: &mut Unreadable, known: impl Fn(&str) -> bool) {
    match told {
        Some(Node::Object(members)) => {
            for (name, value) in &members.0 {
                if *value != Node::Null {
                    unreadable.insert(name, value.clone().raw());
                }
            }
        }
        Some(other) => unreadable.insert("unreadable", other.clone().raw()),
        None => {}
    }
    unreadable.retain(|name| !known(name));
}

#[cfg(test)]
#[path = "member_tests.rs"]
mod tests;
