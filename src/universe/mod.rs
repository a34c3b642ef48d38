//! Static EVE data, embedded in the binary: solar systems and their gates, constellations, regions, item
//! types, groups, categories.
//!
//! Must not know: killmails, filters, JSON, the disk or the network. Every lookup takes an id and returns
//! what is known of it, or `None`. The data is CCP hf.'s (see `data/NOTICE`); refresh it with `cargo run
//! --release
//! --example universe_pack -- DIR`.

pub(crate) mod activity;
mod atlas;
mod csv;
pub(crate) mod format;
pub mod pack;
mod route;

use crate::universe::atlas::atlas;

const LIGHT_YEAR_M: f64 = 9.460_730_472_580_8e15;
const POCHVEN: u32 = 10_000_070;
/// Yasna Zakh, whose only system is Zarzakh: neither null security space nor a wormhole.
const YASNA_ZAKH: u32 = 10_001_000;
/// The lowest security of high security space: the client rounds 0.45 up to 0.5.
const HIGH_FROM: f32 = 0.45;

/// A solar system.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct System {
    /// The solar system id.
    pub id: u32,
    /// The English name, as the game client shows it.
    pub name: &'static str,
    /// True security, not rounded: Jita is 0.945913.
    pub security: f32,
    /// The constellation it belongs to.
    pub constellation_id: u32,
    /// The region it belongs to.
    pub region_id: u32,
    /// The position of its star: x, y, z in metres.
    pub position: [f64; 3],
}

/// The kind of space a solar system is in. The region takes precedence over security.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// Known space with true security of 0.45 or more.
    High,
    /// Known space with true security from 0 to below 0.45.
    Low,
    /// Known space with true security below 0.
    Null,
    /// Wormhole space, including Thera, shattered and drifter systems.
    Wormhole,
    /// An abyssal deadspace pocket.
    Abyssal,
    /// Pochven, the Triglavian region.
    Pochven,
    /// A void system.
    Void,
    /// Zarzakh and the hidden system of the game masters.
    Other,
}

impl System {
    /// The kind of space this system is in.
    pub fn class(&self) -> Space {
        match self.region_id {
            POCHVEN => Space::Pochven,
            YASNA_ZAKH => Space::Other,
            10_000_000..=10_999_999 if self.security >= HIGH_FROM => Space::High,
            10_000_000..=10_999_999 if self.security >= 0.0 => Space::Low,
            10_000_000..=10_999_999 => Space::Null,
            11_000_000..=11_999_999 => Space::Wormhole,
            12_000_000..=12_999_999 => Space::Abyssal,
            14_000_000..=14_999_999 => Space::Void,
            _ => Space::Other,
        }
    }
}

/// The solar system with this id.
pub fn system(id: u32) -> Option<&'static System> {
    let atlas = atlas();
    atlas.systems.get(atlas.system_row(id)?)
}

/// Every solar system, in id order.
pub fn systems() -> impl Iterator<Item = &'static System> {
    atlas().systems.iter()
}

/// The solar systems of a region, in id order; empty for an unknown region.
pub fn systems_in_region(region_id: u32) -> impl Iterator<Item = &'static System> {
    systems().filter(move |system| system.region_id == region_id)
}

/// The solar systems of a constellation, in id order; empty for an unknown constellation.
pub fn systems_in_constellation(constellation_id: u32) -> impl Iterator<Item = &'static System> {
    systems().filter(move |system| system.constellation_id == constellation_id)
}

/// The solar systems connected to this one by a stargate; empty if it has no gates or is unknown.
pub fn neighbors(id: u32) -> impl Iterator<Item = u32> {
    let atlas = atlas();
    let gates = atlas.system_row(id).map(|row| atlas.gates(row)).unwrap_or_default();
    gates.iter().filter_map(|&row| atlas.systems.get(row as usize).map(|system| system.id))
}

/// The fewest stargate jumps between two solar systems: 0 to itself; `None` if either is unknown, if gates do
/// not connect them, or if it takes more than `max`.
pub fn jumps(a: u32, b: u32, max: u32) -> Option<u32> {
    let atlas = atlas();
    route::fewest_jumps(atlas, atlas.system_row(a)?, atlas.system_row(b)?, max)
}

/// The distance between two solar systems in light years; `None` if either is unknown.
pub fn light_years(a: u32, b: u32) -> Option<f64> {
    let (a, b) = (system(a)?, system(b)?);
    let squares = a.position.iter().zip(&b.position).map(|(a, b)| (a - b) * (a - b));
    Some(squares.sum::<f64>().sqrt() / LIGHT_YEAR_M)
}

/// Every constellation as id and name, in id order.
pub fn constellations() -> impl Iterator<Item = (u32, &'static str)> {
    atlas().constellations.iter()
}

/// The name of a constellation.
pub fn constellation_name(id: u32) -> Option<&'static str> {
    atlas().constellations.name_of(id)
}

/// Every region as id and name, in id order.
pub fn regions() -> impl Iterator<Item = (u32, &'static str)> {
    atlas().regions.iter()
}

/// The name of a region.
pub fn region_name(id: u32) -> Option<&'static str> {
    atlas().regions.name_of(id)
}

/// Every item type as id and name, in id order. The name is empty for the eight types without one.
pub fn types() -> impl Iterator<Item = (u32, &'static str)> {
    atlas().types.iter()
}

/// The name of an item type; `None` also for the few types without one.
pub fn type_name(id: u32) -> Option<&'static str> {
    atlas().types.name_of(id).filter(|name| !name.is_empty())
}

/// The group of an item type; `None` also for the few types without a group in the export.
pub fn group_of(type_id: u32) -> Option<u32> {
    let atlas = atlas();
    let row = atlas.types.row(type_id)?;
    atlas.group_of_type.get(row)?.checked_sub(1)
}

/// The name of a group of item types.
pub fn group_name(group: u32) -> Option<&'static str> {
    atlas().groups.name_of(group)
}

/// The category of a group of item types.
pub fn category_of_group(group: u32) -> Option<u32> {
    let atlas = atlas();
    let row = atlas.groups.row(group)?;
    atlas.category_of_group.get(row).copied()
}

/// The name of a category of groups.
pub fn category_name(id: u32) -> Option<&'static str> {
    atlas().categories.name_of(id)
}

#[cfg(test)]
mod tests;
