//! A disk that fills up under a running server: nothing more is written, reads go on, and once there is room
//! it goes on by itself.
//!
//! What the disk has left is narrowed by the limit of the process on the size of files, which can be moved
//! while it runs, and which nobody else on the machine can move.
//!
//! Must not know: how the server finds out what is left.

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

/// Lets the server's files have this length at most; `None`: any.
fn limit(server: &Server, bytes: Option<u64>) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let pid = libc::pid_t::try_from(server.pid()).unwrap();
    #[expect(unsafe_code, reason = "the standard library does not set limits")]
    // SAFETY: both pointers are to a place that lives through the calls; a null pointer means that nothing is
    // set or asked.
    unsafe {
        assert_eq!(libc::prlimit(pid, libc::RLIMIT_FSIZE, std::ptr::null(), &raw mut limit), 0);
        limit.rlim_cur = bytes.unwrap_or(limit.rlim_max);
        assert_eq!(libc::prlimit(pid, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()), 0);
    }
}

/// Leaves less room than must stay free, yet enough for all this test could write.
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

/// By id, in history, on the open stream and on new ones; a refused write names the limit.
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
async fn a_full_disk_pauses_ingest_and_nothing_else_and_it_goes_on_by_itself() {
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
        let in_hand = upstream.publish(killmail(last + 1));
        upstream.publish_document(json!({ "killmail_id": 7, "esi": "none" }));
        upstream.publish(killmail(last + 2));
        until("the pause to be told", async || (source(&server).await["state"] == "no_space").then_some(()))
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
        // It may have been looked at before it was there.
        let asked = upstream
            .requests()
            .iter()
            .filter(|seen| seen.number() == Some(in_hand + 1) && seen.status == 200)
            .count();
        assert_eq!(asked, 0, "the killmail in hand comes first");
        let body = server.get("/health/ready").await.expect(503);
        assert!(body["reason"].as_str().is_some_and(|reason| reason.contains("must stay free")), "{body}");
        assert!(
            health["details"]["storage"]["no_space"]
                .as_str()
                .is_some_and(|why| why.contains("must stay free")),
            "{health}"
        );
        until("the log to say it", async || {
            (server.log().matches("ingest pauses").count() == round).then_some(())
        })
        .await;

        limit(&server, None);
        stored(&server, last + 2).await;
        assert_eq!(stream.killmails(2).await, [u64::from(last) + 1, u64::from(last) + 2]);
        last += 2;
        assert_eq!(source(&server).await["state"], "following");
        assert_eq!(server.get("/health").await.expect(200)["status"], "ok");
        until("the log to say that it goes on", async || {
            (server.log().matches("ingest goes on").count() == round).then_some(())
        })
        .await;
        server.get("/health/ready").await.expect(200);
    }
    // Nothing was lost, nothing came twice, nothing was asked for twice.
    assert_eq!(server.get("/api/v1/killmails/count").await.expect(200)["data"]["count"], last);
    assert_eq!(stream.killmails_until_quiet(Duration::from_millis(300)).await, [0; 0]);
    let given: Vec<u64> = upstream
        .requests()
        .iter()
        .filter(|seen| seen.status == 200)
        .filter_map(|seen| seen.number())
        .collect();
    assert!(given.is_sorted_by(|a, b| a < b), "{given:?}");
}

#[tokio::test]
async fn a_server_starts_without_room_and_answers() {
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
    until("the pause to be told", async || (source(&full).await["state"] == "no_space").then_some(())).await;
    assert_eq!(full.get("/api/v1/killmail/1").await.status, 200);
    drop(full);
    let server = server.setup().clone().start();
    stored(&server, 2).await;
    assert_eq!(server.get("/api/v1/killmails/count").await.expect(200)["data"]["count"], 2);
}

#[tokio::test]
async fn an_upload_on_a_full_disk_is_told_so() {
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
    // It is full amid it: what is written to these files finds no room.
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
