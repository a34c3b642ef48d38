//! Killmail id -> number in the log: a tree of three levels, since ids come in runs, and three loads beat a
//! hash.
//!
//! Must not know: anything else about entries.

use crate::domain::id::Seq;

const LEAF: usize = 256;
const BRANCH: usize = 4096;

type Leaf = Box<[u32; LEAF]>;
type Branch = Box<[Option<Leaf>]>;

/// Where each killmail is.
#[derive(Debug, Default)]
pub struct Ids {
    branches: Vec<Option<Branch>>,
    leaves: usize,
}

const fn place(killmail_id: u32) -> (usize, usize, usize) {
    let id = killmail_id as usize;
    (id / (LEAF * BRANCH), id / LEAF % BRANCH, id % LEAF)
}

impl Ids {
    /// The number of a killmail.
    pub fn get(&self, killmail_id: u32) -> Option<Seq> {
        let (branch, leaf, at) = place(killmail_id);
        let seq = self.branches.get(branch)?.as_ref()?[leaf].as_ref()?[at];
        (seq != 0).then_some(Seq(u64::from(seq)))
    }

    /// Sets it. Numbers beyond 32 bits are not kept: the store refuses to grow there.
    pub fn set(&mut self, killmail_id: u32, seq: Seq) {
        let (branch, leaf, at) = place(killmail_id);
        if self.branches.len() <= branch {
            self.branches.resize_with(branch + 1, || None);
        }
        let branch = self.branches[branch].get_or_insert_with(|| (0..BRANCH).map(|_| None).collect());
        let leaf = branch[leaf].get_or_insert_with(|| {
            self.leaves += 1;
            Box::new([0; LEAF])
        });
        leaf[at] = u32::try_from(seq.0).unwrap_or(0);
    }

    /// Memory taken, bytes, estimated.
    pub fn bytes(&self) -> usize {
        self.leaves * (LEAF * 4 + 16)
            + self.branches.iter().flatten().count() * BRANCH * 8
            + self.branches.capacity() * 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_has_its_own_place() {
        let mut ids = Ids::default();
        let given = [1, 255, 256, 1_048_575, 1_048_576, 96_953_365, 139_999_999, u32::MAX];
        for (seq, id) in (1..).zip(given) {
            assert_eq!(ids.get(id), None);
            ids.set(id, Seq(seq));
        }
        for (seq, id) in (1..).zip(given) {
            assert_eq!(ids.get(id), Some(Seq(seq)));
        }
        assert_eq!(ids.get(0), None);
        assert_eq!(ids.get(2), None);
    }
}
