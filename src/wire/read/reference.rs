//! References to killmails: id and hash in an object, or in a link to ESI or zKillboard.
//!
//! Must not know: who fetches its body.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::wire::read::package::to_valid_json;
use crate::wire::read::reason::Reason;

/// References are short, bytes; anything longer is something else.
const DOCUMENT_MAX_BYTES: usize = 2_048;
/// Hex digits of a hash.
const HASH_LENGTH: usize = 40;

/// Id and hash of a killmail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdAndHash {
    pub killmail_id: u32,
    /// The hash that ESI requires, 40 hex digits in lower case.
    pub hash: String,
}

impl IdAndHash {
    /// A document that [`package::parse`](crate::wire::read::package::parse) reads as this reference.
    #[must_use]
    pub fn to_document(&self) -> String {
        format!(r#"{{"killmail_id":{},"hash":"{}","zkb":{{}}}}"#, self.killmail_id, self.hash)
    }
}

/// Why a reference is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why, as a word for metrics and reports.
    pub reason: Reason,
    /// The member that is wrong.
    pub field: &'static str,
    /// What exactly is wrong, for people.
    pub message: String,
    /// Id of the killmail it is about, if it has one.
    pub killmail_id: Option<u64>,
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, alias = "killID")]
    killmail_id: Option<&'a RawValue>,
    #[serde(borrow, alias = "killmail_hash")]
    hash: Option<&'a RawValue>,
    #[serde(borrow)]
    url: Option<&'a RawValue>,
    victim: Option<IgnoredAny>,
    attackers: Option<IgnoredAny>,
    zkb: Option<IgnoredAny>,
    esi: Option<IgnoredAny>,
    killmail: Option<IgnoredAny>,
    package: Option<IgnoredAny>,
}

/// Reads `{"killmail_id", "hash"}` and `{"url"}`; `None` if the document is neither.
#[must_use]
pub fn read(document: &[u8]) -> Option<Result<IdAndHash, Refused>> {
    if document.len() > DOCUMENT_MAX_BYTES {
        return None;
    }
    let document = to_valid_json(document)?;
    let members: Members<'_> = serde_json::from_slice(&document).ok()?;
    let others =
        [members.victim, members.attackers, members.zkb, members.esi, members.killmail, members.package];
    if others.iter().any(Option::is_some) {
        return None;
    }
    match (members.killmail_id, members.hash, members.url) {
        (Some(id), Some(hash), _) => Some(read_object(id, hash)),
        (None, None, Some(url)) => Some(read_link(&raw_or_string(url))),
        _ => None,
    }
}

fn read_object(id: &RawValue, hash: &RawValue) -> Result<IdAndHash, Refused> {
    let killmail_id = read_id(&raw_or_string(id), "killmail_id")?;
    let hash = raw_or_string(hash);
    if is_hash(&hash) {
        return Ok(IdAndHash { killmail_id, hash: hash.to_ascii_lowercase() });
    }
    let message = format!("hash is not {HASH_LENGTH} hex digits: {}", shown(&hash));
    Err(Refused {
        reason: Reason::MissingHash,
        field: "hash",
        message,
        killmail_id: Some(killmail_id.into()),
    })
}

/// Links differ in versions and page names around id and hash. The id is the last number before the hash.
fn read_link(url: &str) -> Result<IdAndHash, Refused> {
    let refused = |reason, message, killmail_id| Refused { reason, field: "url", message, killmail_id };
    let Some(address) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
        return Err(refused(
            Reason::MissingFields,
            format!("url is not a link that begins with https://: {}", shown(url)),
            None,
        ));
    };
    // Digits in the host and port are not ids.
    let path = address.split_once('/').map_or("", |(_, path)| path);
    let mut id = None;
    for part in path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()) {
        if is_hash(part) {
            let message = || format!("no killmail id before the hash in {}", shown(url));
            let id: &str = id.ok_or_else(|| refused(Reason::MissingFields, message(), None))?;
            return Ok(IdAndHash { killmail_id: read_id(id, "url")?, hash: part.to_ascii_lowercase() });
        }
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            id = Some(part);
        }
    }
    match id.and_then(|id| id.parse().ok()) {
        Some(id) => {
            let message =
                format!("the link has no hash, which ESI needs; {} has none after {id}", shown(url));
            Err(refused(Reason::MissingHash, message, Some(id)))
        }
        None => Err(refused(
            Reason::MissingFields,
            format!("url does not lead to a killmail: {}", shown(url)),
            None,
        )),
    }
}

fn read_id(text: &str, field: &'static str) -> Result<u32, Refused> {
    let number = text.parse::<u64>().ok();
    let refuse = |reason, why| {
        Err(Refused {
            reason,
            field,
            message: format!("the killmail id {} {why}", shown(text)),
            killmail_id: number,
        })
    };
    match number.map(u32::try_from) {
        Some(Ok(id)) if id > 0 => Ok(id),
        Some(Err(_)) => refuse(Reason::IdOutOfRange, "is over 32 bits"),
        _ => refuse(Reason::InvalidKillmailId, "is not a positive integer"),
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == HASH_LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The value of a string, or else the raw text of the value.
fn raw_or_string(value: &RawValue) -> String {
    serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

fn shown(text: &str) -> String {
    text.chars().take(120).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::read::package;

    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

    type Outcome = Result<(u32, String), (Reason, &'static str)>;

    fn named(document: &str) -> Option<Outcome> {
        let read = read(document.replace("HASH", HASH).as_bytes());
        read.map(|read| {
            read.map(|named| (named.killmail_id, named.hash))
                .map_err(|refused| (refused.reason, refused.field))
        })
    }

    #[test]
    fn every_form_of_reference_is_understood() {
        for document in [
            r#"{"killmail_id": 7, "hash": "HASH"}"#,
            r#"{"killmail_id": "7", "killmail_hash": "HASH"}"#,
            r#"{"killID": 7, "hash": "HASH", "url": null}"#,
            r#"{"url": "https://esi.evetech.net/latest/killmails/7/HASH/?datasource=tranquility"}"#,
            r#"{"url": "https://esi.evetech.net/v1/killmails/7/HASH"}"#,
            r#"{"url": "http://127.0.0.1:4567/killmails/7/HASH/"}"#,
            r#"{"url": "https://zkillboard.com/api/killmail/add/7/HASH/"}"#,
            r#"{"url": "https://zkillboard.com/kill/7/#HASH"}"#,
            r#"{"url": "https://zkillboard.com/kill/7/?hash=HASH"}"#,
        ] {
            assert_eq!(named(document), Some(Ok((7, HASH.to_owned()))), "{document}");
        }
        let reference = IdAndHash { killmail_id: 7, hash: HASH.to_owned() };
        let package = package::parse(reference.to_document().as_bytes()).unwrap();
        assert_eq!(
            package.reference.map(|named| (named.killmail_id, named.hash)),
            Some((7, HASH.to_owned()))
        );
    }

    #[test]
    fn invalid_references_are_refused_with_reason_and_field() {
        for (document, reason, field) in [
            (r#"{"killmail_id": 0, "hash": "HASH"}"#, Reason::InvalidKillmailId, "killmail_id"),
            (r#"{"killmail_id": 4294967296, "hash": "HASH"}"#, Reason::IdOutOfRange, "killmail_id"),
            (r#"{"killmail_id": 7, "hash": "../../etc"}"#, Reason::MissingHash, "hash"),
            (r#"{"killmail_id": 7, "hash": 5}"#, Reason::MissingHash, "hash"),
            (r#"{"url": "https://zkillboard.com/kill/7/"}"#, Reason::MissingHash, "url"),
            (r#"{"url": "https://esi.evetech.net/killmails/HASH/7"}"#, Reason::MissingFields, "url"),
            (r#"{"url": "https://zkillboard.com/"}"#, Reason::MissingFields, "url"),
            (r#"{"url": "ftp://zkillboard.com/7/HASH"}"#, Reason::MissingFields, "url"),
            (r#"{"url": 5}"#, Reason::MissingFields, "url"),
        ] {
            assert_eq!(named(document), Some(Err((reason, field))), "{document}");
        }
    }

    #[test]
    fn other_documents_are_not_references() {
        for document in [
            r#"{"killmail_id": 7}"#,
            r#"{"killmail_id": 7, "zkb": {"hash": "HASH"}}"#,
            r#"{"killmail_id": 7, "hash": "HASH", "killmail": {}}"#,
            r#"{"killmail_id": 7, "killmail_hash": "HASH", "victim": {}, "attackers": []}"#,
            r#"["https://esi.evetech.net/killmails/7/HASH"]"#,
            "{\"killmail_id\":",
            "{}",
        ] {
            assert_eq!(named(document), None, "{document}");
        }
    }
}
