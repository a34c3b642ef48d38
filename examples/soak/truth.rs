//! What the feed of the soak test publishes, number by number, and what must be stored and delivered in the end.
//!
//! Must not know: how it is served.

use std::collections::{BTreeMap, HashMap};

use killstream::domain::killmail::Killmail;
use killstream::sample::document;
use killstream::sample::generate::{Generator, Recipe};
use killstream::sample::rng::Dice;
use killstream::wire::killmail::encode;
use killstream::wire::read::package;
use sha2::{Digest, Sha256};

/// The first number.
pub const FIRST: u64 = 96_000_000;
const DAY_SECS: i64 = 86_400;
/// The last files are always published in order: later ones are needed to notice a missing number.
const LAST: u64 = 60;

/// One step of the feed.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its number.
    pub number: u64,
    /// Its file.
    pub text: String,
    /// When it is published, unix seconds.
    pub at: i64,
    /// When its file is published.
    pub publication: Publication,
    /// The killmail as in the archive of its day.
    pub archived: Archived,
    /// An older file that is rewritten at the same time.
    pub rewrites: Option<Rewrite>,
}

/// A rewritten file.
#[derive(Debug, Clone)]
pub struct Rewrite {
    /// Its number.
    pub number: u64,
    /// Its new text.
    pub text: String,
    /// The same with the upload time of the first version: a server that missed that must not take the killmail for
    /// late.
    pub at_first: String,
}

/// When a file is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    /// In order.
    InOrder,
    /// Long after its number.
    Delayed,
    /// Never: only the archive of its day has the killmail.
    Never,
}

/// A killmail in the archive.
#[derive(Debug, Clone)]
pub struct Archived {
    /// Its id.
    pub id: u32,
    /// The day it happened, days since 1970.
    pub day: i64,
    /// Its ESI hash.
    pub hash: String,
    /// Its ESI body.
    pub body: String,
}

/// What decides to which streams a killmail must be delivered.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    /// Where it happened.
    pub system: u32,
    /// How old it was when it was published, seconds.
    pub age_secs: i64,
}

/// The feed so far, and the expected result.
#[derive(Debug)]
pub struct Truth {
    generator: Generator,
    dice: Dice,
    number: u64,
    begun: i64,
    missing: f64,
    killmails: u64,
    /// Number and time of the file of each killmail.
    number_of: HashMap<u32, (u64, i64)>,
    rewritten: Vec<u64>,
    /// A digest of the final JSON of every killmail that must be stored.
    pub kept: BTreeMap<u32, [u8; 32]>,
    /// Every killmail that must be delivered live.
    pub live: BTreeMap<u32, Live>,
    /// How many files were late, rewritten, delayed, and never published.
    pub counts: [u64; 4],
}

impl Truth {
    /// A feed of this many killmails over this many days, which end two days ago, so that all archives exist. The
    /// share `missing` of the numbers has no file in order.
    pub fn new(killmails: u64, days: f64, missing: f64, seed: u64) -> Self {
        let from = (jiff::Timestamp::now().as_second() / DAY_SECS - 3) * DAY_SECS - (days * 86_400.0) as i64;
        let recipe = Recipe { seed, killmails, from, days, late: 0.05, revised: 0.005, ..Recipe::default() };
        Self {
            generator: recipe.generate(),
            dice: Dice::new(seed),
            number: FIRST,
            begun: from,
            missing,
            killmails,
            number_of: HashMap::new(),
            rewritten: Vec::new(),
            kept: BTreeMap::new(),
            live: BTreeMap::new(),
            counts: [0; 4],
        }
    }

    /// The next step, if any.
    pub fn step(&mut self) -> Option<Step> {
        let mut rewrites = None;
        let made = loop {
            let made = self.generator.next()?;
            if !made.revision {
                break made;
            }
            // A killmail without a file cannot be rewritten; and only one file is rewritten per step.
            let id = made.killmail.killmail_id;
            let Some((number, first_at)) = self.number_of.get(&id).copied().filter(|_| rewrites.is_none())
            else {
                continue;
            };
            let text = |at| document::r2z2(&made.killmail, at, number);
            rewrites = Some((Rewrite { number, text: text(made.uploaded_at), at_first: text(first_at) }, id));
        };
        // Counted only with a step after it, since that is where the rewrite is announced.
        let rewrites = rewrites.map(|(rewrite, id)| {
            self.kept.insert(id, digest(&parsed(&rewrite.text)));
            self.rewritten.push(rewrite.number);
            self.counts[1] += 1;
            rewrite
        });
        let (killmail, at) = (made.killmail, made.uploaded_at);
        let publication = self.choose_publication(killmail.time);
        let (id, number, age_secs) = (killmail.killmail_id, self.number, at - killmail.time);
        self.number += 1;
        self.counts[0] += u64::from(age_secs > 3600);
        let mut text = document::r2z2(&killmail, at, number);
        let body = document::esi(&killmail).to_string();
        let hash = killmail.hash.clone().unwrap_or_default();
        if publication == Publication::Never {
            let archived = Killmail { hash: Some(hash.clone()), ..parsed(&body) };
            self.kept.insert(id, digest(&archived));
        } else {
            self.kept.insert(id, digest(&parsed(&text)));
            self.live.insert(id, Live { system: killmail.solar_system_id, age_secs });
        }
        if publication == Publication::InOrder {
            self.number_of.insert(id, (number, at));
            if let Some(rewritten) = self.rewritten.pop() {
                text.truncate(text.len() - 1);
                text.push_str(&format!(",\"sequence_updated\":{rewritten}}}"));
            }
        }
        let archived = Archived { id, day: killmail.time.div_euclid(DAY_SECS), hash, body };
        Some(Step { number, text, at, publication, archived, rewrites })
    }

    fn choose_publication(&mut self, time: i64) -> Publication {
        // The server's first document is then not the first number, so it must not look for numbers before it.
        if self.number == FIRST {
            self.counts[2] += 1;
            return Publication::Delayed;
        }
        // The first hours, the last numbers, and steps that announce a rewritten file are in order.
        if time < self.begun + 7200
            || self.number + LAST > FIRST + self.killmails
            || !self.rewritten.is_empty()
            || !self.dice.chance(self.missing)
        {
            return Publication::InOrder;
        }
        let delayed = self.dice.chance(0.5);
        self.counts[if delayed { 2 } else { 3 }] += 1;
        if delayed { Publication::Delayed } else { Publication::Never }
    }
}

fn parsed(text: &str) -> Killmail {
    package::parse(text.as_bytes())
        .ok()
        .and_then(|package| package.killmail)
        .unwrap_or_else(|| panic!("no killmail: {text}"))
}

fn digest(killmail: &Killmail) -> [u8; 32] {
    line_digest(&encode(killmail))
}

/// The digest of a killmail's JSON.
pub fn line_digest(json: &[u8]) -> [u8; 32] {
    Sha256::digest(json).into()
}
