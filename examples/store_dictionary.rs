//! Makes the dictionary records are compressed with, out of real killmails: `cargo run --release --example
//! store_dictionary -- FILE.. > dictionary.bin` (NDJSON of any upstream form, `.zst` too).
//!
//! A store keeps the dictionaries it was written with, so a new one takes a new number in
//! `src/store/dictionary.rs`: replacing the bytes of a number in use would leave killmails unreadable that
//! were written before.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};

use anyhow::Context;
use killstream::domain::killmail::Killmail;
use killstream::domain::zkb::Zkb;
use killstream::store::format::dictionary::{mean_bytes, train};
use killstream::wire::read::package;

const MAX_BYTES: usize = 112 << 10;
/// Killmails larger than this teach little and take much room, attackers.
const ATTACKERS_MAX: usize = 60;

fn main() -> anyhow::Result<()> {
    let mut samples = Vec::new();
    for path in std::env::args().skip(1) {
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        let reader: Box<dyn Read> =
            if path.ends_with(".zst") { Box::new(zstd::Decoder::new(file)?) } else { Box::new(file) };
        for line in BufReader::new(reader).split(b'\n') {
            samples.extend(package::parse(&line?).ok().and_then(|package| package.killmail));
        }
    }
    let all = samples.clone();
    samples.retain(|killmail: &Killmail| killmail.attackers.len() <= ATTACKERS_MAX);
    lend_zkb(&mut samples);
    let dictionary = train(&samples, MAX_BYTES)?;
    let (raw, packed) = mean_bytes(&all, &dictionary)?;
    eprintln!(
        "{} killmails, a dictionary of {} bytes; records: {raw} bytes, compressed {packed}",
        all.len(),
        dictionary.len()
    );
    std::io::stdout().write_all(&dictionary)?;
    Ok(())
}

/// Live killmails have a zkb block; most of the samples were taken without. Every second one of those is lent
/// a block of another's.
fn lend_zkb(samples: &mut [Killmail]) {
    let blocks: Vec<Zkb> = samples.iter().filter_map(|killmail| killmail.zkb.clone()).collect();
    let without = samples.iter_mut().filter(|killmail| killmail.zkb.is_none());
    for (killmail, block) in without.step_by(2).zip(blocks.iter().cycle()) {
        killmail.zkb = Some(block.clone());
    }
}
