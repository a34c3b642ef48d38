//! Runs the sources beside the first one: those that always run, and fallbacks that stand in while the
//! sources before them are unavailable.
//!
//! All of them write to the one log, which stores each killmail once, so several may bring the same one.
//!
//! Must not know: how a source sends requests and waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::ingest::config::Config;
use crate::ingest::fallback_config::{FallbackConfig, When};
use crate::ingest::supervise::open;
use crate::ingest::supervise::outage_detector::{OutageDetector, Waits};
use crate::ingest::supervise::run::{self, RunContext};
use crate::telemetry::fallback_status::FallbackSource;
use crate::telemetry::source_status::{Doing, SourceStatus};
use crate::{clock, tasks};

/// How often the states of the sources are compared.
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// Starts and stops the sources beside the first one as needed.
pub struct Supervisor {
    config: Config,
    /// What the first source runs with.
    first: RunContext,
    started: Instant,
    /// Watches the first source.
    first_outage: OutageDetector,
    fallbacks: Vec<Fallback>,
}

struct Fallback {
    config: FallbackConfig,
    shown: Arc<FallbackSource>,
    outage: OutageDetector,
    running: Option<Running>,
}

struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// Creates it with all fallbacks stopped; `first` is what the first source runs with.
    #[must_use]
    pub fn new(config: Config, first: RunContext) -> Self {
        let first_outage = OutageDetector::new(Waits {
            after_ms: config.fallback_after_ms,
            back_ms: config.fallback_back_ms,
        });
        let fallback = |source: &FallbackConfig| {
            let shown = Arc::new(FallbackSource {
                name: source.name().to_owned(),
                kind: source.kind,
                fallback: source.when == When::Fallback,
                active: AtomicBool::new(false),
                since_ms: AtomicI64::new(0),
                switches: AtomicU64::new(0),
                status: Arc::new(SourceStatus::default()),
            });
            *shown.status.kind.lock() = source.kind;
            Fallback { config: source.clone(), shown, outage: first_outage.clone(), running: None }
        };
        let fallbacks: Vec<Fallback> = config.sources.iter().map(fallback).collect();
        *first.telemetry.fallback_status.sources.write() =
            fallbacks.iter().map(|fallback| Arc::clone(&fallback.shown)).collect();
        Self { config, first, started: Instant::now(), first_outage, fallbacks }
    }

    /// Runs until `stop` is set.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        while !self.fallbacks.is_empty() {
            self.check().await;
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(CHECK_EVERY) => {}
            }
        }
        for fallback in &mut self.fallbacks {
            fallback.stop().await;
        }
    }

    /// Checks which sources are unavailable and starts or stops fallbacks accordingly.
    async fn check(&mut self) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let first = &self.first.status;
        let mut is_out = self.first_outage.observe(is_in_trouble(first), now_ms);
        let mut previous = first.kind.lock().word().to_owned();
        let mut why = first.doing().0.reason().unwrap_or_default().to_owned();
        for fallback in &mut self.fallbacks {
            if fallback.config.when == When::Always {
                fallback.start(&self.config, &self.first).await;
                continue;
            }
            let name = fallback.config.name().to_owned();
            match (is_out, fallback.running.is_some()) {
                (true, false) => {
                    tracing::warn!(
                        "the source {previous} is unavailable ({why}); {name} stands in until it is back"
                    );
                    fallback.shown.switches.fetch_add(1, Ordering::Relaxed);
                    fallback.start(&self.config, &self.first).await;
                }
                (false, true) => {
                    tracing::warn!("the source {previous} is back; {name} stops");
                    fallback.stop().await;
                }
                (true, true) | (false, false) => {}
            }
            // The next one starts only if this one should run and cannot.
            is_out =
                fallback.outage.observe(is_out && is_in_trouble(&fallback.shown.status), now_ms) && is_out;
            why = fallback.shown.status.doing().0.reason().unwrap_or_default().to_owned();
            previous = name;
        }
    }
}

impl Fallback {
    /// Starts the source unless it is running.
    async fn start(&mut self, config: &Config, first: &RunContext) {
        if self.running.is_some() {
            return;
        }
        let status = Arc::clone(&self.shown.status);
        self.set_active(true);
        let (stop, stopped) = watch::channel(false);
        let task = match open::open_fallback(&self.config, config, &first.store, Arc::clone(&status)).await {
            Ok(source) => {
                let checkpoint_name = Some(open::checkpoint_name(&self.config));
                let context = RunContext { status, checkpoint_name, ..first.clone() };
                tasks::spawn("fallback source", run::run(source, context, stopped))
            }
            Err(why) => {
                tracing::error!("the source {} stays off: {why}", self.config.name());
                status.note(Doing::Refused(why), clock::now_ms());
                tasks::spawn("fallback source", async {})
            }
        };
        self.running = Some(Running { stop, task });
    }

    /// Stops the source after the killmail in hand.
    async fn stop(&mut self) {
        let Some(Running { stop, task }) = self.running.take() else { return };
        stop.send_replace(true);
        // A panic is logged by the task itself.
        let _ = task.await;
        self.set_active(false);
        self.shown.status.note(Doing::Off, clock::now_ms());
    }

    fn set_active(&self, active: bool) {
        self.shown.active.store(active, Ordering::Relaxed);
        self.shown.since_ms.store(clock::now_ms(), Ordering::Relaxed);
    }
}

/// Whether a source is refused by the other side or cannot reach it.
fn is_in_trouble(status: &SourceStatus) -> bool {
    match status.doing().0 {
        Doing::BackingOff(_) | Doing::BreakerOpen(_) | Doing::Refused(_) => true,
        Doing::Off | Doing::Following | Doing::NoSpace(_) | Doing::Finished => false,
    }
}
