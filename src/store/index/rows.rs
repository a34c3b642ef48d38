//! The fields of every entry that filters test without reading the entry: 32 bytes each, by number, in blocks
//! of 4,096.
//!
//! Must not know: terms.

use crate::domain::entry::Origin;
use crate::domain::id::Seq;
use crate::store::format::log_entry::LogEntry;
use crate::store::index::id_range::IdRange;

/// Entries in a block.
pub const BLOCK: u64 = 4096;
const NPC: u16 = 1;
const SOLO: u16 = 2;
const AWOX: u16 = 4;
const BACKFILL: u16 = 8;
const UNDATED: u16 = 16;
/// Stands for this many attackers or more.
pub const ATTACKERS_MAX: u16 = u16::MAX;

/// One entry. A killmail id of 0 marks a number without a killmail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// When it happened, unix seconds.
    pub time: i64,
    /// Total value, ISK; not a number if unknown.
    pub value: f64,
    pub killmail_id: u32,
    /// How old it was when it arrived, seconds.
    pub age_secs: u32,
    /// Length of its canonical JSON, bytes.
    pub weight: u32,
    /// At most `ATTACKERS_MAX`.
    pub attackers: u16,
    flags: u16,
}

impl Row {
    /// A number that was never given out or is lost.
    pub const HOLE: Self =
        Self { time: 0, value: f64::NAN, killmail_id: 0, age_secs: 0, weight: 0, attackers: 0, flags: 0 };

    pub fn new(entry: &LogEntry) -> Self {
        let facts = &entry.facts;
        let backfill = entry.origin == Origin::Backfill;
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
            age_secs: entry.age_secs,
            weight: entry.weight,
            attackers: u16::try_from(facts.attacker_count).unwrap_or(ATTACKERS_MAX),
            flags: flags.into_iter().map(|(is_set, bit)| if is_set { bit } else { 0 }).sum(),
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

    pub const fn origin(&self) -> Origin {
        if self.flags & BACKFILL == 0 { Origin::Live } else { Origin::Backfill }
    }

    /// Whether its time is plausible.
    pub const fn is_dated(&self) -> bool {
        self.flags & UNDATED == 0
    }

    /// The form it has in a snapshot.
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

    /// The inverse of `to_bytes`.
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

/// Up to 4,096 entries with consecutive numbers.
#[derive(Debug, Default)]
pub struct Block {
    pub rows: Vec<Row>,
    /// From the smallest to the greatest killmail id; `None` if no number has a killmail.
    pub span: Option<IdRange>,
}

/// The rows of all entries.
#[derive(Debug, Default)]
pub struct Rows {
    blocks: Vec<Block>,
}

impl Rows {
    /// The greatest number; 0 if there are no rows.
    pub fn head(&self) -> Seq {
        let full = self.blocks.len().saturating_sub(1) as u64 * BLOCK;
        Seq(full + self.blocks.last().map_or(0, |b| b.rows.len() as u64))
    }

    /// The row with this number; `None` also for a hole.
    pub fn get(&self, seq: Seq) -> Option<&Row> {
        let at = seq.0.checked_sub(1)?;
        self.blocks
            .get((at / BLOCK) as usize)?
            .rows
            .get((at % BLOCK) as usize)
            .filter(|row| row.killmail_id != 0)
    }

    /// Adds a row, filling the numbers between the head and it with holes, or replaces the one with this
    /// number.
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

    /// The block of an entry, with the number of its first entry.
    pub fn block(&self, seq: Seq) -> Option<(Seq, &Block)> {
        let number = seq.0.checked_sub(1)? / BLOCK;
        self.blocks.get(number as usize).map(|block| (Seq(number * BLOCK + 1), block))
    }

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
            let span = self.span.get_or_insert(IdRange::new(id, id));
            *span = IdRange::new(span.low.min(id), span.high.max(id));
        }
    }
}
