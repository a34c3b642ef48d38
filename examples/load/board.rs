//! What should come to whom, what came, and when.
//!
//! Must not know: how it travels.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use killstream::domain::killmail::Killmail;
use parking_lot::Mutex;

use crate::plan::Plan;
use crate::support::at;
use crate::support::feed::FakeFeed;

/// One killmail on its way.
#[derive(Debug)]
struct Sent {
    published: Instant,
    /// Who wants it, in order, and when they had it.
    wanted: Vec<(u32, Option<Instant>)>,
}

/// All of it.
#[derive(Debug)]
pub struct Board {
    connections: usize,
    sent: Mutex<HashMap<u32, Sent>>,
    missing: AtomicU64,
    arrived: AtomicU64,
    doubled: AtomicU64,
    strange: AtomicU64,
    refused: AtomicU64,
}

impl Board {
    /// For so many connections.
    pub fn new(connections: usize) -> Self {
        let zero = || AtomicU64::new(0);
        let (missing, arrived, doubled, strange, refused) = (zero(), zero(), zero(), zero(), zero());
        Self { connections, sent: Mutex::default(), missing, arrived, doubled, strange, refused }
    }

    /// A killmail is about to be published.
    pub fn expect(&self, plan: &Plan, killmail: &Killmail) {
        let mut wanted: Vec<(u32, Option<Instant>)> =
            plan.wanted_by(killmail).into_iter().map(|n| (n, None)).collect();
        wanted.sort_unstable_by_key(|(n, _)| *n);
        self.missing.fetch_add(wanted.len() as u64, Ordering::SeqCst);
        self.sent.lock().insert(killmail.killmail_id, Sent { published: Instant::now(), wanted });
    }

    /// A connection has a killmail.
    pub fn arrive(&self, connection: u32, killmail_id: u32, at: Instant) {
        let mut sent = self.sent.lock();
        let wanted = sent.get_mut(&killmail_id).map(|sent| &mut sent.wanted);
        let place = wanted.and_then(|wanted| {
            let at = wanted.binary_search_by_key(&connection, |(n, _)| *n).ok()?;
            wanted.get_mut(at)
        });
        let counter = match place {
            None => &self.strange,
            Some((_, Some(_))) => &self.doubled,
            Some((_, had)) => {
                *had = Some(at);
                self.missing.fetch_sub(1, Ordering::SeqCst);
                &self.arrived
            }
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }

    /// A client could not get in at first; said once.
    pub fn refused(&self, why: &dyn Display) {
        if self.refused.fetch_add(1, Ordering::SeqCst) == 0 {
            eprintln!("a client was refused: {why}");
        }
    }

    /// Killmails that should have come to someone and have not.
    pub fn missing(&self) -> u64 {
        self.missing.load(Ordering::SeqCst)
    }

    /// Killmails that came, to all together.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::SeqCst)
    }

    /// Killmails that came to someone who had them.
    pub fn doubled(&self) -> u64 {
        self.doubled.load(Ordering::SeqCst)
    }

    /// Killmails that came to someone who did not want them.
    pub fn strange(&self) -> u64 {
        self.strange.load(Ordering::SeqCst)
    }

    /// Prints how long they took.
    pub fn report(&self, feed: &FakeFeed) {
        let sent = self.sent.lock();
        let (mut published, mut served, mut complete) = (Vec::new(), Vec::new(), Vec::new());
        for (killmail_id, sent) in sent.iter() {
            let from = feed.served(*killmail_id).unwrap_or(sent.published);
            let arrivals: Vec<Instant> = sent.wanted.iter().filter_map(|(_, at)| *at).collect();
            published.extend(arrivals.iter().map(|at| at.duration_since(sent.published)));
            served.extend(arrivals.iter().map(|at| at.duration_since(from)));
            complete.extend(arrivals.iter().max().map(|at| at.duration_since(from)));
        }
        println!(
            "{} killmails, {:.0} of {} connections each",
            sent.len(),
            served.len() as f64 / sent.len() as f64,
            self.connections
        );
        drop(sent);
        line("from the feed's answer to the client", &mut served);
        line("from publishing to the client (the server asks every 20 ms)", &mut published);
        line("from the feed's answer until the last client has it", &mut complete);
    }
}

fn line(what: &str, took: &mut [Duration]) {
    println!("{what}: p50 {:.2?}, p99 {:.2?}, most {:.2?}", at(took, 0.5), at(took, 0.99), at(took, 1.0));
}
