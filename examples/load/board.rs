//! Which connections should receive which killmails, and when they did.
//!
//! Must not know: how killmails are delivered.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use killstream::domain::killmail::Killmail;
use parking_lot::Mutex;

use crate::plan::Plan;
use crate::support::feed::FakeFeed;
use crate::support::percentile;

/// One published killmail.
#[derive(Debug)]
struct Sent {
    published: Instant,
    /// The connections that want it, in order, and when each received it.
    wanted: Vec<(u32, Option<Instant>)>,
}

#[derive(Debug)]
pub struct Board {
    connections: usize,
    sent: Mutex<HashMap<u32, Sent>>,
    missing: AtomicU64,
    arrived: AtomicU64,
    duplicates: AtomicU64,
    unwanted: AtomicU64,
    refused: AtomicU64,
}

impl Board {
    /// A board for this many connections.
    pub fn new(connections: usize) -> Self {
        let zero = || AtomicU64::new(0);
        let (missing, arrived, duplicates, unwanted, refused) = (zero(), zero(), zero(), zero(), zero());
        Self { connections, sent: Mutex::default(), missing, arrived, duplicates, unwanted, refused }
    }

    /// Records that a killmail is about to be published.
    pub fn expect(&self, plan: &Plan, killmail: &Killmail) {
        let mut wanted: Vec<(u32, Option<Instant>)> =
            plan.wanted_by(killmail).into_iter().map(|n| (n, None)).collect();
        wanted.sort_unstable_by_key(|(n, _)| *n);
        self.missing.fetch_add(wanted.len() as u64, Ordering::SeqCst);
        self.sent.lock().insert(killmail.killmail_id, Sent { published: Instant::now(), wanted });
    }

    /// Records that a connection received a killmail.
    pub fn arrive(&self, connection: u32, killmail_id: u32, at: Instant) {
        let mut sent = self.sent.lock();
        let wanted = sent.get_mut(&killmail_id).map(|sent| &mut sent.wanted);
        let place = wanted.and_then(|wanted| {
            let at = wanted.binary_search_by_key(&connection, |(n, _)| *n).ok()?;
            wanted.get_mut(at)
        });
        let counter = match place {
            None => &self.unwanted,
            Some((_, Some(_))) => &self.duplicates,
            Some((_, received)) => {
                *received = Some(at);
                self.missing.fetch_sub(1, Ordering::SeqCst);
                &self.arrived
            }
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }

    /// Records that a client could not connect at first; printed once.
    pub fn refused(&self, why: &dyn Display) {
        if self.refused.fetch_add(1, Ordering::SeqCst) == 0 {
            eprintln!("a client was refused: {why}");
        }
    }

    /// Deliveries that are still missing.
    pub fn missing(&self) -> u64 {
        self.missing.load(Ordering::SeqCst)
    }

    /// Deliveries to all connections together.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::SeqCst)
    }

    /// Deliveries of a killmail the connection already had.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::SeqCst)
    }

    /// Deliveries of a killmail the connection does not want.
    pub fn unwanted(&self) -> u64 {
        self.unwanted.load(Ordering::SeqCst)
    }

    /// Prints how long deliveries took.
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
        print_percentiles("from the feed's response to the client", &mut served);
        print_percentiles("from publishing to the client (the server polls every 20 ms)", &mut published);
        print_percentiles("from the feed's response to the last client", &mut complete);
    }
}

fn print_percentiles(what: &str, took: &mut [Duration]) {
    println!(
        "{what}: p50 {:.2?}, p99 {:.2?}, max {:.2?}",
        percentile(took, 0.5),
        percentile(took, 0.99),
        percentile(took, 1.0)
    );
}
