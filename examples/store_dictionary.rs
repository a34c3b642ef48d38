//! Trains the dictionary that records are compressed with, on real killmails: `cargo run --release --example
//! store_dictionary -- FILE.. > dictionary.bin` (NDJSON in any upstream form, `.zst` too).
//!
//! A store keeps the dictionaries it was written with. A new one needs a new number in
//! `src/store/format/dictionary.rs`: with other bytes under a number in use, existing killmails would be unreadable.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};

use anyhow::Context;
use killstream::domain::killmail::Killmail;
use killstream::domain::zkb::Zkb;
use killstream::store::format::dictionary::{mean_bytes, train};
use killstream::wire::read::package;

const MAX_BYTES: usize = 112 << 10;
/// Killmails with more attackers are left out: they are large and add little.
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
    add_zkb(&mut samples);
    let dictionary = train(&samples, MAX_BYTES)?;
    let (raw, packed) = mean_bytes(&all, &dictionary)?;
    eprintln!(
        "{} killmails, a dictionary of {} bytes; mean record: {raw} bytes, compressed {packed}",
        all.len(),
        dictionary.len()
    );
    std::io::stdout().write_all(&dictionary)?;
    Ok(())
}

/// Copies the zkb blocks of other samples to every second one without. Live killmails have such a block, but most of
/// the samples do not.
fn add_zkb(samples: &mut [Killmail]) {
    let blocks: Vec<Zkb> = samples.iter().filter_map(|killmail| killmail.zkb.clone()).collect();
    let without = samples.iter_mut().filter(|killmail| killmail.zkb.is_none());
    for (killmail, block) in without.step_by(2).zip(blocks.iter().cycle()) {
        killmail.zkb = Some(block.clone());
    }
}
