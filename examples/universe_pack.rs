//! Refreshes the EVE facts embedded in the binary: `cargo run --release --example universe_pack -- DIR`, at
//! the top of the repository.
//!
//! DIR holds CSV exports of CCP's static data: systems, constellations, regions, system_jumps, types, groups
//! and categories.

use std::path::PathBuf;

use anyhow::Context;
use killstream::universe::pack;

const PACK: &str = "src/universe/data/universe.bin.zst";

fn main() -> anyhow::Result<()> {
    let dir = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .context("the first argument is the folder with the exports")?;
    let bytes = pack::pack(&dir)?;
    let compressed = pack::compress(&bytes)?;
    std::fs::write(PACK, &compressed).with_context(|| format!("cannot write {PACK}"))?;
    println!("{PACK}: {} bytes, {} before compression", compressed.len(), bytes.len());
    Ok(())
}
