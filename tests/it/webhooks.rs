//! Webhooks of the real server, delivered to receivers on loopback addresses.
//!
//! Must not know: how deliveries are scheduled inside; only what receivers and the API show.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use killstream::webhook::signature::{Secret, signature_header};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::http::{self, Reply};
use crate::support::killmail::{SYSTEMS, killmail};
use crate::support::server::{Server, Setup};
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, long};

/// A request that a receiver got.
#[derive(Debug, Clone)]
struct Received {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn killmail_id(&self) -> u64 {
        self.json()["kills"][0]["killmail_id"].as_u64().unwrap()
    }
}

/// A web server that notes requests and answers with a status that can be changed.
struct Receiver {
    at: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Mutex<u16>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (received, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(200)));
        let (notes, status) = (Arc::clone(&received), Arc::clone(&answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (notes, status) = (Arc::clone(&notes), Arc::clone(&status));
                std::thread::spawn(move || serve(stream, &notes, &status));
            }
        });
        Self { at, received, answer }
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.at)
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().clone()
    }

    fn ids(&self) -> Vec<u64> {
        self.received().iter().map(Received::killmail_id).collect()
    }

    async fn wait_for(&self, count: usize) -> Vec<Received> {
        let end = Instant::now() + PATIENCE;
        while self.received.lock().len() < count {
            assert!(Instant::now() < end, "only {:?} arrived", self.ids());
            sleep(Duration::from_millis(20)).await;
        }
        self.received()
    }
}

fn serve(stream: TcpStream, notes: &Mutex<Vec<Received>>, status: &Mutex<u16>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut headers, mut line) = (Vec::new(), String::new());
        (reader.read_line(&mut line).ok()? > 0).then_some(())?;
        loop {
            line.clear();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut request = Received { headers, body: Vec::new() };
        request.body.resize(request.header("content-length").parse().ok()?, 0);
        reader.read_exact(&mut request.body).ok()?;
        notes.lock().push(request);
        let answer = format!("HTTP/1.1 {} x\r\ncontent-length: 0\r\n\r\n", *status.lock());
        reader.get_mut().write_all(answer.as_bytes()).ok()?;
    }
}

fn setup(upstream: &Upstream) -> Setup {
    let lines = "[webhook]\nallow_networks = [\"127.0.0.0/8\"]\nretry_secs = [1]\nretry_jitter_percent = 0\n\
                 per_address_max = 5\n";
    Setup::following(upstream).config(lines)
}

async fn create(server: &Server, url: &str, more: Value) -> Reply {
    let mut body = json!({ "subscriber_id": "me", "callback_url": url, "system_ids": [SYSTEMS[0]] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.post("/api/v1/subscriptions", &body).await
}

/// Creates one, and returns its path and its secret.
async fn created(server: &Server, url: &str, more: Value) -> (String, String) {
    let answer = create(server, url, more).await.expect(201);
    let id = answer["subscription_id"].as_str().unwrap();
    (format!("/api/v1/subscriptions/{id}"), answer["data"]["secret"].as_str().unwrap().to_owned())
}

async fn send(server: &Server, method: Method, path: &str, body: Value) -> Value {
    server.send(method, path, body.to_string()).await.expect(200)["data"].clone()
}

async fn wait_state(server: &Server, path: &str, is_there: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let one = server.send(Method::GET, path, "").await.expect(200)["data"].clone();
        if is_there(&one) {
            return one;
        }
        assert!(Instant::now() < end, "{one}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_answers_as_the_contract_says() {
    let upstream = Upstream::start();
    let server = setup(&upstream).start();
    let receiver = Receiver::start();
    let answer = create(&server, &receiver.url(), json!({})).await.expect(201);
    let data = &answer["data"];
    assert_eq!(data["message"], "Subscription created successfully");
    assert_eq!(
        (&data["subscription_id"], data["subscription_id"].as_str().unwrap().len()),
        (&answer["subscription_id"], 22)
    );
    assert!(data["secret"].as_str().unwrap().starts_with("whsec_"));
    for (body, message) in [
        (json!({}), "subscriber_id is required"),
        (
            json!({ "subscriber_id": 1, "callback_url": "mailto:x" }),
            "callback_url must be a valid HTTP/HTTPS URL",
        ),
        (
            json!({ "subscriber_id": 1, "callback_url": "http://10.0.0.1/", "system_ids": [1] }),
            "callback_url resolves to a private address; webhook.allow_networks can allow it",
        ),
        (
            json!({ "subscriber_id": 1, "callback_url": receiver.url(), "system_ids": [1], "counts": true }),
            "Unknown parameter: counts",
        ),
    ] {
        let answer = server.post("/api/v1/subscriptions", &body).await.expect(400);
        assert_eq!(answer, json!({ "error": { "message": message, "details": message } }));
    }
    let path = format!("/api/v1/subscriptions/{}", data["subscription_id"].as_str().unwrap());
    let one = server.get(&path).await.expect(200)["data"].clone();
    assert_eq!(
        (&one["state"], &one["callback_url"], &one["failures"]),
        (&json!("active"), &Value::Null, &json!(0))
    );
    assert_eq!(one["filter"], json!({ "system_ids": [SYSTEMS[0]], "match": "any" }));
    let all = server.get("/api/v1/subscriptions").await.expect(200);
    assert_eq!(
        (&all["data"]["count"], &all["data"]["subscriptions"][0]["callback_url"]),
        (&json!(1), &Value::Null)
    );
    let all = send(&server, Method::GET, "/api/v1/subscriptions", Value::Null).await;
    assert_eq!(
        (&all["subscriptions"][0]["callback_url"], &all["subscriptions"][0]["type"]),
        (&json!(receiver.url()), &json!("webhook"))
    );
    let stats = server.get("/api/v1/subscriptions/stats").await.expect(200);
    assert_eq!(
        (&stats["data"]["webhook_subscriptions"], &stats["data"]["total_systems"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(server.post(&format!("{path}/pause"), &json!({})).await.status, 401);
    let secret = format!("Bearer {}", data["secret"].as_str().unwrap());
    let owned = http::request(Method::GET, &server.url(&path), &[("authorization", &secret)], vec![]).await;
    assert_eq!(owned.expect(200)["data"]["callback_url"], receiver.url());
    for _ in 0..4 {
        create(&server, &receiver.url(), json!({})).await.expect(201);
    }
    create(&server, &receiver.url(), json!({})).await.expect(503);
    for name in ["me", "nobody"] {
        let answer =
            http::request(Method::DELETE, &server.url(&format!("/api/v1/subscriptions/{name}")), &[], vec![])
                .await;
        let expected = json!({ "data": { "message": "Successfully unsubscribed", "subscriber_id": name } });
        assert_eq!(answer.expect(200), expected);
    }
    assert_eq!(server.get("/api/v1/subscriptions").await.expect(200)["data"]["count"], 0);
    server.get(&path).await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn killmails_are_delivered_in_order_signed_and_tested() {
    let upstream = Upstream::start();
    let server = setup(&upstream).start();
    let receiver = Receiver::start();
    let (path, secret) = created(&server, &receiver.url(), json!({})).await;
    for id in 1..=5 {
        upstream.publish(killmail(id));
        upstream.publish(killmail(100 + id).system(SYSTEMS[1]));
    }
    let received = receiver.wait_for(5).await;
    assert_eq!(receiver.ids(), [1, 2, 3, 4, 5]);
    let mut ids: Vec<&str> = received.iter().map(|request| request.header("webhook-id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5, "each delivery has its own id");
    for request in &received {
        let (id, at) = (request.header("webhook-id"), request.header("webhook-timestamp"));
        let expected =
            signature_header(&[Secret::parse(&secret).unwrap()], id, at.parse().unwrap(), &request.body);
        assert_eq!(request.header("webhook-signature"), expected);
        assert_eq!(request.header("user-agent"), "WandererKills/1.0");
        assert_eq!(request.header("content-type"), "application/json");
        let body = request.json();
        assert_eq!((&body["type"], &body["system_id"]), (&json!("killmail_update"), &json!(SYSTEMS[0])));
    }
    let one = wait_state(&server, &path, |one| one["behind"] == 0).await;
    assert_eq!((&one["delivered"], &one["last_status"]), (&json!(5), &json!(200)));
    let rotated = send(&server, Method::POST, &format!("{path}/rotate-secret"), Value::Null).await;
    assert_ne!(rotated["secret"], secret);
    send(&server, Method::POST, &format!("{path}/test"), Value::Null).await;
    let tested = receiver.wait_for(6).await.remove(5);
    assert_eq!(tested.json()["test"], true);
    assert_eq!(tested.header("webhook-signature").split(' ').count(), 2, "both secrets sign");
    let attempts = send(&server, Method::GET, &format!("{path}/attempts"), Value::Null).await;
    assert_eq!((&attempts["count"], &attempts["attempts"][0]["status"]), (&json!(6), &json!(200)));
    assert_eq!(attempts["attempts"][1]["killmail_ids"], json!([5]));
    // Again, with other ids; and only what the changed filter selects.
    send(&server, Method::POST, &format!("{path}/pause"), Value::Null).await;
    send(&server, Method::PATCH, &path, json!({ "system_ids": [SYSTEMS[1]] })).await;
    let from = format!("{}-0", one["place"].as_str().unwrap().split_once('-').unwrap().0);
    send(&server, Method::POST, &format!("{path}/redeliver"), json!({ "from": from })).await;
    send(&server, Method::POST, &format!("{path}/resume"), Value::Null).await;
    receiver.wait_for(11).await;
    assert_eq!(receiver.ids()[6..], [101, 102, 103, 104, 105]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_delivery_is_repeated_and_holds_up_only_its_own() {
    let upstream = Upstream::start();
    let mut server = setup(&upstream).start();
    let (dead, live) = (Receiver::start(), Receiver::start());
    *dead.answer.lock() = 500;
    let (path, _) = created(&server, &dead.url(), json!({})).await;
    created(&server, &live.url(), json!({})).await;
    for id in 1..=3 {
        upstream.publish(killmail(id));
    }
    live.wait_for(3).await;
    let failing = wait_state(&server, &path, |one| one["state"] == "failing").await;
    assert_eq!((&failing["last_status"], &failing["delivered"]), (&json!(500), &json!(0)));
    assert!(failing["next_attempt_at"].is_string() && failing["behind"] == 3, "{failing}");
    let received = dead.received();
    assert!(received.iter().all(|one| one.killmail_id() == 1), "{:?}", dead.ids());
    assert!(received.iter().all(|one| one.header("webhook-id") == received[0].header("webhook-id")));
    server.restart();
    assert!(wait_state(&server, &path, |_| true).await["failures"].as_u64().unwrap() >= 5);
    send(&server, Method::POST, &format!("{path}/pause"), Value::Null).await;
    *dead.answer.lock() = 204;
    let before = dead.received().len();
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(dead.received().len(), before, "paused");
    send(&server, Method::POST, &format!("{path}/resume"), Value::Null).await;
    dead.wait_for(before + 3).await;
    assert_eq!(dead.ids()[before..], [1, 2, 3]);
    assert_eq!(dead.received()[before].header("webhook-id"), received[0].header("webhook-id"));
    *dead.answer.lock() = 410;
    upstream.publish(killmail(4));
    let gone = wait_state(&server, &path, |one| one["state"] == "disabled").await;
    assert_eq!(gone["reason"], "the endpoint answered 410 (gone)");
    *dead.answer.lock() = 200;
    let before = dead.received().len();
    send(&server, Method::POST, &format!("{path}/resume"), Value::Null).await;
    dead.wait_for(before + 1).await;
    assert_eq!(dead.ids()[before..], [4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_server_loses_nothing_and_repeats_with_the_same_id() {
    let upstream = Upstream::start();
    let mut server = setup(&upstream).start();
    let receiver = Receiver::start();
    created(&server, &receiver.url(), json!({})).await;
    let rounds = if long() { 200 } else { 5 };
    for round in 0..rounds {
        for id in 1..=4 {
            upstream.publish(killmail(round * 4 + id));
        }
        let seen = usize::try_from(round).unwrap() * 4;
        receiver.wait_for(seen + 1 + usize::try_from(round % 3).unwrap()).await;
        server.restart();
    }
    let end = Instant::now() + PATIENCE;
    while receiver.ids().last() != Some(&u64::from(rounds * 4)) {
        assert!(Instant::now() < end, "{:?}", receiver.ids());
        sleep(Duration::from_millis(20)).await;
    }
    let mut pairs: Vec<(u64, String)> = receiver
        .received()
        .iter()
        .map(|one| (one.killmail_id(), one.header("webhook-id").to_owned()))
        .collect();
    pairs.dedup();
    let ids: Vec<u64> = pairs.iter().map(|(id, _)| *id).collect();
    assert_eq!(
        ids,
        (1..=u64::from(rounds * 4)).collect::<Vec<_>>(),
        "in order; repeats only with the same id"
    );
}
