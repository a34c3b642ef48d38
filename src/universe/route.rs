//! The shortest way between two solar systems by stargate.
//!
//! Must not know ships, fuel or danger, nor remember any answer: it is asked from inside plugins, about any
//! pair.

use crate::universe::atlas::Atlas;

/// Fewest jumps between two rows, searched from both ends; `None` if there is no way of at most `max`.
pub(super) fn fewest_jumps(atlas: &Atlas, from: usize, to: usize, max: u32) -> Option<u32> {
    if from == to {
        return Some(0);
    }
    let mut near = Wave::around(from, atlas);
    let mut far = Wave::around(to, atlas);
    // Both waves are whole balls that do not touch, so the first touch is the shortest way.
    for walked in 1..=max {
        let (small, large) =
            if near.edge.len() <= far.edge.len() { (&mut near, &far) } else { (&mut far, &near) };
        if small.edge.is_empty() {
            return None;
        }
        if small.grow_until_touching(large, atlas) {
            return Some(walked);
        }
    }
    None
}

/// All systems within some jumps of a start. At most a kilobyte of flags and the rows of two edges.
struct Wave {
    seen: Box<[u64]>,
    edge: Vec<u32>,
    next: Vec<u32>,
}

impl Wave {
    fn around(row: usize, atlas: &Atlas) -> Wave {
        let seen = vec![0; atlas.systems.len().div_ceil(64)].into();
        let mut wave = Wave { seen, edge: vec![row as u32], next: Vec::new() };
        wave.see(row as u32);
        wave
    }

    /// Takes one more jump in every direction; true, at once, if that reaches the other wave.
    fn grow_until_touching(&mut self, other: &Wave, atlas: &Atlas) -> bool {
        let edge = std::mem::take(&mut self.edge);
        for &row in &edge {
            for &gate in atlas.gates(row as usize) {
                if other.has_seen(gate) {
                    return true;
                }
                if self.see(gate) {
                    self.next.push(gate);
                }
            }
        }
        self.edge = std::mem::replace(&mut self.next, edge);
        self.next.clear();
        false
    }

    fn has_seen(&self, row: u32) -> bool {
        self.seen[row as usize / 64] & (1 << (row % 64)) != 0
    }

    /// Marks the row; true if it was not marked before.
    fn see(&mut self, row: u32) -> bool {
        let fresh = !self.has_seen(row);
        self.seen[row as usize / 64] |= 1 << (row % 64);
        fresh
    }
}
