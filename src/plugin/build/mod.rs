//! Everything that happens to an upload before it may run, in a process of its own: reading, scanning,
//! compiling, a first instance, the trial. What an upload does to that process is a refusal; the server does
//! not notice.
//!
//! Must not know: names and versions of plugins, or who uploads.

pub mod child;
pub mod compile;
mod confine;
pub mod lanes;
pub mod order;
mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::plugin::build::lanes::{Lane, Load, Turn};
use crate::plugin::build::order::{Order, Report, Stage, Work};
use crate::plugin::build::process::Run;
use crate::plugin::component_info::ComponentInfo;
use crate::plugin::error::Failed;
use crate::plugin::judging::repeatability_trial::TrialReport;
use crate::plugin::limits::Config;
use crate::plugin::resources::machine_memory;

/// What came of a component that may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// What is to be kept beside its code.
    pub about: ComponentInfo,
    /// What came of its trial; it was not tried where it refused the configuration it was to be tried with.
    pub tried: TrialReport,
}

/// A component to be compiled.
#[derive(Debug, Clone, Copy)]
pub struct Build<'a> {
    /// Its bytes, as uploaded.
    pub file: &'a Path,
    /// Where its compiled code goes.
    pub code: &'a Path,
    /// Whether its verdicts are tried for repeatability.
    pub probe: bool,
    /// Whether somebody waits for it: it goes before those nobody waits for.
    pub urgent: bool,
}

/// Where work is at, told to who waits.
pub type Progress<'a> = &'a (dyn Fn(Stage) + Send + Sync);

/// Compiles components, each in a process of its own, a small and a large one at a time.
#[derive(Debug)]
pub struct Builder {
    config: Arc<Config>,
    small: Lanes,
    large: Lanes,
    /// Address space that compiling a large component may take, bytes: less where the machine has little.
    large_memory_bytes: u64,
}

/// Those of one size: one is looked through while another is compiled.
#[derive(Debug, Clone, Default)]
struct Lanes {
    scanning: Arc<Lane>,
    compiling: Arc<Lane>,
}

/// A component that has its place in the lanes of its size.
#[derive(Debug)]
pub struct Entered {
    lanes: Lanes,
    turn: Turn,
}

/// How many components are in the lanes of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loads {
    /// `small` or `large`.
    pub size: &'static str,
    /// To be looked through.
    pub scan: Load,
    /// To be compiled and tried.
    pub compile: Load,
}

/// Where there is less memory than this, compiling a large component may take half of it.
const ENOUGH_MEMORY_BYTES: u64 = 4 << 30;

impl Builder {
    /// With these limits.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        let large_memory_bytes =
            large_memory(config.compile_large_memory_bytes, machine_memory::memory_bytes(Path::new("/")));
        Self { config, small: Lanes::default(), large: Lanes::default(), large_memory_bytes }
    }

    /// Address space that compiling a large component may take, bytes.
    #[must_use]
    pub const fn large_memory_bytes(&self) -> u64 {
        self.large_memory_bytes
    }

    fn lanes(&self, size: u64) -> &Lanes {
        if size <= self.config.compile_small_bytes as u64 { &self.small } else { &self.large }
    }

    /// How many components are on their way.
    #[must_use]
    pub fn loads(&self) -> [Loads; 2] {
        let loads = |size, lanes: &Lanes| Loads {
            size,
            scan: lanes.scanning.load(),
            compile: lanes.compiling.load(),
        };
        [loads("small", &self.small), loads("large", &self.large)]
    }

    /// Takes a place for a component of so many bytes, and tells how many are before it.
    #[must_use]
    pub fn enter(&self, size: u64) -> (Entered, usize) {
        let lanes = self.lanes(size).clone();
        let before = lanes.scanning.load();
        let position = before.waiting + before.under_way + lanes.compiling.before_urgent();
        let turn = lanes.scanning.enter(true);
        (Entered { lanes, turn }, position)
    }

    /// Looks a component through: a matter of milliseconds, before it waits for a compiler.
    ///
    /// # Errors
    /// What is wrong with it, or the process could not be started.
    pub async fn scan(
        &self,
        entered: Entered,
        file: &Path,
        progress: Progress<'_>,
    ) -> Result<ComponentInfo, Failed> {
        let size = size_of(file)?;
        let Entered { lanes, turn } = entered;
        turn.come(Some(&lanes.compiling), &|position| progress(Stage::Queued { position })).await;
        let order = self.order(Work::Scan, size);
        let run = Run { program: self.program(), order: &order, file, code: None, stage: &|_| {} };
        let report = run.report().await;
        drop(turn);
        match report? {
            Report::Scanned(about) => Ok(about),
            Report::Refused(refusal) => Err(refusal.legible(self.config.text_bytes).into()),
            other => Err(Failed::Failed(format!("the compiling process answered something else: {other:?}"))),
        }
    }

    /// Compiles and tries a component, after those that came before it.
    ///
    /// # Errors
    /// What is wrong with it, or the process could not be started.
    pub async fn build(&self, component: Build<'_>, progress: Progress<'_>) -> Result<Built, Failed> {
        let Build { file, code, probe, urgent } = component;
        let size = size_of(file)?;
        let turn =
            self.lanes(size).compiling.take(urgent, &|position| progress(Stage::Queued { position })).await;
        progress(Stage::Compiling);
        let order = self.order(Work::Build { probe }, size);
        let run = Run { program: self.program(), order: &order, file, code: Some(code), stage: progress };
        let report = run.report().await;
        drop(turn);
        match report? {
            Report::Built { about, tried, .. } => Ok(Built { about, tried }),
            Report::Refused(refusal) => Err(refusal.legible(self.config.text_bytes).into()),
            other => Err(Failed::Failed(format!("the compiling process answered something else: {other:?}"))),
        }
    }

    fn order(&self, work: Work, size: u64) -> Order {
        let config = &self.config;
        let (cpu_secs, memory_bytes) = if size <= config.compile_small_bytes as u64 {
            (config.compile_small_cpu_secs, config.compile_small_memory_bytes)
        } else {
            (config.compile_large_cpu_secs, self.large_memory_bytes)
        };
        let small = size <= config.compile_small_bytes as u64;
        let cpu_secs = if work == Work::Scan { config.scan_cpu_secs } else { cpu_secs };
        Order { config: (**config).clone(), work, size, small, cpu_secs, memory_bytes }
    }

    fn program(&self) -> PathBuf {
        if self.config.compile_program.as_os_str().is_empty() {
            PathBuf::from("/proc/self/exe")
        } else {
            self.config.compile_program.clone()
        }
    }
}

fn large_memory(wanted: u64, machine: u64) -> u64 {
    if machine < ENOUGH_MEMORY_BYTES { wanted.min(machine / 2) } else { wanted }
}

fn size_of(file: &Path) -> Result<u64, Failed> {
    fs::metadata(file).map(|meta| meta.len()).map_err(|error| Failed::system("read the upload", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_little_memory_the_large_lane_takes_half_of_it() {
        const GIB: u64 = 1 << 30;
        assert_eq!(large_memory(3 * GIB, 24 * GIB), 3 * GIB);
        assert_eq!(large_memory(3 * GIB, 2 * GIB), GIB);
        assert_eq!(large_memory(GIB / 2, 2 * GIB), GIB / 2);
    }
}
