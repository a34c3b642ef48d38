//! A short soak test: two days with few killmails, faults and kills. The long one is `cargo run --release
//! --example soak`.
//!
//! Must not know: which faults happen when.

use std::fs;

use crate::soak::{self, Plan};
use crate::support::long;
use crate::support::server::Setup;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_is_complete_and_every_client_saw_everything_once() {
    let (killmails, subscribers, kills, missing) =
        if long() { (20_000, 100, 8, 0.001) } else { (2_000, 24, 2, 0.005) };
    let plan = Plan { killmails, days: 2.0, missing, subscribers, kills, seed: 7 };
    let setup = Setup::quiet();
    let file = setup.folder().join("soak.toml");
    fs::write(&file, soak::CONFIG.replace("heal_ms = 100", "heal_ms = 30")).unwrap();
    let serve = |feed: &str, port: u16| {
        let setup = setup.clone().env("SOURCE", "r2z2").env("R2Z2_BASE_URL", feed).env("API_TOKEN", "soak");
        let setup = setup.env("R2Z2_IDLE_MS", "").env("R2Z2_PACE_MS", "").env("PORT", &port.to_string());
        let mut command = setup.command("serve");
        command.arg("--config").arg(&file);
        command
            .stderr(fs::File::options().create(true).append(true).open(setup.folder().join("log")).unwrap());
        command
    };
    if let Err(error) = soak::run(plan, serve).await {
        let log = fs::read_to_string(setup.folder().join("log")).unwrap_or_default();
        let from = log.char_indices().rev().nth(30_000).map_or(0, |(at, _)| at);
        panic!("{error:?}\n--- the end of the server's log ---\n{}", &log[from..]);
    }
}
