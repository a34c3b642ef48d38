//! WASI 0.2 with no access to the outside, so that guests built by ordinary toolchains start: no files,
//! network, environment or arguments; stdin is closed, stdout and stderr go to the log (`stdio`), the clock
//! stands at the killmail's time, random numbers are seeded by the killmail.
//!
//! Law 7 (same input, same output) depends on this. Sockets and HTTP are in `denied_wasi`.
//!
//! Must not know: what is evaluated, beyond its time and id.

use std::future::Future;
use std::pin::Pin;

use wasmtime::component::{HasData, HasSelf, Linker, Resource, ResourceTable, ResourceType};
use wasmtime::{Result, bail};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p2::bindings::sync::{filesystem::types as files, io as sync_io};
use wasmtime_wasi::p2::bindings::{cli, filesystem, io};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use crate::plugin::sandbox::state::State;

/// Random bytes a guest may ask for at once.
const RANDOM_BYTES_MAX: u64 = 64 * 1024;
/// Guests seed their hash maps with this once and keep it, so it must be the same in every instance,
/// whichever killmail came first.
const HASH_SEED: (u64, u64) = (0x6b69_6c6c_7374_7265, 0x616d_2070_6c75_6769);
const NANOS: u64 = 1_000_000_000;

/// The version that is linked. Components built for another 0.2.x get the same one.
pub const VERSION: &str = "0.2.12";

/// The interfaces that are linked.
const LINKED: [&str; 20] = [
    "cli/environment",
    "cli/exit",
    "cli/stderr",
    "cli/stdin",
    "cli/stdout",
    "cli/terminal-input",
    "cli/terminal-output",
    "cli/terminal-stderr",
    "cli/terminal-stdin",
    "cli/terminal-stdout",
    "clocks/monotonic-clock",
    "clocks/wall-clock",
    "filesystem/preopens",
    "filesystem/types",
    "io/error",
    "io/poll",
    "io/streams",
    "random/insecure",
    "random/insecure-seed",
    "random/random",
];

/// Whether an interface such as `io/streams` is linked.
#[must_use]
pub fn is_linked(interface: &str) -> bool {
    LINKED.contains(&interface)
}

/// The host type of a resource that other interfaces use, too.
#[must_use]
pub fn resource_type(interface: &str, name: &str) -> Option<ResourceType> {
    match (interface, name) {
        ("io/error", "error") => Some(ResourceType::host::<io::error::Error>()),
        ("io/poll", "pollable") => Some(ResourceType::host::<sync_io::poll::Pollable>()),
        ("io/streams", "input-stream") => Some(ResourceType::host::<sync_io::streams::InputStream>()),
        ("io/streams", "output-stream") => Some(ResourceType::host::<sync_io::streams::OutputStream>()),
        ("filesystem/types", "descriptor") => Some(ResourceType::host::<files::Descriptor>()),
        _ => None,
    }
}

struct Io;

impl HasData for Io {
    type Data<'a> = &'a mut ResourceTable;
}

/// Adds these interfaces to a linker.
///
/// # Errors
/// Two interfaces have the same name; does not happen.
pub fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    let state: fn(&mut State) -> &mut State = |state| state;
    wall_clock::add_to_linker::<_, HasSelf<State>>(linker, state)?;
    monotonic_clock::add_to_linker::<_, HasSelf<State>>(linker, state)?;
    random::add_to_linker::<_, HasSelf<State>>(linker, state)?;
    insecure::add_to_linker::<_, HasSelf<State>>(linker, state)?;
    insecure_seed::add_to_linker::<_, HasSelf<State>>(linker, state)?;
    io::error::add_to_linker::<_, Io>(linker, |s| s.ctx().table)?;
    sync_io::poll::add_to_linker::<_, Io>(linker, |s| s.ctx().table)?;
    sync_io::streams::add_to_linker::<_, Io>(linker, |s| s.ctx().table)?;
    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(linker, State::filesystem)?;
    files::add_to_linker::<_, WasiFilesystem>(linker, State::filesystem)?;
    cli::exit::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::environment::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::stdin::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::stdout::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::stderr::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    Ok(())
}

impl State {
    /// Unix seconds that the clock shows: the killmail's time, 0 while configuring.
    fn seconds(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| u64::try_from(current.entry().killmail.time).unwrap_or(0))
    }

    /// The next number of a splitmix64 sequence.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        if len > RANDOM_BYTES_MAX {
            bail!("asks for {len} random bytes; at most {RANDOM_BYTES_MAX}");
        }
        Ok((0..len).map(|_| self.next_random().to_le_bytes()[0]).collect())
    }
}

impl wall_clock::Host for State {
    fn now(&mut self) -> Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: self.seconds(), nanoseconds: 0 })
    }

    fn resolution(&mut self) -> Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 1, nanoseconds: 0 })
    }
}

/// The clock stands still, so a wait for a time ends at once: nothing here may block a thread.
struct AlwaysReady;

impl Pollable for AlwaysReady {
    fn ready<'a, 'b>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(()))
    }
}

impl monotonic_clock::Host for State {
    fn now(&mut self) -> Result<u64> {
        Ok(self.seconds().saturating_mul(NANOS))
    }

    fn resolution(&mut self) -> Result<u64> {
        Ok(NANOS)
    }

    fn subscribe_instant(&mut self, _when: u64) -> Result<Resource<DynPollable>> {
        let table = self.ctx().table;
        let pollable = table.push(AlwaysReady)?;
        subscribe(table, pollable)
    }

    fn subscribe_duration(&mut self, _duration: u64) -> Result<Resource<DynPollable>> {
        monotonic_clock::Host::subscribe_instant(self, 0)
    }
}

impl random::Host for State {
    fn get_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        self.random_bytes(len)
    }

    fn get_random_u64(&mut self) -> Result<u64> {
        Ok(self.next_random())
    }
}

impl insecure::Host for State {
    fn get_insecure_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        self.random_bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        Ok(self.next_random())
    }
}

impl insecure_seed::Host for State {
    fn insecure_seed(&mut self) -> Result<(u64, u64)> {
        Ok(HASH_SEED)
    }
}
