//! Turns an upstream document into something for the store: a killmail to append, or a refused document.
//!
//! Must not know: where the document came from, except for the name noted with a refused one.

use std::borrow::Cow;

use bytes::Bytes;

use crate::domain::entry::Origin;
use crate::store::incoming::{AgeRule, Incoming, ZkbRule};
use crate::store::refused::list::Refused;
use crate::wire::read::package::NO_BODY;
use crate::wire::read::{package, reference};

/// How the killmails of a source are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub origin: Origin,
    /// How its age is determined.
    pub age: AgeRule,
    /// Whether its zkb block may replace the stored one.
    pub zkb: ZkbRule,
}

/// Parses a document. What is refused with [`NO_BODY`] is in a form the body fetcher understands.
///
/// # Errors
/// The refused document, with the reason, if it is not a killmail.
pub fn parse_document(
    document: &[u8],
    rule: Rule,
    source: &str,
    now_ms: i64,
) -> Result<Incoming, Box<Refused>> {
    let named = reference::read(document);
    let raw = match &named {
        Some(Ok(named)) => Cow::Owned(named.to_document().into_bytes()),
        _ => Cow::Borrowed(document),
    };
    let refused = |reason: &str, killmail_id| {
        let raw = Bytes::copy_from_slice(&raw);
        Box::new(Refused {
            reason: reason.to_owned(),
            killmail_id,
            source: source.to_owned(),
            raw,
            at_ms: now_ms,
        })
    };
    match named {
        Some(Ok(named)) => return Err(refused(NO_BODY, Some(named.killmail_id.into()))),
        Some(Err(error)) => return Err(refused(error.reason.word(), error.killmail_id)),
        None => {}
    }
    let package =
        package::parse(document).map_err(|error| refused(error.reason.word(), error.killmail_id))?;
    let Some(killmail) = package.killmail else {
        return Err(refused(NO_BODY, package.reference.map(|r| u64::from(r.killmail_id))));
    };
    Ok(Incoming {
        killmail,
        origin: rule.origin,
        received_at_ms: now_ms,
        uploaded_at: package.uploaded_at,
        age: rule.age,
        zkb: rule.zkb,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_only_names_a_killmail_is_refused_without_a_body() {
        let rule = Rule { origin: Origin::Backfill, age: AgeRule::ByUpload, zkb: ZkbRule::Keep };
        let refused = |document: &str| *parse_document(document.as_bytes(), rule, "import", 0).unwrap_err();
        let hash = "0123456789abcdef0123456789abcdef01234567";
        for document in [
            format!(r#"{{"killmail_id":7,"hash":"{hash}"}}"#),
            format!(r#"{{"url":"https://esi.evetech.net/killmails/7/{hash}/"}}"#),
            format!(r#"{{"killmail_id":7,"zkb":{{"hash":"{hash}"}}}}"#),
        ] {
            let refused = refused(&document);
            assert_eq!((refused.reason.as_str(), refused.killmail_id), (NO_BODY, Some(7)), "{document}");
            let again = package::parse(&refused.raw).unwrap().reference.unwrap();
            assert_eq!((again.killmail_id, again.hash.as_str()), (7, hash), "the fetcher understands it");
        }
        let refused = refused(r#"{"url":"https://zkillboard.com/kill/7/"}"#);
        assert_eq!((refused.reason.as_str(), refused.killmail_id), ("missing_hash", Some(7)));
    }
}
