//! Makes a pack from a folder of CSV exports of CCP's static data, for `examples/universe_pack.rs` and a
//! test. The same exports give the same bytes, whatever the order of their rows.
//!
//! Must not know: how the data is looked up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::universe::atlas::Atlas;
use crate::universe::csv::{self, Sheet};
use crate::universe::format::{Damage, Writer};

/// The zstd level: the pack is written once and read for years.
const LEVEL: i32 = 19;

/// Why a pack could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An export could not be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// An export is malformed or contradicts another.
    #[error("{} line {line}: {reason}", file.display())]
    Export {
        /// The file.
        file: PathBuf,
        /// The line on which the record starts.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The finished pack cannot be read.
    #[error("the new pack cannot be read: {0}")]
    Unreadable(#[from] Damage),
}

/// Makes a pack from the files `systems.csv`, `constellations.csv`, `regions.csv`, `system_jumps.csv`,
/// `types.csv`,
/// `groups.csv` and `categories.csv` in a folder.
pub fn pack(dir: &Path) -> Result<Vec<u8>, Error> {
    let mut builder = PackBuilder::default();
    places(dir, &mut builder)?;
    items(dir, &mut builder)?;
    builder.writer.text(&builder.text);
    let pack = builder.writer.finish();
    Atlas::read(&pack)?;
    Ok(pack)
}

/// Compresses a pack for embedding.
pub fn compress(pack: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(pack, LEVEL)
}

fn places(dir: &Path, builder: &mut PackBuilder) -> Result<(), Error> {
    let regions = Export::open(dir, "regions.csv")?.by_id("region_id")?;
    builder.add_names(&regions)?;

    let constellations = Export::open(dir, "constellations.csv")?.by_id("constellation_id")?;
    builder.add_names(&constellations)?;
    let region_rows = constellations.rows_in(&regions, "region_id")?;
    builder.writer.numbers(region_rows.iter().copied());

    let systems = Export::open(dir, "systems.csv")?.by_id("system_id")?;
    builder.add_names(&systems)?;
    let constellation_rows = systems.rows_in(&constellations, "constellation_id")?;
    let stated = systems.rows_in(&regions, "region_id")?;
    for (row, &constellation) in constellation_rows.iter().enumerate() {
        if region_rows[constellation as usize] != stated[row] {
            return Err(systems.wrong(row, "its region is not its constellation's"));
        }
    }
    builder.writer.numbers(constellation_rows);
    builder.writer.f32s(systems.numbers::<f32>("security")?);
    for axis in ["x", "y", "z"] {
        builder.writer.f64s(systems.numbers::<f64>(axis)?);
    }
    gates(&Export::open(dir, "system_jumps.csv")?, &systems, builder)
}

fn gates(jumps: &Export, systems: &Export, builder: &mut PackBuilder) -> Result<(), Error> {
    let mut gates = vec![Vec::new(); systems.records.len()];
    let from = jumps.rows_in(systems, "from_system_id")?;
    let to = jumps.rows_in(systems, "to_system_id")?;
    for (&from, &to) in from.iter().zip(&to) {
        gates[from as usize].push(to);
    }
    for rows in &mut gates {
        rows.sort_unstable();
        rows.dedup();
    }
    // The search for routes from both ends requires that every gate leads back.
    for (row, (from, &to)) in from.iter().zip(&to).enumerate() {
        if gates[to as usize].binary_search(from).is_err() {
            return Err(jumps.wrong(row, "the way back is missing"));
        }
    }
    builder.writer.numbers(gates.iter().map(|rows| rows.len() as u32));
    builder.writer.numbers(gates.into_iter().flatten());
    Ok(())
}

fn items(dir: &Path, builder: &mut PackBuilder) -> Result<(), Error> {
    let categories = Export::open(dir, "categories.csv")?.by_id("category_id")?;
    builder.add_names(&categories)?;
    let groups = Export::open(dir, "groups.csv")?.by_id("group_id")?;
    builder.add_names(&groups)?;
    groups.rows_in(&categories, "category_id")?;
    builder.writer.numbers(groups.numbers::<u32>("category_id")?);

    let types = Export::open(dir, "types.csv")?.by_id("type_id")?;
    builder.add_names(&types)?;
    let column = types.column("group_id")?;
    for row in 0..types.records.len() {
        // Some types are known by name only; and group 0 exists.
        let unknown = types.records[row].1[column].is_empty();
        let group = if unknown { 0 } else { types.number::<u32>(row, column)? + 1 };
        builder.writer.number(group);
    }
    Ok(())
}

/// A pack being built: the columns, and the names, which follow them.
#[derive(Default)]
struct PackBuilder {
    writer: Writer,
    text: String,
}

impl PackBuilder {
    /// Writes ids and the lengths of names, and remembers the names.
    fn add_names(&mut self, export: &Export) -> Result<(), Error> {
        self.writer.ids(&export.ids);
        let column = export.column("name")?;
        for (_, fields) in &export.records {
            self.writer.number(fields[column].len() as u32);
            self.text.push_str(&fields[column]);
        }
        Ok(())
    }
}

/// One CSV file. After `by_id` its records are in the order of `ids`.
struct Export {
    file: PathBuf,
    header: Vec<String>,
    records: Vec<(usize, Vec<String>)>,
    ids: Vec<u32>,
}

impl Export {
    fn open(dir: &Path, name: &str) -> Result<Export, Error> {
        let file = dir.join(name);
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(source) => return Err(Error::Read { file, source }),
        };
        match csv::parse(&text) {
            Ok(Sheet { header, records }) => Ok(Export { file, header, records, ids: Vec::new() }),
            Err(wrong) => Err(Error::Export { file, line: wrong.line, reason: wrong.reason.to_owned() }),
        }
    }

    /// Sorts the records by an id column, whose values must be distinct.
    fn by_id(mut self, column: &str) -> Result<Export, Error> {
        let ids = self.numbers::<u32>(column)?;
        let mut sorted = BTreeMap::new();
        for (row, id) in ids.into_iter().enumerate() {
            if sorted.insert(id, self.records[row].clone()).is_some() {
                return Err(self.wrong(row, &format!("{column} {id} occurs twice")));
            }
        }
        (self.ids, self.records) = sorted.into_iter().unzip();
        Ok(self)
    }

    fn column(&self, name: &str) -> Result<usize, Error> {
        let at = self.header.iter().position(|title| title == name);
        at.ok_or_else(|| Error::Export {
            file: self.file.clone(),
            line: 1,
            reason: format!("no column {name}"),
        })
    }

    fn number<T: FromStr>(&self, row: usize, column: usize) -> Result<T, Error> {
        let field = &self.records[row].1[column];
        field
            .parse()
            .map_err(|_| self.wrong(row, &format!("{field:?} is not a number for {}", self.header[column])))
    }

    fn numbers<T: FromStr>(&self, column: &str) -> Result<Vec<T>, Error> {
        let column = self.column(column)?;
        (0..self.records.len()).map(|row| self.number(row, column)).collect()
    }

    /// For each id in a column, its row in another export.
    fn rows_in(&self, other: &Export, column: &str) -> Result<Vec<u32>, Error> {
        let ids = self.numbers::<u32>(column)?;
        let row_of = |(row, id): (usize, u32)| match other.ids.binary_search(&id) {
            Ok(found) => Ok(found as u32),
            Err(_) => Err(self.wrong(row, &format!("{column} {id} is not in {}", other.file.display()))),
        };
        ids.into_iter().enumerate().map(row_of).collect()
    }

    fn wrong(&self, row: usize, reason: &str) -> Error {
        let line = self.records.get(row).map_or(0, |(line, _)| *line);
        Error::Export { file: self.file.clone(), line, reason: reason.to_owned() }
    }
}
