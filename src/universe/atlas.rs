//! The data in memory: read once from the embedded pack, then looked up by binary search.
//!
//! Must not know: how the pack is made from exports; what the data means.

use std::sync::LazyLock;

use crate::universe::System;
use crate::universe::format::{Damage, Reader};

static EMBEDDED: &[u8] = include_bytes!("data/universe.bin.zst");
/// More than any pack needs. It limits what a damaged frame can make us allocate.
const PACK_BYTES_MAX: usize = 16 << 20;

static ATLAS: LazyLock<Atlas> = LazyLock::new(|| {
    let pack = embedded_pack().expect("the embedded pack decompresses: a unit test opens it");
    Atlas::read(&pack).expect("the embedded pack is whole: a unit test opens it")
});

/// The data, read on the first call (which takes some milliseconds) and shared from then on.
pub(super) fn atlas() -> &'static Atlas {
    &ATLAS
}

/// The embedded pack, decompressed.
pub(super) fn embedded_pack() -> std::io::Result<Vec<u8>> {
    zstd::bulk::decompress(EMBEDDED, PACK_BYTES_MAX)
}

/// All data. A row is an index into a table, an id is the game's.
pub(super) struct Atlas {
    pub(super) regions: Names,
    pub(super) constellations: Names,
    pub(super) systems: Box<[System]>,
    /// Only the ids of `systems`, so that a search touches 33 KiB rather than half a megabyte.
    system_ids: Box<[u32]>,
    /// Where the gates of each system start in `gates`, and one more for the end.
    gates_from: Box<[u32]>,
    /// The rows of the systems that gates lead to.
    gates: Box<[u32]>,
    pub(super) categories: Names,
    pub(super) groups: Names,
    pub(super) category_of_group: Box<[u32]>,
    pub(super) types: Names,
    /// The group id + 1 of each type, 0 if unknown (group 0 exists).
    pub(super) group_of_type: Box<[u32]>,
}

impl Atlas {
    pub(super) fn system_row(&self, id: u32) -> Option<usize> {
        self.system_ids.binary_search(&id).ok()
    }

    /// The rows of the systems that the gates of this one lead to.
    pub(super) fn gates(&self, row: usize) -> &[u32] {
        match self.gates_from.get(row..row + 2) {
            Some(&[from, to]) => self.gates.get(from as usize..to as usize).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Reads a pack. Its names are leaked: they live as long as the program.
    pub(super) fn read(pack: &[u8]) -> Result<Atlas, Damage> {
        let mut reader = Reader::open(pack)?;
        let regions = Column::read(&mut reader, "region")?;
        let constellations = Column::read(&mut reader, "constellation")?;
        let region_rows = reader.numbers(constellations.ids.len())?;
        let systems = Column::read(&mut reader, "system")?;
        let places = Places::read(&mut reader, systems.ids.len())?;
        let categories = Column::read(&mut reader, "category")?;
        let groups = Column::read(&mut reader, "group")?;
        let category_of_group = reader.numbers(groups.ids.len())?;
        let types = Column::read(&mut reader, "type")?;
        let group_of_type = reader.numbers(types.ids.len())?;

        let text: &'static str = Box::leak(reader.last_text()?.into());
        let mut at = 0;
        let regions = regions.named(text, &mut at)?;
        let constellations = constellations.named(text, &mut at)?;
        let systems = systems.named(text, &mut at)?;
        let categories = categories.named(text, &mut at)?;
        let groups = groups.named(text, &mut at)?;
        let types = types.named(text, &mut at)?;
        if at as usize != text.len() {
            return Err(Damage::Column("text"));
        }
        Ok(Atlas {
            systems: places.systems(&systems, &constellations, &region_rows, &regions)?,
            gates_from: places.gates_from,
            gates: places.gates,
            system_ids: systems.ids,
            regions,
            constellations,
            categories,
            groups,
            category_of_group,
            types,
            group_of_type,
        })
    }
}

/// Ids below this are looked up in a table. These are almost all types, which are looked up for every
/// attacker of every killmail.
const SMALL_IDS: usize = 1 << 17;

/// Ids and their names: two numbers per row and one text for all.
pub(super) struct Names {
    ids: Box<[u32]>,
    /// The row + 1 of each small id; 0: none.
    rows_of_small: Box<[u32]>,
    /// Where the name of each row starts in `text`, and one more for the end.
    bounds: Box<[u32]>,
    text: &'static str,
}

impl Names {
    pub(super) fn row(&self, id: u32) -> Option<usize> {
        match self.rows_of_small.get(id as usize) {
            Some(row) => row.checked_sub(1).map(|row| row as usize),
            None => self.ids.binary_search(&id).ok(),
        }
    }

    pub(super) fn name_of(&self, id: u32) -> Option<&'static str> {
        self.name(self.row(id)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &'static str)> {
        self.ids.iter().enumerate().filter_map(|(row, &id)| Some((id, self.name(row)?)))
    }

    fn name(&self, row: usize) -> Option<&'static str> {
        let &[from, to] = self.bounds.get(row..row + 2)? else { return None };
        self.text.get(from as usize..to as usize)
    }
}

/// Ids and the lengths of their names, before the text is read.
struct Column {
    what: &'static str,
    ids: Box<[u32]>,
    lengths: Box<[u32]>,
}

impl Column {
    fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<Column, Damage> {
        let ids = reader.ids(what)?;
        let lengths = reader.numbers(ids.len())?;
        Ok(Column { what, ids, lengths })
    }

    /// Takes this column's part of the text, from `at` on, and moves `at` to its end.
    fn named(self, text: &'static str, at: &mut u32) -> Result<Names, Damage> {
        let mut bounds = Vec::with_capacity(self.lengths.len() + 1);
        bounds.push(*at);
        for length in self.lengths {
            *at = at.checked_add(length).ok_or(Damage::Column(self.what))?;
            if !text.is_char_boundary(*at as usize) {
                return Err(Damage::Column(self.what));
            }
            bounds.push(*at);
        }
        let small = self.ids.partition_point(|id| (*id as usize) < SMALL_IDS);
        let mut rows_of_small = vec![0; small.checked_sub(1).map_or(0, |last| self.ids[last] as usize + 1)];
        for (row, id) in (1..).zip(&self.ids[..small]) {
            rows_of_small[*id as usize] = row;
        }
        Ok(Names { ids: self.ids, rows_of_small: rows_of_small.into(), bounds: bounds.into(), text })
    }
}

/// The data of systems other than id and name.
struct Places {
    constellation_rows: Box<[u32]>,
    security: Vec<f32>,
    axes: [Vec<f64>; 3],
    gates_from: Box<[u32]>,
    gates: Box<[u32]>,
}

impl Places {
    fn read(reader: &mut Reader<'_>, count: usize) -> Result<Places, Damage> {
        let constellation_rows = reader.numbers(count)?;
        let security = reader.f32s(count)?;
        let axes = [reader.f64s(count)?, reader.f64s(count)?, reader.f64s(count)?];
        let mut gates_from = Vec::with_capacity(count + 1);
        let mut end = 0_u32;
        gates_from.push(end);
        for of_system in reader.numbers(count)? {
            end = end.checked_add(of_system).ok_or(Damage::Column("gates"))?;
            gates_from.push(end);
        }
        let gates = reader.numbers(end as usize)?;
        if gates.iter().any(|&row| row as usize >= count) {
            return Err(Damage::Column("gates"));
        }
        Ok(Places { constellation_rows, security, axes, gates_from: gates_from.into(), gates })
    }

    fn systems(
        &self,
        names: &Names,
        constellations: &Names,
        region_rows: &[u32],
        regions: &Names,
    ) -> Result<Box<[System]>, Damage> {
        let [xs, ys, zs] = &self.axes;
        let system = |((row, (id, name)), &constellation): ((usize, (u32, &'static str)), &u32)| {
            let constellation = constellation as usize;
            let region = *region_rows.get(constellation)? as usize;
            Some(System {
                id,
                name,
                security: *self.security.get(row)?,
                constellation_id: *constellations.ids.get(constellation)?,
                region_id: *regions.ids.get(region)?,
                position: [*xs.get(row)?, *ys.get(row)?, *zs.get(row)?],
            })
        };
        let rows = names.iter().enumerate().zip(&self.constellation_rows);
        rows.map(system).collect::<Option<_>>().ok_or(Damage::Column("system"))
    }
}
