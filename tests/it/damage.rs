//! Damage to a real store: a store of 20,000 killmails, half of them revised, loses a block or has a bit
//! flipped somewhere; a separate process opens, verifies and salvages it. Every frame that the damage does not
//! touch is recovered, and nothing wrong or stale is served.
//!
//! Must not know: how the store keeps its data.

pub mod child;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use crate::crash::image;
use crate::damage::child::{BLOCK, Findings, build, command};
use crate::support::dice::Dice;
use crate::support::long;

/// How the store's main file is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Block,
    Flip,
}

impl Damage {
    /// Killmails that may be lost, at most. Without the journal, all those in a block: the smallest frames have
    /// about 190 bytes.
    const fn lost_max(self, journal: bool) -> u64 {
        match self {
            Self::Block if journal => 10,
            Self::Block => BLOCK / 190 + 2,
            Self::Flip => 1,
        }
    }

    fn apply(self, folder: &Path, dice: &mut Dice) -> u64 {
        let mut db = File::options().read(true).write(true).open(folder.join("store/db")).unwrap();
        let length = db.metadata().unwrap().len();
        loop {
            let at = dice.below(length / BLOCK) * BLOCK;
            let mut block = vec![0; usize::try_from(BLOCK).unwrap()];
            db.seek(SeekFrom::Start(at)).unwrap();
            db.read_exact(&mut block).unwrap();
            // Blocks that were never written cannot be damaged.
            if block.iter().all(|byte| *byte == 0) {
                continue;
            }
            match self {
                Self::Block => block.fill(0),
                Self::Flip => block[usize::try_from(dice.below(BLOCK)).unwrap()] ^= 1 << dice.below(8),
            }
            db.seek(SeekFrom::Start(at)).unwrap();
            db.write_all(&block).unwrap();
            return at;
        }
    }
}

fn trial(base: &Path, pristine: &Path, damage: Damage, number: u64) -> Findings {
    let folder = base.join(format!("trial-{damage:?}-{number}"));
    image::copy(pristine, &folder);
    // One in four is like a store that has long outgrown its journal of the newest frames.
    let journal = number % 4 != 3;
    if !journal {
        assert!(image::remove(&folder, |name| name.starts_with("recent")) > 0);
    }
    let at = damage.apply(&folder, &mut Dice::new(number * 2 + u64::from(damage == Damage::Flip)));
    let output = command(&folder, if number.is_multiple_of(20) { 1 } else { 20 }).output().unwrap();
    let output_text = String::from_utf8_lossy(&output.stdout).into_owned();
    let findings = output_text.lines().find_map(Findings::parse);
    let context =
        || format!("{damage:?} {number} at {at}:\n{output_text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", context());
    let findings = findings.unwrap_or_else(|| panic!("{}", context()));
    println!("{damage:?} {number:>2} at {at:>9}, journal {journal}: {findings:?}");
    assert_eq!((findings.wrong_before, findings.wrong_after), (0, 0), "{}", context());
    assert!(findings.lost <= damage.lost_max(journal), "{}", context());
    fs::remove_dir_all(folder).unwrap();
    findings
}

#[test]
fn damage_costs_no_more_than_it_touches() {
    let base = TempDir::with_prefix("killstream-damage-").unwrap();
    let pristine = base.path().join("pristine");
    build(&pristine);
    let each = if long() { 200 } else { 20 };
    let next = AtomicU64::new(0);
    let all = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let (damage, number) =
                        (if number.is_multiple_of(2) { Damage::Block } else { Damage::Flip }, number / 2);
                    if number >= each {
                        break;
                    }
                    let findings = trial(base.path(), &pristine, damage, number);
                    all.lock().unwrap().push(findings);
                }
            });
        }
    });
    let all = all.into_inner().unwrap();
    assert_eq!(all.len() as u64, 2 * each);
    let noticed = all.iter().filter(|findings| !findings.clean).count();
    println!(
        "{} trials, {noticed} noticed, {} killmails lost in total",
        all.len(),
        all.iter().map(|f| f.lost).sum::<u64>()
    );
    assert!(
        noticed > 0 && all.iter().any(|findings| !findings.opened),
        "too little damage to prove anything"
    );
}
