//! Imports: every format of file and every real killmail, into a local store and through a server.
//!
//! Must not know: how files are read or killmails stored.

use std::fs;
use std::io::Write;
use std::path::Path;

use killstream::store::Store;
use killstream::store::config::Config;
use killstream::store::refused::list::Refused;
use killstream::wire::killmail::encode;
use serde_json::{Value, json};

use crate::support::data;
use crate::support::killmail::killmail;
use crate::support::server::{Setup, TOKEN};

/// Distinct killmails in all real sources: most packages and edge cases also occur in the other sources.
const ALL: u64 = 41_766 + 10 + 403;
/// Distinct killmails in the bundled sample: two occur in two formats.
const BUNDLED: u64 = 3_925;

/// Runs `import --json` and returns the report.
fn import(setup: &Setup, arguments: &[&str]) -> Value {
    let output = setup.command("import").arg("--json").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs `import --refused` on documents that fail: no document is accepted, so it fails and says so.
fn refused_again(setup: &Setup) -> Value {
    let output = setup.command("import").args(["--json", "--refused"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn lines(ids: std::ops::Range<u32>) -> String {
    ids.map(|id| killmail(id).esi().to_string() + "\n").collect()
}

fn new(count: u64) -> Value {
    json!({ "new": count, "revised": 0, "known": 0, "conflict": 0, "refused": {} })
}

/// Writes files of every format, each with ten killmails of its own.
fn every_form(folder: &Path) -> u64 {
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    write("1.ndjson", lines(100..110).as_bytes());
    write("2.ndjson.zst", &zstd::encode_all(lines(110..120).as_bytes(), 3).unwrap());
    let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gz.write_all(lines(120..130).as_bytes()).unwrap();
    write("3.ndjson.gz", &gz.finish().unwrap());
    let bz2 = |bytes: &[u8]| {
        let mut encoder = bzip2::write::BzEncoder::new(vec![], bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    write("4.ndjson.bz2", &bz2(lines(130..140).as_bytes()));
    let mut tar = tar::Builder::new(vec![]);
    for id in 140..150 {
        let mut body = killmail(id).esi();
        body["killmail_hash"] = json!(format!("{id:040x}"));
        body["http_last_modified"] = json!("2021-12-01T00:00:00Z");
        let text = serde_json::to_string_pretty(&body).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("killmails/{id}.json"), text.as_bytes()).unwrap();
    }
    write("killmails-2021-12-01.tar.bz2", &bz2(&tar.into_inner().unwrap()));
    let day: serde_json::Map<String, Value> =
        (150..160).map(|id| (id.to_string(), killmail(id).esi())).collect();
    write("20211201.json", Value::Object(day).to_string().as_bytes());
    let array: Vec<Value> = (160..170).map(|id| killmail(id).esi()).collect();
    write("array.json", serde_json::to_string_pretty(&array).unwrap().as_bytes());
    fs::create_dir(folder.join("deep")).unwrap();
    write("deep/one.json", serde_json::to_string_pretty(&killmail(170).r2z2()).unwrap().as_bytes());
    71
}

#[tokio::test]
async fn every_format_of_file_is_read() {
    let setup = Setup::quiet();
    let files = setup.folder().join("files");
    fs::create_dir(&files).unwrap();
    let count = every_form(&files);
    assert_eq!(import(&setup, &[files.to_str().unwrap()]), new(count));
    let again = import(&setup, &[files.to_str().unwrap()]);
    assert_eq!((&again["new"], &again["known"]), (&json!(0), &json!(count)));
    let server = setup.start();
    for id in 100..=170 {
        let reply = server.get(&format!("/api/v1/killmail/{id}")).await;
        assert_eq!(reply.expect(200)["data"]["killmail_id"], id);
    }
}

#[tokio::test]
async fn an_import_through_a_server_is_the_same_and_is_not_pushed() {
    let server = Setup::quiet().start();
    let mut stream = server.basic("max_age_secs=0").await;
    let setup = Setup::quiet();
    let files = setup.folder().join("files");
    fs::create_dir(&files).unwrap();
    let count = every_form(&files);
    let url = server.url("");
    let report = import(&setup, &[files.to_str().unwrap(), "--server", &url, "--token", TOKEN]);
    assert_eq!(report, new(count));
    assert_eq!(stream.killmails_until_quiet(std::time::Duration::from_millis(300)).await, [0; 0]);
    assert_eq!(server.get("/api/v1/killmails/count").await.expect(200)["data"]["count"], count);
    let refused = setup
        .command("import")
        .args([files.to_str().unwrap(), "--server", &url, "--token", "wrong"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("401"),
        "{}",
        String::from_utf8_lossy(&refused.stderr)
    );
}

#[test]
fn malformed_documents_are_counted_by_reason_and_do_not_affect_others() {
    let setup = Setup::quiet();
    let file = setup.folder().join("mixed.ndjson");
    let mut without_victim = killmail(2).esi();
    without_victim.as_object_mut().unwrap().remove("victim");
    let text = format!(
        "{}\n{without_victim}\n{{\"killmail_id\": 3, \"cut\n{}\n",
        killmail(1).esi(),
        killmail(4).esi()
    );
    fs::write(&file, text).unwrap();
    let report = import(&setup, &[file.to_str().unwrap()]);
    assert_eq!(report["new"], 2);
    let refused = report["refused"].as_object().unwrap();
    assert_eq!(refused.values().filter_map(Value::as_u64).sum::<u64>(), 2, "{report}");
    assert_eq!(refused["malformed_json"], 1, "{report}");
    let again = refused_again(&setup);
    assert_eq!(
        (&again["refused"], &again["new"]),
        (&report["refused"], &json!(0)),
        "they are kept, and are still no killmails"
    );
    assert_eq!(refused_again(&setup), again, "a retry stores none twice");
}

/// As after an update that can read more than the version before: some refused documents are killmails now.
#[test]
fn documents_accepted_on_a_retry_leave_the_list_of_refused_ones() {
    let setup = Setup::quiet();
    let open = || {
        Store::open(Config { dir: setup.data_dir(), min_free_bytes: 0, ..Config::default() }, encode).unwrap()
    };
    let store = open();
    let documents =
        [killmail(1).r2z2().to_string(), "{\"killmail_id\":3}".to_owned(), killmail(2).esi().to_string()];
    for raw in documents {
        let raw = raw.into_bytes().into();
        store
            .add_refused(&Refused {
                reason: "once".to_owned(),
                killmail_id: None,
                source: "r2z2".to_owned(),
                raw,
                at_ms: 0,
            })
            .unwrap();
    }
    drop(store);
    let report = import(&setup, &["--refused"]);
    assert_eq!(
        report,
        json!({ "new": 2, "revised": 0, "known": 0, "conflict": 0, "refused": { "missing_fields": 1 } })
    );
    let again = refused_again(&setup);
    assert_eq!(
        again,
        json!({ "new": 0, "revised": 0, "known": 0, "conflict": 0, "refused": { "missing_fields": 1 } })
    );
    let store = open();
    let left = store.refused(usize::MAX).unwrap();
    assert_eq!(left.iter().map(|refused| &refused.raw[..]).collect::<Vec<_>>(), [b"{\"killmail_id\":3}"]);
    assert_eq!(store.refused_counts()["once"], 3, "documents that were once refused stay counted");
    assert!(store.killmail(1).unwrap().is_some() && store.killmail(2).unwrap().is_some());
}

#[tokio::test]
async fn imports_fill_in_what_is_missing_and_replace_only_on_request() {
    let setup = Setup::quiet();
    let write = |name: &str, value: f64| {
        let file = setup.folder().join(name);
        fs::write(&file, killmail(1).value(value).r2z2().to_string()).unwrap();
        file.display().to_string()
    };
    let bare = setup.folder().join("bare.json");
    fs::write(&bare, killmail(1).without_zkb().esi().to_string()).unwrap();
    let (first, second) = (write("first.json", 1e6), write("second.json", 2e6));
    assert_eq!(import(&setup, &[bare.to_str().unwrap()])["new"], 1);
    assert_eq!(import(&setup, &[&first])["revised"], 1);
    assert_eq!(import(&setup, &[&second])["known"], 1);
    assert_eq!(import(&setup, &[bare.to_str().unwrap()])["known"], 1);
    assert_eq!(import(&setup, &["--prefer-incoming", &second])["revised"], 1);
    let server = setup.start();
    assert_eq!(server.get("/api/v1/killmail/1").await.expect(200)["data"]["zkb"]["totalValue"], 2e6);
}

#[test]
fn all_real_killmails_are_accepted() {
    let setup = Setup::quiet();
    let mut stored = 0;
    for documents in data::current() {
        let file = setup.folder().join(&documents.source).with_extension("ndjson");
        fs::write(&file, documents.lines.join("\n")).unwrap();
        let report = import(&setup, &[file.to_str().unwrap()]);
        eprintln!("    {} {report}", documents.source);
        let count = |name: &str| report[name].as_u64().unwrap();
        assert_eq!(report["refused"], json!({}), "{}", documents.source);
        assert_eq!(
            count("new") + count("revised") + count("known") + count("conflict"),
            documents.lines.len() as u64,
            "{}",
            documents.source
        );
        stored += count("new");
    }
    assert_eq!(
        stored,
        if data::folder().is_some() { ALL } else { BUNDLED },
        "different killmails in all sources together"
    );
    let output = setup.command("query").arg("--count").output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        stored.to_string(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn obsolete_formats_are_refused_with_a_reason() {
    for documents in data::legacy() {
        let setup = Setup::quiet();
        let file = setup.folder().join("legacy.ndjson");
        fs::write(&file, documents.lines.join("\n")).unwrap();
        let output = setup.command("import").args(["--json", file.to_str().unwrap()]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}: nothing was taken in", documents.source);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&report["new"], &report["conflict"]),
            (&json!(0), &json!(0)),
            "{}: {report}",
            documents.source
        );
        let refused: u64 = report["refused"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert!(refused >= documents.lines.len() as u64, "{}: {report}", documents.source);
        assert!(
            report["refused"].as_object().unwrap().keys().all(|reason| reason.starts_with("legacy")),
            "{}: {report}",
            documents.source
        );
    }
}
