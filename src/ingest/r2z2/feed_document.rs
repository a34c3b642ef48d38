//! Parses the files of R2Z2: numbered documents and `sequence.json`.
//!
//! Must not know: which file is requested when.

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::clock::{self, DAY_SECS};
use crate::domain::entry::{Origin, is_implausible};
use crate::ingest::package::{self, Rule};
use crate::ingest::r2z2::exchange::Reply;
use crate::store::incoming::{AgeRule, Incoming, ZkbRule};
use crate::store::refused::list::Refused;
use crate::wire::read::json::without_bom;
use crate::wire::read::number::{parse_number, to_integer};
use crate::wire::read::package::to_valid_json;

/// The reason of a file without a killmail.
pub const PLACEHOLDER: &str = "placeholder";
const MISMATCH: &str = "sequence_mismatch";
/// The reason of a response that is not a document of the feed.
const NOT_OF_THE_FEED: &str = "not_of_the_feed";

/// A parsed response.
#[derive(Debug)]
pub struct Parsed {
    /// What it means to the follower.
    pub reply: Reply,
    pub killmail: Option<Incoming>,
    pub refused: Option<Refused>,
}

impl Parsed {
    /// A reply without a document.
    #[must_use]
    pub const fn reply_only(reply: Reply) -> Self {
        Self { reply, killmail: None, refused: None }
    }
}

/// The members of a document besides its killmail, parsed separately because they count even if the killmail
/// is malformed. A member that is `null` is `Some`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Members<'a> {
    #[serde(borrow, deserialize_with = "raw")]
    sequence: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "raw")]
    sequence_id: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "raw")]
    sequence_updated: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "raw")]
    sequence_empty: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "raw")]
    killmail_id: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "raw")]
    esi: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "raw")]
    uploaded_at: Option<&'a RawValue>,
}

fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The members of an object; `None` for any other JSON.
fn members(body: &[u8]) -> Option<Members<'_>> {
    // Serde would also accept an array of the members in order.
    body.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(body).ok()).flatten()
}

/// Whether this is a document of the feed or of ESI: an object with a number or a killmail id, whatever else
/// is wrong with it.
#[must_use]
pub fn is_document(body: &[u8]) -> bool {
    let Some(body) = to_valid_json(without_bom(body)) else { return false };
    members(&body).is_some_and(|members| members.sequence_id.is_some() || members.killmail_id.is_some())
}

fn is_null(member: Option<&RawValue>) -> bool {
    member.is_none_or(|raw| raw.get() == "null")
}

/// An integer, possibly in a string.
fn number(raw: &RawValue) -> Option<u64> {
    let text = raw.get();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).trim();
    text.parse().ok().or_else(|| to_integer(&parse_number(text)?)?.try_into().ok())
}

/// The number in `sequence.json`: in an object or bare, possibly in a string.
#[must_use]
pub fn pointer(body: &[u8]) -> Option<u64> {
    let body = without_bom(body);
    if let Some(members) = members(body) {
        return members.sequence.and_then(number).or_else(|| members.sequence_id.and_then(number));
    }
    number(serde_json::from_slice(body).ok()?)
}

/// Parses the document of the requested number; `source` is noted with it if it is refused.
#[must_use]
pub fn document(body: &[u8], requested: u64, zkb: ZkbRule, source: &str) -> Parsed {
    let body = without_bom(body);
    let now_ms = clock::now_ms();
    let refused = |reason: &str| {
        let raw = Bytes::copy_from_slice(body);
        Refused {
            reason: reason.to_owned(),
            killmail_id: None,
            source: source.to_owned(),
            raw,
            at_ms: now_ms,
        }
    };
    let misfit = |other_number, reason| Parsed {
        reply: Reply::Misfit { other_number },
        killmail: None,
        refused: Some(refused(reason)),
    };
    let text = to_valid_json(body).unwrap_or_default();
    let members =
        members(&text).filter(|members| members.sequence_id.is_some() || members.killmail_id.is_some());
    let Some(members) = members else { return misfit(false, NOT_OF_THE_FEED) };
    if members.sequence_id.and_then(number).is_some_and(|number| number != requested) {
        return misfit(true, MISMATCH);
    }
    if is_null(members.killmail_id) && is_null(members.esi) {
        // A killstream mirror says so if its log has no killmail there: nothing is missing.
        if members.sequence_empty.is_some_and(|raw| raw.get() == "true") {
            return Parsed::reply_only(Reply::Document {
                updated: members.sequence_updated.and_then(number),
                at: None,
            });
        }
        return Parsed { reply: Reply::Placeholder, killmail: None, refused: Some(refused(PLACEHOLDER)) };
    }
    let parsed = package::parse_document(
        body,
        Rule { origin: Origin::Live, age: AgeRule::ByUpload, zkb },
        source,
        now_ms,
    );
    let time = parsed.as_ref().ok().map(|incoming| incoming.killmail.time);
    let reply = Reply::Document {
        updated: members.sequence_updated.and_then(number),
        at: published(&members, time, now_ms),
    };
    match parsed {
        Ok(killmail) => Parsed { reply, killmail: Some(killmail), refused: None },
        Err(refused) => Parsed { reply, killmail: None, refused: Some(*refused) },
    }
}

/// When a document was published, unix seconds; implausible times are ignored.
fn published(members: &Members<'_>, time: Option<i64>, now_ms: i64) -> Option<i64> {
    let time = time.filter(|time| !is_implausible(*time, now_ms));
    let last = now_ms / 1000 + DAY_SECS;
    let uploaded = members.uploaded_at.and_then(number).and_then(|at| i64::try_from(at).ok());
    uploaded.filter(|at| (time.unwrap_or(0)..=last).contains(at)).or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Parsed {
        document(text.as_bytes(), 7, ZkbRule::IfNewer, "r2z2")
    }

    const MISFIT: Reply = Reply::Misfit { other_number: false };

    #[test]
    fn a_number_that_never_had_a_killmail_is_not_missing() {
        let parsed =
            read(r#"{"killmail_id":null,"hash":null,"esi":null,"sequence_id":7,"sequence_empty":true}"#);
        assert_eq!(parsed.reply, Reply::Document { updated: None, at: None });
        assert!(parsed.killmail.is_none() && parsed.refused.is_none());
        assert_eq!(
            read(r#"{"killmail_id":null,"hash":null,"esi":null,"sequence_id":7}"#).reply,
            Reply::Placeholder
        );
    }

    #[test]
    fn the_pointer_is_read_in_every_format() {
        for text in [
            r#"{"sequence": 7}"#,
            r#"{"sequence_id": 7}"#,
            r#"{"sequence":"7"}"#,
            r#"{"sequence_id":" 7 ","other":{}}"#,
            "7",
            " 7\n",
            "\"7\"",
            "\u{feff}{\"sequence\":7}",
            "7.0",
            r#"{"sequence":7.0}"#,
            r#"{"sequence":"7.0"}"#,
            r#"{"sequence":7,"more":1e999}"#,
        ] {
            assert_eq!(pointer(text.as_bytes()), Some(7), "{text}");
        }
        for text in [
            "",
            "<html>",
            "{",
            "{}",
            "[7]",
            "null",
            "\"\"",
            "\"x\"",
            "-7",
            "7.5",
            "7 8",
            "true",
            r#"{"other":7}"#,
            r#"{"error":"busy"}"#,
            r#"{"sequence":null}"#,
            r#"{"sequence":[7]}"#,
        ] {
            assert_eq!(pointer(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_document_of_another_number_is_a_misfit() {
        for text in [r#"{"killmail_id":1,"sequence_id":8}"#, r#"{"killmail_id":1,"sequence_id":"8"}"#] {
            let parsed = read(text);
            assert_eq!(parsed.reply, Reply::Misfit { other_number: true });
            assert_eq!(parsed.refused.map(|r| r.reason).as_deref(), Some(MISMATCH));
        }
    }

    #[test]
    fn anything_but_a_document_of_the_feed_is_a_misfit() {
        for text in [
            "<html>come back later</html>",
            "",
            " ",
            "{\"killmail_id\":1,\"esi\":{\"vic",
            "[]",
            "{}",
            "{\"error\":\"busy\"}",
            "[{\"killmail_id\":1,\"sequence_id\":7}]",
            "[7,7,7,7,7,7,7]",
            "null",
            "7",
            "\"killmail_id\"",
            "{\"esi\":{}}",
            "{\"killmail_id\":1} {\"killmail_id\":1}",
        ] {
            let parsed = read(text);
            assert_eq!(parsed.reply, MISFIT, "{text}");
            assert!(parsed.refused.is_some(), "{text}");
        }
    }

    #[test]
    fn a_placeholder_is_a_missing_number() {
        for text in [
            r#"{"killmail_id":null,"hash":null,"esi":null,"zkb":{"href":"https://esi.evetech.net/killmails///"},"sequence_id":7}"#,
            r#"{"killmail_id":null,"sequence_id":null}"#,
            r#"{"sequence_id":7}"#,
        ] {
            assert_eq!(read(text).reply, Reply::Placeholder, "{text}");
        }
    }

    #[test]
    fn an_impossible_killmail_time_does_not_date_a_document() {
        let at = |time: &str, uploaded: &str| {
            let text = format!(
                r#"{{"killmail_id":1,"hash":"x","sequence_id":7{uploaded},"esi":{{"killmail_id":1,"solar_system_id":30000142,
                "killmail_time":"{time}","victim":{{"ship_type_id":587}},"attackers":[]}}}}"#
            );
            match read(&text) {
                Parsed { reply: Reply::Document { at, .. }, killmail: Some(_), .. } => at,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(at("2021-11-27T00:00:00Z", ""), Some(1_637_971_200));
        for impossible in ["1999-01-01T00:00:00Z", "2190-01-01T00:00:00Z"] {
            assert_eq!(at(impossible, ""), None);
            assert_eq!(at(impossible, r#","uploaded_at":1637971200"#), Some(1_637_971_200));
        }
    }

    #[test]
    fn a_document_with_a_malformed_killmail_is_refused_and_its_other_members_count() {
        let now = clock::now_ms() / 1000;
        let malformed = |rest: &str| {
            read(&format!(r#"{{"killmail_id":1,"hash":"x","esi":{{}},"sequence_id":"7"{rest}}}"#))
        };
        for (rest, updated, at) in [
            (format!(r#","sequence_updated":3,"uploaded_at":{now}"#), Some(3), Some(now)),
            (format!(r#","sequence_updated":"3","uploaded_at":"{now}""#), Some(3), Some(now)),
            (format!(r#","sequence_updated":"x","uploaded_at":{now}000"#), None, None),
            (r#","zkb":"x","uploaded_at":{}"#.to_owned(), None, None),
        ] {
            let parsed = malformed(&rest);
            assert_eq!(parsed.reply, Reply::Document { updated, at }, "{rest}");
            assert!(parsed.killmail.is_none() && parsed.refused.is_some(), "{rest}");
        }
    }
}
