//! A disk that fills up under a running server: nothing more is written, reads go on, and once there is space
//! again, writes resume without help.
//!
//! The file size limit of the process stands in for a full disk: it can be changed while the process runs, and
//! nothing else on the machine changes it.
//!
//! Must not know: how the server finds out how much is left.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::guests::{self, Text};
use crate::support::killmail::killmail;
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;
use crate::support::until;
use crate::support::upstream::Upstream;

/// What must stay free, bytes.
const MIN_FREE: u64 = 32 << 20;

/// Limits the size of the server's files; `None` removes the limit.
fn limit(server: &Server, bytes: Option<u64>) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let pid = libc::pid_t::try_from(server.pid()).unwrap();
    #[expect(unsafe_code, reason = "the standard library does not set limits")]
    // SAFETY: both pointers point to a place that outlives the calls; a null pointer means that nothing is set or
    // returned.
    unsafe {
        assert_eq!(libc::prlimit(pid, libc::RLIMIT_FSIZE, std::ptr::null(), &raw mut limit), 0);
        limit.rlim_cur = bytes.unwrap_or(limit.rlim_max);
        assert_eq!(libc::prlimit(pid, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()), 0);
    }
}

/// Leaves less space than must stay free, but enough for everything this test could write.
fn fill(server: &Server) {
    let length = fs::metadata(server.setup().data_dir().join("store/db")).unwrap().len();
    limit(server, Some(length + MIN_FREE / 2));
}

async fn source(server: &Server) -> Value {
    server.get("/health").await.expect(200)["details"]["source"].clone()
}

async fn stored(server: &Server, id: u32) {
    let path = format!("/api/v1/killmail/{id}");
    until(&path, async || (server.get(&path).await.status == 200).then_some(())).await;
}

/// Reads work by id, in history, on the open stream and on new ones; a refused write reports the limit.
async fn reads_go_on_and_writes_are_refused(server: &Server, stream: &mut Sse, last: u32) {
    assert_eq!(server.get("/api/v1/killmail/1").await.status, 200);
    assert_eq!(server.get("/api/v1/killmails/count").await.expect(200)["data"]["count"], last);
    let ping = stream.next_block().await.unwrap();
    assert_eq!(ping.comments, ["ping"], "{}", ping.raw);
    assert_eq!(server.basic("").await.status, 200);
    let refused = server.send(Method::POST, "/api/v1/killmails", killmail(99).r2z2().to_string()).await;
    assert_eq!(refused.expect(503)["details"]["limit"], MIN_FREE);
    assert_eq!(server.get(&format!("/api/v1/killmail/{}", last + 1)).await.status, 404);
}

#[tokio::test]
async fn a_full_disk_pauses_only_ingest_which_resumes_without_help() {
    let upstream = Upstream::start();
    let settings =
        format!("min_free_bytes = {MIN_FREE}\n[ingest]\nspace_check_ms = 50\n[sse]\nping_ms = 200");
    let server = Setup::following(&upstream).config(&settings).start();
    let mut stream = server.basic("").await;
    upstream.publish(killmail(1));
    assert_eq!(stream.killmails(1).await, [1]);
    let mut last = 1;
    for round in 1..=2_usize {
        fill(&server);
        let pending = upstream.publish(killmail(last + 1));
        upstream.publish_document(json!({ "killmail_id": 7, "esi": "none" }));
        upstream.publish(killmail(last + 2));
        until("the pause to be reported", async || {
            (source(&server).await["state"] == "no_space").then_some(())
        })
        .await;
        let health = server.get("/health").await.expect(200);
        assert_eq!(
            (&health["status"], &health["details"]["storage"]["has_space"]),
            (&json!("degraded"), &json!(false)),
            "{health}"
        );
        let reason = health["details"]["source"]["reason"].as_str().unwrap();
        assert!(reason.contains(&format!("{MIN_FREE} must stay free")), "{reason}");
        reads_go_on_and_writes_are_refused(&server, &mut stream, last).await;
        // The source may have asked for it before it was there.
        let asked = upstream
            .requests()
            .iter()
            .filter(|seen| seen.number() == Some(pending + 1) && seen.status == 200)
            .count();
        assert_eq!(asked, 0, "the pending killmail comes first");
        let body = server.get("/health/ready").await.expect(503);
        assert!(body["reason"].as_str().is_some_and(|reason| reason.contains("must stay free")), "{body}");
        assert!(
            health["details"]["storage"]["no_space"]
                .as_str()
                .is_some_and(|why| why.contains("must stay free")),
            "{health}"
        );
        until("the log message", async || {
            (server.log().matches("ingest pauses").count() == round).then_some(())
        })
        .await;

        limit(&server, None);
        stored(&server, last + 2).await;
        assert_eq!(stream.killmails(2).await, [u64::from(last) + 1, u64::from(last) + 2]);
        last += 2;
        assert_eq!(source(&server).await["state"], "following");
        assert_eq!(server.get("/health").await.expect(200)["status"], "ok");
        until("the log message that ingest goes on", async || {
            (server.log().matches("ingest goes on").count() == round).then_some(())
        })
        .await;
        server.get("/health/ready").await.expect(200);
    }
    // Nothing was lost, delivered twice or requested twice.
    assert_eq!(server.get("/api/v1/killmails/count").await.expect(200)["data"]["count"], last);
    assert_eq!(stream.killmails_until_quiet(Duration::from_millis(300)).await, [0; 0]);
    let served: Vec<u64> = upstream
        .requests()
        .iter()
        .filter(|seen| seen.status == 200)
        .filter_map(|seen| seen.number())
        .collect();
    assert!(served.is_sorted_by(|a, b| a < b), "{served:?}");
}

#[tokio::test]
async fn a_server_starts_and_responds_without_free_space() {
    let upstream = Upstream::start();
    let mut server = Server::following(&upstream);
    upstream.publish(killmail(1));
    stored(&server, 1).await;
    assert!(server.stop().success(), "{}", server.log());
    let setup = server
        .setup()
        .clone()
        .config("min_free_bytes = 9_000_000_000_000_000_000\n[ingest]\nspace_check_ms = 50");
    let full = setup.start();
    upstream.publish(killmail(2));
    until("the pause to be reported", async || (source(&full).await["state"] == "no_space").then_some(()))
        .await;
    assert_eq!(full.get("/api/v1/killmail/1").await.status, 200);
    drop(full);
    let server = server.setup().clone().start();
    stored(&server, 2).await;
    assert_eq!(server.get("/api/v1/killmails/count").await.expect(200)["data"]["count"], 2);
}

#[tokio::test]
async fn an_upload_to_a_full_disk_reports_it() {
    let plugin =
        guests::guest(&Text { head: &"(func (drop (i32.const 7)))".repeat(3_000), ..Text::default() });
    let put = async |server: &Server| server.send(Method::PUT, "/api/v1/plugins/mine", plugin.clone()).await;
    let server = Setup::quiet().config(&format!("min_free_bytes = {MIN_FREE}")).start();
    fill(&server);
    let refused = put(&server).await;
    assert!(refused.header("retry-after").is_some());
    let body = refused.expect(503);
    assert_eq!(
        (&body["code"], &body["details"]["limit"]),
        (&json!("LIMIT_REACHED"), &json!(MIN_FREE)),
        "{body}"
    );
    // The disk is full during the upload: writes to these files fail.
    let server = Setup::quiet().start();
    let folder = server.setup().data_dir().join("uploads");
    fs::create_dir_all(&folder).unwrap();
    (0..9).for_each(|n| symlink("/dev/full", folder.join(format!("{n}.wasm"))).unwrap());
    let refused = put(&server).await;
    assert!(refused.header("retry-after").is_some());
    let body = refused.expect(503);
    let message = body["error"].as_str().unwrap();
    assert_eq!(
        (&body["code"], &body["details"]["reason"]),
        (&json!("LIMIT_REACHED"), &json!("disk_full")),
        "{body}"
    );
    assert!(message.contains(&format!("the disk of the folder {} is full", folder.display())), "{body}");
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(put(&server).await.status, 201, "{}", server.log());
}
