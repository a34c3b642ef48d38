//! The one place that starts work: every task and thread has a name, and its end is noticed.
//!
//! Must not know: what the work is about.
#![expect(
    clippy::disallowed_methods,
    reason = "the one place that starts tasks and threads; clippy.toml sends everyone here"
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

/// What is read within a millisecond is read where it came in.
const READ_AT_ONCE_BYTES: usize = 64 << 10;

/// Large texts read at once: half the cores, so that the other half goes on answering.
static READING: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Arc::new(Semaphore::new(cores.div_ceil(2)))
});

/// Threads of the storage engine, which tells of its own failures by panicking; the store notices and says so
/// in its own words.
const ENGINE_THREADS: &str = "sled";

thread_local! {
    /// How many calls of [`caught`] this thread is in.
    static CAUGHT: Cell<u32> = const { Cell::new(0) };
}

/// Calls foreign code that panics where it should fail; the caller tells of it in words of its own.
///
/// # Errors
/// It panicked.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    CAUGHT.with(|depth| depth.set(depth.get() + 1));
    let answer = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.with(|depth| depth.set(depth.get() - 1));
    answer
}

/// From now on nothing is printed of panics that are caught and told of otherwise; others are printed as
/// before.
pub fn silence_caught_panics() {
    let print = take_hook();
    set_hook(Box::new(move |panic| {
        let is_caught = CAUGHT.try_with(Cell::get).is_ok_and(|depth| depth > 0);
        let is_engine = current().name().is_some_and(|name| name.starts_with(ENGINE_THREADS));
        if is_caught || is_engine {
            tracing::debug!("a caught panic: {panic}");
        } else {
            print(panic);
        }
    }));
}

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
    // One task, not one that watches another, and no block around the work that would keep room for it twice:
    // every connection is one.
    tokio::spawn(AssertUnwindSafe(work).catch_unwind().map(move |done| {
        if done.is_err() {
            tracing::error!(task.name = name, "task {name} panicked");
        }
    }))
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

/// Does what nobody waits for, off the event loop; where there is none, here.
pub fn aside(work: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}

/// Reads a text from outside, so many bytes long: a short one here, a long one off the event loop, after
/// those that came before it.
///
/// # Errors
/// The work panicked or the runtime is shutting down.
pub async fn read<T, F>(name: &'static str, bytes: usize, work: F) -> Result<T, Lost>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    if bytes <= READ_AT_ONCE_BYTES {
        return Ok(work());
    }
    let turn = Arc::clone(&READING).acquire_owned().await.map_err(|_| Lost { name })?;
    // The turn goes with the work, which goes on when nobody waits for it any more.
    let work = move || {
        let done = work();
        drop(turn);
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

/// As [`thread`], with a stack of so many bytes: for work that nests deeply.
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

/// Does blocking work on parts of a slice, as many as there are cores, on threads that end before this does;
/// answers in order.
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
