//! The one place that starts work: every task and thread has a name, and its end is noticed.
//!
//! Must not know: what the work is about.
#![expect(clippy::disallowed_methods, reason = "the one place that starts tasks and threads; clippy.toml sends everyone here")]

use std::future::Future;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::thread::{JoinHandle as ThreadHandle, ScopedJoinHandle};

use futures_util::FutureExt;
use tokio::task::JoinHandle;

/// The work was lost: it panicked, or the runtime is going away.
#[derive(Debug, thiserror::Error)]
#[error("the task {name} ended without an answer")]
pub struct Lost {
    name: &'static str,
}

/// Starts a task; a panic in it is logged under its name.
pub fn spawn<F>(name: &'static str, work: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    // One task, not one that watches another: every connection is one.
    tokio::spawn(async move {
        if AssertUnwindSafe(work).catch_unwind().await.is_err() {
            tracing::error!(task.name = name, "task {name} panicked");
        }
    })
}

/// Runs blocking work (disk, compilers) off the event loop.
///
/// # Errors
/// The work panicked or the runtime is shutting down.
pub async fn blocking<T, F>(name: &'static str, work: F) -> Result<T, Lost>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        if error.is_panic() {
            tracing::error!(task.name = name, "blocking work {name} panicked");
        }
        Lost { name }
    })
}

/// Starts an operating system thread.
///
/// # Errors
/// The system refused to make a thread.
pub fn thread<T, F>(name: &'static str, work: F) -> std::io::Result<ThreadHandle<T>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// Does blocking work on parts of a slice, as many as there are cores, on threads that end before this does; answers in order.
///
/// # Panics
/// If the work does.
pub fn spread<T, R, F>(items: &[T], work: F) -> Vec<R>
where
    T: Sync,
    R: Send,
    F: Fn(&[T]) -> R + Sync,
{
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut parts = items.chunks(items.len().div_ceil(cores).max(1));
    let Some(own) = parts.next() else { return Vec::new() };
    std::thread::scope(|scope| {
        let others: Vec<_> = parts.map(|part| scope.spawn(|| work(part))).collect();
        let first = work(own);
        let join = |other: ScopedJoinHandle<'_, R>| other.join().unwrap_or_else(|panic| resume_unwind(panic));
        std::iter::once(first).chain(others.into_iter().map(join)).collect()
    })
}
