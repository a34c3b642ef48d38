//! What the files of R2Z2 say: numbered documents, the pointer, how long to stay away.
//!
//! Must not know: which file is asked for when.

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::RETRY_AFTER;
use serde::Deserialize;

use crate::clock;
use crate::domain::entry::Origin;
use crate::ingest::pace::Answer;
use crate::ingest::package::{self, Rule};
use crate::store::refused::Refused;
use crate::store::{AgeRule, Incoming, ZkbRule};

/// The longest wait a `Retry-After` may ask for, milliseconds.
const RETRY_AFTER_MAX_MS: u64 = 3_600_000;
const PLACEHOLDER: &str = "placeholder";
const MISMATCH: &str = "sequence_mismatch";

/// What one request gave.
#[derive(Debug)]
pub struct Got {
    /// For the follower.
    pub answer: Answer,
    /// For the store.
    pub killmail: Option<Incoming>,
    /// For the pile of the refused.
    pub refused: Option<Refused>,
}

impl Got {
    /// Nothing but an answer.
    #[must_use]
    pub const fn only(answer: Answer) -> Self {
        Self { answer, killmail: None, refused: None }
    }
}

/// The numbers beside the killmail; read apart from it, since they count even where the killmail is broken.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Numbers {
    sequence: Option<u64>,
    sequence_id: Option<u64>,
    sequence_updated: Option<u64>,
    uploaded_at: Option<i64>,
    sequence_empty: bool,
}

/// The number `sequence.json` names.
#[must_use]
pub fn pointer(body: &[u8]) -> Option<u64> {
    let numbers: Numbers = serde_json::from_slice(body).ok()?;
    numbers.sequence.or(numbers.sequence_id)
}

/// The document of a number, kept under the name of `source` if it is refused.
#[must_use]
pub fn document(body: &[u8], number: u64, zkb: ZkbRule, source: &str) -> Got {
    let numbers: Numbers = serde_json::from_slice(body).unwrap_or_default();
    let now_ms = clock::now_ms();
    let answer = |at| Answer::Document { updated: numbers.sequence_updated, at: numbers.uploaded_at.or(at) };
    if numbers.sequence_id.is_some_and(|id| id != number) {
        let raw = Bytes::copy_from_slice(body);
        let refused = Refused { reason: MISMATCH.to_owned(), killmail_id: None, source: source.to_owned(), raw, at_ms: now_ms };
        return Got { answer: Answer::Misfit, killmail: None, refused: Some(refused) };
    }
    match package::take(body, Rule { origin: Origin::Live, age: AgeRule::ByUpload, zkb }, source, now_ms) {
        Ok(killmail) => Got { answer: answer(Some(killmail.killmail.time)), killmail: Some(killmail), refused: None },
        // A killstream says so where its log holds no killmail: nothing is missing.
        Err(refused) if refused.reason == PLACEHOLDER && numbers.sequence_empty => Got::only(answer(None)),
        Err(refused) => {
            let answer = match refused.killmail_id {
                _ if refused.reason == PLACEHOLDER => Answer::Hole,
                // A page of a proxy, a cut text: the file itself may be another one in a moment.
                None => Answer::Misfit,
                Some(_) => answer(None),
            };
            Got { answer, killmail: None, refused: Some(*refused) }
        }
    }
}

/// `Retry-After` in milliseconds: seconds, or a date.
#[must_use]
pub fn retry_after_ms(response: &Response) -> Option<u64> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    let ms = match text.parse::<u64>() {
        Ok(secs) => secs.saturating_mul(1_000),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_millisecond();
            u64::try_from(at - clock::now_ms()).unwrap_or(0)
        }
    };
    Some(ms.min(RETRY_AFTER_MAX_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Got {
        document(text.as_bytes(), 7, ZkbRule::IfNewer, "r2z2")
    }

    #[test]
    fn a_number_that_never_held_anything_is_no_hole() {
        let got = read(r#"{"killmail_id":null,"hash":null,"esi":null,"sequence_id":7,"sequence_empty":true}"#);
        assert_eq!(got.answer, Answer::Document { updated: None, at: None });
        assert!(got.killmail.is_none() && got.refused.is_none());
        assert_eq!(read(r#"{"killmail_id":null,"hash":null,"esi":null,"sequence_id":7}"#).answer, Answer::Hole);
    }

    #[test]
    fn both_spellings_of_the_pointer_are_read() {
        assert_eq!(pointer(br#"{"sequence": 900002}"#), Some(900_002));
        assert_eq!(pointer(br#"{"sequence_id": 7}"#), Some(7));
        assert_eq!(pointer(br#"{"other": 7}"#), None);
        assert_eq!(pointer(b"<html>"), None);
    }

    #[test]
    fn another_number_in_the_body_is_a_misfit() {
        let got = read(r#"{"killmail_id":1,"sequence_id":8}"#);
        assert_eq!(got.answer, Answer::Misfit);
        assert_eq!(got.refused.map(|r| r.reason).as_deref(), Some(MISMATCH));
    }

    #[test]
    fn what_is_no_document_at_all_is_a_misfit() {
        for text in ["<html>come back later</html>", "", "{\"killmail_id\":1,\"esi\":{\"vic", "[]", "{\"error\":\"busy\"}"] {
            let got = read(text);
            assert_eq!(got.answer, Answer::Misfit, "{text}");
            assert!(got.refused.is_some(), "{text}");
        }
    }

    #[test]
    fn a_placeholder_is_told_from_a_broken_document() {
        let text = r#"{"killmail_id":null,"hash":null,"esi":null,"zkb":{"href":"https://esi.evetech.net/killmails///"},"sequence_id":7}"#;
        assert_eq!(read(text).answer, Answer::Hole);
    }

    #[test]
    fn a_broken_document_still_tells_of_the_rewritten_one() {
        let got = read(r#"{"killmail_id":1,"hash":"x","esi":{},"sequence_id":7,"sequence_updated":3,"uploaded_at":9}"#);
        assert_eq!(got.answer, Answer::Document { updated: Some(3), at: Some(9) });
        assert!(got.killmail.is_none());
        assert!(got.refused.is_some());
    }
}
