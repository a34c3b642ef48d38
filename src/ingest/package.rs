//! One upstream document becomes something for the store: a killmail to append, or a refusal to keep.
//!
//! Must not know: where the document came from, but for the name it is refused under.

use bytes::Bytes;

use crate::domain::entry::Origin;
use crate::store::refused::Refused;
use crate::store::{AgeRule, Incoming, ZkbRule};
use crate::wire::package;

/// The word for a document that names a killmail without carrying it.
pub const NO_BODY: &str = "no_body";

/// How the killmails of a source are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Live, or filling the log.
    pub origin: Origin,
    /// How old a killmail counts.
    pub age: AgeRule,
    /// Whether its zkb block may replace the stored one.
    pub zkb: ZkbRule,
}

/// Understands one document.
///
/// # Errors
/// What to keep of a document that is no killmail, with the reason.
pub fn take(document: &[u8], rule: Rule, source: &str, now_ms: i64) -> Result<Incoming, Box<Refused>> {
    let refused = |reason: &str, killmail_id| {
        let raw = Bytes::copy_from_slice(document);
        Box::new(Refused { reason: reason.to_owned(), killmail_id, source: source.to_owned(), raw, at_ms: now_ms })
    };
    let package = package::parse(document).map_err(|r| refused(r.reason.word(), r.killmail_id))?;
    let Some(killmail) = package.killmail else {
        return Err(refused(NO_BODY, package.reference.map(|r| u64::from(r.killmail_id))));
    };
    Ok(Incoming { killmail, origin: rule.origin, received_at_ms: now_ms, uploaded_at: package.uploaded_at, age: rule.age, zkb: rule.zkb })
}
