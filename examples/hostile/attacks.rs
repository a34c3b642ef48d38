//! The attacks on connections: what each sends, and how long it waits for the outcome.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::crowd::Crowd;

/// One attack.
pub struct Attack {
    /// Its name in the table.
    pub name: &'static str,
    /// The server's limit of open files; `None` leaves it as it is.
    pub files: Option<u32>,
    /// Killmails in the server's store.
    pub killmails: u32,
    /// Attacks the server and describes the outcome.
    pub run: Box<dyn Fn(SocketAddr) -> BoxFuture<'static, String>>,
}

/// An attack on a server without killmails and without a limit of open files.
pub fn attack(
    name: &'static str,
    run: impl Fn(SocketAddr) -> BoxFuture<'static, String> + 'static,
) -> Attack {
    Attack { name, files: None, killmails: 0, run: Box::new(run) }
}

/// Shorthand for [`Duration::from_secs`].
pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What sockets, large requests and large filters can do.
pub fn connections() -> Vec<Attack> {
    vec![
        attack("1,500 unfinished headers", |to| half_heads(to).boxed()),
        attack("500 unfinished bodies", |to| half_bodies(to).boxed()),
        Attack {
            files: Some(1256),
            ..attack("1,100 silent sockets where 1,000 fit, then 50 requests", |to| silent(to).boxed())
        },
        attack("1,000 sockets with 400 kB of header", |to| long_heads(to, 400_000).boxed()),
        attack("1,000 sockets with 60 kB of an unfinished header", |to| long_heads(to, 60_000).boxed()),
        attack("100 unfinished bodies of 7.8 MB", |to| large_bodies(to, 7_800_000).boxed()),
        attack("100 unfinished bodies of 5 MB", |to| large_bodies(to, 5_000_000).boxed()),
        attack("4 searches with 8 MB of small objects", |to| bombs(to, 8_000_000).boxed()),
        attack("4 searches with 5 MB of small objects", |to| bombs(to, 5_000_000).boxed()),
        attack("40 streams by POST with 460,000 ids", |to| filters(to).boxed()),
        Attack {
            killmails: 2_000,
            ..attack("300 sockets that ask for 1,000 killmails and never read", |to| unread(to).boxed())
        },
        Attack {
            killmails: 2_000,
            ..attack("300 sockets that read 1,000 killmails at 10 kB/s", |to| slow(to).boxed())
        },
    ]
}

async fn half_heads(to: SocketAddr) -> String {
    Crowd::open(to, 1_500, b"GET /ping HTTP/1.1\r\nhost: here\r\nx-half: ")
        .await
        .wait_closed(seconds(25))
        .await
}

async fn half_bodies(to: SocketAddr) -> String {
    let request = post("/api/v1/killmails/search", 100_000, b"{\"limit\":1,");
    Crowd::open(to, 500, &request).await.wait_closed(seconds(25)).await
}

async fn silent(to: SocketAddr) -> String {
    let silent = Crowd::open(to, 1_100, b"").await;
    let guests = Crowd::open(to, 50, b"GET /ping HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").await;
    let outcome = guests.wait_responses(seconds(5)).await;
    format!("{outcome}; silent: {}", silent.wait_closed(seconds(20)).await)
}

async fn long_heads(to: SocketAddr, bytes: usize) -> String {
    let line = format!("x-long: {}\r\n", "x".repeat(990));
    let request = format!("GET /ping HTTP/1.1\r\nhost: here\r\n{}", line.repeat(bytes / line.len()));
    Crowd::open(to, 1_000, request.as_bytes()).await.wait_closed(seconds(25)).await
}

async fn large_bodies(to: SocketAddr, bytes: usize) -> String {
    let request = post("/api/v1/killmails/search", bytes, &vec![b' '; bytes - 100_000]);
    Crowd::open(to, 100, &request).await.wait_closed(seconds(25)).await
}

async fn bombs(to: SocketAddr, bytes: usize) -> String {
    let body = format!("{{\"zz\":[{}{{}}]}}", "{\"a\":1},".repeat(bytes / 8 - 8));
    Crowd::open(to, 4, &post("/api/v1/killmails/search", body.len(), body.as_bytes()))
        .await
        .wait_responses(seconds(30))
        .await
}

async fn filters(to: SocketAddr) -> String {
    let list = |from: u32, n: u32| (from..from + n).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    let names = [
        "character_ids",
        "corporation_ids",
        "alliance_ids",
        "ship_type_ids",
        "ship_group_ids",
        "weapon_type_ids",
    ];
    let further = ["faction_ids", "region_ids", "constellation_ids"];
    let mut parts = vec![format!("\"system_ids\":[{}]", list(30_000_001, 5_000))];
    parts.extend(
        names
            .iter()
            .chain(&further)
            .enumerate()
            .map(|(at, name)| format!("\"{name}\":[{}]", list(90_000_001 + at as u32 * 50_000, 50_000))),
    );
    let body = format!("{{{}}}", parts.join(","));
    let crowd = Crowd::open(to, 40, &post("/api/v1/kills/stream", body.len(), body.as_bytes())).await;
    crowd.wait_responses(seconds(30)).await
}

async fn unread(to: SocketAddr) -> String {
    Crowd::open(to, 300, b"GET /api/v1/killmails?limit=1000 HTTP/1.1\r\nhost: here\r\n\r\n")
        .await
        .read_nothing(seconds(40))
        .await
}

async fn slow(to: SocketAddr) -> String {
    let crowd =
        Crowd::open(to, 300, b"GET /api/v1/killmails?limit=1000 HTTP/1.1\r\nhost: here\r\n\r\n").await;
    crowd.read_slowly(1_000, Duration::from_millis(100), seconds(30)).await
}

/// A POST request that announces `length` bytes but may send fewer.
fn post(path: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    request.extend_from_slice(body);
    request
}
