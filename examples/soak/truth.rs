//! What the feed of the soak brings, number by number, and what must be kept and delivered in the end.
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
/// Files at the end that come in turn: what is behind shows that a number is missing.
const LAST: u64 = 60;

/// One step of the feed.
#[derive(Debug, Clone)]
pub struct Step {
    /// The number given out.
    pub number: u64,
    /// Its file.
    pub text: String,
    /// When it is published, unix seconds.
    pub at: i64,
    /// How its file comes.
    pub way: Way,
    /// The killmail as the archive of its day has it.
    pub filed: Filed,
    /// A file that is rewritten with it.
    pub rewrites: Option<Rewrite>,
}

/// A rewritten file.
#[derive(Debug, Clone)]
pub struct Rewrite {
    /// Its number.
    pub number: u64,
    /// As it is now.
    pub text: String,
    /// The same, as if published when the first one was: whoever did not have that must not take the killmail
    /// for late.
    pub at_first: String,
}

/// How a file comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In its turn.
    InTurn,
    /// Long after its turn.
    Delayed,
    /// Never: only the archive of its day has the killmail.
    Never,
}

/// A killmail in the archive.
#[derive(Debug, Clone)]
pub struct Filed {
    /// Its id.
    pub id: u32,
    /// The day it happened, days since 1970.
    pub day: i64,
    /// ESI's key.
    pub hash: String,
    /// Its body.
    pub body: String,
}

/// What streams must bring of a killmail.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    /// Where it happened.
    pub system: u32,
    /// How old it was when it was published, seconds.
    pub age_secs: i64,
}

/// The feed, and what is true of it so far.
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
    /// A digest of the JSON of every killmail that must be kept, as it must be in the end.
    pub kept: BTreeMap<u32, [u8; 32]>,
    /// Every killmail that must be delivered live.
    pub live: BTreeMap<u32, Live>,
    /// How many were published late, rewritten, delayed, and never.
    pub counts: [u64; 4],
}

impl Truth {
    /// So many killmails over so many days, which end two days ago, so that all their archives are made.
    /// A share of `missing` numbers has no file in its turn.
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

    /// The next step; the last ones have files, so that nothing is left to be told.
    pub fn step(&mut self) -> Option<Step> {
        let mut rewrites = None;
        let made = loop {
            let made = self.generator.next()?;
            if !made.revision {
                break made;
            }
            // A killmail whose file was not there cannot be rewritten; one at a time is.
            let id = made.killmail.killmail_id;
            let Some((number, first_at)) = self.number_of.get(&id).copied().filter(|_| rewrites.is_none())
            else {
                continue;
            };
            let text = |at| document::r2z2(&made.killmail, at, number);
            rewrites = Some((Rewrite { number, text: text(made.uploaded_at), at_first: text(first_at) }, id));
        };
        // What nothing comes behind is not told, so it counts only here.
        let rewrites = rewrites.map(|(rewrite, id)| {
            self.kept.insert(id, digest(&parsed(&rewrite.text)));
            self.rewritten.push(rewrite.number);
            self.counts[1] += 1;
            rewrite
        });
        let (killmail, at) = (made.killmail, made.uploaded_at);
        let way = self.way(killmail.time);
        let (id, number, age_secs) = (killmail.killmail_id, self.number, at - killmail.time);
        self.number += 1;
        self.counts[0] += u64::from(age_secs > 3600);
        let mut text = document::r2z2(&killmail, at, number);
        let body = document::esi(&killmail).to_string();
        let hash = killmail.hash.clone().unwrap_or_default();
        if way == Way::Never {
            let archived = Killmail { hash: Some(hash.clone()), ..parsed(&body) };
            self.kept.insert(id, digest(&archived));
        } else {
            self.kept.insert(id, digest(&parsed(&text)));
            self.live.insert(id, Live { system: killmail.solar_system_id, age_secs });
        }
        if way == Way::InTurn {
            self.number_of.insert(id, (number, at));
            if let Some(rewritten) = self.rewritten.pop() {
                text.truncate(text.len() - 1);
                text.push_str(&format!(",\"sequence_updated\":{rewritten}}}"));
            }
        }
        let filed = Filed { id, day: killmail.time.div_euclid(DAY_SECS), hash, body };
        Some(Step { number, text, at, way, filed, rewrites })
    }

    fn way(&mut self, time: i64) -> Way {
        // The first document heard is not the first there is: what is missing before it is of the feed's
        // days, not of ours.
        if self.number == FIRST {
            self.counts[2] += 1;
            return Way::Delayed;
        }
        // The first hours, the last numbers and whoever has to tell of a rewritten file come in turn.
        if time < self.begun + 7200
            || self.number + LAST > FIRST + self.killmails
            || !self.rewritten.is_empty()
            || !self.dice.chance(self.missing)
        {
            return Way::InTurn;
        }
        let delayed = self.dice.chance(0.5);
        self.counts[if delayed { 2 } else { 3 }] += 1;
        if delayed { Way::Delayed } else { Way::Never }
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
