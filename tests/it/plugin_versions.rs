//! Versions of a plugin on the command line: one that waits for promotion says so, all are listed, and a few
//! digits identify one.
//!
//! Must not know: how versions are stored.

use std::fs;
use std::process::Output;

use serde_json::json;

use crate::support::server::{Setup, TOKEN};

const HIGH_VALUE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/prebuilt/high-value.wasm");
const WATCHLIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/prebuilt/watchlist.wasm");

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_second_version_waits_and_says_so() {
    let server = Setup::quiet().start();
    let url = server.url("");
    let plugin = |arguments: &[&str]| {
        server
            .setup()
            .command("plugin")
            .args(arguments)
            .args(["--server", &url, "--token", TOKEN])
            .output()
            .unwrap()
    };
    let first = plugin(&["upload", "mine", HIGH_VALUE]);
    assert!(first.status.success() && err(&first).is_empty(), "{}", err(&first));
    let second = plugin(&["upload", "mine", WATCHLIST]);
    assert!(second.status.success(), "{}", err(&second));
    assert!(
        err(&second).contains("killstream plugin promote mine ") && err(&second).contains("stays active"),
        "{}",
        err(&second)
    );
    let digest = out(&second).split([' ', ':']).nth(2).unwrap().to_owned();
    let listed = out(&plugin(&["list"]));
    let states: Vec<&str> = listed.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
    assert_eq!(states, ["active", "uploaded"], "{listed}");
    assert!(listed.lines().all(|line| line.starts_with("mine sha256:")), "{listed}");
    // The command in the message works unchanged.
    let prefix = err(&second).rsplit(' ').next().unwrap().trim_matches(['`', '\n', '.']).to_owned();
    assert!(digest.starts_with(&prefix), "{prefix}");
    for (wrong, why) in
        [(&digest[..7], "first 8 hex digits"), ("00000000", "no version"), ("latest-one", "is not a digest")]
    {
        let refused = plugin(&["promote", "mine", wrong]);
        assert!(!refused.status.success() && err(&refused).contains(why), "{wrong}: {}", err(&refused));
    }
    let promoted = plugin(&["promote", "mine", &prefix]);
    assert!(
        promoted.status.success() && out(&promoted).contains(&format!("{digest} active")),
        "{}{}",
        out(&promoted),
        err(&promoted)
    );
}

#[tokio::test]
async fn an_upload_over_the_limit_names_the_limit() {
    let server =
        Setup::quiet().config("[plugin]\nupload_bytes = 100000\nscripting_upload_bytes = 100000").start();
    let url = server.url("");
    let file = server.setup().folder().join("large.wasm");
    for megabytes in [1, 30] {
        fs::write(&file, vec![0; megabytes << 20]).unwrap();
        let arguments = ["upload", "mine", file.to_str().unwrap(), "--server", &url, "--token", TOKEN];
        let output = server.setup().command("plugin").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let stderr = err(&output);
        assert!(
            stderr.contains("larger than 100000 bytes") && !stderr.contains("Broken pipe"),
            "{megabytes} MiB: {stderr}"
        );
    }
}

#[tokio::test]
async fn a_core_module_is_refused_with_instructions() {
    let server = Setup::quiet().start();
    for text in
        ["(module)", "(module (memory (export \"memory\") 1) (func (export \"evaluate\")))", "(component)"]
    {
        let reply =
            server.send(reqwest::Method::PUT, "/api/v1/plugins/mine", wat::parse_str(text).unwrap()).await;
        let body = reply.json();
        assert_eq!(
            (reply.status.as_u16(), &body["details"]["reason"]),
            (422, &json!("missing_export")),
            "{text}: {body}"
        );
        let message = body["details"]["message"].as_str().unwrap();
        assert!(message.contains("wasm32-wasip2") && message.contains("export!"), "{text}: {message}");
    }
}

/// The code and the text are those of the older service; the details name the number.
#[tokio::test]
async fn an_invalid_number_beside_a_system_is_named() {
    let server = Setup::quiet().start();
    for (path, field, limit) in [
        ("/api/v1/kills/system/30000142?limit=2000", "limit", json!(1000)),
        ("/api/v1/kills/system/30000142?since_hours=x", "since_hours", json!(null)),
        ("/api/v1/systems/30000142/killmails?hours=0", "hours", json!(null)),
        ("/api/systems/30000142/kills?limit=0", "limit", json!(1000)),
    ] {
        let body = server.get(path).await.expect(400);
        assert_eq!(
            (&body["code"], &body["error"]),
            (&json!("INVALID_SYSTEM_ID"), &json!("Invalid system ID format")),
            "{path}"
        );
        assert_eq!(
            (&body["details"]["field"], &body["details"]["limit"]),
            (&json!(field), &limit),
            "{path}: {body}"
        );
    }
    let body = server.get("/api/v1/characters/5/killmails?limit=2000").await.expect(400);
    assert_eq!(
        (&body["code"], &body["details"]["field"], &body["details"]["limit"]),
        (&json!("INVALID_PARAMETERS"), &json!("limit"), &json!(1000))
    );
    let asked = json!({ "system_ids": [30_000_142], "limit": 2000 });
    let body = server.post("/api/v1/kills/systems", &asked).await.expect(400);
    assert_eq!(
        (&body["error"], &body["details"]["field"], &body["details"]["limit"]),
        (&json!("Invalid parameters"), &json!("limit"), &json!(1000))
    );
}
