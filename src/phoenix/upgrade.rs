//! What a client says before it speaks: the version, who it is.
//!
//! Must not know: what is said afterwards.

use crate::clock;
use crate::phoenix::frame::Form;

/// The longest name a client may give itself, characters.
const NAME_MAX: usize = 32;

/// What a version speaks if it is one of ours: `1.0.x` and `2.0.x`; none is 1.0.0.
#[must_use]
pub fn form(version: Option<&str>) -> Option<Form> {
    let Some(version) = version else { return Some(Form::Object) };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let of = |line: &str| version.strip_prefix(line).is_some_and(is_number);
    if of("1.0.") { Some(Form::Object) } else { of("2.0.").then_some(Form::Array) }
}

/// A name of its own for a connection: who it says it is, the time in microseconds, and chance.
#[must_use]
pub fn user_id(pairs: &[(String, String)]) -> String {
    let given = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim());
    let name = ["client_id", "client_identifier", "identifier"].into_iter().find_map(given).unwrap_or_default();
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
    let mut id: String = name.chars().take(NAME_MAX).map(safe).collect();
    if !id.is_empty() {
        id.push('_');
    }
    id.push_str(&clock::now_micros().to_string());
    id.push('_');
    id.push_str(&chance());
    id
}

/// 8 random bytes as 11 characters of base64url.
fn chance() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = [0; 8];
    // Without randomness the time still tells them apart.
    let _ = getrandom::fill(&mut bytes);
    let mut bits = u128::from(u64::from_be_bytes(bytes)) << 2;
    let mut text = [0; 11];
    for digit in text.iter_mut().rev() {
        *digit = ALPHABET[(bits & 63) as usize];
        bits >>= 6;
    }
    text.iter().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_versions_are_known() {
        let known = [(None, Form::Object), (Some("1.0.0"), Form::Object), (Some("2.0.0"), Form::Array), (Some("2.0.17"), Form::Array)];
        for (version, spoken) in known {
            assert_eq!(form(version), Some(spoken), "{version:?}");
        }
        for version in ["3.0.0", "2.1.0", "2.0", "2", "", "2.0.x", "2.0.0-dev", "2.0.00", " 2.0.0"] {
            assert_eq!(form(Some(version)), None, "{version:?}");
        }
    }

    #[test]
    fn names_are_made_safe() {
        let id = |name: &str, value: &str| user_id(&[(name.to_owned(), value.to_owned())]);
        assert!(id("client_identifier", "My App!").starts_with("My_App__"));
        assert!(id("identifier", &"x".repeat(40)).starts_with(&format!("{}_", "x".repeat(32))));
        for anonymous in [id("client_id", "  "), id("name", "x")] {
            let parts: Vec<&str> = anonymous.splitn(2, '_').collect();
            assert!(parts[0].len() == 16 && parts[0].bytes().all(|b| b.is_ascii_digit()), "{anonymous}");
            assert_eq!(parts[1].len(), 11);
        }
    }
}
