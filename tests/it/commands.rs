//! The command line: output, errors and exit codes.
//!
//! Must not know: how commands are implemented.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::http;
use crate::support::killmail::killmail;
use crate::support::server::{Server, Setup, TOKEN};

const COMPONENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/prebuilt/high-value.wasm");

fn run(setup: &Setup, subcommand: &str, arguments: &[&str]) -> Output {
    setup.command(subcommand).args(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn filled(ids: std::ops::Range<u32>) -> Setup {
    let setup = Setup::quiet();
    let file = setup.folder().join("killmails.ndjson");
    fs::write(&file, ids.map(|id| killmail(id).esi().to_string() + "\n").collect::<String>()).unwrap();
    let output = run(&setup, "import", &[file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", err(&output));
    setup
}

#[tokio::test]
async fn only_equal_stores_have_equal_digests() {
    let of = |setup: &Setup| {
        let output = run(setup, "verify", &["--digest", "--json"]);
        assert!(output.status.success(), "{}", err(&output));
        serde_json::from_str::<Value>(&out(&output)).unwrap()["digest"].as_str().unwrap().to_owned()
    };
    let setup = filled(1..40);
    let digest = of(&setup);
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest}");
    let other = filled(1..20);
    assert_ne!(of(&other), digest);
    let server = other.clone().start();
    for id in (20..40).rev() {
        server.send(Method::POST, "/api/v1/killmails", killmail(id).esi().to_string()).await.expect(200);
    }
    assert_eq!(server.digest().await, digest, "however and in whatever order they were added");
    drop(server);
    assert_eq!(of(&other), digest);
    let text = out(&run(&other, "verify", &["--digest"]));
    assert!(text.contains(&format!("digest    {digest}")), "{text}");
}

#[test]
fn wrong_usage_exits_with_2() {
    let setup = Setup::quiet();
    assert_eq!(run(&setup, "nonsense", &[]).status.code(), Some(2));
    assert_eq!(run(&setup, "serve", &["--listen", "nowhere"]).status.code(), Some(2));
    assert_eq!(run(&setup, "query", &["limit"]).status.code(), Some(2));
}

#[test]
fn all_errors_in_a_configuration_are_reported_at_once() {
    let setup = Setup::quiet().env("PORT", "many").config("nonsense = 1\n[ingest]\nr2z2_missing_ms = \"x\"");
    let (status, log) = setup.try_start().unwrap_err();
    assert_eq!(status.code(), Some(2), "{log}");
    for part in ["PORT: ", "nonsense: ", "ingest.r2z2_missing_ms: "] {
        assert!(log.contains(part), "{part} is not in:\n{log}");
    }
}

#[test]
fn waits_too_short_for_the_real_host_are_refused() {
    let (status, log) =
        Setup::quiet().env("SOURCE", "r2z2").env("R2Z2_BASE_URL", "").try_start().unwrap_err();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains("600 is under 6000") && log.contains("10 is under 100"), "{log}");
}

#[test]
fn the_printed_configuration_is_accepted() {
    let setup = Setup::quiet();
    let text = out(&run(&setup, "serve", &["--print-config"]));
    assert!(text.contains("r2z2_idle_ms"), "{text}");
    drop(setup.config(&text).start());
}

#[test]
fn a_folder_in_use_names_the_process_that_uses_it() {
    let server = Setup::quiet().start();
    let output = run(server.setup(), "import", &[COMPONENT]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("data folder in use by pid {}; stop it, or use --server URL", server.pid());
    assert!(err(&output).contains(&expected), "{}", err(&output));
    let (status, log) = server.setup().clone().try_start().unwrap_err();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains(&expected), "{log}");
}

#[test]
fn a_taken_address_is_reported() {
    let server = Setup::quiet().start();
    let (status, log) =
        Setup::quiet().args(&["--listen", &server.address().to_string()]).try_start().unwrap_err();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("cannot listen on"), "{log}");
}

#[test]
fn a_missing_file_is_named() {
    let output = run(&Setup::quiet(), "import", &["nowhere.ndjson"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("nowhere.ndjson"), "{}", err(&output));
}

#[tokio::test]
async fn the_token_is_created_once_and_permits_writing() {
    let setup = Setup::quiet().env("API_TOKEN", "");
    let server = setup.start();
    let path = server.setup().data_dir().join("token");
    let token = fs::read_to_string(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(server.log().contains(path.to_str().unwrap()), "{}", server.log());
    assert!(!server.log().contains(token.trim()), "the token itself is not logged");
    let shown = run(server.setup(), "token", &[]);
    assert_eq!(out(&shown), token);
    // `API_TOKEN` replaces it.
    let given = Setup::quiet().env("API_TOKEN", "given");
    assert_eq!(out(&run(&given, "token", &[])), "given\n");
    assert!(!given.data_dir().join("token").exists());
    let url = server.url("");
    let upload = |token: &str| {
        run(server.setup(), "plugin", &["upload", "mine", COMPONENT, "--server", &url, "--token", token])
    };
    assert_eq!(upload("wrong").status.code(), Some(1));
    assert!(upload(token.trim()).status.success());
}

#[test]
fn plugins_are_managed_on_a_free_folder() {
    let setup = Setup::quiet();
    let output = run(&setup, "plugin", &["upload", "mine", COMPONENT]);
    assert!(output.status.success(), "{}", err(&output));
    assert!(out(&output).starts_with("mine sha256:"), "{}", out(&output));
    assert_eq!(out(&run(&setup, "plugin", &["list"])), out(&output));
    let wrong =
        run(&setup, "plugin", &["upload", "text", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(err(&wrong).contains("not_wasm"), "{}", err(&wrong));
    assert!(run(&setup, "plugin", &["delete", "mine"]).status.success());
    assert_eq!(out(&run(&setup, "plugin", &["list"])), "");
}

#[test]
fn queries_and_exports_work_on_a_folder_and_through_a_server() {
    let setup = filled(1..31);
    let query = ["system_ids=30000142", "limit=3", "order=oldest"];
    let here = run(&setup, "query", &query);
    let ids = |text: &str| -> Vec<u64> {
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["killmail_id"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(ids(&out(&here)), [1, 2, 3], "{}", err(&here));
    let wrong = run(&setup, "query", &["sytem_ids=1"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(err(&wrong).contains("sytem_ids"), "{}", err(&wrong));
    let exported = out(&run(&setup, "export", &[]));
    assert_eq!(ids(&exported), (1..31).collect::<Vec<u64>>());
    let server = setup.start();
    let url = server.url("");
    let there = run(server.setup(), "query", &[&query[..], &["--server", &url]].concat());
    assert_eq!(out(&there), out(&here), "{}", err(&there));
    assert_eq!(out(&run(server.setup(), "export", &["--server", &url])), exported);
    assert_eq!(out(&run(server.setup(), "query", &["--count", "--server", &url])), "30\n");
}

#[test]
fn a_document_too_large_for_the_server_does_not_end_an_import() {
    let setup = Setup::quiet();
    let file = setup.folder().join("killmails.ndjson");
    let long = format!("{{\"killmail_id\":2,\"text\":\"{}\"}}", "x".repeat(9_000_000));
    fs::write(&file, format!("{}\n{long}\n{}\n", killmail(1).esi(), killmail(3).esi())).unwrap();
    let server = setup.start();
    let output =
        run(server.setup(), "import", &[file.to_str().unwrap(), "--json", "--server", &server.url("")]);
    let report: Value = serde_json::from_str(&out(&output)).unwrap_or_else(|_| panic!("{}", err(&output)));
    assert_eq!((&report["new"], &report["refused"]), (&json!(2), &json!({ "too_large": 1 })));
    assert!(output.status.success());
}

#[test]
fn commands_on_a_folder_create_no_token() {
    let setup = filled(1..3);
    for command in ["export", "query"] {
        assert!(run(&setup, command, &[]).status.success());
    }
    assert!(!setup.data_dir().join("token").exists());
}

#[test]
fn long_responses_are_complete_on_a_folder_too() {
    let setup = filled(1..1_001);
    let (query, export) = (out(&run(&setup, "query", &["limit=1000"])), out(&run(&setup, "export", &[])));
    for text in [query, export] {
        assert_eq!(text.lines().count(), 1_000);
        assert!(text.len() > 512 << 10, "{} bytes", text.len());
    }
}

#[test]
fn what_was_exported_can_be_imported() {
    let setup = filled(1..6);
    let file = setup.folder().join("export.ndjson");
    assert!(run(&setup, "export", &[file.to_str().unwrap()]).status.success());
    let again = run(&setup, "import", &["--json", file.to_str().unwrap()]);
    assert_eq!(serde_json::from_slice::<Value>(&again.stdout).unwrap()["known"], 5, "{}", out(&again));
    let other = Setup::quiet();
    assert!(run(&other, "import", &[file.to_str().unwrap()]).status.success());
    assert_eq!(out(&run(&other, "export", &[])), out(&run(&setup, "export", &[])));
}

#[tokio::test]
async fn a_running_server_is_backed_up_into_a_local_folder() {
    let setup = filled(1..31);
    let server = setup.start();
    let url = server.url("");
    server.upload("mine", include_bytes!("../../plugins/prebuilt/high-value.wasm")).await;
    let dest = server.setup().folder().join("backup");
    let backup = |token: &str| {
        run(server.setup(), "backup", &[dest.to_str().unwrap(), "--json", "--server", &url, "--token", token])
    };
    let refused = backup("wrong");
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("401"), "{}", err(&refused));
    assert!(!dest.exists(), "nothing is left of a refused backup");
    let made = backup(TOKEN);
    assert!(made.status.success(), "{}", err(&made));
    let held: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!((&held["killmails"], &held["head"]), (&Value::from(30), &Value::from(30)), "{held}");
    assert!(!server.setup().data_dir().join("backup.aside").exists(), "the copy beside the store is gone");
    let again = backup(TOKEN);
    assert_eq!(again.status.code(), Some(1));
    assert!(err(&again).contains("is not empty"), "{}", err(&again));
    // A server started on it has the same killmails and plugins, but its own identity and token.
    let verified = run(server.setup(), "verify", &["--data-dir", dest.to_str().unwrap()]);
    assert_eq!(verified.status.code(), Some(0), "{}{}", out(&verified), err(&verified));
    let restored = server.setup().clone().args(&["--data-dir", dest.to_str().unwrap()]).start();
    assert_eq!(restored.get("/api/v1/killmails/count").await.expect(200)["data"]["count"], 30);
    let seventh = async |server: &Server| server.get("/api/v1/killmail/7").await.expect(200)["data"].clone();
    assert_eq!(seventh(&restored).await, seventh(&server).await);
    assert_eq!(restored.get("/api/v1/plugins/mine").await.expect(200)["data"]["state"], "active");
    let opening = async |server: &Server| server.enhanced("").await.event().await.id.unwrap();
    let (one, other) = (opening(&server).await, opening(&restored).await);
    assert_ne!(one.split_once('-').unwrap().0, other.split_once('-').unwrap().0);
}

#[tokio::test]
async fn tokens_permit_what_their_scopes_say() {
    let server = Setup::quiet().start();
    let url = server.url("");
    let token = |arguments: &[&str], token: &str| {
        run(server.setup(), "token", &[arguments, &["--server", &url, "--token", token]].concat())
    };
    let made = token(&["create", "ci", "--scope", "plugins", "--scope", "killmails"], TOKEN);
    assert!(made.status.success(), "{}", err(&made));
    let secret = out(&made).trim().to_owned();
    assert!(secret.len() >= 32, "{secret}");
    for listed in [token(&["list"], TOKEN), token(&[], TOKEN)] {
        assert!(
            out(&listed).starts_with("ci ") && out(&listed).contains("plugins,killmails"),
            "{}{}",
            out(&listed),
            err(&listed)
        );
        assert!(!out(&listed).contains(&secret));
    }
    let request = async |method: Method, path: &str, token: &str| {
        let header = format!("Bearer {token}");
        let reply = http::request(method, &server.url(path), &[("authorization", &header)], Vec::new()).await;
        (reply.status.as_u16(), reply.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    // What its scopes permit succeeds or fails for other reasons; everything else is forbidden.
    assert_eq!(request(Method::DELETE, "/api/v1/plugins/none", &secret).await, (404, "NOT_FOUND".to_owned()));
    assert_eq!(request(Method::POST, "/api/v1/killmails", &secret).await.0, 200);
    for (method, path) in [
        (Method::GET, "/api/v1/tokens"),
        (Method::DELETE, "/api/v1/tokens/ci"),
        (Method::POST, "/api/v1/backup"),
    ] {
        assert_eq!(request(method.clone(), path, &secret).await, (403, "FORBIDDEN".to_owned()), "{path}");
        assert_eq!(request(method, path, "wrong").await, (401, "UNAUTHORIZED".to_owned()), "{path}");
    }
    let refused = token(&["create", "mine", "--scope", "admin"], &secret);
    assert!(err(&refused).contains("403") && err(&refused).contains("admin"), "{}", err(&refused));
    let twice = token(&["create", "ci", "--scope", "events"], TOKEN);
    assert!(err(&twice).contains("400"), "{}", err(&twice));
    assert_eq!(token(&["create", "x", "--scope", "nonsense"], TOKEN).status.code(), Some(2));
    // Only its digest is stored, readable by the owner only. The token is valid until it is revoked.
    let path = server.setup().data_dir().join("tokens");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&path).unwrap().contains(&secret));
    let mut server = server;
    server.restart();
    let url = server.url("");
    let revoke =
        |token: &str| run(server.setup(), "token", &["revoke", "ci", "--server", &url, "--token", token]);
    let upload =
        run(server.setup(), "plugin", &["upload", "mine", COMPONENT, "--server", &url, "--token", &secret]);
    assert!(upload.status.success(), "{}", err(&upload));
    assert!(revoke(TOKEN).status.success());
    assert!(err(&revoke(TOKEN)).contains("404"));
    let upload =
        run(server.setup(), "plugin", &["upload", "mine", COMPONENT, "--server", &url, "--token", &secret]);
    assert!(err(&upload).contains("401"), "{}", err(&upload));
}

#[test]
fn a_stopped_server_does_not_answer() {
    let mut server = Setup::quiet().start();
    assert!(server.stop().success(), "{}", server.log());
    // Another program may have taken its port by now; nobody listens on this one.
    let output = run(server.setup(), "query", &["--server", "http://127.0.0.1:9", "--token", TOKEN]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("does not respond"), "{}", err(&output));
}
