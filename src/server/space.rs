//! Whether the disk has room to write. Logged once when it is full, and once when it has room again.
//!
//! Must not know: who writes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::store::Store;
use crate::tasks;

/// How often to check.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// A change since the last check.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SpaceChange {
    Full(String),
    Room,
}

/// Checks until the server stops.
pub async fn watch(store: Arc<Store>, mut closing: watch::Receiver<bool>) {
    let mut is_full = false;
    loop {
        let store = Arc::clone(&store);
        if let Ok(lack) = tasks::blocking("space", move || store.lack_of_space()).await {
            match change(&mut is_full, lack) {
                Some(SpaceChange::Full(why)) => {
                    tracing::error!("the disk is full, ingest pauses and nothing is written: {why}")
                }
                Some(SpaceChange::Room) => tracing::info!("the disk has room again, ingest goes on"),
                None => {}
            }
        }
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(CHECK_EVERY) => {}
        }
    }
}

/// Notes the result of a check, the reason if the disk is full, and returns what changed.
fn change(is_full: &mut bool, lack: Option<String>) -> Option<SpaceChange> {
    let was_full = std::mem::replace(is_full, lack.is_some());
    match lack {
        Some(why) if !was_full => Some(SpaceChange::Full(why)),
        None if was_full => Some(SpaceChange::Room),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_said_once_when_it_begins_and_once_when_it_ends() {
        let mut is_full = false;
        let looks = [None, Some("a"), Some("b"), None, None, Some("c")];
        let said: Vec<_> =
            looks.into_iter().filter_map(|lack| change(&mut is_full, lack.map(str::to_owned))).collect();
        assert_eq!(
            said,
            [SpaceChange::Full("a".to_owned()), SpaceChange::Room, SpaceChange::Full("c".to_owned())]
        );
    }
}
