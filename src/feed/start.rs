//! Where a reader starts: at the head, with a preload, or at the event id the client sent.
//!
//! Must not know: how the client sends it.

use crate::domain::id::{Epoch, EventId, Place, Seq};
use crate::feed::event::{Gap, GapReason};

/// How a transport writes the batches of a preload, so that they can be cut to size before they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchForm {
    /// Bytes of a batch; unset: `feed.batch_bytes`.
    pub max_bytes: Option<u64>,
    /// How many times a batch contains each killmail.
    pub copies: u64,
    /// Bytes of a batch besides its killmails.
    pub frame_bytes: u64,
}

impl Default for BatchForm {
    fn default() -> Self {
        Self { max_bytes: None, copies: 1, frame_bytes: 0 }
    }
}

/// How a reader starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// Preload killmails not older than this, unix seconds.
    pub preload_since: Option<i64>,
    /// How batches of the preload are written.
    pub batches: BatchForm,
    /// The last event id the client has seen, as sent. A valid one takes precedence over the preload.
    pub last_event_id: Option<String>,
}

/// The log at the moment a reader opens.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// The store's identity.
    pub epoch: Epoch,
    /// The newest announced number.
    pub head: Seq,
    /// Entries up to this number may be deleted.
    pub horizon: Seq,
}

/// Where a reader starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The place.
    pub place: Place,
    /// The window of the preload, if there is one to send: unix seconds.
    pub preload_since: Option<i64>,
    /// Why it is not where the client asked; sent to the client first.
    pub gap: Option<Gap>,
}

/// Decides where a reader starts.
#[must_use]
pub fn resolve_start(start: &Start, log: Log) -> Opening {
    let fresh = |gap: Option<(GapReason, &String)>| {
        let place = match start.preload_since {
            Some(_) => Place::Preload { head: log.head, after: 0 },
            None => Place::Live(log.head),
        };
        let resumed_at = EventId { epoch: log.epoch, place };
        let gap = gap.map(|(reason, requested)| Gap { reason, requested: requested.clone(), resumed_at });
        Opening { place, preload_since: start.preload_since, gap }
    };
    let Some(requested) = start.last_event_id.as_ref().filter(|id| !id.is_empty()) else {
        return fresh(None);
    };
    let Ok(id) = requested.parse::<EventId>() else {
        return fresh(Some((GapReason::Malformed, requested)));
    };
    if id.epoch != log.epoch {
        return fresh(Some((GapReason::OtherStore, requested)));
    }
    if id.place.head() > log.head {
        return fresh(Some((GapReason::Ahead, requested)));
    }
    match id.place {
        Place::Preload { .. } if start.preload_since.is_some() => {
            Opening { place: id.place, preload_since: start.preload_since, gap: None }
        }
        place if place.head() < log.horizon => {
            let place = Place::Live(log.horizon);
            let resumed_at = EventId { epoch: log.epoch, place };
            let gap = Gap { reason: GapReason::Horizon, requested: requested.clone(), resumed_at };
            Opening { place, preload_since: None, gap: Some(gap) }
        }
        place => Opening { place: Place::Live(place.head()), preload_since: None, gap: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Log = Log { epoch: Epoch(7), head: Seq(100), horizon: Seq(10) };

    fn open(last: &str, preload: Option<i64>) -> Opening {
        resolve_start(
            &Start { preload_since: preload, last_event_id: Some(last.to_owned()), ..Start::default() },
            LOG,
        )
    }

    fn id(place: Place) -> String {
        EventId { epoch: LOG.epoch, place }.to_string()
    }

    #[test]
    fn a_valid_id_wins_over_the_preload() {
        let opened = open(&id(Place::Live(Seq(40))), Some(5));
        assert_eq!((opened.place, opened.preload_since, opened.gap), (Place::Live(Seq(40)), None, None));
    }

    #[test]
    fn an_unfinished_preload_goes_on_only_if_asked_for_again() {
        let place = Place::Preload { head: Seq(50), after: 9 };
        assert_eq!(open(&id(place), Some(5)).place, place);
        assert_eq!(open(&id(place), Some(5)).preload_since, Some(5));
        assert_eq!(open(&id(place), None).place, Place::Live(Seq(50)));
    }

    #[test]
    fn every_bad_id_is_a_gap_with_its_reason() {
        let other = EventId { epoch: Epoch(8), place: Place::Live(Seq(4)) }.to_string();
        for (text, reason) in [
            ("hello", GapReason::Malformed),
            (other.as_str(), GapReason::OtherStore),
            (&id(Place::Live(Seq(101))), GapReason::Ahead),
            (&id(Place::Live(Seq(9))), GapReason::Horizon),
        ] {
            let opened = open(text, None);
            let gap = opened.gap.expect("a gap");
            assert_eq!((gap.reason, gap.requested.as_str()), (reason, text));
            assert_eq!(gap.resumed_at.place, opened.place);
        }
        assert_eq!(open(&id(Place::Live(Seq(9))), None).place, Place::Live(LOG.horizon));
        assert_eq!(open("hello", Some(3)).preload_since, Some(3));
    }

    #[test]
    fn an_empty_id_is_none() {
        assert_eq!(open("", None), resolve_start(&Start::default(), LOG));
    }
}
