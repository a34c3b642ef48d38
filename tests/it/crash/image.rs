//! Folders as images of a disk: the shim that keeps what survives a power cut, and helpers for whole folders.
//!
//! Must not know: what is in the files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::crash::child;

/// Compiles the shim; the build needs a C compiler anyway.
pub fn build_shim(into: &Path) -> PathBuf {
    let (source, library) = (into.join("power_loss.c"), into.join("power_loss.so"));
    fs::write(&source, include_str!("power_loss.c")).unwrap();
    let output = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-pthread", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl")
        .output();
    let output = output.unwrap_or_else(|e| panic!("no C compiler `cc`: {e}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// Every file below a folder: relative path and content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Copies every file, also those that were never synced.
pub fn copy(from: &Path, to: &Path) {
    for (name, content) in files(from) {
        let target = to.join(name);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, content).unwrap();
    }
}

/// Whether two folders have the same contents.
pub fn same(one: &Path, other: &Path) -> bool {
    files(one) == files(other)
}

/// Whether two folders have the same contents, ignoring empty files.
pub fn same_files(one: &Path, other: &Path) -> bool {
    let full =
        |folder| files(folder).into_iter().filter(|(_, content)| !content.is_empty()).collect::<Vec<_>>();
    full(one) == full(other)
}

/// One change below a folder, as the shim saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Write { name: String, at: usize, data: Vec<u8> },
    Cut { name: String, length: usize },
    Rename { from: String, to: String },
    Remove { name: String },
    Sync,
}

/// Reads a journal of the shim.
pub fn journal(mut bytes: &[u8]) -> Vec<Change> {
    let mut changes = Vec::new();
    while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
        let line = std::str::from_utf8(&bytes[..end]).unwrap();
        let [kind, at, length, name] = line.splitn(4, ' ').collect::<Vec<_>>().try_into().unwrap();
        let (at, length, name) = (at.parse().unwrap(), length.parse::<usize>().unwrap(), name.to_owned());
        let data = bytes[end + 1..end + 1 + length].to_vec();
        bytes = &bytes[end + 1 + length..];
        changes.push(match kind {
            "write" => Change::Write { name, at, data },
            "cut" => Change::Cut { name, length: at },
            "rename" => Change::Rename { from: name, to: String::from_utf8(data).unwrap() },
            "remove" => Change::Remove { name },
            "sync" => Change::Sync,
            other => panic!("{other}"),
        });
    }
    changes
}

/// The files after these changes, and after the first bytes of one more write.
pub fn replay(changes: &[Change], torn: Option<(&Change, usize)>) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let write = |files: &mut BTreeMap<String, Vec<u8>>, name: &String, at: usize, data: &[u8]| {
        let file = files.entry(name.clone()).or_default();
        file.resize(file.len().max(at + data.len()), 0);
        file[at..at + data.len()].copy_from_slice(data);
    };
    for change in changes {
        match change {
            Change::Write { name, at, data } => write(&mut files, name, *at, data),
            Change::Cut { name, length } => files.entry(name.clone()).or_default().resize(*length, 0),
            Change::Rename { from, to } => {
                let moved = files.remove(from).unwrap_or_default();
                files.insert(to.clone(), moved);
            }
            Change::Remove { name } => drop(files.remove(name)),
            Change::Sync => {}
        }
    }
    if let Some((Change::Write { name, at, data }, length)) = torn {
        write(&mut files, name, *at, &data[..length.min(data.len())]);
    }
    files
}

/// Writes files to a folder.
pub fn lay_out(files: &BTreeMap<String, Vec<u8>>, folder: &Path) {
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// Removes files by name. Returns how many.
pub fn remove(folder: &Path, which: impl Fn(&str) -> bool) -> usize {
    let names = files(folder).into_keys().filter(|name| which(&name.file_name().unwrap().to_string_lossy()));
    names.map(|name| fs::remove_file(folder.join(name)).unwrap()).count()
}

#[test]
fn the_shim_keeps_only_what_was_synced() {
    let folder = TempDir::with_prefix("killstream-shim-").unwrap();
    let base = folder.path().canonicalize().unwrap();
    let (disk, survives) = (base.join("disk"), base.join("image"));
    fs::create_dir(&disk).unwrap();
    fs::create_dir(&survives).unwrap();
    let mut command = child::file_writer(&disk);
    let output = command
        .env("LD_PRELOAD", build_shim(&base))
        .env("POWER_ROOT", &disk)
        .env("POWER_IMAGE", &survives)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let kept: BTreeMap<String, String> = files(&survives)
        .into_iter()
        .map(|(name, content)| (name.to_string_lossy().into_owned(), String::from_utf8(content).unwrap()))
        .collect();
    let expected = [
        ("cut", "fi"),
        ("half-synced", "first"),
        // Syncing the folder made its name durable, but not its contents.
        ("not-synced", ""),
        ("overwritten", "first"),
        ("range-synced", ""),
        ("renamed", "first"),
        ("renamed-unsure.new", "first"),
        ("synced", "first"),
    ];
    let expected: BTreeMap<String, String> = expected.map(|(n, c)| (n.to_owned(), c.to_owned())).into();
    assert_eq!(kept, expected);
}
