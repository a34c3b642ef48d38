//! Delivers one webhook, in order: a reader is opened at the place, and the place moves after each 2xx. While there is
//! nothing to deliver no reader is open, so that a webhook at rest costs little.
//!
//! Must not know: how subscriptions are created and shown.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::clock::now_ms;
use crate::domain::hex::hex;
use crate::domain::id::EventId;
use crate::feed::error::FeedError;
use crate::feed::event::{Delivered, Event};
use crate::feed::reader::Reader;
use crate::feed::registry::{Client, Transport};
use crate::feed::start::Start;
use crate::feed::wake_terms::register_filter;
use crate::tasks;
use crate::webhook::hook::{Definition, Hook};
use crate::webhook::message::{Format, Purpose, discord};
use crate::webhook::record::{Status, StoredAttempt, StoredState};
use crate::webhook::request::OnFault;
use crate::webhook::schedule::Next;
use crate::webhook::signature::SignedHeaders;
use crate::webhook::target::sender::{Answer, Attempt};
use crate::webhook::webhooks::Webhooks;

/// A reader that brought nothing for this long is closed.
const IDLE: Duration = Duration::from_secs(2);
/// How often a webhook at rest moves its place past killmails that do not match.
const REST: Duration = Duration::from_secs(300);
/// Wait after a failure of this server.
const RECOVER: Duration = Duration::from_secs(10);
/// How long a request may take once the server is stopping.
const STOPPING: Duration = Duration::from_secs(2);

/// The time between two messages to Discord, which refuses more.
const DISCORD_INTERVAL: Duration = Duration::from_millis(60_000 / discord::MESSAGES_PER_MINUTE as u64);
/// Digits of the id of a delivery.
const ID_DIGITS: usize = 32;

/// Why a reader is closed.
enum Done {
    /// It brought nothing for a while.
    Idle,
    /// The webhook changed, or has to wait for its next attempt.
    Changed,
    /// Something failed here; later it may work.
    Failed(String),
    /// The server is stopping.
    Closing,
}

/// Starts the delivery of a webhook. It ends with the webhook or with the feed.
pub fn spawn(webhooks: Arc<Webhooks>, hook: Arc<Hook>) {
    drop(tasks::spawn("webhook", async move {
        let closing = webhooks.feed.closing();
        run(webhooks, hook, closing).await;
    }));
}

async fn run(webhooks: Arc<Webhooks>, hook: Arc<Hook>, mut closing: watch::Receiver<bool>) {
    while hook.exists() && !*closing.borrow() {
        let (status, next) = {
            let state = hook.state();
            (state.status, state.next_attempt_ms)
        };
        let wait_ms = next.map_or(0, |at_ms| at_ms - now_ms());
        if status != Status::Active || wait_ms > 0 {
            let until = Duration::from_millis(u64::try_from(wait_ms).unwrap_or_default());
            tokio::select! {
                () = hook.changed() => {}
                _ = closing.changed() => {}
                () = sleep(until), if status == Status::Active => {}
            }
            continue;
        }
        // Boxed, so that the task of a webhook at rest is small.
        match Box::pin(drain(&webhooks, &hook, &mut closing)).await {
            Done::Idle => Box::pin(rest(&webhooks, &hook, &mut closing)).await,
            Done::Changed => {}
            Done::Failed(error) => {
                tracing::error!(subscription.id = hook.id(), %error, "a webhook cannot be delivered now");
                tokio::select! {
                    () = hook.changed() => {}
                    _ = closing.changed() => {}
                    () = sleep(RECOVER) => {}
                }
            }
            Done::Closing => return,
        }
    }
}

/// Waits until a killmail may match.
async fn rest(webhooks: &Arc<Webhooks>, hook: &Hook, closing: &mut watch::Receiver<bool>) {
    let subscription = hook.definition().request.subscription.clone();
    let registered = register_filter(webhooks.feed.filters(), subscription, None).await;
    let Ok((_, lease)) = registered else {
        tokio::select! {
            _ = closing.changed() => {}
            () = sleep(RECOVER) => {}
        }
        return;
    };
    // Registered before the head is read, so nothing falls in between.
    if hook.state().place.place.head() != webhooks.feed.head() {
        return;
    }
    tokio::select! {
        () = lease.wakeup.notified() => {}
        () = hook.changed() => {}
        _ = closing.changed() => {}
        () = sleep(REST) => {}
    }
}

async fn drain(webhooks: &Arc<Webhooks>, hook: &Arc<Hook>, closing: &mut watch::Receiver<bool>) -> Done {
    let (definition, state) = (hook.definition(), hook.state());
    let start = Start { last_event_id: Some(state.place.to_string()), ..Start::default() };
    let subscription = definition.request.subscription.clone();
    let mut reader = match Reader::open(Arc::clone(&webhooks.feed), subscription, start).await {
        Ok(reader) => reader,
        Err(FeedError::Closing) => return Done::Closing,
        Err(error @ FeedError::Plugin(_)) => return pause(webhooks, hook, error.to_string()).await,
        Err(error) => return Done::Failed(error.to_string()),
    };
    let (subscriber, through) = (Some(Arc::from(hook.id())), Transport::Webhook);
    reader.set_client(Client { through, subscriber, address: None, connected_at_ms: None });
    let delivery = Delivery { webhooks, hook, definition, redeliveries: state.redeliveries };
    loop {
        let is_preparing = reader.is_preparing();
        let event = tokio::select! {
            biased;
            () = hook.changed() => return Done::Changed,
            event = reader.next() => event,
            () = sleep(IDLE), if !is_preparing => {
                reader.skip_unmatched();
                hook.pass(reader.id(), state.redeliveries);
                return Done::Idle;
            }
        };
        let done = match event {
            Some(Event::Killmail { kept, id }) => delivery.deliver(kept, id, closing).await,
            Some(Event::Fault { plugin, failure, entry, id }) => match delivery.definition.request.on_fault {
                OnFault::Skip => delivery.pass(id),
                OnFault::Pass => {
                    delivery.deliver(Delivered { entry, annotations: Vec::new() }, id, closing).await
                }
                OnFault::Pause => {
                    let killmail_id = entry.facts.killmail_id;
                    let fault = failure.fault.word();
                    let reason = format!("the plugin {plugin} failed on killmail {killmail_id}: {fault}");
                    Some(pause(webhooks, hook, reason).await)
                }
            },
            Some(Event::Gap(gap)) => {
                let reason = gap.reason.word();
                tracing::warn!(
                    subscription.id = hook.id(),
                    reason,
                    "a webhook continues elsewhere than it was"
                );
                delivery.pass(gap.resumed_at)
            }
            Some(Event::Ended { reason: "read_failed", message }) => Some(Done::Failed(message)),
            Some(Event::Ended { message, .. }) => Some(pause(webhooks, hook, message).await),
            Some(Event::Closing) | None => Some(Done::Closing),
            // A webhook has no preload, and killmails from archives are not delivered.
            Some(
                Event::Opened { .. } | Event::Batch(_) | Event::Preloaded { .. } | Event::Backfilled { .. },
            ) => None,
        };
        if let Some(done) = done {
            return done;
        }
    }
}

/// Pauses a webhook for a reason its owner has to deal with.
async fn pause(webhooks: &Arc<Webhooks>, hook: &Arc<Hook>, reason: String) -> Done {
    tracing::warn!(subscription.id = hook.id(), reason, "a webhook is paused");
    let change = move |state: &mut StoredState| {
        (state.status, state.reason) = (Status::Paused, Some(reason));
    };
    match webhooks.change_state(hook, change, None).await {
        Ok(()) => Done::Changed,
        Err(error) => Done::Failed(error.to_string()),
    }
}

/// The delivery of a webhook as it was defined when its reader was opened.
struct Delivery<'a> {
    webhooks: &'a Arc<Webhooks>,
    hook: &'a Arc<Hook>,
    definition: Arc<Definition>,
    redeliveries: u32,
}

impl Delivery<'_> {
    fn pass(&self, id: EventId) -> Option<Done> {
        self.hook.pass(id, self.redeliveries);
        None
    }

    /// Makes one attempt; `None` if it succeeded.
    async fn deliver(
        &self,
        kept: Delivered,
        id: EventId,
        closing: &mut watch::Receiver<bool>,
    ) -> Option<Done> {
        let webhook_id = self.webhook_id(id);
        let is_failing = self.hook.state().failures.count > 0;
        let host = self.definition.request.callback.host();
        let turn = tokio::select! {
            turn = self.webhooks.turns.take(host, is_failing) => turn,
            () = self.hook.changed() => return Some(Done::Changed),
            _ = closing.changed() => return Some(Done::Closing),
        };
        let at_ms = now_ms();
        let sending = send(self.webhooks, &self.definition, &webhook_id, &kept, Purpose::Update);
        let mut sending = std::pin::pin!(sending);
        let attempt = tokio::select! {
            attempt = &mut sending => attempt,
            // Without the answer the request is repeated after the next start, with the same id.
            _ = closing.changed() => match timeout(STOPPING, sending).await {
                Ok(attempt) => attempt,
                Err(_) => return Some(Done::Closing),
            },
        };
        drop(turn);
        let killmail_ids = vec![kept.entry.facts.killmail_id];
        let stored = stored_attempt(&attempt, at_ms, webhook_id.clone(), killmail_ids);
        let done = self.note(&attempt, stored, id).await;
        if done.is_some() || self.definition.request.format != Format::Discord {
            return done;
        }
        tokio::select! {
            () = sleep(DISCORD_INTERVAL) => None,
            () = self.hook.changed() => Some(Done::Changed),
            _ = closing.changed() => Some(Done::Closing),
        }
    }

    /// The same for every attempt at the same delivery, also after a restart; another one if it is delivered again because
    /// its owner asked for it.
    fn webhook_id(&self, id: EventId) -> String {
        let text = format!("{} {id} {}", self.hook.id(), self.redeliveries);
        let mut digits = hex(&Sha256::digest(text.as_bytes()));
        digits.truncate(ID_DIGITS);
        format!("msg_{digits}")
    }

    /// Stores what follows from an attempt.
    async fn note(&self, attempt: &Attempt, stored: StoredAttempt, id: EventId) -> Option<Done> {
        let (webhooks, hook, counters) = (self.webhooks, self.hook, self.webhooks.counters());
        let jitter = || f64::from(getrandom::u32().unwrap_or_default()) / (f64::from(u32::MAX) + 1.0);
        let next = webhooks.config().next_attempt(hook.state().failures, &attempt.answer, now_ms(), jitter);
        let (last_status, redeliveries) = (stored.status, self.redeliveries);
        let noted = next.clone();
        let change = move |state: &mut StoredState| {
            state.last_status = last_status.or(state.last_status);
            match noted {
                Next::Delivered => {
                    (state.failures, state.next_attempt_ms) = (Default::default(), None);
                    state.delivered += 1;
                    if state.redeliveries == redeliveries {
                        state.place = id;
                    }
                }
                Next::Retry { failures, at_ms } => {
                    (state.failures, state.next_attempt_ms) = (failures, Some(at_ms));
                }
                Next::Disable { failures, reason } => {
                    (state.failures, state.next_attempt_ms) = (failures, None);
                    (state.status, state.reason) = (Status::Disabled, Some(reason));
                }
            }
        };
        if let Err(error) = webhooks.change_state(hook, change, Some(stored)).await {
            return Some(Done::Failed(error.to_string()));
        }
        match next {
            Next::Delivered => {
                counters.delivered.fetch_add(1, Ordering::Relaxed);
                None
            }
            Next::Retry { .. } => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
                Some(Done::Changed)
            }
            Next::Disable { reason, .. } => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
                counters.disabled.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(subscription.id = hook.id(), reason, "a webhook is disabled");
                Some(Done::Changed)
            }
        }
    }
}

/// Sends one killmail.
pub async fn send(
    webhooks: &Webhooks,
    definition: &Definition,
    webhook_id: &str,
    kept: &Delivered,
    purpose: Purpose,
) -> Attempt {
    let (writer, now_ms) = (definition.writer(), now_ms());
    let body = writer.killmail_update(std::slice::from_ref(kept), purpose, now_ms);
    let headers = SignedHeaders::new(&definition.secrets(), webhook_id, now_ms / 1_000, &body);
    let mut url = definition.request.callback.clone();
    for (name, value) in writer.url_parameters() {
        url = url.with_parameter(name, &value);
    }
    webhooks.sender.post(&url, &headers.pairs(), body).await
}

/// An attempt as it is stored; its number is given when it is.
pub fn stored_attempt(
    attempt: &Attempt,
    at_ms: i64,
    webhook_id: String,
    killmail_ids: Vec<u32>,
) -> StoredAttempt {
    let (status, error) = match &attempt.answer {
        Answer::Status { status, .. } => (Some(*status), None),
        Answer::Failed { error } => (None, Some(error.clone())),
    };
    let duration_ms = attempt.duration_ms;
    StoredAttempt { number: 0, at_ms, webhook_id, killmail_ids, status, error, duration_ms }
}
