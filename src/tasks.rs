//! The only place that starts tasks and threads: each has a name, and its panics are logged.
//!
//! Must not know: what the work is.
#![expect(
    clippy::disallowed_methods,
    reason = "the only place that starts tasks and threads; clippy.toml refers here"
)]

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::{Arc, LazyLock};
use std::thread::{JoinHandle as ThreadHandle, ScopedJoinHandle, current};

use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Texts up to this size parse within a millisecond, and are parsed on the event loop, bytes.
const PARSE_INLINE_BYTES: usize = 64 << 10;

/// How many large texts are parsed at a time: half the cores, so that the other half keeps answering requests.
static PARSING: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Arc::new(Semaphore::new(cores.div_ceil(2)))
});

thread_local! {
    /// How many nested calls of [`catch_panic`] this thread is in.
    static CATCHING: Cell<u32> = const { Cell::new(0) };
}

/// Calls foreign code that may panic instead of returning an error. The caller reports the panic.
///
/// # Errors
/// The code panicked; the payload of the panic.
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    CATCHING.with(|depth| depth.set(depth.get() + 1));
    let answer = catch_unwind(AssertUnwindSafe(work));
    CATCHING.with(|depth| depth.set(depth.get() - 1));
    answer
}

/// Installs a panic hook that does not print panics which are caught and reported otherwise: those of
/// [`catch_panic`], and those on the storage engine's threads, whose names begin with `engine`. The engine reports
/// some failures by panicking; the store detects them and reports them itself.
pub fn silence_caught_panics(engine: &'static str) {
    let print = take_hook();
    set_hook(Box::new(move |panic| {
        let is_caught = CATCHING.try_with(Cell::get).is_ok_and(|depth| depth > 0);
        let is_engine = current().name().is_some_and(|name| name.starts_with(engine));
        if is_caught || is_engine {
            tracing::debug!("caught a panic: {panic}");
        } else {
            print(panic);
        }
    }));
}

/// A task ended without a result: it panicked, or the runtime is shutting down.
#[derive(Debug, thiserror::Error)]
#[error("the task {name} ended without a result")]
pub struct Lost {
    name: &'static str,
}

/// Starts a task. A panic in it is logged with its name.
pub fn spawn<F>(name: &'static str, work: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    // Every connection is such a task, so its size matters: one task, not one that watches another, and no async
    // block around the future, which would store it twice.
    tokio::spawn(AssertUnwindSafe(work).catch_unwind().map(move |done| {
        if done.is_err() {
            tracing::error!(task.name = name, "task {name} panicked");
        }
    }))
}

/// Runs blocking work (disk access, compilers) off the event loop.
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

/// Runs work whose result nobody needs off the event loop, or here if there is none.
pub fn run_detached(work: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}

/// Parses untrusted text of this many bytes: a short one here, a long one off the event loop, a limited number
/// at a time, in order.
///
/// # Errors
/// The work panicked or the runtime is shutting down.
pub async fn parse<T, F>(name: &'static str, bytes: usize, work: F) -> Result<T, Lost>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    if bytes <= PARSE_INLINE_BYTES {
        return Ok(work());
    }
    let permit = Arc::clone(&PARSING).acquire_owned().await.map_err(|_| Lost { name })?;
    // The work holds the permit, since it continues even if the caller stops waiting.
    let work = move || {
        let done = work();
        drop(permit);
        done
    };
    blocking(name, work).await
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

/// As [`thread`], with a stack of this many bytes, for deep recursion.
///
/// # Errors
/// The system refused to make a thread.
pub fn deep_thread<T, F>(name: &'static str, stack_bytes: usize, work: F) -> std::io::Result<ThreadHandle<T>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    std::thread::Builder::new().name(name.to_owned()).stack_size(stack_bytes).spawn(work)
}

/// Splits a slice into as many parts as there are cores and works on them in parallel on scoped threads. Returns
/// the results in order.
///
/// # Panics
/// If the work panics.
pub fn map_chunks<T, R, F>(items: &[T], work: F) -> Vec<R>
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
