//! What a request carries: pairs of its query string, its JSON body, ids in its path.
//!
//! Must not know: what parameters mean.

use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use serde_json::value::RawValue;

use crate::http::answer::error::Error;
use crate::http::request::body::{self, Intake};
use crate::tasks;
use crate::wire::query::given_value::json_number;
use crate::wire::query::limits::Limits;
use crate::wire::query::parameters::{KnownNames, Parameters};
use crate::wire::query::{self, ParsedQuery};
use crate::wire::read::json::JsonError;
use crate::wire::read::number::{INTEGERS_MIN, to_integer};

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
        body::read(request.into_body(), &intake).await.map(Self)
    }
}

/// The body as a JSON object; whatever else it validly is counts as an empty one, as in the older service.
#[derive(Debug, Clone)]
pub struct Object {
    body: Bytes,
    said_json: bool,
}

impl<S: Send + Sync> FromRequest<S> for Object {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let said_json = says_json(request.headers());
        let Raw(body) = Raw::from_request(request, state).await?;
        Ok(Self { body, said_json })
    }
}

impl Object {
    /// Has the members of these names read; all else is skipped.
    ///
    /// # Errors
    /// 400: it is broken, or what `read` says.
    pub async fn read<T, F>(self, known: KnownNames, read: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Parameters<'_>) -> Result<T, Error> + Send + 'static,
    {
        let Self { body, said_json } = self;
        tasks::read("body", body.len(), move || read(&object(&body, said_json, known)?))
            .await
            .map_err(Error::failed)?
    }
}

/// A question asked in the body, a JSON object, or none. Parameters in the address count too, where the body
/// does not name them.
#[derive(Debug, Clone)]
pub struct Question {
    body: Bytes,
    pairs: Vec<(String, String)>,
}

impl<S: Send + Sync> FromRequest<S> for Question {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let Pairs(pairs) = Pairs::of(request.uri())?;
        let Raw(body) = Raw::from_request(request, state).await?;
        Ok(Self { body, pairs })
    }
}

impl Question {
    /// Has it read.
    ///
    /// # Errors
    /// 500: the reading was lost. What `read` says is inside.
    pub async fn read(
        self,
        read: fn(&[u8], &query::QueryPairs, Limits) -> Result<ParsedQuery, query::Error>,
        limits: Limits,
    ) -> Result<Result<ParsedQuery, query::Error>, Error> {
        let Self { body, pairs } = self;
        tasks::read("question", body.len(), move || read(&body, &pairs, limits)).await.map_err(Error::failed)
    }
}

/// Bodies that claim to be JSON, or begin like it, must be JSON; others pass as empty objects.
fn object(bytes: &[u8], said_json: bool, known: KnownNames) -> Result<Parameters<'_>, Error> {
    let text = bytes.trim_ascii();
    if text.is_empty() || !(said_json || matches!(text[0], b'{' | b'[')) {
        return Ok(Parameters::empty(known));
    }
    match Parameters::from_object(text, known) {
        Ok(given) => Ok(given),
        Err(JsonError::NotAnObject(_)) => Ok(Parameters::empty(known)),
        Err(JsonError::NotJson(_)) => Err(Error::BadRequest),
        Err(deep @ JsonError::TooDeep) => Err(Error::parameter("body", deep.to_string())),
    }
}

fn says_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        kind == "application/json" || kind.ends_with("+json")
    })
}

/// A positive number written in digits only, leading zeros allowed; beyond what fits it is the largest there
/// is.
#[must_use]
pub fn positive(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().unwrap_or(u64::MAX))?;
    (number > 0).then_some(number)
}

/// A positive number as a JSON integer.
#[must_use]
pub fn positive_json(value: &RawValue) -> Option<u64> {
    integer(value)
        .and_then(|number| u64::try_from(number.min(u64::MAX.into())).ok())
        .filter(|number| *number > 0)
}

/// A JSON integer of any size, cut to what 128 bits hold; one written as a float is none here.
#[must_use]
pub fn integer(value: &RawValue) -> Option<i128> {
    let number = json_number(value)?;
    to_integer(&number)
        .filter(|_| !number.is_f64() || number.as_f64().is_some_and(|float| float.abs() >= INTEGERS_MIN))
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
        let given = |text: &str| positive_json(serde_json::from_str(text).unwrap());
        assert_eq!(
            (given("7"), given("\"7\""), given("18446744073709551615")),
            (Some(7), None, Some(u64::MAX))
        );
        assert_eq!((given("18446744073709551616"), given(&"9".repeat(60))), (Some(u64::MAX), Some(u64::MAX)));
        assert_eq!(
            (given("0"), given("-18446744073709551616"), given("1.5"), given("1.0"), given("true")),
            (None, None, None, None, None)
        );
    }

    #[test]
    fn only_broken_json_is_refused() {
        let read = |bytes: &[u8], said_json| {
            object(bytes, said_json, &[&["a"]]).map(|given| given.raw_json("a").is_some())
        };
        assert_eq!(read(b"", true), Ok(false));
        assert_eq!(read(b"a=1&b=2", false), Ok(false));
        assert_eq!(read(b" [1]", false), Ok(false));
        assert_eq!(read(b"{\"a\":1}", false), Ok(true));
        assert_eq!(read(b"{\"a\":", false), Err(Error::BadRequest));
        assert_eq!(read(b"nonsense", true), Err(Error::BadRequest));
        assert!(matches!(read(&[b'['; 65], false), Err(Error::Parameter { field, .. }) if field == "body"));
    }

    #[test]
    fn pairs_are_decoded_and_the_last_wins() {
        let pairs = Pairs::of(&Uri::from_static("/x?a=1&b=%20x+y&a=2&c")).unwrap();
        assert_eq!(
            (pairs.get("a"), pairs.get("b"), pairs.get("c"), pairs.get("d")),
            (Some("2"), Some(" x y"), Some(""), None)
        );
    }
}
