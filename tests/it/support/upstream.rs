//! A fake of everything the server asks outside: R2Z2's numbered files, and any other path (ESI, zKillboard)
//! it is told to answer.
//!
//! It runs on a thread of its own, so that a test that blocks does not stop it, and records every request.
//!
//! Must not know: when the server should ask for what.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::support::killmail::{Build, began};
use crate::support::until;

/// The first number the fake feed gives.
pub const FIRST: u64 = 96_000_000;

/// One request the fake saw.
#[derive(Debug, Clone)]
pub struct Seen {
    pub at: Instant,
    pub method: Method,
    /// Path and query.
    pub url: String,
    pub headers: HeaderMap,
    /// What it was answered.
    pub status: u16,
}

impl Seen {
    /// The number asked for, where a numbered file was.
    pub fn number(&self) -> Option<u64> {
        self.url.strip_prefix("/ephemeral/")?.strip_suffix(".json")?.parse().ok()
    }
}

/// A canned answer.
#[derive(Debug, Clone)]
pub struct Canned {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// How long the answer is held back.
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
struct Shelf {
    /// The number that was not there when it was asked for last. What is published right behind it does not
    /// show before it does: files published within a millisecond would else seem to come in another order.
    missed: Option<u64>,
    next: u64,
    /// What `sequence.json` says.
    pointer: u64,
    documents: BTreeMap<u64, Vec<u8>>,
    /// Answers to the next requests of a path, first in, first out.
    once: HashMap<String, VecDeque<Canned>>,
    /// Answers to the next requests of any path.
    next_any: VecDeque<Canned>,
    /// The lasting answer of a path.
    always: HashMap<String, Canned>,
    /// What everybody is answered, whatever they ask.
    refuse: Option<Canned>,
    seen: Vec<Seen>,
}

/// The fake; stops on drop.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Upstream {
    /// An empty feed whose next number is [`FIRST`]; `sequence.json` says so and stays there until told
    /// otherwise.
    pub fn start() -> Self {
        let shelf = Arc::new(Mutex::new(Shelf { next: FIRST, pointer: FIRST, ..Shelf::default() }));
        let (stop, stopped) = oneshot::channel();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shelf));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let server = axum::serve(TcpListener::from_std(listener).unwrap(), router);
                tokio::select! { _ = server => {}, _ = stopped => {} }
            });
        });
        Self { address, shelf, stop: Some(stop) }
    }

    /// Scheme and host, to stand in for every upstream.
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    fn shelf<T>(&self, work: impl FnOnce(&mut Shelf) -> T) -> T {
        work(&mut self.shelf.lock().unwrap())
    }

    /// Publishes a killmail as the next file, uploaded when the tests began, so that its age is what `ago`
    /// says; gives its number.
    pub fn publish(&self, killmail: Build) -> u64 {
        self.publish_document(killmail.r2z2())
    }

    /// Publishes a document as the next file; number and upload time are filled in where missing.
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
        self.shelf(|shelf| {
            shelf.documents.insert(number, body);
            shelf.next = shelf.next.max(number + 1);
        });
    }

    /// Rewrites an older file and publishes a killmail whose file tells of it.
    pub fn rewrite(&self, number: u64, document: Value, told_by: Build) -> u64 {
        self.publish_at(number, document);
        let mut teller = told_by.r2z2();
        teller["sequence_updated"] = json!(number);
        self.publish_document(teller)
    }

    /// Uses up a number without a file; it can be filled later.
    pub fn skip_number(&self) -> u64 {
        self.shelf(|shelf| {
            let number = shelf.next;
            shelf.next += 1;
            number
        })
    }

    /// Takes the file of a number away.
    pub fn remove(&self, number: u64) {
        self.shelf(|shelf| shelf.documents.remove(&number));
    }

    /// The archive of a day (`20251127`): these killmails, listed and with their bodies. It takes the place
    /// of an earlier one.
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

    /// What `sequence.json` says from now on.
    pub fn point_at(&self, number: u64) {
        self.shelf(|shelf| shelf.pointer = number);
    }

    /// The number the next file gets.
    pub fn next_number(&self) -> u64 {
        self.shelf(|shelf| shelf.next)
    }

    /// The next request of this path (query left out) gets this answer; called again, the one after it.
    pub fn answer_once(&self, path: &str, canned: Canned) {
        self.shelf(|shelf| shelf.once.entry(path.to_owned()).or_default().push_back(canned));
    }

    /// The next requests of any path get these answers.
    pub fn answer_next(&self, canned: Vec<Canned>) {
        self.shelf(|shelf| shelf.next_any.extend(canned));
    }

    /// The next requests of a number get this answer.
    pub fn fail(&self, number: u64, canned: Canned, times: usize) {
        for _ in 0..times {
            self.answer_once(&format!("/ephemeral/{number}.json"), canned.clone());
        }
    }

    /// Every request of this path gets this answer.
    pub fn answer(&self, path: &str, canned: Canned) {
        self.shelf(|shelf| shelf.always.insert(path.to_owned(), canned));
    }

    /// Every request of anything gets this answer, or what it asks for again.
    pub fn refuse(&self, canned: Option<Canned>) {
        self.shelf(|shelf| shelf.refuse = canned);
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<Seen> {
        self.shelf(|shelf| shelf.seen.clone())
    }

    /// Waits for a request of this path.
    pub async fn asked_for(&self, path: &str) -> Seen {
        until(&format!("a request of {path}"), async || self.requests().into_iter().find(|s| s.url == path))
            .await
    }

    /// Waits until the server has had the file of this number, and so everything before it.
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

async fn answer(State(shelf): State<Arc<Mutex<Shelf>>>, request: Request) -> Response<Body> {
    let at = Instant::now();
    let path = request.uri().path().to_owned();
    let canned = {
        let mut shelf = shelf.lock().unwrap();
        let canned = shelf.answer_to(&path);
        let url = request.uri().path_and_query().map_or_else(|| path.clone(), ToString::to_string);
        let (method, headers) = (request.method().clone(), request.headers().clone());
        shelf.seen.push(Seen { at, method, url, headers, status: canned.status });
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

impl Shelf {
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
