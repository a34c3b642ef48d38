//! Judging killmails: evaluators, the worker threads they run on, the order in which they get turns, and the
//! limits on those that fail.
//!
//! Must not know: how components are compiled, names and versions of plugins.

pub mod evaluation;
pub mod evaluator;
pub mod evaluator_cache;
pub mod evaluator_setup;
pub mod job_queue;
pub mod pair_records;
pub mod quarantine;
pub mod queue_slots;
pub mod repeatability_trial;
pub mod round_robin;
pub mod run;
pub mod verdict_memo;
pub mod worker_pool;
