//! Mistakes on the command line: each is answered with what to write instead, and none creates anything.
//!
//! Must not know: how commands are implemented.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::support::killmail::killmail;
use crate::support::server::Setup;

fn run(setup: &Setup, subcommand: &str, arguments: &[&str]) -> Output {
    setup.command(subcommand).args(arguments).output().unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A store with a few killmails.
fn filled() -> Setup {
    let setup = Setup::quiet();
    let file = setup.folder().join("killmails.ndjson");
    fs::write(&file, (1..5).map(|id| killmail(id).esi().to_string() + "\n").collect::<String>()).unwrap();
    let output = run(&setup, "import", &[file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", err(&output));
    setup
}

#[test]
fn commands_that_only_read_create_no_store() {
    let setup = Setup::quiet().env("API_TOKEN", "");
    let dest = setup.folder().join("dest");
    let dest = dest.to_str().unwrap();
    let missing = setup.data_dir();
    let empty = setup.folder().join("empty");
    fs::create_dir(&empty).unwrap();
    let digest = "12345678";
    for dir in [&missing, &empty] {
        let dir = dir.to_str().unwrap();
        let commands: [&[&str]; 14] = [
            &["token", "--data-dir", dir],
            &["token", "list", "--data-dir", dir],
            &["token", "create", "ci", "--scope", "plugins", "--data-dir", dir],
            &["token", "revoke", "ci", "--data-dir", dir],
            &["query", "--data-dir", dir],
            &["export", "--data-dir", dir],
            &["verify", "--data-dir", dir],
            &["compact", "--data-dir", dir],
            &["backup", dest, "--data-dir", dir],
            &["salvage", dir, dest],
            &["plugin", "list", "--data-dir", dir],
            &["plugin", "promote", "mine", digest, "--data-dir", dir],
            &["plugin", "delete", "mine", "--data-dir", dir],
            &["import", "--refused", "--data-dir", dir],
        ];
        for command in commands {
            let output = run(&setup, command[0], &command[1..]);
            assert_eq!(output.status.code(), Some(1), "{command:?}: {}", err(&output));
            assert!(
                err(&output).contains(&format!("there is no store in {dir}")),
                "{command:?}: {}",
                err(&output)
            );
            assert!(output.stdout.is_empty(), "{command:?}");
        }
    }
    assert!(!missing.exists() && fs::read_dir(&empty).unwrap().next().is_none(), "nothing was created");
    assert!(!fs::exists(dest).unwrap(), "nor the destination of a copy");
}

#[test]
fn an_export_without_a_store_leaves_the_file_unchanged() {
    let setup = Setup::quiet();
    let file = setup.folder().join("kept.ndjson");
    fs::write(&file, "precious").unwrap();
    assert_eq!(run(&setup, "export", &[file.to_str().unwrap()]).status.code(), Some(1));
    assert_eq!(fs::read_to_string(file).unwrap(), "precious");
}

#[test]
fn invalid_addresses_are_answered_with_what_to_write() {
    let setup = Setup::quiet();
    for (command, arguments, parts) in [
        ("query", ["--server", "127.0.0.1:4004"], ["--server http://127.0.0.1:4004", "http://"]),
        ("serve", ["--listen", "24001"], ["--listen 127.0.0.1:24001", "0.0.0.0:24001"]),
        ("demo", ["--listen", "localhost:80"], ["--listen 127.0.0.1:80", "is a name"]),
    ] {
        let output = run(&setup, command, &arguments);
        assert_eq!(output.status.code(), Some(2), "{}", err(&output));
        assert!(parts.iter().all(|part| err(&output).contains(part)), "{}", err(&output));
        for jargon in ["syntax", "without a base"] {
            assert!(!err(&output).contains(jargon), "{}", err(&output));
        }
    }
}

#[test]
fn a_taken_port_is_reported_once_before_anything_is_created() {
    let server = Setup::quiet().start();
    let other = Setup::quiet().env("API_TOKEN", "").args(&["--listen", &server.address().to_string()]);
    let data_dir = other.data_dir();
    let (status, log) = other.try_start().unwrap_err();
    assert_eq!(status.code(), Some(1), "{log}");
    assert_eq!(log.matches("cannot listen on").count(), 1, "{log}");
    assert!(log.contains("another program listens there") && log.contains("--listen"), "{log}");
    assert!(!log.contains("os error") && !log.contains("token"), "{log}");
    assert!(!data_dir.exists(), "neither a store nor a token was created");
}

#[test]
fn a_data_folder_is_readable_by_its_owner_only() {
    let setup = filled();
    assert_eq!(fs::metadata(setup.data_dir()).unwrap().permissions().mode() & 0o777, 0o700);
    let dest = setup.folder().join("backup");
    let output = run(&setup, "backup", &[dest.to_str().unwrap()]);
    assert!(output.status.success(), "{}", err(&output));
    assert_eq!(fs::metadata(dest).unwrap().permissions().mode() & 0o777, 0o700);
}

/// The files of a folder with their sizes.
fn files(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let (path, meta) = entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
        if meta.is_dir() {
            all.extend(files(&path));
        } else {
            all.insert(path, meta.len());
        }
    }
    all
}

#[test]
fn compacting_a_new_store_changes_nothing() {
    let setup = filled();
    let before = files(&setup.data_dir());
    let of_store = |path: &Path| path.starts_with(setup.data_dir().join("store"));
    let bytes: u64 = before.iter().filter(|(path, _)| of_store(path)).map(|(_, bytes)| bytes).sum();
    for _ in 0..2 {
        let output = run(&setup, "compact", &["--json"]);
        assert!(output.status.success(), "{}", err(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report, json!({ "before_bytes": bytes, "after_bytes": bytes, "problems": [] }));
        assert_eq!(files(&setup.data_dir()), before);
    }
    let count = run(&setup, "query", &["--count"]);
    assert_eq!(String::from_utf8_lossy(&count.stdout), "4\n");
}

/// Damage that the storage engine finds while it opens, and damage it finds later: its own messages are never
/// shown.
#[test]
fn panics_of_the_storage_engine_are_reported_in_our_own_words() {
    let setup = filled().env("RUST_BACKTRACE", "1");
    let db = setup.data_dir().join("store/db");
    let whole = fs::read(&db).unwrap();
    let written = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let mut failures = 0;
    for (from, to) in [(0, written), (0, 64), (20, 4_096), (written / 4, written / 2), (written / 2, written)]
    {
        let mut damaged = whole.clone();
        damaged[from..to].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31) ^ 0x5A);
        fs::write(&db, &damaged).unwrap();
        let salvaged = setup.folder().join(format!("salvaged-{from}-{to}"));
        for (command, arguments) in
            [("verify", vec![]), ("salvage", vec![setup.data_dir(), salvaged]), ("compact", vec![])]
        {
            let output = setup.command(command).args(arguments).output().unwrap();
            for internal in ["panicked", "backtrace", "sled", ".rs:"] {
                assert!(!err(&output).contains(internal), "{command} {from}..{to}: {}", err(&output));
            }
            failures += usize::from(output.status.code() != Some(0));
        }
        fs::write(&db, &damaged).unwrap();
        let started = setup.clone().try_start();
        let log = match &started {
            Ok(server) => server.log(),
            Err((_, log)) => log.clone(),
        };
        assert!(!log.contains("panicked") && !log.contains("backtrace"), "{from}..{to}: {log}");
    }
    assert!(failures > 3, "too little was damaged to prove anything: {failures}");
}
