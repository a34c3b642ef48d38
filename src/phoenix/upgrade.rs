//! What an upgrade request says: the protocol version, the client's name, the subprotocol.
//!
//! Must not know: what happens on the connection.

use axum::http::HeaderMap;
use axum::http::header::SEC_WEBSOCKET_PROTOCOL;

use crate::clock;
use crate::phoenix::frame::Form;

/// Longest client name, characters.
const NAME_MAX: usize = 32;

/// The form of a version's frames: `1.0.x` or `2.0.x`, and 1.0.0 if absent. `None`: not supported.
#[must_use]
pub fn form(version: Option<&str>) -> Option<Form> {
    let Some(version) = version else { return Some(Form::Object) };
    let is_number = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'))
    };
    let of = |line: &str| version.strip_prefix(line).is_some_and(is_number);
    if of("1.0.") { Some(Form::Object) } else { of("2.0.").then_some(Form::Array) }
}

/// The subprotocol Phoenix clients offer when they send a token.
const PHOENIX: &str = "phoenix";
/// The token (`authToken`) is a subprotocol of its own: this prefix and base64.
const TOKEN_PREFIX: &str = "base64url.bearer.phx.";

/// Chooses the subprotocol to answer with: a browser that offered some and gets none disconnects. A token among them
/// is checked for its form only, since everyone may connect.
///
/// # Errors
/// The token cannot be read.
pub fn protocol(headers: &HeaderMap) -> Result<Option<&'static str>, String> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let (mut answer, mut tokens) = (None, 0);
    for offered in values.flat_map(|value| value.split(',')).map(str::trim) {
        if offered == PHOENIX {
            answer = Some(PHOENIX);
        }
        let Some(token) = offered.strip_prefix(TOKEN_PREFIX) else { continue };
        tokens += 1;
        if tokens > 1 {
            return Err("sec-websocket-protocol: only one token can be sent".to_owned());
        }
        if !is_base64(token) {
            return Err(format!(
                "sec-websocket-protocol: what follows {TOKEN_PREFIX} must be the token in base64"
            ));
        }
    }
    Ok(answer)
}

/// Base64 in either alphabet, with or without padding.
fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_');
    let padding = text.len() - digits.len();
    digits.bytes().all(is_digit)
        && digits.len() % 4 != 1
        && (padding == 0 || padding < 3 && text.len().is_multiple_of(4))
}

/// A unique name for a connection: the client's own name, the time in microseconds, random characters.
#[must_use]
pub fn user_id(pairs: &[(String, String)]) -> String {
    let given = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim());
    let name =
        ["client_id", "client_identifier", "identifier"].into_iter().find_map(given).unwrap_or_default();
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
    let mut id: String = name.chars().take(NAME_MAX).map(safe).collect();
    if !id.is_empty() {
        id.push('_');
    }
    id.push_str(&clock::now_micros().to_string());
    id.push('_');
    id.push_str(&random_suffix());
    id
}

/// 8 random bytes as 11 characters of base64url.
fn random_suffix() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = [0; 8];
    // Without randomness the time still makes names distinct.
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
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn two_versions_are_known() {
        let known = [
            (None, Form::Object),
            (Some("1.0.0"), Form::Object),
            (Some("2.0.0"), Form::Array),
            (Some("2.0.17"), Form::Array),
        ];
        for (version, spoken) in known {
            assert_eq!(form(version), Some(spoken), "{version:?}");
        }
        for version in ["3.0.0", "2.1.0", "2.0", "2", "", "2.0.x", "2.0.0-dev", "2.0.00", " 2.0.0"] {
            assert_eq!(form(Some(version)), None, "{version:?}");
        }
    }

    #[test]
    fn the_protocol_of_phoenix_is_chosen_and_its_token_read() {
        let answer = |offered: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in offered {
                headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value));
            }
            protocol(&headers)
        };
        assert_eq!(
            (answer(&[]), answer(&["phoenix"]), answer(&["graphql-ws, other"])),
            (Ok(None), Ok(Some("phoenix")), Ok(None))
        );
        for token in ["c2VjcmV0", "c2VjcmV", "c2VjcmV0MQ", "c2VjcmV0MQ==", "-_+/", ""] {
            let offered = format!("phoenix, {TOKEN_PREFIX}{token}").leak();
            assert_eq!(answer(&[offered]), Ok(Some("phoenix")), "{token}");
        }
        assert_eq!(
            answer(&["base64url.bearer.phx.YQ", "phoenix"]),
            Ok(Some("phoenix")),
            "headers are one list, in any order"
        );
        for wrong in ["a", "c2VjcmV0M", "a=b=", "YQ=", "Y===", "se cret", "s.t"] {
            let offered = format!("phoenix,{TOKEN_PREFIX}{wrong}").leak();
            assert!(answer(&[offered]).unwrap_err().ends_with("must be the token in base64"), "{wrong}");
        }
        assert!(answer(&["phoenix, base64url.bearer.phx.YQ, base64url.bearer.phx.YQ"]).is_err());
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
