//! The process that is killed: it appends mixed batches without pause and prints what was acknowledged.
//!
//! It is this test binary, run again for the one test below with its folder in the environment.
//!
//! Must not know: when it will be killed.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use killstream::domain::entry::Origin;
use killstream::domain::id::Seq;
use killstream::domain::killmail::Killmail;
use killstream::store::Store;
use killstream::store::config::Config;
use killstream::store::error::StoreError;
use killstream::store::incoming::{AgeRule, Appended, Checkpoint, Incoming, ZkbRule};

use crate::support::dice::Dice;
use crate::support::killmail::{esi, giant, random};

/// The name of the source whose checkpoint is written with every batch.
pub const SOURCE: &str = "crash";
/// A revision's value is this plus its version, ISK; no killmail starts that high.
pub const VALUE: f64 = 1e12;
const FOLDER: &str = "KILLSTREAM_CRASH_FOLDER";
const ROUND: &str = "KILLSTREAM_CRASH_ROUND";
/// The number of batches after which the child ends by itself; half-way it opens its store again.
const BATCHES: &str = "KILLSTREAM_CRASH_BATCHES";
/// The file in the folder that also gets the acknowledgements.
pub const ACKS: &str = "acks";

/// What is published: number `n` of the log is always the same killmail.
pub struct Plan;

impl Plan {
    /// Ids grow, but neighbours arrive out of order.
    pub fn id(n: u64) -> u32 {
        let at = u32::try_from(n - 1).unwrap();
        140_000_000 + ((at & !7) | ((at * 5 + 3) & 7))
    }

    /// One in 500 is as large as the largest real one; the first comes early.
    pub fn is_giant(n: u64) -> bool {
        n % 500 == 60
    }

    /// One in seven is late when it comes.
    pub fn is_late(n: u64) -> bool {
        n.is_multiple_of(7)
    }

    pub fn killmail(n: u64) -> Killmail {
        let mut dice = Dice::new(n);
        let time = 1_700_000_000 + i64::try_from(n).unwrap();
        let mut killmail = if Self::is_giant(n) {
            giant(&mut dice, Self::id(n), time)
        } else {
            random(&mut dice, Self::id(n), time)
        };
        if !Self::has_hash(n) {
            killmail.hash = None;
            killmail.zkb.as_mut().unwrap().hash = None;
            killmail.attackers.iter_mut().for_each(|attacker| attacker.final_blow = false);
        }
        killmail
    }

    /// One in five has no hash and nothing to compute it from, so that the mirror has no file of it.
    pub fn has_hash(n: u64) -> bool {
        !n.is_multiple_of(5)
    }

    /// The same killmail with another value.
    pub fn revised(n: u64, version: u64) -> Killmail {
        let mut killmail = Self::killmail(n);
        killmail.zkb.as_mut().unwrap().total_value = Some(VALUE + version as f64);
        killmail
    }
}

/// What the child prints once it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    New { seq: u64, killmail_id: u32 },
    Revised { seq: u64, version: u64 },
}

impl Ack {
    fn line(self) -> String {
        match self {
            Self::New { seq, killmail_id } => format!("ack new {seq} {killmail_id}\n"),
            Self::Revised { seq, version } => format!("ack revised {seq} {version}\n"),
        }
    }

    /// Parses a line of the child's output; the test harness prints other lines in between.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("ack ")?.split(' ');
        let kind = words.next()?;
        let seq = words.next()?.parse().ok()?;
        let last = words.next()?;
        match kind {
            "new" => Some(Self::New { seq, killmail_id: last.parse().ok()? }),
            "revised" => Some(Self::Revised { seq, version: last.parse().ok()? }),
            _ => None,
        }
    }
}

/// The store under test: frequent snapshots, so that kills fall into them too.
pub fn config(folder: &Path) -> Config {
    Config {
        dir: folder.to_owned(),
        snapshot_every: 300,
        tail_entries: 500,
        min_free_bytes: 0,
        ..Config::default()
    }
}

pub fn open(config: Config) -> Result<Arc<Store>, StoreError> {
    Store::open(config, |killmail| Bytes::from(esi(killmail).to_string()))
}

/// The command that runs this binary as the child.
pub fn command(folder: &Path, round: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::child::appends_until_it_is_killed", "--nocapture", "--test-threads=1"]);
    command.env(FOLDER, folder).env(ROUND, round.to_string());
    command
}

fn incoming(n: u64, killmail: Killmail) -> Incoming {
    let uploaded_at = Some(killmail.time + if Plan::is_late(n) { 7200 } else { 2 });
    let received_at_ms = killmail.time * 1000 + 9_000_000;
    Incoming {
        killmail,
        origin: Origin::Live,
        received_at_ms,
        uploaded_at,
        age: AgeRule::ByUpload,
        zkb: ZkbRule::Always,
    }
}

/// One batch: new killmails, and revisions of old and of new ones. `next` is the number that the first new one
/// gets.
fn batch(dice: &mut Dice, next: u64, version: &mut u64) -> Vec<Incoming> {
    let mut batch = Vec::new();
    let count = if dice.one_in(10) { 120 } else { 1 + dice.below(20) };
    for n in next..next + count {
        batch.push(incoming(n, Plan::killmail(n)));
        if dice.one_in(4) {
            let old = 1 + dice.below(n);
            *version += 1;
            batch.push(incoming(old, Plan::revised(old, *version)));
        }
    }
    batch
}

/// Appends one batch. Returns the acknowledgements.
fn append(store: &Store, dice: &mut Dice, version: &mut u64) -> String {
    let next = store.head().next().0;
    let batch = batch(dice, next, version);
    let versions: Vec<f64> =
        batch.iter().map(|i| i.killmail.zkb.as_ref().unwrap().total_value.unwrap() - VALUE).collect();
    let last = next - 1 + versions.iter().filter(|v| **v < 0.0).count() as u64;
    let checkpoint = Checkpoint { source: SOURCE.to_owned(), bytes: last.to_be_bytes().to_vec() };
    let appended = store.append(batch, Some(checkpoint)).unwrap();
    assert_eq!(store.head(), Seq(last));
    let mut acks = String::from("\n");
    for (appended, version) in appended.iter().zip(versions) {
        acks.push_str(&match appended {
            Appended::New(entry) => {
                Ack::New { seq: entry.seq.0, killmail_id: entry.killmail.killmail_id }.line()
            }
            Appended::Revised(entry) => Ack::Revised { seq: entry.seq.0, version: version as u64 }.line(),
            other => panic!("{other:?}"),
        });
    }
    acks
}

#[test]
fn appends_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let batches: Option<u64> = std::env::var(BATCHES).ok().map(|b| b.parse().unwrap());
    let config = || Config { snapshot_every: if batches.is_some() { 40 } else { 300 }, ..config(folder) };
    let mut store = open(config()).unwrap();
    let mut dice = Dice::new(round);
    let mut version = round * 1_000_000;
    let mut acks = batches.map(|_| File::create(folder.join(ACKS)).unwrap());
    for number in 0..batches.unwrap_or(u64::MAX) {
        let lines = append(&store, &mut dice, &mut version);
        if let Some(acks) = &mut acks {
            acks.write_all(lines.as_bytes()).unwrap();
        }
        let mut out = std::io::stdout();
        out.write_all(lines.as_bytes()).unwrap();
        out.flush().unwrap();
        if batches == Some(2 * number) {
            drop(store);
            store = open(config()).unwrap();
        }
    }
}

/// This binary as a child of [`crate::crash::image`]: what careful and careless writers leave behind.
#[test]
fn writes_files_with_and_without_care() {
    let Some(folder) =
        std::env::var_os(FOLDER).filter(|_| std::env::var_os(ROUND).is_some_and(|r| r == "files"))
    else {
        return;
    };
    let path = |name: &str| Path::new(&folder).join(name);
    let write = |name: &str| {
        let mut file = File::create(path(name)).unwrap();
        file.write_all(b"first").unwrap();
        file
    };
    write("synced").sync_data().unwrap();
    write("not-synced");
    let mut half = write("half-synced");
    half.sync_all().unwrap();
    half.write_all(b", second").unwrap();
    // A flush that is not a sync.
    let ranged = write("range-synced");
    #[expect(unsafe_code, reason = "std does not offer this call, which must not count as a sync")]
    // SAFETY: the descriptor is open for as long as `ranged` lives; no pointers are passed.
    let flushed = unsafe { libc::sync_file_range(std::os::fd::AsRawFd::as_raw_fd(&ranged), 0, 0, 7) };
    assert_eq!(flushed, 0);
    for name in ["renamed", "renamed-unsure"] {
        write(&format!("{name}.new")).sync_all().unwrap();
        fs::rename(path(&format!("{name}.new")), path(name)).unwrap();
        if name == "renamed" {
            File::open(&folder).unwrap().sync_all().unwrap();
        }
    }
    let cut = write("cut");
    cut.sync_all().unwrap();
    cut.set_len(2).unwrap();
    cut.sync_all().unwrap();
    write("overwritten").sync_all().unwrap();
    fs::write(path("overwritten"), "x").unwrap();
}

/// The command of a child that ends after this many batches.
pub fn short_command(folder: &Path, round: u64, batches: u64) -> Command {
    let mut command = command(folder, round);
    command.env(BATCHES, batches.to_string());
    command
}

/// The command that runs this binary as the writer of files.
pub fn file_writer(folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::child::writes_files_with_and_without_care", "--nocapture"]);
    command.env(FOLDER, folder).env(ROUND, "files");
    command
}
