//! Messages about settings and sections that do not exist, with the name that was probably meant.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::config::sections;
use crate::domain::spelling;

/// The keys of a section, read from serde's message about a key it does not know.
#[must_use]
pub fn known_keys<T: DeserializeOwned>() -> Vec<String> {
    let table = Table::from_iter([("?".to_owned(), Value::Integer(0))]);
    let message = table.try_into::<T>().err().map(|error| error.message().to_owned()).unwrap_or_default();
    quoted(&message).skip(1).map(str::to_owned).collect()
}

/// The names in backticks in a message of serde.
fn quoted(message: &str) -> impl Iterator<Item = &str> {
    message.split('`').skip(1).step_by(2)
}

/// The key of a nested table (one of `[[sources]]`, say) that serde's message is about.
#[must_use]
pub fn nested_key<'a>(key: &str, message: &'a str) -> Option<&'a str> {
    quoted(message.strip_prefix("unknown field ")?).next().filter(|wrong| *wrong != key)
}

/// What to say about a section that does not exist.
#[must_use]
pub fn describe_section(name: &str) -> String {
    let known = sections();
    let meant = spelling::nearest(name, known.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()));
    let meant = meant.map_or_else(String::new, |meant| format!("; did you mean [{meant}]?"));
    format!("unknown section{meant}")
}

/// What to say about a key that does not exist; `None` if serde's message is about something else.
#[must_use]
pub fn describe_key(section: &str, key: &str, message: &str) -> Option<String> {
    let mut names = quoted(message.strip_prefix("unknown field ").map(|_| message)?);
    let wrong = names.next()?;
    let did_you_mean = |name: &str| format!("; did you mean {name}?");
    if wrong != key {
        // In a nested table.
        let hint = spelling::nearest(wrong, names).map_or_else(String::new, did_you_mean);
        return Some(format!("unknown setting {wrong}{hint}"));
    }
    let known = sections();
    let home = known.iter().find(|(_, keys)| keys.iter().any(|known| known == key));
    let hint = match (home, spelling::nearest(wrong, names)) {
        (Some(("", _)), _) => format!("; {key} belongs before the first [section]"),
        (Some((home, _)), _) => format!("; {key} belongs in [{home}]"),
        (None, Some(near)) => did_you_mean(near),
        (None, None) => hint_elsewhere(wrong, &known),
    };
    let here = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
    Some(format!("unknown setting{here}{hint}"))
}

/// The setting of any section whose name is nearest.
fn hint_elsewhere(wrong: &str, known: &[(&str, Vec<String>)]) -> String {
    let all =
        || known.iter().flat_map(|(section, keys)| keys.iter().map(move |key| (*section, key.as_str())));
    let Some(near) = spelling::nearest(wrong, all().map(|(_, key)| key)) else {
        return "; `killstream serve --print-config` lists all settings".to_owned();
    };
    match all().find(|(_, key)| *key == near) {
        Some((section, _)) if !section.is_empty() => format!("; did you mean {near} in [{section}]?"),
        _ => format!("; did you mean {near}, before the first [section]?"),
    }
}
