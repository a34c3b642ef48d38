//! One number for everything kept: two stores with the same digest have the same killmails, whatever way they
//! came and in whatever order.
//!
//! The SHA-256 of the canonical JSON of every killmail with a newline behind each, in killmail id order: of
//! the very text that `GET /api/v1/export` answers, without `provenance`. Ids, bodies and zKillboard's values
//! are in it, times of arrival and numbers are not.
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

/// A digest in the making.
#[derive(Debug, Clone, Default)]
pub struct Digest {
    hash: Sha256,
    killmails: u64,
}

impl Digest {
    /// Takes in the JSON of the next killmail.
    pub fn add(&mut self, json: &[u8]) {
        self.hash.update(json);
        self.hash.update(b"\n");
        self.killmails += 1;
    }

    /// `sha256:<hex>`, and how many killmails went in.
    #[must_use]
    pub fn done(self) -> (String, u64) {
        (format!("sha256:{}", hex(&self.hash.finalize())), self.killmails)
    }
}

impl Store {
    /// The digest of all kept now, and how many killmails that is. What is appended meanwhile is not in it.
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
                // Where a part came from and when the killmail came is no part of what is kept: whoever
                // follows us has the same digest.
                let known = &entry.killmail;
                if known.provenance.is_empty() && !known.time_implausible {
                    digest.add(&(self.encode)(known));
                } else {
                    digest.add(&(self.encode)(&Killmail {
                        provenance: Provenance::default(),
                        time_implausible: false,
                        ..known.clone()
                    }));
                }
            }
            match hits.last() {
                Some(last) => after = Some(last.killmail_id),
                None => return Ok(digest.done()),
            }
        }
    }
}

const fn page(filter: &Filter, after: Option<u32>, head: Seq) -> HistoryQuery<'_> {
    HistoryQuery { filter, interest: None, order: Order::Oldest, after, below: None, head, limit: PAGE }
}
