//! Webhooks reach only what the operator allows: URLs in many spellings, and names with many answers, against a
//! canary on loopback.
//!
//! Must not know: how URLs and addresses are checked.

mod canary;
mod spellings;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use killstream::webhook::config::Config;
use killstream::webhook::target::lookup::{self, Lookup};
use killstream::webhook::target::sender::{Answer, Sender};

use crate::webhook_targets::canary::{Canary, answer_with, server};
use crate::webhook_targets::spellings::{Leads, all};

/// An address of loopback that is allowed in tests where the canary's is not.
const ALLOWED: &str = "127.0.0.2";
const SPELLINGS_MIN: usize = 300;
const BODY: &[u8] = b"{}";

/// Names of the corpus and their addresses; every other name is 127.0.0.1.
const NAMES: &[(&str, &[&str])] = &[
    ("v6.test", &["::1"]),
    ("v6-twice.test", &["::1", "::1"]),
    ("mixed.test", &["127.0.0.1", "10.0.0.1", "169.254.169.254"]),
    ("mapped.test", &["::ffff:127.0.0.1"]),
    ("compatible.test", &["::127.0.0.1", "127.0.0.1"]),
    ("metadata.google.internal", &["169.254.169.254"]),
    ("metadata.test", &["fd00:ec2::254"]),
    ("private.test", &["10.0.0.1", "192.168.0.1"]),
    ("private6.test", &["fd00::1", "fe80::1"]),
    ("nat64.test", &["64:ff9b::127.0.0.1"]),
    ("none.test", &[]),
];

/// Says the same to each question about a name.
fn names() -> Lookup {
    lookup::from_fn(|name| {
        let addresses = match NAMES.iter().find(|(known, _)| *known == name.trim_end_matches('.')) {
            _ if name.starts_with("missing.") || name.ends_with("..") => Err(io::ErrorKind::NotFound.into()),
            Some((_, addresses)) => Ok(parsed(addresses)),
            None => Ok(parsed(&["127.0.0.1"])),
        };
        async move { addresses }
    })
}

/// Says something else to each question, and the last of it for ever; counts the questions.
fn changing(answers: &[&[&str]]) -> (Lookup, Arc<AtomicUsize>) {
    let answers: Vec<Vec<IpAddr>> = answers.iter().map(|addresses| parsed(addresses)).collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let lookup = lookup::from_fn(move |_| {
        let at = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        let addresses = answers[at].clone();
        async move { Ok(addresses) }
    });
    (lookup, asked)
}

fn parsed(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|text| text.parse().unwrap()).collect()
}

fn config(allow: &[&str]) -> Config {
    let allow_networks = allow.iter().map(|text| text.parse().unwrap()).collect();
    // Addresses that do not answer need not be waited for long.
    Config { allow_networks, connect_timeout_ms: 2_000, ..Config::default() }
}

/// Checks and calls a URL as a subscription would. The status, or why there is none.
async fn call(sender: &Sender, url: &str) -> Result<u16, String> {
    let url = sender.targets().parse(url).map_err(|error| error.to_string())?;
    match sender.post(&url, &[], Bytes::from_static(BODY)).await.answer {
        Answer::Status { status, .. } => Ok(status),
        Answer::Failed { error } => Err(error),
    }
}

#[tokio::test]
async fn no_spelling_leads_to_loopback() {
    let canary = Canary::start();
    let sender = Sender::with_lookup(&config(&[]), names()).unwrap();
    let spellings = all(canary.port);
    let mut rules: BTreeMap<String, usize> = BTreeMap::new();
    for spelling in &spellings {
        let error = call(&sender, &spelling.url).await.expect_err(&spelling.url);
        assert!(error.starts_with("callback_url "), "{spelling:?}: {error}");
        if matches!(spelling.leads, Leads::ToV4 | Leads::ToV6) {
            assert!(error.starts_with("callback_url resolves to "), "{spelling:?}: {error}");
        }
        *rules.entry(error).or_default() += 1;
    }
    println!("{} spellings: {rules:#?}", spellings.len());
    assert!(spellings.len() >= SPELLINGS_MIN, "{} spellings", spellings.len());
    assert_eq!(canary.count(), 0, "the canary was reached");
}

#[tokio::test]
async fn a_url_that_was_kept_is_checked_at_each_attempt() {
    let canary = Canary::start();
    let generous = Sender::with_lookup(&config(&["0.0.0.0/0", "::/0"]), names()).unwrap();
    let strict = Sender::with_lookup(&config(&[]), names()).unwrap();
    let mut refused = 0;
    for spelling in all(canary.port) {
        let Ok(url) = generous.targets().parse(&spelling.url) else { continue };
        let attempt = strict.post(&url, &[], Bytes::from_static(BODY)).await;
        let Answer::Failed { error } = attempt.answer else { panic!("{spelling:?} was called") };
        assert!(error.starts_with("callback_url "), "{spelling:?}: {error}");
        refused += 1;
    }
    assert!(refused >= SPELLINGS_MIN, "{refused} attempts");
    assert_eq!(canary.count(), 0, "the canary was reached");
}

/// The same spellings reach the canary when loopback is allowed: the corpus would notice a hole.
#[tokio::test]
async fn allowed_spellings_reach_loopback() {
    let canary = Canary::start();
    let sender =
        Sender::with_lookup(&config(&["127.0.0.0/8", "0.0.0.0/32", "::1", "::/128", "::127.0.0.1"]), names())
            .unwrap();
    let mut reached = 0;
    for spelling in all(canary.port) {
        let answer = match spelling.leads {
            Leads::ToV4 => Ok(200),
            Leads::ToV6 if canary.has_v6 => Ok(200),
            Leads::ToV6 | Leads::Elsewhere => continue,
            Leads::Nowhere => {
                sender.targets().parse(&spelling.url).expect_err(&spelling.url);
                continue;
            }
        };
        assert_eq!(call(&sender, &spelling.url).await, answer, "{spelling:?}");
        reached += 1;
    }
    println!("{reached} spellings reach the canary");
    assert!(reached >= SPELLINGS_MIN, "{reached} spellings reach the canary");
    assert!(canary.count() > 0);
}

#[tokio::test]
async fn a_refused_address_is_named_by_its_rule() {
    let sender = Sender::with_lookup(&config(&[]), names()).unwrap();
    let loopback = "callback_url resolves to a loopback address; webhook.allow_networks can allow it";
    for url in ["http://127.0.0.1/", "http://[::1]/", "https://localhost/", "http://any.example:8080/x"] {
        assert_eq!(call(&sender, url).await.unwrap_err(), loopback, "{url}");
    }
    for (url, error) in [
        (
            "http://[fd00:ec2::254]/",
            "callback_url resolves to a cloud metadata address; webhook.allow_networks can allow it",
        ),
        (
            "http://private.test/",
            "callback_url resolves to a private address; webhook.allow_networks can allow it",
        ),
        ("http://none.test/", "callback_url cannot be resolved: it has no address"),
        ("ftp://example.com/", "callback_url must be a valid HTTP/HTTPS URL"),
        ("http://a:b@example.com/", "callback_url must not contain a user name or a password"),
        ("http://example.com:25/", "callback_url has port 25; webhook.ports can allow it"),
    ] {
        assert_eq!(call(&sender, url).await.unwrap_err(), error, "{url}");
    }
    let long = format!("https://example.com/{}", "a".repeat(2_029));
    let error = call(&sender, &long).await.unwrap_err();
    assert_eq!(error, "callback_url has 2049 bytes; webhook.url_bytes_max allows 2048");
}

#[tokio::test]
async fn of_mixed_answers_only_allowed_addresses_are_called() {
    let canary = Canary::start();
    let Some((at, connections)) = server(ALLOWED, answer_with(200, "")) else { return };
    for addresses in [
        &["127.0.0.1", ALLOWED][..],
        &[ALLOWED, "127.0.0.1"],
        &["::1", ALLOWED, "127.0.0.1"],
        &["::1", "::ffff:127.0.0.1", ALLOWED],
        &["::", "0.0.0.0", "::ffff:127.0.0.2", "127.0.0.1"],
    ] {
        // The canary and the server have different ports; either would do for a connection to the other.
        for port in [at.port(), canary.port] {
            let (lookup, asked) = changing(&[addresses]);
            let sender = Sender::with_lookup(&config(&[ALLOWED]), lookup).unwrap();
            let answer = call(&sender, &format!("http://mixed.example:{port}/")).await;
            assert_eq!(answer.is_ok(), port == at.port(), "{addresses:?}: {answer:?}");
            assert_eq!(asked.load(Ordering::SeqCst), 1, "{addresses:?}");
        }
    }
    assert_eq!(canary.count(), 0, "the canary was reached");
    assert_eq!(connections.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_name_that_changes_its_answer_does_not_lead_to_loopback() {
    let canary = Canary::start();
    let Some((at, connections)) = server(ALLOWED, answer_with(200, "")) else { return };
    let answers: &[&[&str]] = &[&[ALLOWED], &["127.0.0.1"], &["::1"], &[ALLOWED], &["127.0.0.1", "::1"]];
    let (lookup, asked) = changing(answers);
    let sender = Sender::with_lookup(&config(&[ALLOWED]), lookup).unwrap();
    for (attempt, addresses) in answers.iter().enumerate() {
        let answer = call(&sender, &format!("http://rebinding.example:{}/", at.port())).await;
        assert_eq!(answer.is_ok(), addresses.contains(&ALLOWED), "attempt {attempt}: {answer:?}");
        assert_eq!(asked.load(Ordering::SeqCst), attempt + 1, "one question for each attempt");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 2);

    // The answer to a second question within one attempt would be the canary.
    let (lookup, asked) = changing(&[&[ALLOWED], &["127.0.0.1"]]);
    let sender = Sender::with_lookup(&config(&[ALLOWED]), lookup).unwrap();
    let answer = call(&sender, &format!("http://rebinding.example:{}/", canary.port)).await;
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(canary.count(), 0, "the canary was reached");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let canary = Canary::start();
    let port = canary.port;
    let targets = [
        format!("http://127.0.0.1:{port}/"),
        format!("//127.0.0.1:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://0x7f.1:{port}/"),
        format!("http://{ALLOWED}@127.0.0.1:{port}/"),
        "/elsewhere".to_owned(),
    ];
    for status in [300, 301, 302, 303, 304, 305, 307, 308] {
        for target in &targets {
            let headers = format!("location: {target}\r\nrefresh: 0; url={target}\r\n");
            let reply = answer_with(status, &headers);
            let Some((at, connections)) = server(ALLOWED, reply) else { return };
            let sender = Sender::with_lookup(&config(&[ALLOWED]), names()).unwrap();
            assert_eq!(call(&sender, &format!("http://{at}/")).await, Ok(status), "{target}");
            assert_eq!(connections.load(Ordering::SeqCst), 1, "{status} {target}");
        }
    }
    assert_eq!(canary.count(), 0, "the canary was reached");
}
