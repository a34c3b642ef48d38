//! Killmail id -> number in the log: pages of 256 ids, since ids come in runs.
//!
//! Must not know: anything else about entries.

use hashbrown::HashMap;

use crate::domain::id::Seq;

const PAGE: usize = 256;

/// Where each killmail is.
#[derive(Debug, Default)]
pub struct Ids {
    pages: HashMap<u32, Box<[u32; PAGE]>>,
}

impl Ids {
    /// The number of a killmail.
    pub fn get(&self, killmail_id: u32) -> Option<Seq> {
        let page = self.pages.get(&(killmail_id / PAGE as u32))?;
        let seq = page[killmail_id as usize % PAGE];
        (seq != 0).then_some(Seq(u64::from(seq)))
    }

    /// Sets it. Numbers beyond 32 bits are not kept: the store refuses to grow there.
    pub fn set(&mut self, killmail_id: u32, seq: Seq) {
        let page = self.pages.entry(killmail_id / PAGE as u32).or_insert_with(|| Box::new([0; PAGE]));
        page[killmail_id as usize % PAGE] = u32::try_from(seq.0).unwrap_or(0);
    }

    /// Memory taken, bytes, estimated.
    pub fn bytes(&self) -> usize {
        self.pages.len() * (PAGE * 4 + 16) + self.pages.capacity() * 13
    }
}
