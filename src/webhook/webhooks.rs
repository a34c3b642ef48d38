//! All webhooks: created, changed and removed, on disk first; and their deliveries started.
//!
//! Must not know: axum and requests of the API, how a killmail is sent.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use serde_json::Value;

use crate::clock::now_ms;
use crate::domain::entry::SharedEntry;
use crate::domain::id::{EventId, Place};
use crate::feed::Feed;
use crate::feed::event::Delivered;
use crate::feed::registry::random_name;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::webhook::config::Config;
use crate::webhook::delivery;
use crate::webhook::hook::{Definition, Hook};
use crate::webhook::hosts::Turns;
use crate::webhook::message::Purpose;
use crate::webhook::record::{
    ATTEMPTS_MAX, Status, StoredAttempt, StoredDefinition, StoredSecret, StoredState,
};
use crate::webhook::request::{self, Members, Request};
use crate::webhook::signature::Secret;
use crate::webhook::target::sender::{Sender, SetupError};
use crate::wire::query::limits::Limits;
use crate::wire::sample_entry;
use crate::{sample, tasks};

/// How long a replaced secret signs along, milliseconds.
const OLD_SECRET_MS: i64 = 24 * 3_600 * 1_000;

/// Why a request about a webhook is refused.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// A limit is reached.
    #[error("{message}")]
    Limit {
        /// Which one.
        message: String,
        /// Its value.
        limit: usize,
    },
    /// No subscription has this id.
    #[error("subscription not found")]
    Unknown,
    /// The disk, or the system's random numbers.
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for WebhookError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Webhooks cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The client cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The stored subscriptions cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who creates a subscription.
#[derive(Debug, Clone, Copy)]
pub struct Creator {
    /// The address, if it is known.
    pub address: Option<IpAddr>,
    /// Whether it has a token of the scope `subscriptions`.
    pub trusted: bool,
}

/// What deliveries count, since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Killmails delivered.
    pub delivered: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Subscriptions disabled because their endpoint failed.
    pub disabled: AtomicU64,
}

/// All webhooks.
pub struct Webhooks {
    pub(crate) feed: Arc<Feed>,
    store: Arc<Store>,
    config: Config,
    limits: Limits,
    pub(crate) sender: Sender,
    pub(crate) turns: Turns,
    hooks: RwLock<HashMap<String, Arc<Hook>>>,
    /// Held while the table is changed, on disk and here.
    changes: Mutex<()>,
    counters: Counters,
}

impl Webhooks {
    /// Reads the stored subscriptions. Nothing is delivered before [`Webhooks::start`].
    ///
    /// # Errors
    /// The client cannot be set up, the disk.
    pub fn open(
        feed: Arc<Feed>,
        store: Arc<Store>,
        config: Config,
        limits: Limits,
    ) -> Result<Arc<Self>, OpenError> {
        let mut hooks = HashMap::new();
        for (id, bytes) in store.webhooks()? {
            let state = store.webhook_state(&id)?;
            match read_stored(&id, &bytes, state.as_deref(), limits) {
                Ok(hook) => {
                    hooks.insert(id, Arc::new(hook));
                }
                Err(error) => {
                    tracing::error!(subscription.id = %id, %error, "a stored webhook cannot be read and is not delivered");
                }
            }
        }
        Ok(Arc::new(Self {
            sender: Sender::new(&config)?,
            turns: Turns::new(config.requests_max, config.retries_max, config.requests_per_host_max),
            feed,
            store,
            config,
            limits,
            hooks: RwLock::new(hooks),
            changes: Mutex::default(),
            counters: Counters::default(),
        }))
    }

    /// Starts to deliver.
    pub fn start(self: &Arc<Self>) {
        for hook in self.list() {
            delivery::spawn(Arc::clone(self), hook);
        }
    }

    /// The settings.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The counters.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.hooks.read().len()
    }

    /// Every subscription, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Hook>> {
        let mut hooks: Vec<Arc<Hook>> = self.hooks.read().values().cloned().collect();
        hooks.sort_by_cached_key(|hook| (hook.definition().stored.created_at_ms, hook.id().to_owned()));
        hooks
    }

    /// The subscription of this id.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, id: &str) -> Result<Arc<Hook>, WebhookError> {
        self.hooks.read().get(id).cloned().ok_or(WebhookError::Unknown)
    }

    /// Creates a subscription at the end of the log, and starts to deliver. The secret is shown only here.
    ///
    /// # Errors
    /// The request is wrong, a limit is reached, the disk.
    pub async fn create(
        self: &Arc<Self>,
        mut members: Members,
        creator: Creator,
    ) -> Result<(Arc<Hook>, Secret), WebhookError> {
        let request = self.read(&mut members)?;
        let secret = Secret::generate().map_err(|error| WebhookError::Failed(error.to_string()))?;
        let now_ms = now_ms();
        let stored = StoredDefinition {
            members,
            secrets: vec![StoredSecret::new(&secret)],
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
            address: creator.address.filter(|_| !creator.trusted),
            trusted: creator.trusted,
        };
        let place = EventId { epoch: self.feed.epoch(), place: Place::Live(self.feed.head()) };
        let definition = Definition { stored, request };
        let hook = Arc::new(Hook::new(random_name(), definition, StoredState::new(place)));
        let (webhooks, created) = (Arc::clone(self), Arc::clone(&hook));
        blocking(move || {
            let _guard = webhooks.changes.lock();
            webhooks.check_limits(&created)?;
            webhooks.store.check_space()?;
            webhooks.put(&created, &created.definition())?;
            webhooks.hooks.write().insert(created.id().to_owned(), created);
            Ok(())
        })
        .await?;
        delivery::spawn(Arc::clone(self), Arc::clone(&hook));
        Ok((hook, secret))
    }

    /// Changes members of a subscription; `null` removes one. The place stays.
    ///
    /// # Errors
    /// The request is wrong, the disk.
    pub async fn change(self: &Arc<Self>, hook: &Arc<Hook>, changed: Members) -> Result<(), WebhookError> {
        let mut members = hook.definition().stored.members.clone();
        for (name, value) in changed {
            if value.is_null() {
                members.remove(&name)
            } else {
                members.insert(name, value)
            };
        }
        let request = self.read(&mut members)?;
        self.redefine(hook, move |stored| stored.members = members, Some(request)).await
    }

    /// Replaces the secret; the old one signs along for a day.
    ///
    /// # Errors
    /// The disk.
    pub async fn rotate_secret(self: &Arc<Self>, hook: &Arc<Hook>) -> Result<Secret, WebhookError> {
        let secret = Secret::generate().map_err(|error| WebhookError::Failed(error.to_string()))?;
        let new = StoredSecret::new(&secret);
        let rotate = move |stored: &mut StoredDefinition| {
            stored.secrets.truncate(1);
            stored.secrets.iter_mut().for_each(|old| old.until_ms = Some(now_ms() + OLD_SECRET_MS));
            stored.secrets.insert(0, new);
        };
        self.redefine(hook, rotate, None).await?;
        Ok(secret)
    }

    /// Stops delivery; the place stays.
    ///
    /// # Errors
    /// The disk.
    pub async fn pause(self: &Arc<Self>, hook: &Arc<Hook>) -> Result<(), WebhookError> {
        let pause = |state: &mut StoredState| {
            (state.status, state.reason) = (Status::Paused, Some("paused by its owner".to_owned()));
        };
        self.change_state(hook, pause, None).await
    }

    /// Continues delivery at the place, at once.
    ///
    /// # Errors
    /// The disk.
    pub async fn resume(self: &Arc<Self>, hook: &Arc<Hook>) -> Result<(), WebhookError> {
        let resume = |state: &mut StoredState| {
            (state.status, state.reason, state.next_attempt_ms) = (Status::Active, None, None);
            state.failures = Default::default();
        };
        self.change_state(hook, resume, None).await
    }

    /// Moves the place back (or forth) to an event id of this store; killmails after it are delivered again.
    ///
    /// # Errors
    /// It is not an event id of this store, the disk.
    pub async fn redeliver_from(self: &Arc<Self>, hook: &Arc<Hook>, from: &str) -> Result<(), WebhookError> {
        let head = self.feed.head();
        let known = from
            .parse::<EventId>()
            .ok()
            .filter(|id| id.epoch == self.feed.epoch() && id.place.head() <= head)
            .ok_or_else(|| WebhookError::Invalid("from must be an event id of this server".to_owned()))?;
        let place = EventId { place: Place::Live(known.place.head()), ..known };
        let back = move |state: &mut StoredState| {
            (state.place, state.next_attempt_ms) = (place, None);
            state.redeliveries += 1;
        };
        self.change_state(hook, back, None).await
    }

    /// The last attempts, newest first.
    ///
    /// # Errors
    /// The disk.
    pub async fn attempts(self: &Arc<Self>, hook: &Arc<Hook>) -> Result<Vec<StoredAttempt>, WebhookError> {
        let (store, id) = (Arc::clone(&self.store), hook.id().to_owned());
        let bytes = blocking(move || Ok(store.webhook_attempts(&id)?)).await?;
        let mut attempts: Vec<StoredAttempt> =
            bytes.iter().filter_map(|bytes| serde_json::from_slice(bytes).ok()).collect();
        attempts.sort_by_key(|attempt| std::cmp::Reverse(attempt.number));
        Ok(attempts)
    }

    /// Sends a killmail of the bundled sample, flagged as a test. Whatever comes of it, only the list of attempts changes.
    ///
    /// # Errors
    /// The disk.
    pub async fn test(self: &Arc<Self>, hook: &Arc<Hook>) -> Result<(), WebhookError> {
        let kept = Delivered { entry: sample_killmail()?, annotations: Vec::new() };
        let (definition, at_ms) = (hook.definition(), now_ms());
        let webhook_id = format!("msg_test_{}", random_name());
        let attempt = delivery::send(self, &definition, &webhook_id, &kept, Purpose::Test).await;
        let killmail_ids = vec![kept.entry.facts.killmail_id];
        let stored = delivery::stored_attempt(&attempt, at_ms, webhook_id, killmail_ids);
        self.change_state(hook, |_| {}, Some(stored)).await
    }

    /// Removes the subscription of this id, or else all of the subscriber of this name.
    ///
    /// # Errors
    /// The disk.
    pub async fn remove(self: &Arc<Self>, name: &str) -> Result<(), WebhookError> {
        let name = name.to_owned();
        let named = name.parse::<Value>().ok();
        let of_subscriber = {
            let name = name.clone();
            move |hook: &Hook| match &hook.definition().request.subscriber {
                Value::String(text) => *text == name,
                other => named.as_ref() == Some(other),
            }
        };
        let webhooks = Arc::clone(self);
        blocking(move || {
            let _guard = webhooks.changes.lock();
            let gone = match webhooks.get(&name) {
                Ok(hook) => vec![hook],
                Err(_) => {
                    webhooks.hooks.read().values().filter(|hook| of_subscriber(hook)).cloned().collect()
                }
            };
            for hook in gone {
                hook.remove(|| webhooks.store.remove_webhook(hook.id()))?;
                webhooks.hooks.write().remove(hook.id());
            }
            Ok(())
        })
        .await
    }

    fn read(&self, members: &mut Members) -> Result<Request, WebhookError> {
        let request = request::read(members, self.limits).map_err(WebhookError::Invalid)?;
        let allowed = self.sender.targets().check(&request.callback);
        allowed.map_err(|error| WebhookError::Invalid(error.to_string()))?;
        Ok(request)
    }

    fn check_limits(&self, created: &Hook) -> Result<(), WebhookError> {
        let hooks = self.hooks.read();
        let refuse = |count: usize, limit: usize, what: &str, setting: &str| {
            let message = format!("there are already {limit} subscriptions {what} (webhook.{setting})");
            if count < limit { Ok(()) } else { Err(WebhookError::Limit { message, limit }) }
        };
        refuse(hooks.len(), self.config.subscriptions_max, "on this server", "subscriptions_max")?;
        let new = created.definition();
        if new.stored.trusted {
            return Ok(());
        }
        let (mut of_address, mut of_host) = (0, 0);
        for hook in hooks.values() {
            let other = hook.definition();
            of_address += usize::from(!other.stored.trusted && other.stored.address == new.stored.address);
            let is_same_host = other.request.callback.host() == new.request.callback.host();
            of_host += usize::from(!other.stored.trusted && is_same_host);
        }
        let config = &self.config;
        refuse(of_address, config.per_address_max, "of your address without a token", "per_address_max")?;
        refuse(of_host, config.per_host_max, "that call this host without a token", "per_host_max")
    }

    fn put(&self, hook: &Hook, definition: &Definition) -> Result<(), WebhookError> {
        let failed = |error: serde_json::Error| WebhookError::Failed(error.to_string());
        let bytes = serde_json::to_vec(&definition.stored).map_err(failed)?;
        let state = serde_json::to_vec(&hook.state()).map_err(failed)?;
        Ok(self.store.put_webhook(hook.id(), &bytes, &state)?)
    }

    async fn redefine(
        self: &Arc<Self>,
        hook: &Arc<Hook>,
        change: impl FnOnce(&mut StoredDefinition) + Send + 'static,
        request: Option<Request>,
    ) -> Result<(), WebhookError> {
        let (webhooks, hook) = (Arc::clone(self), Arc::clone(hook));
        blocking(move || {
            let writing = hook.lock().ok_or(WebhookError::Unknown)?;
            let mut definition = Definition::clone(&hook.definition());
            change(&mut definition.stored);
            definition.stored.updated_at_ms = now_ms();
            definition.request = request.unwrap_or(definition.request);
            webhooks.put(&hook, &definition)?;
            hook.set_definition(&writing, definition);
            Ok(())
        })
        .await
    }

    /// Changes the state, on disk first; with an attempt, which goes to its slot.
    pub(crate) async fn change_state(
        self: &Arc<Self>,
        hook: &Arc<Hook>,
        change: impl FnOnce(&mut StoredState) + Send + 'static,
        attempt: Option<StoredAttempt>,
    ) -> Result<(), WebhookError> {
        let (store, hook) = (Arc::clone(&self.store), Arc::clone(hook));
        blocking(move || {
            let failed = |error: serde_json::Error| WebhookError::Failed(error.to_string());
            let writing = hook.lock().ok_or(WebhookError::Unknown)?;
            let mut state = hook.state();
            change(&mut state);
            let attempt = attempt.map(|attempt| StoredAttempt { number: state.attempts, ..attempt });
            let attempt = attempt.map(|attempt| serde_json::to_vec(&attempt)).transpose().map_err(failed)?;
            let slot = u8::try_from(state.attempts % ATTEMPTS_MAX).unwrap_or_default();
            state.attempts += u64::from(attempt.is_some());
            let bytes = serde_json::to_vec(&state).map_err(failed)?;
            store.put_webhook_state(hook.id(), &bytes, attempt.as_deref().map(|bytes| (slot, bytes)))?;
            hook.set_state(&writing, state);
            Ok(())
        })
        .await
    }
}

/// A webhook as it is stored.
fn read_stored(id: &str, definition: &[u8], state: Option<&[u8]>, limits: Limits) -> Result<Hook, String> {
    let definition = serde_json::from_slice(definition).map_err(|error| error.to_string())?;
    let definition = Definition::read(definition, limits)?;
    // Without its place it would continue at the head, and what it missed would be lost.
    let state = state.ok_or("it has no state")?;
    let state = serde_json::from_slice(state).map_err(|error| format!("its state: {error}"))?;
    Ok(Hook::new(id.to_owned(), definition, state))
}

/// The first killmail of the sample.
fn sample_killmail() -> Result<SharedEntry, WebhookError> {
    let found = sample::lines().find_map(|line| sample_entry::parse(&line));
    found.ok_or_else(|| WebhookError::Failed("the sample is empty".to_owned()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WebhookError> + Send + 'static,
) -> Result<T, WebhookError> {
    tasks::blocking("webhook", work).await.map_err(|error| WebhookError::Failed(error.to_string()))?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::id::{Epoch, Seq};

    #[test]
    fn a_webhook_without_its_place_is_not_read() {
        let limits = Limits { plugin_config_bytes: 8 << 10 };
        let members = json!({ "subscriber_id": 1, "callback_url": "https://x.example", "system_ids": [1] });
        let definition = json!({ "members": members, "secrets": [], "created_at_ms": 0, "updated_at_ms": 0 });
        let definition = serde_json::to_vec(&definition).unwrap();
        let read = |state: Option<&str>| read_stored("id", &definition, state.map(str::as_bytes), limits);
        let hook = read(Some(r#"{"place": "0000000000000007-5", "later": true}"#)).unwrap();
        let place = EventId { epoch: Epoch(7), place: Place::Live(Seq(5)) };
        assert_eq!((hook.state(), hook.exists()), (StoredState::new(place), true));
        for state in [None, Some("{}"), Some(r#"{"place": ""}"#), Some("no JSON")] {
            assert!(read(state).is_err(), "{state:?}");
        }
    }
}
