//! killstream stores every EVE Online killmail, searches them, and streams them live: one log with many readers.
//!
//! The `killstream` program is this library behind a command line. The API of the library follows the needs of the
//! program and its tests, and changes with them; the API for clients is HTTP (see the README).
//!
//! # Modules
//!
//! A module uses only modules of lower floors, never its neighbours. `ARCHITECTURE.md` explains why, and
//! `tests/architecture.rs` checks it.
//!
//! | floor | module | what is in it |
//! |---|---|---|
//! | 0 | [`domain`] | killmails, filters, facts, verdicts: the words of the domain, without I/O |
//! | 0 | [`universe`] | systems, regions, ships and their groups, embedded in the binary |
//! | 0 | [`tasks`] | the only place that starts tasks and threads |
//! | 0 | [`clock`] | the wall clock |
//! | 0 | [`budget`] | a limit in bytes shared by many |
//! | 0 | `enum_with_all` | a macro for enums that list their variants |
//! | 0 | [`network`] | networks of addresses, as settings name them |
//! | 0 | [`tls`] | which implementation of TLS clients use |
//! | 1 | [`quota`] | limits per key, such as connections per address |
//! | 1 | [`store`] | the log on disk, its index in memory, checks and repairs |
//! | 1 | [`plugin`] | the WebAssembly sandbox: uploads are scanned, compiled and run within limits |
//! | 1 | [`telemetry`] | status of the sources and counters, written anywhere and reported by `http` |
//! | 1 | [`sample`] | bundled real killmails, and a generator of made-up ones |
//! | 2 | [`plugins`] | names and versions of plugins, and what they may ask of the history |
//! | 2 | [`body_requests`] | the queue of killmail bodies to fetch |
//! | 3 | [`feed`] | the writer of the log, and the readers that follow it |
//! | 4 | [`wire`] | JSON: upstream documents in, killmails and events out, requests for killmails |
//! | 5 | [`webhook`] | webhooks: killmails sent to the URLs of subscribers |
//! | 6 | [`ingest`] | the sources killmails come from, and file import |
//! | 6 | [`http`] | the HTTP API and event streams |
//! | 6 | [`phoenix`] | Phoenix channels over WebSockets |
//! | 7 | [`config`] | the configuration: file, environment, flags |
//! | 7 | [`server`] | the composition root: opens everything, listens, shuts down |
//! | 7 | [`cli`] | the command line |
//!
//! # Example
//!
//! The parts work without a server or a store. This reads a filter as the API does, and applies it to the bundled
//! sample:
//!
//! ```
//! use killstream::sample;
//! use killstream::store::facts::facts;
//! use killstream::wire::query;
//! use killstream::wire::query::limits::Limits;
//! use killstream::wire::read::package;
//!
//! // Losses in Jita that players caused.
//! let request = br#"{"system_ids": [30000142], "npc": false}"#;
//! let limits = Limits { plugin_config_bytes: 8 << 10 };
//! let filter = query::read_history_body(request, &[], limits)?.subscription.filter;
//!
//! let killmails = sample::lines().filter_map(|line| package::parse(line.as_bytes()).ok()?.killmail);
//! let found: Vec<u32> = killmails
//!     .filter(|killmail| filter.accepts(&facts(killmail)))
//!     .map(|killmail| killmail.killmail_id)
//!     .collect();
//! assert!(!found.is_empty());
//! # Ok::<(), killstream::wire::query::parameters::ParameterError>(())
//! ```

#[macro_use]
mod enum_with_all;

mod body_requests;
mod budget;
pub mod cli;
mod clock;
pub mod config;
pub mod domain;
pub mod feed;
mod http;
mod ingest;
mod network;
pub mod phoenix;
pub mod plugin;
pub mod plugins;
mod quota;
pub mod sample;
pub mod server;
pub mod store;
pub mod tasks;
pub mod telemetry;
mod tls;
pub mod universe;
pub mod webhook;
pub mod wire;
