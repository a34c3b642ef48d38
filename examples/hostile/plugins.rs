//! The attacks with plugins: each uploads something, or uses it, and describes the server's response.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use killstream::tasks;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::attacks::{Attack, attack, seconds};
use crate::guests::{self, Text};
use crate::target::TOKEN;

/// A component to upload, by its name in the table.
pub type Upload = (&'static str, fn() -> Vec<u8>);

/// Uploads that may cost a compiler or its caller too much, and a good one.
pub const UPLOADS: [Upload; 8] = [
    ("upload: a good plugin, 3 kB", || guests::evaluating(guests::KEEP)),
    ("upload: eight levels of eight instances, 16.7 million", nested_instances),
    ("upload: component types 1,250 deep", || nested_types(1_250)),
    ("upload: 400 dense images of 16 MiB", || images(400)),
    ("upload: a br_table over 1,000 blocks of 1,000 results", || wide_table(1_000)),
    ("upload: 20 functions of 1,000 nested loops", || nested_loops(20, 1_000)),
    ("upload: 20,000 nested loops", || nested_loops(1, 20_000)),
    ("upload: 50,000 types", || types(50_000)),
];

/// What uploads and guests can do.
pub fn plugins() -> Vec<Attack> {
    let uploads = UPLOADS.into_iter().map(|(name, make)| attack(name, move |to| upload(to, make()).boxed()));
    let others = [
        attack("a good upload beside 8 that take long to compile", |to| good_beside_slow(to).boxed()),
        Attack {
            killmails: 500,
            ..attack("40 streams of 60 MB, each with its own configuration", |to| large_guests(to).boxed())
        },
        Attack {
            killmails: 500,
            ..attack("600 requests at once with a configuration of their own", |to| many_trials(to).boxed())
        },
        Attack {
            killmails: 500,
            ..attack("a guest that refuses with 4 MB, 10 requests", |to| long_refusal(to).boxed())
        },
        Attack {
            killmails: 500,
            ..attack("200 streams of a guest that loops, beside a well-behaved one", |to| {
                looping_streams(to).boxed()
            })
        },
    ];
    uploads.chain(others).collect()
}

/// A client with a timeout of some minutes.
pub fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().timeout(Duration::from_secs(300)).build().unwrap_or_default()
}

/// Uploads a component: the status, the response, how long it took.
pub async fn put(to: SocketAddr, name: &str, component: Vec<u8>) -> (u16, Value, Duration) {
    let began = Instant::now();
    let request = client()
        .put(format!("http://{to}/api/v1/plugins/{name}?wait=300"))
        .bearer_auth(TOKEN)
        .body(component);
    match request.send().await {
        Ok(answer) => {
            let status = answer.status().as_u16();
            let body = answer.bytes().await.unwrap_or_default();
            (status, serde_json::from_slice(&body).unwrap_or_default(), began.elapsed())
        }
        Err(error) => (0, json!(error.to_string()), began.elapsed()),
    }
}

async fn get(to: SocketAddr, path: String) -> (u16, usize, Duration) {
    let began = Instant::now();
    match client().get(format!("http://{to}{path}")).send().await {
        Ok(answer) => {
            let status = answer.status().as_u16();
            (status, answer.bytes().await.map_or(0, |body| body.len()), began.elapsed())
        }
        Err(_) => (0, 0, began.elapsed()),
    }
}

/// Uploads a component and describes the response.
async fn upload(to: SocketAddr, component: Vec<u8>) -> String {
    let bytes = component.len();
    let (status, body, time) = put(to, "mine", component).await;
    let reason =
        body["details"]["reason"].as_str().unwrap_or(if status == 201 { "taken" } else { "no word" });
    format!("{bytes} bytes: {status} {reason} after {:.2} s", time.as_secs_f64())
}

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_default()
}

fn nested_instances() -> Vec<u8> {
    let mut text = "(component $c0 (core module $m) (core instance (instantiate $m)))".to_owned();
    for level in 1..=8 {
        let inner = format!("(instance (instantiate $c{}))", level - 1).repeat(8);
        text = format!("(component $c{level} {text} {inner})");
    }
    component(&text)
}

fn nested_types(depth: usize) -> Vec<u8> {
    // `wat` would recurse, so the bytes are written as in the binary format: a component type with one
    // declaration, which is a type.
    let mut nested = vec![0x40];
    for _ in 0..depth {
        let mut outer = vec![0x41, 0x01, 0x01];
        outer.extend_from_slice(&nested);
        nested = outer;
    }
    let mut section = vec![0x01];
    section.extend_from_slice(&nested);
    let mut bytes = b"\0asm\x0d\x00\x01\x00\x07".to_vec();
    leb(&mut bytes, section.len());
    bytes.extend_from_slice(&section);
    bytes
}

fn leb(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn images(count: usize) -> Vec<u8> {
    let image = "(core module (memory 256) (data (i32.const 0) \"x\") (data (i32.const 16777215) \"x\"))";
    component(&format!("(component {})", image.repeat(count)))
}

fn wide_table(width: usize) -> Vec<u8> {
    let results = "(result i32)".repeat(width);
    let block = format!("(block {results}");
    let targets: String = (0..width).map(|n| format!(" {n}")).collect();
    let values = "(i32.const 1)".repeat(width);
    let body =
        format!("{}{values}(br_table {targets} (i32.const 0)){}", block.repeat(width), ")".repeat(width));
    guests::guest(&Text { head: &format!("(func {results} {body})"), ..Text::default() })
}

fn nested_loops(functions: usize, depth: usize) -> Vec<u8> {
    let body = format!("{}nop{}", "(loop ".repeat(depth), ")".repeat(depth));
    // Parsed on a thread whose stack is large enough.
    let text = format!("(func {body})").repeat(functions);
    let work = tasks::deep_thread("nested-loops", 1 << 30, move || {
        guests::guest(&Text { head: &text, ..Text::default() })
    });
    work.map_or_else(|_| Vec::new(), |work| work.join().unwrap_or_default())
}

fn types(count: usize) -> Vec<u8> {
    let types: String = (0..count).map(|n| format!("(type (record (field \"f{n}\" u32)))")).collect();
    component(&format!("(component {types})"))
}

/// Takes some seconds to compile: many functions of medium size.
pub fn slow_to_compile(salt: usize) -> Vec<u8> {
    let body = "(drop (i32.add (i32.const 1) (i32.const 2)))".repeat(60);
    let functions: String =
        (0..2_000).map(|n| format!("(func (result i32) {body} (i32.const {}))", n + salt)).collect();
    guests::guest(&Text { head: &functions, ..Text::default() })
}

async fn good_beside_slow(to: SocketAddr) -> String {
    let longs: Vec<Vec<u8>> = (0..8).map(slow_to_compile).collect();
    let bytes = longs[0].len();
    let many = join_all(
        longs
            .into_iter()
            .enumerate()
            .map(|(n, long)| async move { put(to, &format!("long-{n}"), long).await }),
    );
    let good = async {
        sleep(Duration::from_millis(500)).await;
        put(to, "good", guests::evaluating(guests::KEEP)).await
    };
    let (many, (status, _, time)) = tokio::join!(many, good);
    let longest = many.iter().map(|(_, _, time)| *time).max().unwrap_or_default();
    format!(
        "good: {status} after {:.1} s; the others, {bytes} bytes each: the last after {:.1} s",
        time.as_secs_f64(),
        longest.as_secs_f64()
    )
}

async fn large_guests(to: SocketAddr) -> String {
    let configure = "(local $i i32) (drop (memory.grow (i32.const 950))) (loop $a (i32.store offset=262144 (local.get $i) (i32.const 7))
        (br_if $a (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4096))) (i32.const 62000000)))) (i32.const 0)";
    let component = guests::guest(&Text { configure, ..Text::default() });
    let uploaded = upload(to, component).await;
    let opened = (0..40).map(|n| async move {
        let request = client()
            .get(format!("http://{to}/api/v1/kills/stream?plugin=mine&plugin_config=%7B%22n%22:{n}%7D"));
        request.send().await.ok()
    });
    let streams: Vec<_> = join_all(opened).await.into_iter().flatten().collect();
    let open = streams.iter().filter(|stream| stream.status().is_success()).count();
    sleep(seconds(5)).await;
    format!("{uploaded}; {open} of 40 streams opened")
}

async fn many_trials(to: SocketAddr) -> String {
    // Refuses `{}`, which is two bytes, and accepts anything longer.
    let head = "(data (i32.const 128) \"\\01\\00\\00\\00\\00\\00\\00\\00\\00\\04\\00\\00\\02\\00\\00\\00\") (data (i32.const 1024) \"no\")";
    let configure = "(select (i32.const 128) (i32.const 0) (i32.le_u (local.get $config_len) (i32.const 2)))";
    let uploaded = upload(to, guests::guest(&Text { head, configure, ..Text::default() })).await;
    let all = (0..600)
        .map(|n| get(to, format!("/api/v1/killmails?limit=1&plugin=mine&plugin_config=%7B%22n%22:{n}%7D")));
    let other = async {
        sleep(Duration::from_millis(300)).await;
        get(to, "/api/v1/killmails?limit=1".to_owned()).await
    };
    let (all, (status, _, time)) = tokio::join!(join_all(all), other);
    let longest = all.iter().map(|(_, _, time)| *time).max().unwrap_or_default();
    let good = all.iter().filter(|(status, ..)| *status == 200).count();
    let (plain, all) = (time.as_secs_f64(), longest.as_secs_f64());
    format!(
        "{uploaded}; {good} of 600 answered 200, the last after {all:.1} s; a plain request meanwhile: {status} after {plain:.2} s"
    )
}

async fn long_refusal(to: SocketAddr) -> String {
    let head = "(data (i32.const 128) \"\\01\\00\\00\\00\\00\\00\\02\\00\\00\\09\\3d\\00\")";
    let grown = "(drop (memory.grow (i32.const 100))) (i32.const 128)";
    let uploaded = upload(to, guests::guest(&Text { head, configure: grown, ..Text::default() })).await;
    let answers = join_all(
        (0..10).map(|n| get(to, format!("/api/v1/killmails?plugin=mine&plugin_config=%7B%22n%22:{n}%7D"))),
    )
    .await;
    let most = answers.iter().map(|(_, bytes, _)| *bytes).max().unwrap_or_default();
    format!("{uploaded}; the longest response: {most} bytes")
}

/// Keeps with `{}`; with anything longer it loops forever.
pub fn looping() -> Vec<u8> {
    let head = "(global $loops (mut i32) (i32.const 0))";
    let configure = "(global.set $loops (i32.gt_u (local.get $config_len) (i32.const 2))) (i32.const 0)";
    let evaluate = "(if (global.get $loops) (then (loop $again (br $again)))) (i32.const 64)";
    guests::guest(&Text { head, configure, evaluate })
}

async fn looping_streams(to: SocketAddr) -> String {
    let uploaded = upload(to, looping()).await;
    let (good, ..) = put(to, "good", guests::evaluating(guests::KEEP)).await;
    let opened = (0..200).map(|n| async move {
        let request = client()
            .get(format!("http://{to}/api/v1/kills/stream?preload_days=7&region_ids=10000002&plugin=mine&plugin_config=%7B%22n%22:{n}%7D"));
        request.send().await.ok()
    });
    let streams: Vec<_> = join_all(opened).await.into_iter().flatten().collect();
    let open = streams.iter().filter(|stream| stream.status().is_success()).count();
    let reading = streams.into_iter().map(|stream| async move {
        let mut pieces = stream.bytes_stream();
        while timeout(seconds(10), pieces.next()).await.is_ok_and(|piece| piece.is_some()) {}
    });
    let innocent = async {
        let mut times = Vec::new();
        for n in 0..100 {
            let (status, _, time) = get(
                to,
                format!("/api/v1/killmails?limit=20&plugin=good&plugin_config=%7B%22n%22:{}%7D", n % 2),
            )
            .await;
            if status == 200 {
                times.push(time);
            }
            sleep(Duration::from_millis(50)).await;
        }
        times.sort_unstable();
        times
    };
    let reading = async {
        join_all(reading).await;
        std::future::pending().await
    };
    let times = tokio::select! {
        times = innocent => times,
        times = reading => times,
    };
    let at = |share: usize| {
        times.get(times.len() * share / 100).or(times.last()).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    format!(
        "{uploaded}; good: {good}; {open} of 200 streams; a well-behaved plugin's page: p50 {:.1} ms, p99 {:.1} ms ({} of 100)",
        at(50),
        at(99),
        times.len()
    )
}
