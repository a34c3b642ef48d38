//! The sources beside the first one: those that always run, and those that stand in while the ones before
//! them are away.
//!
//! All write into the one log, which keeps each killmail once, so it does no harm when several bring the
//! same.
//!
//! Must not know: how a source asks and waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::feed::Feed;
use crate::ingest::bodies::fetcher::BodyRequests;
use crate::ingest::config::Config;
use crate::ingest::fallback_config::{FallbackConfig, When};
use crate::ingest::supervise::open;
use crate::ingest::supervise::outage_detector::{OutageDetector, Waits};
use crate::ingest::supervise::run::{self, RunContext};
use crate::telemetry::fallback_status::FallbackSource;
use crate::telemetry::source_status::{Doing, SourceStatus};
use crate::{clock, tasks};

/// The others are looked at this often.
const LOOK: Duration = Duration::from_millis(200);

/// Runs the other sources as they are needed, until `stop` says so.
pub async fn run(config: Config, feed: Arc<Feed>, desk: Arc<BodyRequests>, mut stop: watch::Receiver<bool>) {
    let mut standby = Standby::new(config, feed, desk);
    while !standby.members.is_empty() {
        standby.look().await;
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    for member in &mut standby.members {
        member.end().await;
    }
}

struct Standby {
    config: Config,
    feed: Arc<Feed>,
    desk: Arc<BodyRequests>,
    began: Instant,
    /// Over the first source.
    watch: OutageDetector,
    members: Vec<Member>,
}

struct Member {
    source: FallbackConfig,
    other: Arc<FallbackSource>,
    watch: OutageDetector,
    running: Option<Running>,
}

struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Standby {
    fn new(config: Config, feed: Arc<Feed>, desk: Arc<BodyRequests>) -> Self {
        let watch = OutageDetector::new(Waits {
            after_ms: config.fallback_after_ms,
            back_ms: config.fallback_back_ms,
        });
        let member = |source: &FallbackConfig| {
            let other = Arc::new(FallbackSource {
                name: source.name().to_owned(),
                kind: source.kind.word(),
                fallback: source.when == When::Fallback,
                active: AtomicBool::new(false),
                since_ms: AtomicI64::new(0),
                switches: AtomicU64::new(0),
                status: Arc::new(SourceStatus::default()),
            });
            *other.status.source.lock() = source.kind.word();
            Member { source: source.clone(), other, watch: watch.clone(), running: None }
        };
        let members: Vec<Member> = config.sources.iter().map(member).collect();
        *feed.fallback_status().sources.write() =
            members.iter().map(|member| Arc::clone(&member.other)).collect();
        Self { config, feed, desk, began: Instant::now(), watch, members }
    }

    /// Sees who is away, and has others stand in or step back.
    async fn look(&mut self) {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut away = self.watch.look(is_troubled(self.feed.source_status()), now_ms);
        let mut before = (*self.feed.source_status().source.lock()).to_owned();
        let mut why = self.feed.source_status().doing().0.reason().unwrap_or_default().to_owned();
        for member in &mut self.members {
            if member.source.when == When::Always {
                member.begin(&self.config, &self.feed, &self.desk).await;
                continue;
            }
            let name = member.source.name().to_owned();
            match (away, member.running.is_some()) {
                (true, false) => {
                    tracing::warn!("the source {before} is away ({why}); {name} stands in until it is back");
                    member.other.switches.fetch_add(1, Ordering::Relaxed);
                    member.begin(&self.config, &self.feed, &self.desk).await;
                }
                (false, true) => {
                    tracing::warn!("the source {before} is back; {name} steps back");
                    member.end().await;
                }
                _ => {}
            }
            // The next one stands in where this one should and cannot.
            away = member.watch.look(away && is_troubled(&member.other.status), now_ms) && away;
            why = member.other.status.doing().0.reason().unwrap_or_default().to_owned();
            before = name;
        }
    }
}

impl Member {
    /// Runs it, unless it runs.
    async fn begin(&mut self, config: &Config, feed: &Arc<Feed>, desk: &Arc<BodyRequests>) {
        if self.running.is_some() {
            return;
        }
        let status = Arc::clone(&self.other.status);
        self.turn(true);
        let (stop, stopped) = watch::channel(false);
        let task = match open::secondary(&self.source, config, feed, Arc::clone(&status)).await {
            Ok(source) => {
                let place = Some(open::place(&self.source));
                let runs = RunContext {
                    feed: Arc::clone(feed),
                    status,
                    desk: Arc::clone(desk),
                    place,
                    space_check_ms: config.space_check_ms,
                };
                tasks::spawn("other source", run::run(source, runs, stopped))
            }
            Err(why) => {
                tracing::error!("the source {} stays off: {why}", self.source.name());
                status.note(Doing::Refused(why), clock::now_ms());
                tasks::spawn("other source", async {})
            }
        };
        self.running = Some(Running { stop, task });
    }

    /// Stops it after the killmail in hand.
    async fn end(&mut self) {
        let Some(Running { stop, task }) = self.running.take() else { return };
        stop.send_replace(true);
        // It says itself why it ended.
        let _ = task.await;
        self.turn(false);
        self.other.status.note(Doing::Off, clock::now_ms());
    }

    fn turn(&self, on: bool) {
        self.other.active.store(on, Ordering::Relaxed);
        self.other.since_ms.store(clock::now_ms(), Ordering::Relaxed);
    }
}

/// Whether a source is refused or finds nobody.
fn is_troubled(status: &SourceStatus) -> bool {
    matches!(status.doing().0, Doing::BackingOff(_) | Doing::BreakerOpen(_) | Doing::Refused(_))
}
