//! Checks the embedded data against what any pilot knows, and against the exports if they are present;
//! without them it says what was skipped.
//!
//! Must not know: killmails.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};

use super::*;
use crate::universe::format::Damage;

const JITA: u32 = 30_000_142;
const PERIMETER: u32 = 30_000_144;
const AMARR: u32 = 30_002_187;
const THERA: u32 = 31_000_005;
const RIFTER: u32 = 587;

#[test]
fn the_tables_are_complete() {
    assert_eq!(systems().count(), 8_437);
    assert_eq!(systems().map(|system| neighbors(system.id).count()).sum::<usize>(), 13_776);
    assert_eq!(types().count(), 50_517);
    assert_eq!(constellations().count(), 1_175);
    assert_eq!(regions().count(), 113);
    assert_eq!(atlas().groups.iter().count(), 1_605);
    assert_eq!(atlas().categories.iter().count(), 48);
}

#[test]
fn jita_is_as_pilots_know_it() {
    let jita = system(JITA).expect("Jita");
    assert_eq!((jita.id, jita.name, jita.security), (JITA, "Jita", 0.945_913));
    assert_eq!(jita.position, [-1.29064861735e17, 6.075530691e16, 1.1746922706e17]);
    assert_eq!(
        (jita.constellation_id, constellation_name(jita.constellation_id)),
        (20_000_020, Some("Kimotoro"))
    );
    assert_eq!((jita.region_id, region_name(jita.region_id)), (10_000_002, Some("The Forge")));
    assert_eq!(jita.class(), Space::High);
    assert!(systems_in_constellation(20_000_020).any(|system| system.id == PERIMETER));
    assert_eq!(systems_in_region(10_000_002).count(), 88);
}

#[test]
fn every_system_has_a_name_a_constellation_and_a_region() {
    let by_id = system;
    for system in systems() {
        assert!(!system.name.is_empty(), "{system:?}");
        assert!(
            constellation_name(system.constellation_id).is_some_and(|name| !name.is_empty()),
            "{system:?}"
        );
        assert!(region_name(system.region_id).is_some_and(|name| !name.is_empty()), "{system:?}");
        assert_eq!(by_id(system.id), Some(system));
    }
}

#[test]
fn each_kind_of_space_has_its_systems() {
    let class = |id| system(id).map(System::class);
    assert_eq!(class(30_002_693), Some(Space::Low), "Egghelende is 0.449, shown as 0.4");
    assert_eq!(class(30_000_062), Some(Space::High), "Iosantin is 0.450, shown as 0.5");
    assert_eq!(class(30_004_759), Some(Space::Null), "1DQ1-A");
    assert_eq!(class(THERA), Some(Space::Wormhole));
    assert_eq!(class(31_002_525), Some(Space::Wormhole), "J002964");
    assert_eq!(class(32_000_001), Some(Space::Abyssal));
    assert_eq!(class(30_000_157), Some(Space::Pochven), "Otela");
    assert_eq!(class(34_000_001), Some(Space::Void));
    assert_eq!(class(30_100_000), Some(Space::Other), "Zarzakh");
    assert_eq!(class(36_000_001), Some(Space::Other));
    let mut counts = HashMap::new();
    systems().for_each(|system| *counts.entry(system.class()).or_insert(0) += 1);
    assert_eq!(counts.get(&Space::Wormhole), Some(&2_604));
    assert_eq!(counts.get(&Space::Abyssal), Some(&200));
    assert_eq!(counts.get(&Space::Void), Some(&200));
    assert_eq!(counts.get(&Space::Other), Some(&2));
    assert_eq!(counts.get(&Space::Pochven), Some(&27));
}

#[test]
fn a_rifter_is_a_frigate_and_a_frigate_is_a_ship() {
    assert_eq!(type_name(RIFTER), Some("Rifter"));
    assert_eq!(group_of(RIFTER), Some(25));
    assert_eq!(group_name(25), Some("Frigate"));
    assert_eq!(category_of_group(25), Some(6));
    assert_eq!(category_name(6), Some("Ship"));
    assert!(types().all(|(id, name)| type_name(id).unwrap_or_default() == name));
    assert_eq!(types().filter(|(_, name)| name.is_empty()).count(), 8);
    assert_eq!(types().filter(|(id, _)| group_of(*id).is_none()).count(), 114);
    assert_eq!(group_of(0), Some(0), "group 0 is a group");
}

#[test]
fn unknown_ids_are_none() {
    for id in [1, 29_999_999, 33_000_000, u32::MAX] {
        assert_eq!(system(id), None);
        assert_eq!((type_name(id), group_of(id)), (None, None));
        assert_eq!((constellation_name(id), region_name(id)), (None, None));
        assert_eq!((jumps(id, JITA, 9), jumps(JITA, id, 9), jumps(id, id, 9)), (None, None, None));
        assert_eq!((light_years(id, JITA), light_years(JITA, id)), (None, None));
        assert_eq!(neighbors(id).count() + systems_in_region(id).count(), 0);
    }
    assert_eq!(
        (group_name(u32::MAX), category_of_group(u32::MAX), category_name(u32::MAX)),
        (None, None, None)
    );
    assert_eq!(type_name(0), None, "a nameless type has no name");
}

#[test]
fn jumps_are_counted_up_to_the_bound() {
    assert_eq!(jumps(JITA, JITA, 0), Some(0));
    assert_eq!(jumps(JITA, PERIMETER, 0), None);
    assert_eq!(jumps(JITA, PERIMETER, 1), Some(1));
    assert_eq!(jumps(JITA, AMARR, u32::MAX), Some(11), "by Ahbazon");
    assert_eq!(jumps(AMARR, JITA, 11), Some(11));
    assert_eq!(jumps(JITA, AMARR, 10), None);
    assert_eq!(jumps(JITA, THERA, u32::MAX), None, "no gate leads to Thera");
    assert_eq!(jumps(THERA, THERA, 3), Some(0));
}

#[test]
fn searching_from_both_ends_finds_what_searching_from_one_end_finds() {
    for start in systems().filter(|system| system.id < 31_000_000).step_by(977) {
        let plain = every_distance(start.id);
        for goal in systems().filter(|system| system.id < 31_000_100).step_by(23) {
            assert_eq!(
                jumps(start.id, goal.id, u32::MAX),
                plain.get(&goal.id).copied(),
                "{start:?} {goal:?}"
            );
        }
    }
}

fn every_distance(start: u32) -> HashMap<u32, u32> {
    let mut distances = HashMap::from([(start, 0)]);
    let mut queue = VecDeque::from([(start, 0)]);
    while let Some((id, distance)) = queue.pop_front() {
        for next in neighbors(id) {
            distances.entry(next).or_insert_with(|| {
                queue.push_back((next, distance + 1));
                distance + 1
            });
        }
    }
    distances
}

#[test]
fn distances_match_the_map() {
    // Both were computed independently, from the positions in the exports.
    let near = light_years(JITA, PERIMETER).expect("both known");
    assert!((near - 2.1025).abs() < 0.0001, "{near}");
    let far = light_years(JITA, AMARR).expect("both known");
    assert!((far - 20.2784).abs() < 0.0001, "{far}");
    assert_eq!(light_years(AMARR, JITA), Some(far));
    assert_eq!(light_years(JITA, JITA), Some(0.0));
}

#[test]
fn a_damaged_pack_is_refused() {
    let pack = atlas::embedded_pack().expect("decompresses");
    assert!(atlas::Atlas::read(&pack).is_ok());
    let refused = atlas::Atlas::read(&pack[..pack.len() - 1]).err();
    assert_eq!(refused, Some(Damage::Checksum));
}

#[test]
fn packing_the_exports_again_gives_the_embedded_pack() {
    let Some(dir) = exports() else {
        eprintln!(
            "SKIPPED: no exports in $KILLSTREAM_DATA/universe or ../shared/data/universe, so packing was not tested"
        );
        return;
    };
    let pack = pack::pack(&dir).expect("the exports can be packed");
    let embedded = atlas::embedded_pack().expect("decompresses");
    assert!(
        pack == embedded,
        "the exports give another pack: run the universe_pack example and commit what it writes"
    );
}

#[test]
fn exports_that_contradict_themselves_are_refused() {
    let Some(dir) = exports() else {
        eprintln!(
            "SKIPPED: no exports in $KILLSTREAM_DATA/universe or ../shared/data/universe, so refusals were not tested"
        );
        return;
    };
    let refusal = |name: &str, edit: fn(String) -> String| {
        let copy = tempfile::tempdir().expect("a folder");
        for file in ["systems", "constellations", "regions", "system_jumps", "types", "groups", "categories"]
        {
            let file = format!("{file}.csv");
            let text = std::fs::read_to_string(dir.join(&file)).expect("an export");
            let text = if file == name { edit(text) } else { text };
            std::fs::write(copy.path().join(file), text).expect("a copy");
        }
        pack::pack(copy.path()).expect_err(name).to_string()
    };
    let one_way = refusal("system_jumps.csv", |text| text.replacen("30000001,30000003\n", "", 1));
    assert!(one_way.contains("the way back is missing"), "{one_way}");
    let twice = refusal("regions.csv", |text| text + "10000002,Again,,0,0,0\n");
    assert!(twice.contains("line 115: region_id 10000002 occurs twice"), "{twice}");
    let elsewhere = refusal("systems.csv", |text| text.replacen(",10000001,Derelik", ",10000002,Derelik", 1));
    assert!(elsewhere.contains("line 2: its region is not its constellation's"), "{elsewhere}");
    let no_column = refusal("types.csv", |text| text.replacen("group_id", "group", 1));
    assert!(no_column.contains("line 1: no column group_id"), "{no_column}");
}

/// The folder of the exports, if it is present.
fn exports() -> Option<PathBuf> {
    let data = std::env::var_os("KILLSTREAM_DATA").map(PathBuf::from);
    let data = data.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    Some(data.join("universe")).filter(|dir| dir.join("systems.csv").is_file())
}
