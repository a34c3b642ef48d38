//! Judging killmails: evaluators, the worker threads they run on, the order in which they get turns, and the
//! limits on those that fail.
//!
//! Must not know: how components are compiled, names and versions of plugins.

pub(crate) mod evaluation;
pub mod evaluator;
pub(crate) mod evaluator_cache;
pub(crate) mod evaluator_setup;
pub(crate) mod job_queue;
pub(crate) mod pair_records;
pub(crate) mod quarantine;
pub(crate) mod queue_slots;
pub(crate) mod repeatability_trial;
pub(crate) mod round_robin;
pub mod run;
pub(crate) mod verdict_memo;
pub(crate) mod worker_pool;
