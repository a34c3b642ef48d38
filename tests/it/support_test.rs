//! Tests of what the tests use.
//!
//! Must not know: the server.

use std::io::Write;
use std::net::TcpListener;

use proptest::prelude::*;
use reqwest::Method;

use crate::support::killmail::{esi, giant, killmail, random};
use crate::support::sse::Sse;
use crate::support::upstream::{Canned, FIRST, Upstream};
use crate::support::{data, dice::Dice, http, strategy};

#[tokio::test]
async fn the_fake_feed_publishes_records_and_fails_on_demand() {
    let upstream = Upstream::start();
    let base = upstream.base();
    let get = async |path: &str| {
        http::request(Method::GET, &format!("{base}{path}"), &[("user-agent", "me")], Vec::new()).await
    };
    assert_eq!(get("/ephemeral/sequence.json").await.json()["sequence"], FIRST);
    assert_eq!(get(&format!("/ephemeral/{FIRST}.json")).await.status, 404);
    let number = upstream.publish(killmail(7).system(30_000_144).victim(5));
    upstream.fail(number, Canned::status(429).header("retry-after", "2"), 1);
    let refused = get(&format!("/ephemeral/{number}.json")).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, Some("2")));
    let document = get(&format!("/ephemeral/{number}.json")).await.expect(200);
    assert_eq!((document["killmail_id"].as_u64(), document["sequence_id"].as_u64()), (Some(7), Some(FIRST)));
    assert_eq!(document["esi"]["victim"]["character_id"], 5);
    let statuses: Vec<u16> = upstream.requests().iter().map(|s| s.status).collect();
    assert_eq!(statuses, [200, 404, 429, 200]);
    assert_eq!(upstream.wait_fetched(number).await.headers["user-agent"], "me");
}

#[tokio::test]
async fn the_sse_client_reads_blocks_across_chunks_and_resumes_with_its_id() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for _ in 0..2 {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                std::io::Read::read_exact(&mut socket, &mut byte).unwrap();
                request.push(byte[0]);
            }
            requests.push(String::from_utf8(request).unwrap());
            write!(socket, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
            for chunk in ["retry: 2000\n\n", ": pi", "ng\nid: e-1\n\nda", "ta: {\"killmail_id\":9}\n", "\n"] {
                write!(socket, "{:x}\r\n{chunk}\r\n", chunk.len()).unwrap();
            }
            write!(socket, "0\r\n\r\n").unwrap();
        }
        requests
    });
    let mut sse = Sse::get(address, "/s?x=1", &[]).await;
    assert_eq!(sse.status, 200);
    assert_eq!(sse.next_block().await.unwrap().raw, "retry: 2000\n\n");
    let ping = sse.next_block().await.unwrap();
    assert_eq!((ping.comments.as_slice(), ping.id.as_deref()), (["ping".to_owned()].as_slice(), Some("e-1")));
    assert_eq!(sse.killmails(1).await, [9]);
    assert_eq!(sse.next_block().await, None);
    assert_eq!(sse.bytes(), b"retry: 2000\n\n: ping\nid: e-1\n\ndata: {\"killmail_id\":9}\n\n");
    // Kept open until the server thread has written its response.
    let again = sse.reconnect().await;
    let requests = server.join().unwrap();
    drop(again);
    assert!(!requests[0].contains("last-event-id"), "{}", requests[0]);
    assert!(requests[1].contains("last-event-id: e-1\r\n"), "{}", requests[1]);
}

#[test]
fn the_giant_is_as_large_as_the_largest_real_killmail() {
    let json = esi(&giant(&mut Dice::new(1), 1, 0)).to_string();
    assert!((600_000..800_000).contains(&json.len()), "{} bytes", json.len());
}

#[test]
fn random_killmails_are_repeatable_and_have_one_final_blow() {
    for id in 1..500 {
        let made = random(&mut Dice::new(u64::from(id)), id, 1_700_000_000);
        assert_eq!(made, random(&mut Dice::new(u64::from(id)), id, 1_700_000_000));
        assert_eq!(made.attackers.iter().filter(|a| a.final_blow).count(), 1);
    }
}

#[test]
fn the_sample_is_there() {
    assert_eq!(data::bundled().lines.len(), data::SAMPLE);
}

proptest! {
    #[test]
    fn killmail_strategy_keeps_its_bounds(killmail in strategy::killmail(100..200, 1_700_000_000), filter in strategy::filter(0..10)) {
        prop_assert!((100..200).contains(&killmail.killmail_id) && !killmail.attackers.is_empty());
        prop_assert!(filter.dimensions.len() <= 3);
    }
}
