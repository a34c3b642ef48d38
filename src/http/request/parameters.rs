//! Extractors for parameters: the query string, the JSON body, the path.
//!
//! Must not know: what parameters mean.

use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use serde_json::value::RawValue;

use crate::http::answer::error::Error;
use crate::http::request::body::{self, BodyLimits};
use crate::tasks;
use crate::wire::query::given_value::json_number;
use crate::wire::query::limits::Limits;
use crate::wire::query::parameters::{KnownNames, ParameterError, Parameters};
use crate::wire::query::{self, ParsedQuery};
use crate::wire::read::json::JsonError;
use crate::wire::read::number::{INTEGERS_MIN, to_integer};

/// The decoded pairs of the query string, in order.
#[derive(Debug, Clone, Default)]
pub struct Pairs(pub Vec<(String, String)>);

impl Pairs {
    /// Decodes the query string of a URI.
    ///
    /// # Errors
    /// 400: it cannot be decoded.
    pub fn from_uri(uri: &Uri) -> Result<Self, Error> {
        Query::try_from_uri(uri).map(|Query(pairs)| Self(pairs)).map_err(|_| Error::BadRequest)
    }

    /// The value of a parameter; the last one if it is repeated.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl<S: Sync> FromRequestParts<S> for Pairs {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Self::from_uri(&parts.uri)
    }
}

/// The variable segment of the path, decoded; empty if it is not valid UTF-8.
#[derive(Debug, Clone)]
pub struct PathSegment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathSegment {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        Ok(Self(Path::from_request_parts(parts, state).await.map(|Path(text)| text).unwrap_or_default()))
    }
}

/// The body, within its limits.
#[derive(Debug, Clone)]
pub struct RawBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = Error;

    async fn from_request(mut request: Request, _: &S) -> Result<Self, Error> {
        if request.body().is_end_stream() {
            return Ok(Self(Bytes::new()));
        }
        let intake = request.extensions_mut().remove::<BodyLimits>().unwrap_or_default();
        body::read(request.into_body(), &intake).await.map(Self)
    }
}

/// The body as a JSON object. Other valid JSON, and a body that is not JSON, counts as an empty object, as in
/// the older service.
#[derive(Debug, Clone)]
pub struct JsonObject {
    body: Bytes,
    is_json: bool,
}

impl<S: Send + Sync> FromRequest<S> for JsonObject {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let is_json = has_json_type(request.headers());
        let RawBody(body) = RawBody::from_request(request, state).await?;
        Ok(Self { body, is_json })
    }
}

impl JsonObject {
    /// Reads the members of these names off the event loop; all others are skipped.
    ///
    /// # Errors
    /// 400: the JSON is malformed; or the error of `read`.
    pub async fn read<T, F>(self, known: KnownNames, read: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Parameters<'_>) -> Result<T, Error> + Send + 'static,
    {
        let Self { body, is_json } = self;
        tasks::parse("body", body.len(), move || read(&parse_object(&body, is_json, known)?))
            .await
            .map_err(Error::failed)?
    }
}

/// A query in the body, which is a JSON object or empty. Parameters in the query string count too, unless the
/// body has them.
#[derive(Debug, Clone)]
pub struct QueryBody {
    body: Bytes,
    pairs: Vec<(String, String)>,
}

impl<S: Send + Sync> FromRequest<S> for QueryBody {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let Pairs(pairs) = Pairs::from_uri(request.uri())?;
        let RawBody(body) = RawBody::from_request(request, state).await?;
        Ok(Self { body, pairs })
    }
}

impl QueryBody {
    /// Reads the query off the event loop.
    ///
    /// # Errors
    /// Outer: 500, the task was lost. Inner: the error of `read`.
    pub async fn read(
        self,
        read: fn(&[u8], &query::QueryPairs, Limits) -> Result<ParsedQuery, ParameterError>,
        limits: Limits,
    ) -> Result<Result<ParsedQuery, ParameterError>, Error> {
        let Self { body, pairs } = self;
        tasks::parse("query-body", body.len(), move || read(&body, &pairs, limits))
            .await
            .map_err(Error::failed)
    }
}

/// A body whose content type is JSON, or that begins like JSON, must be JSON; any other counts as an empty
/// object.
fn parse_object(bytes: &[u8], is_json: bool, known: KnownNames) -> Result<Parameters<'_>, Error> {
    let text = bytes.trim_ascii();
    if text.is_empty() || !(is_json || matches!(text[0], b'{' | b'[')) {
        return Ok(Parameters::empty(known));
    }
    match Parameters::from_object(text, known) {
        Ok(parameters) => Ok(parameters),
        Err(JsonError::NotAnObject(_)) => Ok(Parameters::empty(known)),
        Err(JsonError::NotJson(_)) => Err(Error::BadRequest),
        Err(deep @ JsonError::TooDeep) => Err(Error::parameter("body", deep.to_string())),
    }
}

fn has_json_type(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        kind == "application/json" || kind.ends_with("+json")
    })
}

/// Parses a positive number of digits only; leading zeros are allowed. A number that does not fit becomes
/// `u64::MAX`.
#[must_use]
pub fn parse_positive(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().unwrap_or(u64::MAX))?;
    (number > 0).then_some(number)
}

/// A positive JSON integer. A number that does not fit becomes `u64::MAX`.
#[must_use]
pub fn positive_json(value: &RawValue) -> Option<u64> {
    integer(value)
        .and_then(|number| u64::try_from(number.min(u64::MAX.into())).ok())
        .filter(|number| *number > 0)
}

/// A JSON integer, saturated to 128 bits; `None` for a number written as a float.
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
        assert_eq!(parse_positive("000123"), Some(123));
        assert_eq!(parse_positive("99999999999999999999999"), Some(u64::MAX));
        for text in ["", "0", "-1", "+1", "12x", " 1", "1.0", "٣", "abc"] {
            assert_eq!(parse_positive(text), None, "{text}");
        }
    }

    #[test]
    fn json_integers_never_overflow() {
        let parsed = |text: &str| positive_json(serde_json::from_str(text).unwrap());
        assert_eq!(
            (parsed("7"), parsed("\"7\""), parsed("18446744073709551615")),
            (Some(7), None, Some(u64::MAX))
        );
        assert_eq!(
            (parsed("18446744073709551616"), parsed(&"9".repeat(60))),
            (Some(u64::MAX), Some(u64::MAX))
        );
        assert_eq!(
            (parsed("0"), parsed("-18446744073709551616"), parsed("1.5"), parsed("1.0"), parsed("true")),
            (None, None, None, None, None)
        );
    }

    #[test]
    fn only_malformed_json_is_refused() {
        let read = |bytes: &[u8], is_json| {
            parse_object(bytes, is_json, &[&["a"]]).map(|parameters| parameters.raw_json("a").is_some())
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
        let pairs = Pairs::from_uri(&Uri::from_static("/x?a=1&b=%20x+y&a=2&c")).unwrap();
        assert_eq!(
            (pairs.get("a"), pairs.get("b"), pairs.get("c"), pairs.get("d")),
            (Some("2"), Some(" x y"), Some(""), None)
        );
    }
}
