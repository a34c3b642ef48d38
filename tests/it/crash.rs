//! Law 3 (prefix) on a real store: a process that appends is killed, or its disk loses power, at random
//! moments. What was acknowledged is there, the log is a prefix of what was published, and nothing is damaged.
//!
//! Must not know: how the store keeps its data.

pub mod child;
pub mod image;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use killstream::domain::filter::Filter;
use killstream::domain::id::Seq;
use killstream::domain::term::Dimension;
use killstream::store::Store;
use killstream::store::query::{HistoryQuery, Hit, Order};
use tempfile::TempDir;

use crate::crash::child::{Ack, Plan, SOURCE, VALUE};
use crate::support::dice::Dice;
use crate::support::killmail::{SHIPS, SYSTEMS};
use crate::support::server::Setup;
use crate::support::{PATIENCE, long};

/// What the child has acknowledged.
#[derive(Debug, Default)]
pub struct Acknowledged {
    /// Number in the log -> killmail id.
    pub new: BTreeMap<u64, u32>,
    /// Number in the log -> the newest version acknowledged.
    pub revised: BTreeMap<u64, u64>,
}

impl Acknowledged {
    /// Adds the acknowledgements in a child's output; an incomplete line does not count.
    pub fn read(&mut self, output: &[u8]) -> usize {
        let complete = output.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let acks: Vec<Ack> =
            std::str::from_utf8(&output[..complete]).unwrap().lines().filter_map(Ack::parse).collect();
        for ack in &acks {
            match *ack {
                Ack::New { seq, killmail_id } => {
                    assert_eq!(self.new.insert(seq, killmail_id), None, "number {seq} was assigned twice")
                }
                Ack::Revised { seq, version } => {
                    let before = self.revised.insert(seq, version);
                    assert!(before.is_none_or(|b| b < version));
                }
            }
        }
        acks.len()
    }

    /// Checks the store after the crash: a prefix of what was published, with everything acknowledged in it.
    pub fn check(&self, store: &Store, from: u64) {
        let head = store.head().0;
        let last = self.new.last_key_value().map_or(0, |(seq, _)| *seq);
        assert!(head >= last, "the log ends at {head}, but {last} was acknowledged");
        assert_eq!(store.count(), head);
        for (seq, id) in self.new.range(from..) {
            assert_eq!(Plan::id(*seq), *id, "the log is not a prefix of what was published");
            assert_eq!(store.seq_of(*id), Some(Seq(*seq)));
        }
        for seq in from..=head {
            let entry =
                store.entry(Seq(seq)).unwrap().unwrap_or_else(|| panic!("number {seq} of {head} is lost"));
            assert_eq!(entry.is_late(), Plan::is_late(seq), "number {seq}");
            let (mut kept, mut published) = (entry.killmail.clone(), Plan::killmail(seq));
            assert_eq!(kept.killmail_id, published.killmail_id, "number {seq}");
            // A revision that was being written may be there or not.
            let values =
                [&mut kept, &mut published].map(|k| k.zkb.as_mut().unwrap().total_value.take().unwrap());
            assert_eq!(kept, published, "number {seq}");
            assert!(
                values[0] == values[1] || values[0] >= VALUE,
                "number {seq} has a value that nobody set: {values:?}"
            );
        }
        for (seq, version) in &self.revised {
            let entry = store.killmail(Plan::id(*seq)).unwrap().unwrap();
            let value = entry.killmail.zkb.as_ref().unwrap().total_value.unwrap();
            assert!(
                value >= VALUE + *version as f64,
                "number {seq}: version {version} was acknowledged, {value} is stored"
            );
        }
        let files = (1..=store.newest_file()).map(|file| store.entry_of_file(file).map(|seq| seq.0));
        assert!(
            files.eq((1..=head).filter(|n| Plan::has_hash(*n)).map(Some)),
            "each killmail with a hash has the next file"
        );
        let checkpoint = store
            .checkpoint(SOURCE)
            .unwrap()
            .map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
        assert!(
            (last..=head).contains(&checkpoint),
            "the source stands at {checkpoint}, the log at {head}, acknowledged {last}"
        );
    }
}

/// A child that appends, and the thread that reads its acknowledgements.
struct Victim {
    child: Child,
    output: JoinHandle<Vec<u8>>,
    /// Acknowledgements read so far.
    acknowledged: Arc<AtomicUsize>,
}

impl Victim {
    fn start(folder: &Path, round: u64, environment: &[(&str, &Path)]) -> Self {
        let mut command = child::command(folder, round);
        let mut child = command.envs(environment.iter().copied()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&acknowledged);
        let output = std::thread::spawn(move || {
            let (mut output, mut line) = (Vec::new(), 0);
            while stdout.read_until(b'\n', &mut output).unwrap() > 0 {
                count.fetch_add(usize::from(output[line..].starts_with(b"ack ")), Ordering::Relaxed);
                line = output.len();
            }
            output
        });
        Self { child, output, acknowledged }
    }

    /// Waits until it has acknowledged enough, and a little longer: time alone would prove little on a busy
    /// machine.
    fn wait_until(&mut self, moment: Moment) {
        let end = Instant::now() + PATIENCE;
        while self.acknowledged.load(Ordering::Relaxed) < moment.acknowledged {
            assert_eq!(self.child.try_wait().unwrap(), None, "the child ended by itself");
            assert!(Instant::now() < end, "the child makes no progress");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(moment.longer);
    }

    /// Kills it with SIGKILL. Returns its output.
    fn kill(mut self) -> Vec<u8> {
        assert_eq!(self.child.try_wait().unwrap(), None, "the child ended by itself");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.output.join().unwrap()
    }
}

/// When a child is killed.
struct Moment {
    acknowledged: usize,
    longer: Duration,
}

/// Most rounds end during appends, some while the store is still being opened.
fn moment(dice: &mut Dice) -> Moment {
    let acknowledged = if dice.one_in(5) { 0 } else { 60 + usize::try_from(dice.below(120)).unwrap() };
    Moment { acknowledged, longer: Duration::from_millis(dice.below(100)) }
}

fn verify(folder: &Path) {
    let output = Setup::quiet().command("verify").arg("--data-dir").arg(folder).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn kill_9_loses_nothing_acknowledged() {
    let folder = TempDir::with_prefix("killstream-crash-").unwrap();
    let mut dice = Dice::new(9);
    let (mut known, mut acks, mut checked) = (Acknowledged::default(), 0, 1);
    let rounds = if long() { 200 } else { 20 };
    for round in 0..rounds {
        let mut victim = Victim::start(folder.path(), round, &[]);
        victim.wait_until(moment(&mut dice));
        acks += known.read(&victim.kill());
        let store =
            child::open(child::config(folder.path())).unwrap_or_else(|e| panic!("round {round}: {e}"));
        known.check(&store, checked);
        checked = store.head().0 + 1;
    }
    let store = child::open(child::config(folder.path())).unwrap();
    known.check(&store, 1);
    let snapshots = index_equals_a_rebuild(&store, folder.path());
    println!("the rebuild ignored {snapshots} snapshots");
    let head = store.head().0;
    drop(store);
    verify(folder.path());
    let giants = (1..=head).filter(|n| Plan::is_giant(*n)).count();
    println!(
        "{rounds} kills, {acks} acknowledgements, {head} entries, {giants} giants, {} revised",
        known.revised.len()
    );
    assert!(
        giants > 0 && known.revised.len() > 20 && known.new.len() > 500,
        "too little happened to prove anything"
    );
}

#[test]
fn power_loss_keeps_everything_acknowledged() {
    let folder = TempDir::with_prefix("killstream-power-").unwrap();
    let base = folder.path().canonicalize().unwrap();
    let shim = image::build_shim(&base);
    let mut dice = Dice::new(10);
    let (mut known, mut checked, mut torn) = (Acknowledged::default(), 1, 0);
    let rounds = if long() { 60 } else { 8 };
    let mut before: Option<PathBuf> = None;
    for round in 0..rounds {
        let (disk, survives) = (base.join(format!("disk-{round}")), base.join(format!("image-{round}")));
        for fresh in [&disk, &survives] {
            fs::create_dir(fresh).unwrap();
            if let Some(before) = &before {
                image::copy(before, fresh);
            }
        }
        let mut victim = Victim::start(
            &disk,
            round,
            &[("LD_PRELOAD", &shim), ("POWER_ROOT", &disk), ("POWER_IMAGE", &survives)],
        );
        let moment = moment(&mut dice);
        victim.wait_until(Moment { acknowledged: moment.acknowledged.max(30), ..moment });
        known.read(&victim.kill());
        torn += usize::from(!image::same(&disk, &survives));
        let store = child::open(child::config(&survives)).unwrap_or_else(|e| panic!("round {round}: {e}"));
        known.check(&store, checked);
        checked = store.head().0 + 1;
        drop(store);
        fs::remove_dir_all(&disk).unwrap();
        if let Some(old) = before.replace(survives) {
            fs::remove_dir_all(old).unwrap();
        }
    }
    let last = before.unwrap();
    verify(&last);
    println!("{rounds} power cuts, {} acknowledged, in {torn} something unsynced was lost", known.new.len());
    assert!(known.new.len() > 100 && torn > 0, "too little happened to prove anything");
}

/// The hits of some terms of each dimension.
pub fn found(store: &Store) -> Vec<Vec<Hit>> {
    let mut terms: Vec<(Dimension, u32)> = Vec::new();
    terms.extend(SYSTEMS.map(|id| (Dimension::System, id)));
    terms.extend(SHIPS.map(|id| (Dimension::ShipType, id)));
    terms.extend((0..50).map(|n| (Dimension::Character, 90_000_000 + n)));
    terms.extend((0..50).map(|n| (Dimension::Alliance, 99_000_000 + n)));
    terms.push((Dimension::Region, 10_000_002));
    let select = |filter: &Filter| {
        let head = store.head();
        let query = HistoryQuery {
            filter,
            interest: None,
            order: Order::Oldest,
            after: None,
            below: None,
            head,
            limit: usize::MAX,
        };
        store.select(&query).unwrap()
    };
    let by_term = terms.into_iter().map(|(dimension, id)| {
        let mut filter = Filter::default();
        filter.set_ids(dimension, vec![id]);
        select(&filter)
    });
    let revised = Filter { min_value: Some(VALUE), ..Filter::default() };
    by_term.chain([select(&revised), select(&Filter::default())]).collect()
}

/// Checks that the index from snapshots and replay equals one rebuilt from the log. Returns how many snapshots
/// the rebuild ignored.
pub fn index_equals_a_rebuild(store: &Store, folder: &Path) -> usize {
    let copy = TempDir::with_prefix("killstream-rebuild-").unwrap();
    image::copy(folder, copy.path());
    let removed = image::remove(copy.path(), |name| name.starts_with("idx-"));
    let rebuilt = child::open(child::config(copy.path())).unwrap();
    assert_eq!((rebuilt.head(), rebuilt.count()), (store.head(), store.count()));
    assert!(found(store) == found(&rebuilt), "the index differs from its rebuild");
    removed
}
