//! A fake of all upstreams: R2Z2's numbered files, and any other path (ESI, zKillboard) a test gives a response for.
//!
//! It runs on its own thread, so that a test that blocks does not stop it, and records every request.
//!
//! Must not know: when the server should request what.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{self, Request};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::support::killmail::{Build, began};
use crate::support::until;

/// The first number of the fake feed.
pub const FIRST: u64 = 96_000_000;

/// A recorded request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub at: Instant,
    pub method: Method,
    /// Path and query.
    pub url: String,
    pub headers: HeaderMap,
    /// The status of its response.
    pub status: u16,
}

impl Seen {
    /// The number, if a numbered file was requested.
    pub fn number(&self) -> Option<u64> {
        self.url.strip_prefix("/ephemeral/")?.strip_suffix(".json")?.parse().ok()
    }
}

/// A prepared response.
#[derive(Debug, Clone)]
pub struct Canned {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The delay before it is sent.
    pub after: Duration,
}

impl Canned {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), after: Duration::ZERO }
    }

    pub fn json(value: &Value) -> Self {
        Self { body: value.to_string().into_bytes(), ..Self::status(200) }
            .header("content-type", "application/json")
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

#[derive(Debug, Default)]
struct State {
    /// The missing number that was requested last. Later files stay hidden until it is served: otherwise files published
    /// within a millisecond could seem to have appeared in another order.
    missed: Option<u64>,
    next: u64,
    /// The number in `sequence.json`.
    pointer: u64,
    documents: BTreeMap<u64, Vec<u8>>,
    /// Responses to the next requests for a path, in order.
    once: HashMap<String, VecDeque<Canned>>,
    /// Responses to the next requests for any path.
    next_any: VecDeque<Canned>,
    /// Responses to all requests for a path.
    always: HashMap<String, Canned>,
    /// The response to every request, if set.
    refuse: Option<Canned>,
    seen: Vec<Seen>,
}

/// The fake; stops on drop.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Upstream {
    /// An empty feed whose next number is [`FIRST`], which `sequence.json` says until [`Self::point_at`].
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State { next: FIRST, pointer: FIRST, ..State::default() }));
        let (stop, stopped) = oneshot::channel();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let server = axum::serve(TcpListener::from_std(listener).unwrap(), router);
                tokio::select! { _ = server => {}, _ = stopped => {} }
            });
        });
        Self { address, state, stop: Some(stop) }
    }

    /// Its origin, to use for every upstream.
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    fn state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }

    /// Publishes a killmail as the next file, uploaded when the tests began, so that its age is that given to `ago`.
    /// Returns its number.
    pub fn publish(&self, killmail: Build) -> u64 {
        self.publish_document(killmail.r2z2())
    }

    /// Publishes a document as the next file, adding number and upload time if it has none.
    pub fn publish_document(&self, document: Value) -> u64 {
        let number = self.skip_number();
        self.publish_at(number, document);
        number
    }

    /// Publishes (or rewrites) the file of a number.
    pub fn publish_at(&self, number: u64, mut document: Value) {
        if let Some(members) = document.as_object_mut() {
            members.entry("sequence_id").or_insert(json!(number));
            members.entry("uploaded_at").or_insert(json!(began()));
        }
        self.publish_raw(number, document.to_string());
    }

    /// Publishes any text as the file of a number.
    pub fn publish_raw(&self, number: u64, body: impl Into<Vec<u8>>) {
        let body = body.into();
        self.state(|state| {
            state.documents.insert(number, body);
            state.next = state.next.max(number + 1);
        });
    }

    /// Rewrites an older file and publishes a killmail whose file announces it.
    pub fn rewrite(&self, number: u64, document: Value, announced_by: Build) -> u64 {
        self.publish_at(number, document);
        let mut announcement = announced_by.r2z2();
        announcement["sequence_updated"] = json!(number);
        self.publish_document(announcement)
    }

    /// Skips a number. Its file can be published later.
    pub fn skip_number(&self) -> u64 {
        self.state(|state| {
            let number = state.next;
            state.next += 1;
            number
        })
    }

    /// Removes the file of a number.
    pub fn remove(&self, number: u64) {
        self.state(|state| state.documents.remove(&number));
    }

    /// Publishes the archive of a day (`20251127`) with these killmails, replacing an earlier one.
    pub fn archive(&self, day: &str, killmails: &[Build]) {
        let bodies: Vec<Value> = killmails.iter().map(|killmail| killmail.clone().esi()).collect();
        let named = |of: &dyn Fn(&Value) -> Value| -> Value {
            bodies
                .iter()
                .map(|body| (body["killmail_id"].to_string(), of(body)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        self.answer(
            &format!("/history/{day}.json"),
            Canned::json(&named(&|body| json!(format!("{:040x}", body["killmail_id"].as_u64().unwrap())))),
        );
        self.answer(&format!("/history/raw/{day}.json"), Canned::json(&named(&Value::clone)));
    }

    /// Sets the number in `sequence.json`.
    pub fn point_at(&self, number: u64) {
        self.state(|state| state.pointer = number);
    }

    /// The number of the next file.
    pub fn next_number(&self) -> u64 {
        self.state(|state| state.next)
    }

    /// Adds a response to the next request for this path (without query), after those added before.
    pub fn answer_once(&self, path: &str, canned: Canned) {
        self.state(|state| state.once.entry(path.to_owned()).or_default().push_back(canned));
    }

    /// Adds responses to the next requests for any path.
    pub fn answer_next(&self, canned: Vec<Canned>) {
        self.state(|state| state.next_any.extend(canned));
    }

    /// Sets the response to the next requests for a number.
    pub fn fail(&self, number: u64, canned: Canned, times: usize) {
        for _ in 0..times {
            self.answer_once(&format!("/ephemeral/{number}.json"), canned.clone());
        }
    }

    /// Sets the response to all requests for this path.
    pub fn answer(&self, path: &str, canned: Canned) {
        self.state(|state| state.always.insert(path.to_owned(), canned));
    }

    /// Sets the response to every request; `None` ends it.
    pub fn refuse(&self, canned: Option<Canned>) {
        self.state(|state| state.refuse = canned);
    }

    /// All requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<Seen> {
        self.state(|state| state.seen.clone())
    }

    /// Waits for a request for this path.
    pub async fn asked_for(&self, path: &str) -> Seen {
        until(&format!("a request of {path}"), async || self.requests().into_iter().find(|s| s.url == path))
            .await
    }

    /// Waits until the server has fetched the file of this number, and so all before it.
    pub async fn gave(&self, number: u64) -> Seen {
        let got = |s: &Seen| s.number() == Some(number) && s.status == 200;
        until(&format!("the server to fetch {number}"), async || self.requests().into_iter().find(got)).await
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

async fn answer(
    extract::State(state): extract::State<Arc<Mutex<State>>>,
    request: Request,
) -> Response<Body> {
    let at = Instant::now();
    let path = request.uri().path().to_owned();
    let canned = {
        let mut state = state.lock().unwrap();
        let canned = state.answer_to(&path);
        let url = request.uri().path_and_query().map_or_else(|| path.clone(), ToString::to_string);
        let (method, headers) = (request.method().clone(), request.headers().clone());
        state.seen.push(Seen { at, method, url, headers, status: canned.status });
        canned
    };
    if !canned.after.is_zero() {
        tokio::time::sleep(canned.after).await;
    }
    let mut response = Response::builder().status(StatusCode::from_u16(canned.status).unwrap());
    for (name, value) in &canned.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(canned.body)).unwrap()
}

impl State {
    fn answer_to(&mut self, path: &str) -> Canned {
        if let Some(canned) = &self.refuse {
            return canned.clone();
        }
        if let Some(canned) =
            self.once.get_mut(path).and_then(VecDeque::pop_front).or_else(|| self.next_any.pop_front())
        {
            return canned;
        }
        if let Some(canned) = self.always.get(path) {
            return canned.clone();
        }
        if path == "/ephemeral/sequence.json" {
            return Canned::json(&json!({ "sequence": self.pointer }));
        }
        let number: Option<u64> = path
            .strip_prefix("/ephemeral/")
            .and_then(|p| p.strip_suffix(".json"))
            .and_then(|n| n.parse().ok());
        let missed = self.missed.filter(|missed| self.documents.contains_key(missed));
        let is_ahead = number.zip(missed).is_some_and(|(number, missed)| number > missed);
        match number.and_then(|n| self.documents.get(&n)).filter(|_| !is_ahead) {
            Some(body) => {
                self.missed = None;
                Canned { body: body.clone(), ..Canned::status(200) }
                    .header("content-type", "application/json")
            }
            None => {
                self.missed = number.filter(|_| !is_ahead);
                Canned::status(404)
            }
        }
    }
}
