//! Case 81 of docs/cases.md: many sockets of many systems get each killmail of theirs once, in order, and the
//! server grows no larger.
//!
//! How long a killmail takes to them is measured by `examples/load`.
//!
//! Must not know: how long anything takes.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::channel::{Channel, LOBBY};
use crate::support::killmail::{SYSTEMS, killmail};
use crate::support::long;
use crate::support::server::Server;
use crate::support::upstream::Upstream;

/// Long enough for what must not come to come.
const QUIET: Duration = Duration::from_millis(400);

/// So many sockets, half of each version; each wants its own half of the systems, and 500 others where
/// nothing happens.
async fn joined(server: &Server, sockets: usize) -> Vec<(Channel, Vec<u32>)> {
    let mut clients = Vec::new();
    for n in 0..sockets {
        let mut systems: Vec<u32> = (31_000_006..31_000_506).collect();
        systems.extend(
            SYSTEMS.iter().enumerate().filter(|(at, _)| (at + n) % 2 == 0).map(|(_, system)| *system),
        );
        let mut client = if n % 2 == 0 {
            Channel::v2(server.address()).await
        } else {
            Channel::v1(server.address()).await
        };
        let payload = json!({ "systems": systems, "preload": false });
        let join = if n % 2 == 0 {
            json!(["1", "1", LOBBY, "phx_join", payload])
        } else {
            json!({ "topic": LOBBY, "event": "phx_join", "payload": payload, "ref": "1" })
        };
        client.ask(join).await;
        clients.push((client, systems));
    }
    clients
}

/// What the server keeps in memory, KiB.
fn resident_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Publishes so many killmails with a pause after each; gives the server's size after the first tenth and at
/// the end, KiB.
async fn case_81(sockets: usize, killmails: u32, pause: Duration) -> (u64, u64) {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let place = |n: u32| SYSTEMS[n as usize % SYSTEMS.len()];
    let mut readers = JoinSet::new();
    for (n, (mut client, systems)) in joined(&server, sockets).await.into_iter().enumerate() {
        let wanted: Vec<u64> =
            (0..killmails).filter(|n| systems.contains(&place(*n))).map(|n| u64::from(1000 + n)).collect();
        readers.spawn(async move {
            let mut got = client.live(wanted.len()).await;
            got.extend(client.killmails_until_quiet(QUIET).await);
            assert_eq!(got, wanted, "socket {n}");
        });
    }
    let mut early = 0;
    for n in 0..killmails {
        if n == killmails / 10 {
            early = resident_kib(&server);
        }
        upstream.publish(killmail(1000 + n).system(place(n)));
        tokio::time::sleep(pause).await;
    }
    while let Some(ended) = readers.join_next().await {
        ended.unwrap();
    }
    (early, resident_kib(&server))
}

#[tokio::test]
async fn case_81_many_sockets_lose_and_double_nothing() {
    case_81(40, 60, Duration::ZERO).await;
}

#[tokio::test]
async fn case_81_at_length_a_thousand_sockets_for_ten_minutes() {
    if !long() {
        return;
    }
    // The newest killmails are kept in memory up to a limit, whoever listens; the sockets may add what they
    // remember of them.
    let (early, late) = case_81(1, 1000, Duration::from_millis(15)).await;
    let filled = late - early;
    let (early, late) = case_81(1000, 1000, Duration::from_millis(600)).await;
    println!(
        "resident after a minute {early} KiB, after ten {late} KiB; {filled} KiB were filled for one socket"
    );
    assert!(late < early + filled + 8 * 1000, "from {early} to {late} KiB, where one socket makes {filled}");
}
