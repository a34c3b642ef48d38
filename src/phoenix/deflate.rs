//! Chooses among a client's offers of permessage-deflate (RFC 7692): the first one the server can keep exactly.
//!
//! Must not know: how messages are compressed.

use axum::http::HeaderMap;
use axum::http::header::SEC_WEBSOCKET_EXTENSIONS;

const EXTENSION: &str = "permessage-deflate";

/// The smallest window of our compressor, bits. The protocol allows 8.
const WINDOW_BITS_MIN: u8 = 9;
const WINDOW_BITS_MAX: u8 = 15;

/// The accepted offer, without the others; `None`: messages are not compressed.
///
/// The size of the client's window does not matter to us: `client_max_window_bits` is checked and left out, so that
/// the client may use what it likes.
#[must_use]
pub fn accept(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).find_map(offer)
}

/// An offer, if it is one of deflate that can be kept.
fn offer(text: &str) -> Option<String> {
    let mut parts = text.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(EXTENSION) {
        return None;
    }
    let mut agreed = EXTENSION.to_owned();
    let mut seen = Vec::new();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(value.trim_start().trim_matches('"'))),
            None => (part, None),
        };
        let fits = match (name, value) {
            _ if seen.contains(&name) => false,
            (
                "server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits",
                None,
            ) => true,
            ("client_max_window_bits", Some(bits)) => window_bits(bits).is_some(),
            ("server_max_window_bits", Some(bits)) => {
                let bits = window_bits(bits).filter(|bits| *bits >= WINDOW_BITS_MIN)?;
                agreed.push_str(&format!("; server_max_window_bits={bits}"));
                true
            }
            _ => false,
        };
        if !fits {
            return None;
        }
        seen.push(name);
    }
    Some(agreed)
}

/// 8 to 15, without leading zeros.
fn window_bits(text: &str) -> Option<u8> {
    let bits = text.parse().ok().filter(|bits| (8..=WINDOW_BITS_MAX).contains(bits))?;
    (text == bits.to_string()).then_some(bits)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn answer(offers: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for offer in offers {
            headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(offer));
        }
        accept(&headers)
    }

    #[test]
    fn what_can_be_kept_is_agreed_to() {
        let plain = Some(EXTENSION.to_owned());
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "Permessage-Deflate ; client_max_window_bits = 10;server_no_context_takeover",
            "permessage-deflate; client_no_context_takeover; client_max_window_bits=\"15\"",
            "x-webkit-deflate-frame, permessage-deflate",
        ] {
            assert_eq!(answer(&[offer]), plain, "{offer}");
        }
        let small = Some("permessage-deflate; server_max_window_bits=9".to_owned());
        assert_eq!(
            answer(&["permessage-deflate; server_max_window_bits=9; client_max_window_bits=9"]),
            small
        );
        assert_eq!(
            answer(&["x-other", "permessage-deflate; server_max_window_bits=\"9\""]),
            small,
            "headers are one list"
        );
    }

    #[test]
    fn what_cannot_be_kept_is_declined() {
        for offer in [
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; foo",
            "permessage-deflate; foo=1; server_max_window_bits=10",
            "permessage-deflate;",
            "permessage-deflated",
            "permessage-bzip2",
            "",
        ] {
            assert_eq!(answer(&[offer]), None, "{offer}");
        }
        assert_eq!(answer(&[]), None);
        let second = answer(&["permessage-deflate; foo=1, permessage-deflate; server_max_window_bits=12"]);
        assert_eq!(
            second.as_deref(),
            Some("permessage-deflate; server_max_window_bits=12"),
            "the next offer counts"
        );
    }
}
