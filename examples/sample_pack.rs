//! Refreshes the embedded sample of killmails: `cargo run --release --example sample_pack -- DIR`, at the top
//! of the repository.
//!
//! DIR holds killmails in upstream forms. The sample has all packages and websocket killmails, and from the file of
//! ESI killmails the busiest period of December 2021: consecutive killmails in so little time that fights, camps and
//! recurring pilots are in it as they happened. Lines are copied unchanged; the same DIR gives the same sample.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

const SAMPLE: &str = "src/sample/killmails.ndjson.zst";
const WHOLE: [&str; 3] = [
    "redisq-packages-normalised.derived.ndjson",
    "redisq-packages.ndjson",
    "zkb-websocket-killstream.ndjson",
];
const ESI: &str = "killmails-esi.ndjson.zst";
const MONTH: &str = "2021-12";
/// Killmails of the busiest period.
const PERIOD: usize = 3_500;
/// zstd's level: the file is written once and read for years.
const LEVEL: i32 = 19;

fn main() -> anyhow::Result<()> {
    let dir = std::env::args_os().nth(1).context("the first argument is the folder with the killmails")?;
    let dir = Path::new(&dir);
    let esi = zstd::decode_all(fs::File::open(dir.join(ESI)).context(ESI)?).context(ESI)?;
    let mut sample = busiest(killmails(&String::from_utf8(esi).context(ESI)?).context(ESI)?)?;
    report("busiest period", &sample);
    for name in WHOLE {
        let text = fs::read_to_string(dir.join(name)).context(name)?;
        let more = killmails(&text).context(name)?;
        report(name, &more);
        sample.extend(more);
    }
    sample.sort_by_key(|killmail| killmail.id);
    report("sample", &sample);

    let text: String = sample.iter().flat_map(|killmail| [killmail.line.as_str(), "\n"]).collect();
    let compressed = zstd::bulk::compress(text.as_bytes(), LEVEL)?;
    fs::write(SAMPLE, &compressed).with_context(|| format!("cannot write {SAMPLE}"))?;
    println!("{SAMPLE}: {} bytes, {} before compression", compressed.len(), text.len());
    Ok(())
}

struct Killmail {
    id: u64,
    time: String,
    /// Seconds since 1970.
    at: i64,
    line: String,
}

fn killmails(text: &str) -> anyhow::Result<Vec<Killmail>> {
    text.lines().filter(|line| !line.is_empty()).map(killmail).collect()
}

fn killmail(line: &str) -> anyhow::Result<Killmail> {
    let document: Value = serde_json::from_str(line)?;
    let body = document.pointer("/package/killmail").unwrap_or(&document);
    let id = body["killmail_id"].as_u64().context("a killmail without an id")?;
    let time = body["killmail_time"].as_str().context("a killmail without a time")?.to_owned();
    let at =
        time.parse::<jiff::Timestamp>().with_context(|| format!("the time of killmail {id}"))?.as_second();
    Ok(Killmail { id, time, at, line: line.to_owned() })
}

/// The consecutive killmails of the month that took the least time.
fn busiest(mut killmails: Vec<Killmail>) -> anyhow::Result<Vec<Killmail>> {
    killmails.retain(|killmail| killmail.time.starts_with(MONTH));
    killmails.sort_by_key(|killmail| killmail.id);
    let spans = killmails.windows(PERIOD).map(|period| period[PERIOD - 1].at - period[0].at);
    let (start, _) = spans
        .enumerate()
        .min_by_key(|&(start, span)| (span, start))
        .context("too few killmails in the month")?;
    Ok(killmails.drain(start..start + PERIOD).collect())
}

fn report(what: &str, killmails: &[Killmail]) {
    let times = || killmails.iter().map(|killmail| killmail.time.as_str());
    let (first, last) = (times().min().unwrap_or("-"), times().max().unwrap_or("-"));
    println!("{what}: {} killmails, {first} to {last}", killmails.len());
}
