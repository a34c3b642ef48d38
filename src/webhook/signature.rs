//! Signs requests as the Standard Webhooks specification demands
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>): HMAC-SHA256 over
//! `id.timestamp.body`. While a secret is being replaced, requests carry one signature for each secret.
//!
//! Must not know: what is sent, or where secrets are kept.

use std::fmt;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Names the delivery; the same for all of its attempts.
pub const ID_HEADER: &str = "webhook-id";
/// The time of the attempt, unix seconds.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// The signatures, separated by spaces.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// Marks a secret in its text form.
const PREFIX: &str = "whsec_";
/// Marks a signature by HMAC-SHA256.
const VERSION: &str = "v1";
/// Length of a new secret, bytes.
const SECRET_BYTES: usize = 32;
/// Limits of the specification (192 and 512 bits).
const SECRET_BYTES_MIN: usize = 24;
const SECRET_BYTES_MAX: usize = 64;

/// A secret shared with one receiver. `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

/// The text is not a secret. It is not quoted, since it could be one with a typo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `whsec_` and the base64 of 24 to 64 bytes")]
pub struct SecretError;

impl Secret {
    /// A new random secret.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate() -> io::Result<Self> {
        let mut bytes = vec![0; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(bytes))
    }

    /// Parses the form that [`Secret::text`] writes.
    ///
    /// # Errors
    /// The prefix is missing, the rest is not base64, or the secret is too short or too long.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(SecretError)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| SecretError)?;
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            return Err(SecretError);
        }
        Ok(Self(bytes))
    }

    /// The secret as receivers and the store keep it: `whsec_` and base64.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    fn sign(&self, id: &str, timestamp_secs: i64, body: &[u8]) -> String {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(id.as_bytes());
        mac.update(format!(".{timestamp_secs}.").as_bytes());
        mac.update(body);
        format!("{VERSION},{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The value of `webhook-signature`: a signature for each secret. `id` must not contain a dot, so that the three
/// parts cannot be divided differently.
#[must_use]
pub fn signature_header(secrets: &[Secret], id: &str, timestamp_secs: i64, body: &[u8]) -> String {
    debug_assert!(!id.contains('.'), "the id of a delivery contains a dot: {id}");
    let signatures: Vec<String> =
        secrets.iter().map(|secret| secret.sign(id, timestamp_secs, body)).collect();
    signatures.join(" ")
}

/// The three headers of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHeaders {
    id: String,
    timestamp: String,
    signature: String,
}

impl SignedHeaders {
    /// The headers of an attempt at this time; see [`signature_header`].
    #[must_use]
    pub fn new(secrets: &[Secret], id: &str, timestamp_secs: i64, body: &[u8]) -> Self {
        Self {
            id: id.to_owned(),
            timestamp: timestamp_secs.to_string(),
            signature: signature_header(secrets, id, timestamp_secs, body),
        }
    }

    /// Names and values.
    #[must_use]
    pub fn pairs(&self) -> [(&str, &str); 3] {
        [(ID_HEADER, &self.id), (TIMESTAMP_HEADER, &self.timestamp), (SIGNATURE_HEADER, &self.signature)]
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
    use standardwebhooks::Webhook;

    use super::*;
    use crate::clock::now_secs;
    use crate::sample::rng::Dice;

    fn header_map(headers: &SignedHeaders) -> HeaderMap {
        let pair = |(name, value): (&str, &str)| {
            (HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        headers.pairs().map(pair).into_iter().collect()
    }

    fn random_text(dice: &mut Dice, chars_max: u32) -> String {
        let count = dice.below(chars_max);
        (0..count)
            .map(|_| match dice.below(4) {
                0 => char::from_u32(dice.below(0x11_0000)).unwrap_or('\u{fffd}'),
                1 => ['.', ',', ' ', '"', '\\', '\n', '\0', '{'][dice.below(8) as usize],
                _ => char::from_u32(0x20 + dice.below(0x5f)).unwrap_or('x'),
            })
            .collect()
    }

    fn random_secret(dice: &mut Dice) -> Secret {
        let count = 24 + dice.below(41);
        Secret((0..count).map(|_| dice.below(256) as u8).collect())
    }

    /// The library of the specification accepts what we sign, with either secret during a rotation, and nothing else.
    #[test]
    fn ten_thousand_random_payloads_are_verified_by_the_published_library() {
        let mut dice = Dice::new(24);
        for round in 0..10_000 {
            let secrets: Vec<Secret> = (0..1 + dice.below(2)).map(|_| random_secret(&mut dice)).collect();
            let (id, body) = (format!("msg_{:016x}", dice.throw()), random_text(&mut dice, 400));
            let headers = SignedHeaders::new(&secrets, &id, now_secs(), body.as_bytes());
            for secret in &secrets {
                let verifier = Webhook::new(&secret.text()).unwrap();
                verifier.verify(body.as_bytes(), &header_map(&headers)).unwrap();
                let altered = format!("{body} ");
                assert!(verifier.verify(altered.as_bytes(), &header_map(&headers)).is_err(), "{round}");
            }
            let stranger = Webhook::new(&random_secret(&mut dice).text()).unwrap();
            assert!(stranger.verify(body.as_bytes(), &header_map(&headers)).is_err(), "{round}");
        }
    }

    /// Computed with `openssl dgst -sha256 -mac HMAC`.
    #[test]
    fn a_known_request_has_a_known_signature() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(
            signature_header(
                &[secret],
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    /// The file was written by another program. `tests/clients` verifies it with the libraries of other languages.
    #[test]
    fn the_requests_that_other_languages_verify_are_signed_the_same() {
        let requests = include_str!("../../tests/clients/programs/webhooks.ndjson");
        for line in requests.lines() {
            let request: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| request[name].as_str().unwrap();
            let secrets: Vec<Secret> = request["secrets"]
                .as_array()
                .unwrap()
                .iter()
                .map(|secret| Secret::parse(secret.as_str().unwrap()).unwrap())
                .collect();
            let timestamp_secs = text(TIMESTAMP_HEADER).parse().unwrap();
            let signed =
                SignedHeaders::new(&secrets, text(ID_HEADER), timestamp_secs, text("body").as_bytes());
            assert_eq!(
                signed.pairs().map(|(_, value)| value),
                [text(ID_HEADER), text(TIMESTAMP_HEADER), text(SIGNATURE_HEADER)]
            );
        }
        assert_eq!(requests.lines().count(), 60);
    }

    #[test]
    fn signatures_of_several_secrets_are_separated_by_spaces() {
        let mut dice = Dice::new(1);
        let (old, new) = (random_secret(&mut dice), random_secret(&mut dice));
        let both = signature_header(&[new.clone(), old.clone()], "msg_1", 7, b"{}");
        let one = |secret: Secret| signature_header(&[secret], "msg_1", 7, b"{}");
        assert_eq!(both, format!("{} {}", one(new), one(old)));
    }

    #[test]
    fn secrets_are_read_as_they_are_written_and_never_shown() {
        let secret = Secret::generate().unwrap();
        assert_eq!(Secret::parse(&secret.text()).unwrap().0, secret.0);
        assert_eq!((secret.0.len(), secret.text().len()), (32, 50));
        assert_ne!(Secret::generate().unwrap().0, secret.0);
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn other_texts_are_not_secrets() {
        let encoded = |count: usize| format!("whsec_{}", STANDARD.encode(vec![7; count]));
        for (text, fits) in [
            (encoded(23), false),
            (encoded(24), true),
            (encoded(64), true),
            (encoded(65), false),
            (STANDARD.encode([7; 32]), false),
            (format!("{}=", encoded(24)), false),
            (format!(" {}", encoded(24)), false),
            ("whsec_!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!".to_owned(), false),
            (String::new(), false),
        ] {
            let read = Secret::parse(&text);
            assert_eq!(read.is_ok(), fits, "{text}");
            if let Err(error) = read {
                assert!(text.is_empty() || !error.to_string().contains(&text));
            }
        }
    }
}
