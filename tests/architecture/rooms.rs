//! The rules of rooms: inner floors, circles of imports, how many files a folder may hold.
//!
//! Must not know: what is in the files beside their imports.

use std::collections::{BTreeMap, BTreeSet};

/// Inner floors: nothing imports what stands on a higher one. The longest name that fits a file counts.
const INNER_FLOORS: &[(&str, u8)] = &[
    ("store", 3),
    ("store/keys", 0),
    ("store/error", 0),
    ("store/config", 0),
    ("store/incoming", 0),
    ("store/query", 0),
    ("store/progress", 0),
    ("store/facts", 0),
    ("store/disk_space", 0),
    ("store/whole_file", 0),
    ("store/format", 0),
    ("store/index", 1),
    ("store/engine", 2),
    ("store/upkeep", 4),
    ("plugin", 5),
    ("plugin/class", 0),
    ("plugin/component_info", 0),
    ("plugin/counters", 0),
    ("plugin/error", 0),
    ("plugin/history", 0),
    ("plugin/limits", 0),
    ("plugin/resources", 1),
    ("plugin/scan", 1),
    ("plugin/sandbox", 2),
    ("plugin/judging", 3),
    ("plugin/build", 4),
    ("ingest", 2),
    ("ingest/arrival", 0),
    ("ingest/backoff", 0),
    ("ingest/client", 0),
    ("ingest/package", 0),
    ("ingest/record", 0),
    ("ingest/source_link", 0),
    ("ingest/fallback_config", 0),
    ("ingest/files", 1),
    ("ingest/r2z2", 1),
    ("ingest/bodies", 2),
    ("ingest/supervise", 3),
];

/// Files that may import each other in a circle, within one room.
const CIRCLE_MAX: usize = 4;
/// Files of one folder.
const FOLDER_MAX: usize = 20;
/// A file below `src` and the modules it imports outside of tests: `store/open` imports `store/keys`.
pub struct File {
    pub path: String,
    pub imports: Vec<String>,
}

/// The module of a file: `src/store/mod.rs` is `store`, `src/store/open.rs` is `store/open`.
fn module(path: &str) -> &str {
    let name = path.strip_prefix("src/").unwrap_or(path).strip_suffix(".rs").unwrap_or(path);
    name.strip_suffix("/mod").unwrap_or(name)
}

/// The room of a module: its folder.
fn room<'a>(module: &'a str, modules: &BTreeSet<&str>) -> &'a str {
    // A module with files below it is the door of their room.
    let is_door =
        modules.iter().any(|other| other.starts_with(module) && other[module.len()..].starts_with('/'));
    if is_door { module } else { module.rsplit_once('/').map_or("", |(folder, _)| folder) }
}

fn is_test(path: &str) -> bool {
    path.ends_with("tests.rs")
        || path.contains("/tests/")
        || path.ends_with("_law.rs")
        || path.ends_with("_cost.rs")
}

/// Everything that breaks a rule.
pub fn broken(files: &[File]) -> Vec<String> {
    let files: Vec<&File> = files.iter().filter(|file| !is_test(&file.path)).collect();
    let modules: BTreeSet<&str> = files.iter().map(|file| module(&file.path)).collect();
    let graph: BTreeMap<&str, BTreeSet<&str>> = files
        .iter()
        .map(|file| {
            let from = module(&file.path);
            (
                from,
                file.imports
                    .iter()
                    .filter_map(|path| target(path, &modules))
                    .filter(|to| *to != from)
                    .collect(),
            )
        })
        .collect();
    let mut found = Vec::new();
    for (from, to) in graph.iter().flat_map(|(from, all)| all.iter().map(move |to| (*from, *to))) {
        let (Some(upper), Some(lower)) = (floor(from), floor(to)) else { continue };
        let same_module = from.split('/').next() == to.split('/').next();
        if same_module && lower > upper {
            found.push(format!("{from} (inner floor {upper}) uses {to} (inner floor {lower})"));
        }
    }
    for circle in circles(&graph) {
        let rooms: BTreeSet<&str> = circle.iter().map(|file| room(file, &modules)).collect();
        if rooms.len() > 1 || circle.len() > CIRCLE_MAX {
            found.push(format!(
                "{} files import each other in a circle: {}",
                circle.len(),
                circle.join(", ")
            ));
        }
    }
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for file in &files {
        *folders.entry(file.path.rsplit_once('/').map_or("", |(folder, _)| folder)).or_default() += 1;
    }
    for (folder, count) in folders {
        if count > FOLDER_MAX {
            found.push(format!("{folder} holds {count} files; a folder has at most {FOLDER_MAX}"));
        }
    }
    found
}

fn floor(module: &str) -> Option<u8> {
    let fits =
        |name: &str| module == name || module.starts_with(name) && module[name.len()..].starts_with('/');
    INNER_FLOORS
        .iter()
        .filter(|(name, _)| fits(name))
        .max_by_key(|(name, _)| name.len())
        .map(|(_, floor)| *floor)
}

/// The file an import leads to: the longest part of it that is a module.
fn target<'a>(path: &str, modules: &BTreeSet<&'a str>) -> Option<&'a str> {
    let parts: Vec<&str> = path.split("::").collect();
    (1..=parts.len()).rev().find_map(|count| modules.get(parts[..count].join("/").as_str()).copied())
}

/// Groups of files that all reach each other.
fn circles<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<Vec<&'a str>> {
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|from| (*from, reached(graph, from))).collect();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut found = Vec::new();
    for (from, to) in &reach {
        if !to.contains(from) || seen.contains(from) {
            continue;
        }
        let circle: Vec<&str> = to
            .iter()
            .copied()
            .filter(|other| reach.get(other).is_some_and(|back| back.contains(from)))
            .collect();
        seen.extend(&circle);
        found.push(circle);
    }
    found
}

fn reached<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&str> = graph.get(from).into_iter().flatten().copied().collect();
    while let Some(file) = next.pop() {
        if reached.insert(file) {
            next.extend(graph.get(file).into_iter().flatten());
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, imports: &[&str]) -> File {
        File { path: path.to_owned(), imports: imports.iter().map(|path| (*path).to_owned()).collect() }
    }

    #[test]
    fn planted_violations_of_rooms_are_found() {
        let found = |files: &[File]| broken(files).join("\n");
        let clean = [
            file("src/store/mod.rs", &["store::engine::Engine", "store::index::Index"]),
            file("src/store/engine/mod.rs", &["store::keys::Tree", "store::format::frame::Frame"]),
            file("src/store/format/frame.rs", &[]),
            file("src/store/index/mod.rs", &["store::format::frame"]),
            file("src/store/keys.rs", &[]),
        ];
        assert_eq!(found(&clean), "");
        let up = [
            file("src/store/engine/mod.rs", &["store::upkeep::verify::run"]),
            file("src/store/upkeep/verify.rs", &[]),
        ];
        assert_eq!(found(&up), "store/engine (inner floor 2) uses store/upkeep/verify (inner floor 4)");
        let across = [
            file("src/store/index/mod.rs", &["store::engine::Engine"]),
            file("src/store/engine/mod.rs", &[]),
        ];
        assert!(found(&across).contains("store/index (inner floor 1) uses store/engine"));
        let circle = [
            file("src/http/state.rs", &["http::routes::kills"]),
            file("src/http/routes/kills.rs", &["http::state::State"]),
        ];
        assert!(found(&circle).contains("2 files import each other"), "rooms differ");
        let within = [file("src/http/a.rs", &["http::b"]), file("src/http/b.rs", &["http::a::A"])];
        assert_eq!(found(&within), "", "two of one room may");
        let ring: Vec<File> = (0..5)
            .map(|n| file(&format!("src/http/r{n}.rs"), &[&format!("http::r{}", (n + 1) % 5)]))
            .collect();
        assert!(found(&ring).contains("5 files import each other"));
        let crowd: Vec<File> = (0..21).map(|n| file(&format!("src/http/f{n}.rs"), &[])).collect();
        assert_eq!(found(&crowd), "src/http holds 21 files; a folder has at most 20");
    }
}
