//! The digest of a store: two stores with the same digest hold the same killmails, however and in whatever
//! order they came.
//!
//! It is the SHA-256 of the canonical JSON of every killmail, each followed by a newline, in order of killmail
//! id: the text that `GET /api/v1/export` returns, without `provenance`. It covers ids, bodies and
//! zKillboard's values, but not times of arrival and numbers.
//!
//! Must not know: what the JSON looks like.

use sha2::{Digest as _, Sha256};

use crate::domain::filter::Filter;
use crate::domain::hex::hex;
use crate::domain::id::Seq;
use crate::domain::killmail::Killmail;
use crate::domain::provenance::Provenance;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::query::{HistoryQuery, Order};

/// Killmails read at once.
const PAGE: usize = 1024;

/// Computes a digest.
#[derive(Debug, Clone, Default)]
pub struct Digest {
    hash: Sha256,
    killmails: u64,
}

impl Digest {
    /// Adds the JSON of the next killmail.
    pub fn add(&mut self, json: &[u8]) {
        self.hash.update(json);
        self.hash.update(b"\n");
        self.killmails += 1;
    }

    /// `sha256:<hex>`, and how many killmails were added.
    #[must_use]
    pub fn finish(self) -> (String, u64) {
        (format!("sha256:{}", hex(&self.hash.finalize())), self.killmails)
    }
}

impl Store {
    /// The digest of all killmails stored now, and their count. It does not cover what is appended while it is
    /// computed.
    ///
    /// # Errors
    /// The disk.
    pub fn digest(&self) -> Result<(String, u64), StoreError> {
        let (filter, head) = (Filter::default(), self.head());
        let mut digest = Digest::default();
        let mut after = None;
        loop {
            let hits = self.select(&page(&filter, after, head))?;
            for entry in self.entries(&hits)? {
                // Where parts came from and when the killmail arrived is not covered: a mirror of this store
                // has the same digest.
                let killmail = &entry.killmail;
                if killmail.provenance.is_empty() && !killmail.time_implausible {
                    digest.add(&(self.encode)(killmail));
                } else {
                    digest.add(&(self.encode)(&Killmail {
                        provenance: Provenance::default(),
                        time_implausible: false,
                        ..killmail.clone()
                    }));
                }
            }
            match hits.last() {
                Some(last) => after = Some(last.killmail_id),
                None => return Ok(digest.finish()),
            }
        }
    }
}

const fn page(filter: &Filter, after: Option<u32>, head: Seq) -> HistoryQuery<'_> {
    HistoryQuery { filter, interest: None, order: Order::Oldest, after, below: None, head, limit: PAGE }
}
