//! The shortest route between two solar systems by stargate. Nothing is cached: plugins may ask about any
//! pair.
//!
//! Must not know: ships, fuel, danger.

use crate::universe::atlas::Atlas;

/// The fewest jumps between two rows, searched from both ends; `None` if there is no route of at most `max`.
pub(super) fn fewest_jumps(atlas: &Atlas, from: usize, to: usize, max: u32) -> Option<u32> {
    if from == to {
        return Some(0);
    }
    let mut near = Wave::around(from, atlas);
    let mut far = Wave::around(to, atlas);
    // Both waves cover every system within their radius and have not met so far, so the first contact is on a
    // shortest route.
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

/// All systems within some number of jumps of a start. Takes about a kilobyte of flags, plus the rows of two
/// edges.
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

    /// Extends the wave by one jump in every direction; returns true as soon as that reaches the other wave.
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

    /// Marks a row; returns true if it was not marked before.
    fn see(&mut self, row: u32) -> bool {
        let fresh = !self.has_seen(row);
        self.seen[row as usize / 64] |= 1 << (row % 64);
        fresh
    }
}
