//! Files as they occur: damaged, odd, or unreadable. Each stands alone, and nothing is skipped silently.
//!
//! Must not know: how files are read.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use killstream::store::Store;
use killstream::store::config::Config;
use killstream::wire::killmail::encode;
use serde_json::{Value, json};

use crate::support::killmail::killmail;
use crate::support::server::{Setup, TOKEN};

fn run(setup: &Setup, arguments: &[&str]) -> Output {
    setup.command("import").arg("--json").args(arguments).output().unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", err(output)))
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn lines(ids: std::ops::Range<u32>) -> String {
    ids.map(|id| killmail(id).esi().to_string() + "\n").collect()
}

fn new(count: u64) -> Value {
    json!({ "new": count, "revised": 0, "known": 0, "conflict": 0, "refused": {} })
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A document with a line break before each attacker, as some programs write them.
fn attacker_a_line(id: u32) -> String {
    let text = killmail(id).esi().to_string();
    assert!(text.contains("[{"), "{text}");
    text.replace("[{", "[\n{").replace("},{", "},\n{")
}

#[test]
fn an_array_that_breaks_off_is_reported() {
    let setup = Setup::quiet();
    let file = setup.folder().join("file.json");
    for (text, count, code) in [
        ("[".to_owned(), 0, 1),
        (format!("[{},", killmail(1).esi()), 1, 0),
        (format!("{{\"2\":{}", killmail(2).esi()), 1, 0),
    ] {
        fs::write(&file, text).unwrap();
        let output = run(&setup, &[file.to_str().unwrap()]);
        assert_eq!((output.status.code(), report(&output)), (Some(code), new(count)), "{}", err(&output));
        assert!(
            err(&output).contains("file.json: it breaks off inside an array or object of killmails"),
            "{}",
            err(&output)
        );
    }
}

#[test]
fn a_document_that_parses_is_one_document() {
    let setup = Setup::quiet();
    let file = setup.folder().join("file.json");
    fs::write(
        &file,
        format!("\u{feff}{}\n{}\n{}", attacker_a_line(1), killmail(2).esi(), attacker_a_line(3)),
    )
    .unwrap();
    let output = run(&setup, &[file.to_str().unwrap()]);
    assert_eq!((report(&output), err(&output)), (new(3), String::new()));
    // A document cut off by a crash does not spoil those after it.
    let cut = attacker_a_line(4);
    let cut = &cut[..cut.find("[\n{").unwrap() + 2];
    fs::write(&file, format!("{cut}{}\n{}\n{}", killmail(5).esi(), attacker_a_line(6), killmail(7).esi()))
        .unwrap();
    let output = run(&setup, &[file.to_str().unwrap()]);
    assert_eq!(
        (&report(&output)["new"], &report(&output)["refused"]),
        (&json!(3), &json!({ "malformed_json": 1 }))
    );
}

#[test]
fn each_file_stands_alone() {
    let setup = Setup::quiet();
    let folder = setup.folder().join("files");
    fs::create_dir(&folder).unwrap();
    let path = |name: &str| folder.join(name);
    let write = |name: &str, bytes: &[u8]| fs::write(path(name), bytes).unwrap();
    let whole = gzip(&lines(100..110));
    write("a-cut.gz", &whole[..whole.len() - 9]);
    write("b.ndjson", lines(1..4).as_bytes());
    symlink("nowhere", path("c-dangling")).unwrap();
    symlink(&folder, path("d-loop")).unwrap();
    symlink("e-itself", path("e-itself")).unwrap();
    assert!(Command::new("mkfifo").arg(path("f-fifo")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(path("g-socket")).unwrap();
    write("h-archive.7z", b"7z\xBC\xAF\x27\x1C\0\x04");
    write("i-zeros.gz", &[&gzip(&lines(4..6))[..], &[0; 512]].concat());
    // Frames as pzstd writes them.
    write(
        "j.zst",
        &[
            &[0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0, 9, 9, 9, 9][..],
            &zstd::encode_all(lines(6..8).as_bytes(), 3).unwrap(),
        ]
        .concat(),
    );
    let output = run(&setup, &[folder.to_str().unwrap()]);
    let told = err(&output);
    for (name, why) in [
        ("a-cut.gz", "cut off"),
        ("c-dangling", "a link to something that does not exist"),
        ("d-loop", "a link to a folder that contains it"),
        ("e-itself", "leads back to itself"),
        ("f-fifo", "a named pipe"),
        ("g-socket", "a socket"),
        ("h-archive.7z", "7z archive"),
    ] {
        assert!(told.lines().any(|line| line.contains(name) && line.contains(why)), "{name}: {told}");
    }
    assert!(told.contains("files that could not be read: 7"), "{told}");
    let counts = report(&output);
    assert!(counts["new"].as_u64().unwrap() >= 7 && output.status.success(), "{counts}: {told}");
    for id in 1..8 {
        assert_eq!(stored(&setup, id), Some(id));
    }
}

fn stored(setup: &Setup, id: u32) -> Option<u32> {
    let store = Store::open(Config { dir: setup.data_dir(), min_free_bytes: 0, ..Config::default() }, encode)
        .unwrap();
    store.killmail(id).unwrap().map(|entry| entry.killmail.killmail_id)
}

fn zip(members: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![];
    let mut archive = rawzip::ZipArchiveWriter::new(&mut out);
    for (name, text) in members {
        let (mut entry, config) =
            archive.new_file(name).compression_method(rawzip::CompressionMethod::DEFLATE).start().unwrap();
        let mut writer =
            config.wrap(flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::default()));
        writer.write_all(text.as_bytes()).unwrap();
        let (encoder, descriptor) = writer.finish().unwrap();
        encoder.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
    out
}

#[test]
fn xz_and_zip_are_read() {
    let setup = Setup::quiet();
    let mut writer = lzma_rust2::XzWriter::new(vec![], lzma_rust2::XzOptions::with_preset(1)).unwrap();
    writer.write_all(lines(1..5).as_bytes()).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        fs::write(setup.folder().join(name), bytes).unwrap();
        setup.folder().join(name).display().to_string()
    };
    let xz = write("killmails.ndjson.xz", &writer.finish().unwrap());
    let pretty = serde_json::to_string_pretty(&killmail(7).esi()).unwrap();
    let zip = write("killmails.zip", &zip(&[("folder/a.ndjson", &lines(5..7)), ("../../b.json", &pretty)]));
    assert_eq!(report(&run(&setup, &[&xz, &zip])), new(7));
}

#[tokio::test]
async fn refused_documents_are_reported_and_an_import_without_success_fails() {
    let setup = Setup::quiet();
    let file = setup.folder().join("text");
    fs::write(&file, "a line of text\n".repeat(20) + "{\"killmail_id\":3}\n").unwrap();
    let path = file.to_str().unwrap();
    let expected = "refused 21 of 21 documents: malformed_json 20, missing_fields 1";
    let output = run(&setup, &[path]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        report(&output)["refused"],
        json!({ "malformed_json": 20, "missing_fields": 1 }),
        "counts come all the same"
    );
    assert!(err(&output).contains(expected), "{}", err(&output));
    // The same through a server.
    let server = Setup::quiet().start();
    let url = server.url("");
    let output = run(&setup, &[path, "--server", &url, "--token", TOKEN]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(err(&output).contains(expected), "{}", err(&output));
    // Neither known killmails nor some refused ones among others are a failure, but they are reported.
    fs::write(&file, lines(1..3)).unwrap();
    assert_eq!(report(&run(&setup, &[path])), new(2));
    let again = run(&setup, &[path]);
    assert_eq!((again.status.code(), err(&again)), (Some(0), String::new()));
    fs::write(&file, lines(1..3) + "nonsense\n").unwrap();
    let some = run(&setup, &[path]);
    assert_eq!(some.status.code(), Some(0));
    assert!(err(&some).contains("refused 1 of 3 documents: malformed_json 1"), "{}", err(&some));
    let nothing = run(&setup, &[path, "nowhere.ndjson"]);
    assert_eq!(
        (nothing.status.code(), report(&nothing)["known"].as_u64()),
        (Some(1), Some(2)),
        "{}",
        err(&nothing)
    );
    assert!(err(&nothing).contains("nowhere.ndjson"), "{}", err(&nothing));
}

#[test]
fn standard_input_is_read() {
    let setup = Setup::quiet();
    let file = setup.folder().join("killmails.gz");
    fs::write(&file, gzip(&lines(1..4))).unwrap();
    let mut cat = Command::new("cat").arg(&file).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let output = setup
        .command("import")
        .args(["--json", "/dev/stdin"])
        .stdin(cat.stdout.take().unwrap())
        .output()
        .unwrap();
    cat.wait().unwrap();
    assert_eq!(report(&output), new(3), "{}", err(&output));
}

/// Neither ten thousand lines of text nor reopening the store removes a possible killmail from the list.
#[test]
fn rubbish_does_not_push_killmails_off_the_list() {
    let setup = Setup::quiet();
    let mut without_victim = killmail(1).esi();
    without_victim.as_object_mut().unwrap().remove("victim");
    without_victim["killmail_hash"] = json!(format!("{:040x}", 1));
    let import = |text: String| {
        let file = setup.folder().join("file");
        fs::write(&file, text).unwrap();
        run(&setup, &[file.to_str().unwrap()])
    };
    let first = import(format!("{without_victim}\n"));
    assert_eq!(report(&first)["refused"], json!({ "missing_fields": 1 }));
    import((0..10_001).map(|n| format!("line {n}\n")).collect());
    let store = Store::open(Config { dir: setup.data_dir(), min_free_bytes: 0, ..Config::default() }, encode)
        .unwrap();
    let kept = store.refused(usize::MAX).unwrap();
    assert_eq!((kept.len(), kept[0].raw.as_ref()), (10_000, "line 10000".as_bytes()));
    assert_eq!(kept.last().unwrap().killmail_id, Some(1), "the oldest of all");
    assert_eq!(store.refused_counts()["malformed_json"], 10_001);
}
