//! The store that gets damaged, and the process that opens, verifies and salvages it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use killstream::domain::entry::Origin;
use killstream::domain::filter::Filter;
use killstream::domain::id::Seq;
use killstream::domain::killmail::Killmail;
use killstream::store::Store;
use killstream::store::config::Config;
use killstream::store::error::StoreError;
use killstream::store::incoming::{AgeRule, Checkpoint, Incoming, ZkbRule};
use killstream::store::query::{HistoryQuery, Order};
use killstream::store::upkeep::{salvage, verify};
use killstream::wire;

use crate::support::data;
use crate::support::dice::Dice;
use crate::support::killmail::{giant, random};

/// The size of a block, bytes.
pub const BLOCK: u64 = 4096;
const FOLDER: &str = "KILLSTREAM_DAMAGE_FOLDER";
/// Every so many killmails of the new store, one is read and compared completely; for all, number and revision
/// are compared.
const EVERY: &str = "KILLSTREAM_DAMAGE_EVERY";
/// A revision's value is this plus its number, ISK.
const VALUE: f64 = 1e12;
/// The file that lists what the store contained: number, killmail id, checksum of its JSON.
const HELD: &str = "held";
const KILLMAILS: usize = 20_000;

/// What a trial found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Findings {
    /// Whether the damaged store opened.
    pub opened: bool,
    /// Whether `verify` found nothing.
    pub clean: bool,
    /// Killmails that the damaged store served with wrong or stale content.
    pub wrong_before: u64,
    /// The same for the new store.
    pub wrong_after: u64,
    /// Killmails missing in the new store.
    pub lost: u64,
}

impl Findings {
    fn line(self) -> String {
        let Self { opened, clean, wrong_before, wrong_after, lost } = self;
        format!("found {} {} {wrong_before} {wrong_after} {lost}", u8::from(opened), u8::from(clean))
    }

    /// Parses a line of the child's output; the test harness prints other lines in between.
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<u64> =
            line.strip_prefix("found ")?.split(' ').map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let [opened, clean, wrong_before, wrong_after, lost] = words.try_into().ok()?;
        Some(Self { opened: opened == 1, clean: clean == 1, wrong_before, wrong_after, lost })
    }
}

/// The command that runs this binary as the child.
pub fn command(folder: &Path, every: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "damage::child::opens_verifies_and_salvages",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.env(FOLDER, folder).env(EVERY, every.to_string()).env("RUST_BACKTRACE", "0");
    command
}

fn config(folder: &Path) -> Config {
    Config { dir: folder.to_owned(), min_free_bytes: 0, tail_entries: 100, ..Config::default() }
}

/// The real JSON takes time in a debug build, and only its length is stored.
fn length(killmail: &Killmail) -> Bytes {
    Bytes::from(vec![b' '; 100 * killmail.attackers.len()])
}

fn incoming(killmail: Killmail) -> Incoming {
    let uploaded_at = Some(killmail.time + 60);
    Incoming {
        received_at_ms: killmail.time * 1000 + 90_000,
        killmail,
        origin: Origin::Live,
        uploaded_at,
        age: AgeRule::ByUpload,
        zkb: ZkbRule::Always,
    }
}

/// The smallest real killmails (so that many are in a block), made-up ones if there are too few, and a giant.
fn killmails() -> Vec<Killmail> {
    let documents = data::current();
    let mut lines: Vec<&String> = documents.iter().flat_map(|documents| &documents.lines).collect();
    lines.sort_by_key(|line| line.len());
    let mut by_id: BTreeMap<u32, Killmail> = BTreeMap::new();
    for line in lines.into_iter().take(KILLMAILS + 1_000) {
        // Some forms only name a killmail.
        if let Some(killmail) = wire::read::package::parse(line.as_bytes()).unwrap().killmail {
            by_id.insert(killmail.killmail_id, killmail);
        }
    }
    let mut dice = Dice::new(2);
    let (id, time) = by_id.last_key_value().map(|(id, last)| (*id, last.time)).unwrap();
    let more = (1..).map(|n| random(&mut dice, id + n, time + i64::from(n)));
    let mut all: Vec<Killmail> = by_id.into_values().chain(more).take(KILLMAILS).collect();
    let large = &mut all[KILLMAILS / 3];
    *large = giant(&mut Dice::new(3), large.killmail_id, large.time);
    all
}

fn revised(killmail: &Killmail, version: u32) -> Killmail {
    let mut killmail = killmail.clone();
    killmail.zkb.get_or_insert_default().total_value = Some(VALUE + f64::from(version));
    killmail
}

/// Creates the store, and a file beside it that lists its contents.
pub fn build(folder: &Path) {
    let mut killmails = killmails();
    let mut dice = Dice::new(1);
    let store = Store::open(config(folder), length).unwrap();
    let mut rest = killmails.as_slice();
    while !rest.is_empty() {
        let size = if dice.one_in(4) { 1 + dice.below(20) } else { 200 + dice.below(800) };
        let (batch, after) = rest.split_at(rest.len().min(usize::try_from(size).unwrap()));
        store
            .append(
                batch.iter().cloned().map(incoming).collect(),
                Some(Checkpoint { source: "s".to_owned(), bytes: vec![1] }),
            )
            .unwrap();
        rest = after;
    }
    store.put_plugin("gatecamp", b"state").unwrap();
    // Half of them: single ones, as from a live source, and many at once, as by an import.
    let mut half: Vec<usize> = (0..KILLMAILS).filter(|n| n % 2 == 1).collect();
    for at in (1..half.len()).rev() {
        half.swap(at, usize::try_from(dice.below(at as u64 + 1)).unwrap());
    }
    let mut rest = half.as_slice();
    while !rest.is_empty() {
        let size = if dice.one_in(3) { 1 + dice.below(8) } else { 100 + dice.below(500) };
        let (batch, after) = rest.split_at(rest.len().min(usize::try_from(size).unwrap()));
        for n in batch {
            killmails[*n] = revised(&killmails[*n], u32::try_from(*n).unwrap());
        }
        store.append(batch.iter().map(|n| incoming(killmails[*n].clone())).collect(), None).unwrap();
        rest = after;
    }
    assert_eq!((store.count(), store.stats().revised), (KILLMAILS as u64, KILLMAILS as u64 / 2));
    let held: String = killmails
        .iter()
        .map(|k| format!("{} {} {}\n", store.seq_of(k.killmail_id).unwrap(), k.killmail_id, digest(k)))
        .collect();
    fs::write(folder.join(HELD), held).unwrap();
}

fn digest(killmail: &Killmail) -> u32 {
    crc32fast::hash(&wire::killmail::encode(killmail))
}

/// Number, killmail id and checksum of everything it contained.
fn held(folder: &Path) -> Vec<(u64, u32, u32)> {
    let text = fs::read_to_string(folder.join(HELD)).unwrap();
    let line = |line: &str| {
        let words: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
        (words[0], u32::try_from(words[1]).unwrap(), u32::try_from(words[2]).unwrap())
    };
    text.lines().map(line).collect()
}

/// Reads some of the killmails. Counts how many are served wrong, and how many are missing.
fn served(store: &Store, held: &[(u64, u32, u32)], every: usize) -> (u64, u64) {
    let (mut wrong, mut lost) = (0, 0);
    for (seq, id, expected) in held.iter().step_by(every) {
        match store.killmail(*id) {
            Ok(Some(entry)) if entry.seq == Seq(*seq) && digest(&entry.killmail) == *expected => {}
            Ok(Some(entry)) => {
                wrong += 1;
                println!(
                    "killmail {id}, number {seq}, is served as number {} revision {}",
                    entry.seq, entry.rev
                );
            }
            Ok(None) | Err(_) => lost += 1,
        }
    }
    (wrong, lost)
}

/// Counts the stored killmails that do not have their own number or their newest value in the index.
fn stale(store: &Store, held: &[(u64, u32, u32)]) -> u64 {
    let filter = Filter { min_value: Some(VALUE), ..Filter::default() };
    let head = store.head();
    let query = HistoryQuery {
        filter: &filter,
        interest: None,
        order: Order::Oldest,
        after: None,
        below: None,
        head,
        limit: usize::MAX,
    };
    let revised: BTreeSet<u64> = store.select(&query).unwrap().into_iter().map(|hit| hit.seq.0).collect();
    let as_kept = |(n, (seq, id, _)): (usize, &(u64, u32, u32))| match store.seq_of(*id) {
        Some(kept) => kept.0 == *seq && revised.contains(seq) == (n % 2 == 1),
        None => true,
    };
    held.iter().enumerate().filter(|held| !as_kept(*held)).count() as u64
}

#[test]
fn opens_verifies_and_salvages() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let every: usize = std::env::var(EVERY).unwrap().parse().unwrap();
    let held = held(folder);
    let mut findings = Findings::default();
    let mut epoch = None;
    match Store::open(config(folder), length) {
        Ok(store) => {
            findings.opened = true;
            epoch = Some(store.epoch());
            findings.wrong_before = served(&store, &held, 1).0;
        }
        Err(StoreError::Damaged { what, command }) => println!("{what}; {command}"),
        Err(other) => panic!("{other}"),
    }
    let report = verify::run(&config(folder), &|_| {}).unwrap();
    findings.clean = report.is_clean();
    println!(
        "{} problems and {} more: {:?}",
        report.problems.len(),
        report.more,
        report.problems.iter().take(5).collect::<Vec<_>>()
    );
    let before = fs::read(folder.join("store/db")).unwrap();
    let new = folder.join("new");
    let losses = salvage::run(folder, &config(&new), length, &|_| {}).unwrap();
    println!("{losses:?}");
    assert!(before == fs::read(folder.join("store/db")).unwrap(), "salvage changed the damaged store");
    let store = Store::open(config(&new), length).unwrap();
    findings.lost = losses.lost;
    findings.wrong_after = stale(&store, &held) + served(&store, &held, every).0;
    assert_eq!(
        (store.count(), losses.killmails),
        (KILLMAILS as u64 - losses.lost, KILLMAILS as u64 - losses.lost)
    );
    assert_eq!(store.head(), Seq(KILLMAILS as u64));
    assert_ne!(Some(store.epoch()), epoch);
    // All small values are there, whatever happened to the engine's files.
    assert_eq!(store.plugins().unwrap(), [("gatecamp".to_owned(), b"state".to_vec())]);
    assert_eq!(store.checkpoint("s").unwrap().as_deref(), Some(&[1][..]));
    drop(store);
    if every == 1 {
        let report = verify::run(&config(&new), &|_| {}).unwrap();
        assert_eq!(report.problems, []);
    }
    println!("\n{}", findings.line());
}
