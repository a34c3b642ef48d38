//! The background check of every stored record, from the oldest to the newest, again and again.
//!
//! Must not know: what a damaged record looks like.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::domain::id::Seq;
use crate::store::Store;
use crate::tasks;

/// Time between two portions of records.
const PORTION: Duration = Duration::from_secs(1);

/// Checks `per_sec` records a second until the server stops, and pauses for `pause` after each pass. With 0 records
/// a second it checks nothing.
pub async fn run(store: Arc<Store>, per_sec: u64, pause: Duration, mut closing: watch::Receiver<bool>) {
    let (mut place, mut wait) = (Seq::ZERO, PORTION);
    while per_sec > 0 && !stopped_within(&mut closing, wait).await {
        let store = Arc::clone(&store);
        let Ok(next) = tasks::blocking("scrub", move || store.scrub(place, per_sec)).await else { return };
        (place, wait) = next.map_or((Seq::ZERO, pause), |next| (next, PORTION));
    }
}

/// Waits for `pause`; true if the server stops meanwhile.
async fn stopped_within(closing: &mut watch::Receiver<bool>, pause: Duration) -> bool {
    tokio::select! {
        _ = closing.wait_for(|closing| *closing) => true,
        () = sleep(pause) => false,
    }
}
