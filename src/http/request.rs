//! What a request carries: pairs of its query string, its JSON body, ids in its path.
//!
//! Must not know: what parameters mean.

use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use serde_json::{Map, Number, Value};

use crate::http::error::Error;
use crate::http::intake::{self, Intake};
use crate::wire::number::{INTEGERS_MIN, integral};

/// The decoded pairs of the query string, in order.
#[derive(Debug, Clone, Default)]
pub struct Pairs(pub Vec<(String, String)>);

impl Pairs {
    /// Of this address.
    ///
    /// # Errors
    /// 400: they cannot be decoded.
    pub fn of(uri: &Uri) -> Result<Self, Error> {
        Query::try_from_uri(uri).map(|Query(pairs)| Self(pairs)).map_err(|_| Error::BadRequest)
    }

    /// The value of a name; the last one if it is repeated.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl<S: Sync> FromRequestParts<S> for Pairs {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Self::of(&parts.uri)
    }
}

/// The one segment of the path that varies, decoded; empty where it is no text.
#[derive(Debug, Clone)]
pub struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        Ok(Self(Path::from_request_parts(parts, state).await.map(|Path(text)| text).unwrap_or_default()))
    }
}

/// The bytes of the body, within the limit.
#[derive(Debug, Clone)]
pub struct Raw(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = Error;

    async fn from_request(mut request: Request, _: &S) -> Result<Self, Error> {
        if request.body().is_end_stream() {
            return Ok(Self(Bytes::new()));
        }
        let intake = request.extensions_mut().remove::<Intake>().unwrap_or_default();
        intake::read(request.into_body(), &intake).await.map(Self)
    }
}

/// The body as a JSON object; whatever else it validly is counts as an empty one, as in the older service.
#[derive(Debug, Clone)]
pub struct Object(pub Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Object {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let said_json = says_json(request.headers());
        let Raw(bytes) = Raw::from_request(request, state).await?;
        object(&bytes, said_json).map(Self)
    }
}

/// A question asked in the body, a JSON object, or none. Parameters in the address count too, where the body does not name them.
#[derive(Debug, Clone)]
pub struct Question(pub Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Question {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let Pairs(pairs) = Pairs::of(request.uri())?;
        let Raw(bytes) = Raw::from_request(request, state).await?;
        let mut asked = question(&bytes)?;
        // Of a name that comes twice the last counts.
        for (name, value) in pairs.into_iter().rev() {
            asked.entry(name).or_insert(Value::String(value));
        }
        Ok(Self(asked))
    }
}

fn question(bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    let text = bytes.trim_ascii();
    let no_object = |why| Error::parameter("body", format!("the body must be a JSON object: {why}"));
    if text.is_empty() { Ok(Map::new()) } else { serde_json::from_slice(text).map_err(no_object) }
}

/// Bodies that claim to be JSON, or begin like it, must be JSON; others pass as empty objects.
fn object(bytes: &[u8], said_json: bool) -> Result<Map<String, Value>, Error> {
    let text = bytes.trim_ascii();
    if text.is_empty() || !(said_json || matches!(text[0], b'{' | b'[')) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Ok(Map::new()),
        Err(_) => Err(Error::BadRequest),
    }
}

fn says_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        kind == "application/json" || kind.ends_with("+json")
    })
}

/// A positive number written in digits only, leading zeros allowed; beyond what fits it is the largest there is.
#[must_use]
pub fn positive(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().unwrap_or(u64::MAX))?;
    (number > 0).then_some(number)
}

/// A positive number as a JSON integer or as digits in a string.
#[must_use]
pub fn positive_json(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => positive(text),
        Value::Number(number) => {
            integer(number).and_then(|number| u64::try_from(number.min(u64::MAX.into())).ok()).filter(|number| *number > 0)
        }
        _ => None,
    }
}

/// A JSON integer of any size, cut to what 128 bits hold; one written as a float is none here.
#[must_use]
pub fn integer(number: &Number) -> Option<i128> {
    integral(number).filter(|_| !number.is_f64() || number.as_f64().is_some_and(|float| float.abs() >= INTEGERS_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_and_never_overflow() {
        assert_eq!(positive("000123"), Some(123));
        assert_eq!(positive("99999999999999999999999"), Some(u64::MAX));
        for text in ["", "0", "-1", "+1", "12x", " 1", "1.0", "٣", "abc"] {
            assert_eq!(positive(text), None, "{text}");
        }
    }

    #[test]
    fn json_integers_never_overflow() {
        let given = |text: &str| positive_json(&serde_json::from_str(text).unwrap());
        assert_eq!((given("7"), given("\"7\""), given("18446744073709551615")), (Some(7), Some(7), Some(u64::MAX)));
        assert_eq!((given("18446744073709551616"), given(&"9".repeat(60))), (Some(u64::MAX), Some(u64::MAX)));
        assert_eq!((given("0"), given("-18446744073709551616"), given("1.5"), given("1.0"), given("true")), (None, None, None, None, None));
    }

    #[test]
    fn only_broken_json_is_refused() {
        assert_eq!(object(b"", true), Ok(Map::new()));
        assert_eq!(object(b"a=1&b=2", false), Ok(Map::new()));
        assert_eq!(object(b" [1]", false), Ok(Map::new()));
        assert_eq!(object(b"{\"a\":1}", false).map(|map| map.len()), Ok(1));
        assert_eq!(object(b"{\"a\":", false), Err(Error::BadRequest));
        assert_eq!(object(b"nonsense", true), Err(Error::BadRequest));
    }

    #[test]
    fn a_question_is_an_object_or_nothing() {
        assert_eq!(question(b" "), Ok(Map::new()));
        assert_eq!(question(b"{\"a\":1}").map(|map| map.len()), Ok(1));
        for wrong in [b"[30000142]".as_slice(), b"5", b"null", b"\"x\"", b"limit=10", b"{\"a\":", b"\xff"] {
            let message = question(wrong).unwrap_err().to_string();
            assert!(message.contains("JSON object"), "{message}");
        }
    }

    #[test]
    fn pairs_are_decoded_and_the_last_wins() {
        let pairs = Pairs::of(&Uri::from_static("/x?a=1&b=%20x+y&a=2&c")).unwrap();
        assert_eq!((pairs.get("a"), pairs.get("b"), pairs.get("c"), pairs.get("d")), (Some("2"), Some(" x y"), Some(""), None));
    }
}
