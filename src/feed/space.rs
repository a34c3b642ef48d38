//! Whether the disk has room to write: said in the log once when it has no more, and once when it has again.
//!
//! Must not know: who writes; who asks.

use std::sync::Arc;
use std::time::Duration;

use crate::feed::Feed;
use crate::tasks;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What to say of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Turn {
    Full(String),
    Room,
}

/// Looks until the server stops.
pub async fn watch(feed: Arc<Feed>) {
    let mut closing = feed.closing();
    let mut is_full = false;
    loop {
        let store = Arc::clone(feed.store());
        if let Ok(lack) = tasks::blocking("space", move || store.lack_of_space()).await {
            match turn(&mut is_full, lack) {
                Some(Turn::Full(why)) => {
                    tracing::error!("the disk is full, ingest pauses and nothing is written: {why}")
                }
                Some(Turn::Room) => tracing::info!("the disk has room again, ingest goes on"),
                None => {}
            }
        }
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Takes a look: why there is no room, if there is none.
fn turn(is_full: &mut bool, lack: Option<String>) -> Option<Turn> {
    let was_full = std::mem::replace(is_full, lack.is_some());
    match lack {
        Some(why) if !was_full => Some(Turn::Full(why)),
        None if was_full => Some(Turn::Room),
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
            looks.into_iter().filter_map(|lack| turn(&mut is_full, lack.map(str::to_owned))).collect();
        assert_eq!(said, [Turn::Full("a".to_owned()), Turn::Room, Turn::Full("c".to_owned())]);
    }
}
