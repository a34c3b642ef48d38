//! Which killmails wake a reader, and registering its filter.
//!
//! Must not know: how a reader reads.

use std::sync::Arc;

use crate::domain::filter::{Filter, IdsIn, Interest};
use crate::domain::subscription::Subscription;
use crate::feed::error::FeedError;
use crate::feed::filters::{FilterLease, Filters, MANY_IDS};
use crate::tasks;

/// The ids whose killmails wake the reader: those the filter needs or those the plugin needs, whichever list is
/// shorter. `None`: every killmail does.
#[must_use]
pub fn wake_terms(filter: &Filter, interest: Option<&Interest>) -> Option<Vec<IdsIn>> {
    let length = |ids: &[IdsIn]| ids.iter().map(|d| d.ids.as_slice().len()).sum::<usize>();
    match (filter.wakeup_ids(), interest.and_then(Interest::wakeup_ids)) {
        (Some(wanted), Some(needed)) if length(&needed) < length(&wanted) => Some(needed),
        (wanted @ Some(_), _) => wanted,
        (None, needed) => needed,
    }
}

/// Registers the filter of a subscription; one with many ids off the event loop.
///
/// # Errors
/// There is no room for another filter.
pub async fn register_filter(
    filters: &Arc<Filters>,
    mut subscription: Subscription,
    interest: Option<&Interest>,
) -> Result<(Subscription, FilterLease), FeedError> {
    let (filters, woken) = (Arc::clone(filters), wake_terms(&subscription.filter, interest));
    let length = |ids: &[IdsIn]| ids.iter().map(|d| d.ids.as_slice().len()).sum::<usize>();
    let many = length(&subscription.filter.dimensions).max(woken.as_deref().map_or(0, length)) > MANY_IDS;
    let work = move || filters.register(&mut subscription, woken).map(|lease| (subscription, lease));
    let lease = if many { tasks::blocking("filter", work).await? } else { work() };
    Ok(lease?)
}
