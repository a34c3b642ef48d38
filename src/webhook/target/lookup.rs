//! Finds the addresses of names, as the system does.
//!
//! A lookup takes a thread until the system answers, which can be long after the request that needed it timed
//! out, so their number is limited. Half of it is for names that were found before: names that nobody answers
//! for cannot delay them.
//!
//! Must not know: which addresses may be called.

use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::mem;
use std::net::{IpAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::tasks;

/// Names that are remembered as found.
const FOUND_MAX: usize = 10_000;

/// The addresses of a name, once they are known.
pub type Addresses = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Finds the addresses of a name.
pub type Lookup = Arc<dyn Fn(String) -> Addresses + Send + Sync>;

/// The lookup of the system (`/etc/hosts`, DNS and what else it is set up to ask), this many at the same time.
#[must_use]
pub fn system(lookups_max: usize) -> Lookup {
    let lookups = Arc::new(Lookups {
        found: Mutex::default(),
        for_found: Arc::new(Semaphore::new(lookups_max.div_ceil(2).max(1))),
        for_others: Arc::new(Semaphore::new((lookups_max / 2).max(1))),
    });
    from_fn(move |name| {
        let lookups = Arc::clone(&lookups);
        async move { lookups.find(name, ask_system).await }
    })
}

/// A lookup by a function.
pub fn from_fn<F, A>(find: F) -> Lookup
where
    F: Fn(String) -> A + Send + Sync + 'static,
    A: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
{
    Arc::new(move |name| -> Addresses { Box::pin(find(name)) })
}

fn ask_system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

struct Lookups {
    found: Mutex<HashSet<String>>,
    for_found: Arc<Semaphore>,
    for_others: Arc<Semaphore>,
}

impl Lookups {
    async fn find<F>(&self, name: String, ask: F) -> io::Result<Vec<IpAddr>>
    where
        F: FnOnce(&str) -> io::Result<Vec<IpAddr>> + Send + 'static,
    {
        let places = if self.found.lock().contains(&name) { &self.for_found } else { &self.for_others };
        let asked = name.clone();
        let mut outcome = Outcome { lookups: self, name, is_found: false };
        let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
        let found = tasks::blocking("webhook name lookup", move || {
            let found = ask(&asked);
            // Kept until here: the thread is in use even if the caller stopped waiting.
            drop(place);
            found
        });
        let found = found.await.map_err(io::Error::other)?;
        outcome.is_found = found.is_ok();
        found
    }
}

/// Remembers whether the name was found. It was not if the caller stopped waiting.
struct Outcome<'a> {
    lookups: &'a Lookups,
    name: String,
    is_found: bool,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        let mut found = self.lookups.found.lock();
        if !self.is_found {
            found.remove(&self.name);
        } else if found.len() < FOUND_MAX {
            found.insert(mem::take(&mut self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};
    use std::time::Duration;

    use super::*;

    const ADDRESS: &str = "192.0.2.1";

    fn find_one(_: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![ADDRESS.parse().unwrap()])
    }

    fn wait_for(end: Receiver<()>) -> impl FnOnce(&str) -> io::Result<Vec<IpAddr>> {
        move |_| {
            let _ = end.recv();
            Err(io::ErrorKind::TimedOut.into())
        }
    }

    #[tokio::test]
    async fn names_that_nobody_answers_for_do_not_delay_those_found_before() {
        let one = || Arc::new(Semaphore::new(1));
        let lookups = Arc::new(Lookups { found: Mutex::default(), for_found: one(), for_others: one() });
        lookups.find("live".to_owned(), find_one).await.unwrap();

        let (ends, end) = sync_channel::<()>(0);
        // Given up by its caller at once; the thread goes on.
        let hanging = lookups.find("dead".to_owned(), wait_for(end));
        assert!(tokio::time::timeout(Duration::from_millis(50), hanging).await.is_err());
        assert_eq!(lookups.for_others.available_permits(), 0);

        let found = lookups.find("live".to_owned(), find_one).await.unwrap();
        assert_eq!(found, [ADDRESS.parse::<IpAddr>().unwrap()]);
        drop(ends);
        lookups.find("new".to_owned(), find_one).await.unwrap();
    }

    #[tokio::test]
    async fn a_name_that_fails_or_hangs_counts_as_one_of_the_others() {
        let one = || Arc::new(Semaphore::new(1));
        let lookups = Lookups { found: Mutex::default(), for_found: one(), for_others: one() };
        let name = || "flaky".to_owned();
        lookups.find(name(), find_one).await.unwrap();
        assert!(lookups.found.lock().contains("flaky"));
        let (ends, end) = sync_channel::<()>(0);
        let hanging = lookups.find(name(), wait_for(end));
        assert!(tokio::time::timeout(Duration::from_millis(50), hanging).await.is_err());
        assert!(!lookups.found.lock().contains("flaky"));
        drop(ends);
        lookups.find(name(), find_one).await.unwrap();
        assert!(lookups.found.lock().contains("flaky"));
        lookups.find(name(), |_| Err(io::ErrorKind::NotFound.into())).await.unwrap_err();
        assert!(!lookups.found.lock().contains("flaky"));
    }

    #[tokio::test]
    async fn the_system_finds_loopback() {
        let found = system(1)("localhost".to_owned()).await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
    }
}
