//! What selection asks of every entry, by number: 32 bytes each, in blocks of 4,096.
//!
//! Must not know: terms.

use crate::domain::entry::Origin;
use crate::domain::id::Seq;
use crate::store::format::log_entry::LogEntry;

/// Entries in a block.
pub const BLOCK: u64 = 4096;
const NPC: u16 = 1;
const SOLO: u16 = 2;
const AWOX: u16 = 4;
const BACKFILL: u16 = 8;
const UNDATED: u16 = 16;
/// So many attackers or more: the row does not tell.
pub const ATTACKERS_MAX: u16 = u16::MAX;

/// One entry. A killmail id of 0 marks a hole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// When it happened, unix seconds.
    pub time: i64,
    /// Total value, ISK; not a number if unknown.
    pub value: f64,
    /// The killmail.
    pub killmail_id: u32,
    /// How old it was when it came, seconds.
    pub age_secs: u32,
    /// Length of its canonical JSON, bytes.
    pub weight: u32,
    /// How many attackers, up to `ATTACKERS_MAX`.
    pub attackers: u16,
    flags: u16,
}

impl Row {
    /// A number that was never given out or is lost.
    pub const HOLE: Self =
        Self { time: 0, value: f64::NAN, killmail_id: 0, age_secs: 0, weight: 0, attackers: 0, flags: 0 };

    /// Of a line of the log.
    pub fn new(line: &LogEntry) -> Self {
        let facts = &line.facts;
        let backfill = line.origin == Origin::Backfill;
        let flags = [
            (facts.npc, NPC),
            (facts.solo, SOLO),
            (facts.awox, AWOX),
            (backfill, BACKFILL),
            (facts.time_implausible, UNDATED),
        ];
        Self {
            time: facts.time,
            value: facts.total_value.unwrap_or(f64::NAN),
            killmail_id: facts.killmail_id,
            age_secs: line.age_secs,
            weight: line.weight,
            attackers: u16::try_from(facts.attacker_count).unwrap_or(ATTACKERS_MAX),
            flags: flags.into_iter().map(|(is, bit)| if is { bit } else { 0 }).sum(),
        }
    }

    /// zKillboard's flag.
    pub const fn npc(&self) -> bool {
        self.flags & NPC != 0
    }

    /// zKillboard's flag.
    pub const fn solo(&self) -> bool {
        self.flags & SOLO != 0
    }

    /// zKillboard's flag.
    pub const fn awox(&self) -> bool {
        self.flags & AWOX != 0
    }

    /// How the killmail came.
    pub const fn origin(&self) -> Origin {
        if self.flags & BACKFILL == 0 { Origin::Live } else { Origin::Backfill }
    }

    /// Whether it can have happened at its time.
    pub const fn is_dated(&self) -> bool {
        self.flags & UNDATED == 0
    }

    /// As the snapshot keeps it.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut out = [0; 32];
        out[..8].copy_from_slice(&self.time.to_le_bytes());
        out[8..16].copy_from_slice(&self.value.to_le_bytes());
        out[16..20].copy_from_slice(&self.killmail_id.to_le_bytes());
        out[20..24].copy_from_slice(&self.age_secs.to_le_bytes());
        out[24..28].copy_from_slice(&self.weight.to_le_bytes());
        out[28..30].copy_from_slice(&self.attackers.to_le_bytes());
        out[30..].copy_from_slice(&self.flags.to_le_bytes());
        out
    }

    /// Back from `to_bytes`.
    pub fn from_bytes(b: &[u8; 32]) -> Self {
        let four = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let eight = |at: usize| u64::from(four(at)) | u64::from(four(at + 4)) << 32;
        Self {
            time: eight(0).cast_signed(),
            value: f64::from_bits(eight(8)),
            killmail_id: four(16),
            age_secs: four(20),
            weight: four(24),
            attackers: u16::from_le_bytes([b[28], b[29]]),
            flags: u16::from_le_bytes([b[30], b[31]]),
        }
    }
}

/// The entries of a block, with the span of their killmail ids.
#[derive(Debug, Default)]
pub struct Block {
    /// In order of their numbers.
    pub rows: Vec<Row>,
    /// The smallest and the greatest killmail id; `None` if all are holes.
    pub span: Option<(u32, u32)>,
}

/// All entries.
#[derive(Debug, Default)]
pub struct Rows {
    blocks: Vec<Block>,
}

impl Rows {
    /// The greatest number.
    pub fn head(&self) -> Seq {
        let full = self.blocks.len().saturating_sub(1) as u64 * BLOCK;
        Seq(full + self.blocks.last().map_or(0, |b| b.rows.len() as u64))
    }

    /// The entry with this number, unless it is a hole.
    pub fn get(&self, seq: Seq) -> Option<&Row> {
        let at = seq.0.checked_sub(1)?;
        self.blocks
            .get((at / BLOCK) as usize)?
            .rows
            .get((at % BLOCK) as usize)
            .filter(|row| row.killmail_id != 0)
    }

    /// Puts an entry at its number: the next one, beyond (holes fill the room between), or one that is there.
    pub fn set(&mut self, seq: Seq, row: Row) {
        while self.head().next() < seq {
            self.push(Row::HOLE);
        }
        if self.head().next() == seq {
            self.push(row);
        } else if let Some(block) = self.blocks.get_mut(((seq.0 - 1) / BLOCK) as usize) {
            block.rows[((seq.0 - 1) % BLOCK) as usize] = row;
            block.widen(row.killmail_id);
        }
    }

    /// The block an entry is in, and the number of the block's first entry.
    pub fn block(&self, seq: Seq) -> Option<(Seq, &Block)> {
        let number = seq.0.checked_sub(1)? / BLOCK;
        self.blocks.get(number as usize).map(|block| (Seq(number * BLOCK + 1), block))
    }

    /// The blocks, in order.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn push(&mut self, row: Row) {
        if self.blocks.last().is_none_or(|block| block.rows.len() as u64 == BLOCK) {
            self.blocks.push(Block::default());
        }
        if let Some(block) = self.blocks.last_mut() {
            block.rows.push(row);
            block.widen(row.killmail_id);
        }
    }
}

impl Block {
    fn widen(&mut self, id: u32) {
        if id != 0 {
            self.span = Some(self.span.map_or((id, id), |(low, high)| (low.min(id), high.max(id))));
        }
    }
}
