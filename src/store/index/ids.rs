//! Killmail id -> number in the log, as an array of three levels: ids come in runs, and three loads are faster
//! than hashing.
//!
//! Must not know: anything else about entries.

use crate::domain::id::Seq;

const LEAF: usize = 256;
const BRANCH: usize = 4096;

type Leaf = Box<[u32; LEAF]>;
type Branch = Box<[Option<Leaf>]>;

/// The number in the log of each killmail.
#[derive(Debug, Default)]
pub struct Ids {
    branches: Vec<Option<Branch>>,
    leaves: usize,
}

/// The index of an id on each level.
struct Position {
    branch: usize,
    leaf: usize,
    entry: usize,
}

impl Position {
    const fn new(killmail_id: u32) -> Self {
        let id = killmail_id as usize;
        Self { branch: id / (LEAF * BRANCH), leaf: id / LEAF % BRANCH, entry: id % LEAF }
    }
}

impl Ids {
    pub fn get(&self, killmail_id: u32) -> Option<Seq> {
        let at = Position::new(killmail_id);
        let seq = self.branches.get(at.branch)?.as_ref()?[at.leaf].as_ref()?[at.entry];
        (seq != 0).then_some(Seq(u64::from(seq)))
    }

    /// Numbers beyond 32 bits are not kept: the store refuses to grow that large.
    pub fn set(&mut self, killmail_id: u32, seq: Seq) {
        let at = Position::new(killmail_id);
        if self.branches.len() <= at.branch {
            self.branches.resize_with(at.branch + 1, || None);
        }
        let branch = self.branches[at.branch].get_or_insert_with(|| (0..BRANCH).map(|_| None).collect());
        let leaf = branch[at.leaf].get_or_insert_with(|| {
            self.leaves += 1;
            Box::new([0; LEAF])
        });
        leaf[at.entry] = u32::try_from(seq.0).unwrap_or(0);
    }

    /// Memory behind the value itself, bytes, estimated.
    pub fn heap_bytes(&self) -> usize {
        self.leaves * (LEAF * 4 + 16)
            + self.branches.iter().flatten().count() * BRANCH * 8
            + self.branches.capacity() * 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_has_its_own_entry() {
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
