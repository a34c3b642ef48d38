//! Everything that happens to an upload before it may run, in a process of its own: reading, scanning,
//! compiling, a first instance, the trial. Whatever an upload does to that process ends in a refusal; the
//! server is not affected.
//!
//! Must not know: names and versions of plugins, or who uploads.

pub(crate) mod child;
pub(crate) mod compile;
mod confine;
mod process;
pub(crate) mod protocol;
pub(crate) mod queue;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::plugin::build::process::CompileProcess;
use crate::plugin::build::protocol::{BuildRequest, BuildTask, Report, Stage};
use crate::plugin::build::queue::{QueueLoad, QueuePlace, TurnQueue};
use crate::plugin::component_info::ComponentInfo;
use crate::plugin::error::BuildError;
use crate::plugin::judging::repeatability_trial::TrialReport;
use crate::plugin::limits::Config;
use crate::plugin::resources::machine_memory;

/// A component that was built and may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// What is stored beside its compiled code.
    pub about: ComponentInfo,
    /// The result of its trial. It was not tried if it refused the configuration it was to be tried with.
    pub tried: TrialReport,
}

/// A component to be built.
#[derive(Debug, Clone, Copy)]
pub struct BuildJob<'a> {
    /// Its bytes, as uploaded.
    pub file: &'a Path,
    /// Where its compiled code is written.
    pub code: &'a Path,
    /// Whether to try that its verdicts are repeatable.
    pub probe: bool,
    /// Whether a client waits for it; such components go first.
    pub urgent: bool,
}

/// Called with each stage that an upload reaches.
pub type Progress<'a> = &'a (dyn Fn(Stage) + Send + Sync);

/// Builds components, each in a process of its own. It compiles at most one small and one large component at
/// a time.
#[derive(Debug)]
pub struct Builder {
    config: Arc<Config>,
    small: SizeQueues,
    large: SizeQueues,
    /// Address space for compiling a large component, bytes. Lower than configured on a machine with little
    /// memory.
    large_memory_bytes: u64,
}

/// The queues for components of one size. One component is scanned while another is compiled.
#[derive(Debug, Clone, Default)]
struct SizeQueues {
    scanning: Arc<TurnQueue>,
    compiling: Arc<TurnQueue>,
}

/// A component that has its place in the scan queue of its size.
#[derive(Debug)]
pub struct QueuedUpload {
    queues: SizeQueues,
    place: QueuePlace,
}

/// The lengths of the queues of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLoads {
    /// `small` or `large`.
    pub size: &'static str,
    /// Components to be scanned.
    pub scan: QueueLoad,
    /// Components to be compiled and tried.
    pub compile: QueueLoad,
}

/// On a machine with less memory than this, compiling a large component may take half of it.
const ENOUGH_MEMORY_BYTES: u64 = 4 << 30;

impl Builder {
    /// A builder without work.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        let large_memory_bytes = large_memory_limit(
            config.compile_large_memory_bytes,
            machine_memory::memory_bytes(Path::new("/")),
        );
        Self { config, small: SizeQueues::default(), large: SizeQueues::default(), large_memory_bytes }
    }

    /// Address space for compiling a large component, bytes.
    #[must_use]
    pub const fn large_memory_bytes(&self) -> u64 {
        self.large_memory_bytes
    }

    fn queues(&self, size: u64) -> &SizeQueues {
        if size <= self.config.compile_small_bytes as u64 { &self.small } else { &self.large }
    }

    /// The lengths of all queues.
    #[must_use]
    pub fn loads(&self) -> [SizeLoads; 2] {
        let loads = |size, queues: &SizeQueues| SizeLoads {
            size,
            scan: queues.scanning.load(),
            compile: queues.compiling.load(),
        };
        [loads("small", &self.small), loads("large", &self.large)]
    }

    /// Takes a place for a component of `size` bytes. Returns it with the number of components ahead of it.
    #[must_use]
    pub fn join_queue(&self, size: u64) -> (QueuedUpload, usize) {
        let queues = self.queues(size).clone();
        let before = queues.scanning.load();
        let position = before.waiting + before.under_way + queues.compiling.ahead_of_urgent();
        let place = queues.scanning.join(true);
        (QueuedUpload { queues, place }, position)
    }

    /// Scans a component, which takes milliseconds, before it waits for a compiler.
    ///
    /// # Errors
    /// What is wrong with the component, or the process could not be started.
    pub async fn scan(
        &self,
        entered: QueuedUpload,
        file: &Path,
        progress: Progress<'_>,
    ) -> Result<ComponentInfo, BuildError> {
        let size = size_of(file)?;
        let QueuedUpload { queues, place } = entered;
        place.wait(Some(&queues.compiling), &|position| progress(Stage::Queued { position })).await;
        let request = self.request(BuildTask::Scan, size);
        let process = CompileProcess {
            program: self.program(),
            request: &request,
            file,
            code: None,
            progress: &|_| {},
        };
        let report = process.run().await;
        drop(place);
        match report? {
            Report::Scanned(about) => Ok(about),
            Report::Refused(refusal) => Err(refusal.legible(self.config.text_bytes).into()),
            other => {
                Err(BuildError::Internal(format!("unexpected answer from the compiling process: {other:?}")))
            }
        }
    }

    /// Compiles and tries a component, after those ahead of it.
    ///
    /// # Errors
    /// What is wrong with the component, or the process could not be started.
    pub async fn build(&self, component: BuildJob<'_>, progress: Progress<'_>) -> Result<Built, BuildError> {
        let BuildJob { file, code, probe, urgent } = component;
        let size = size_of(file)?;
        let place = self
            .queues(size)
            .compiling
            .wait_for_turn(urgent, &|position| progress(Stage::Queued { position }))
            .await;
        progress(Stage::Compiling);
        let request = self.request(BuildTask::Build { probe }, size);
        let process =
            CompileProcess { program: self.program(), request: &request, file, code: Some(code), progress };
        let report = process.run().await;
        drop(place);
        match report? {
            Report::Built { about, tried, .. } => Ok(Built { about, tried }),
            Report::Refused(refusal) => Err(refusal.legible(self.config.text_bytes).into()),
            other => {
                Err(BuildError::Internal(format!("unexpected answer from the compiling process: {other:?}")))
            }
        }
    }

    fn request(&self, task: BuildTask, size: u64) -> BuildRequest {
        let config = &self.config;
        let (cpu_secs, memory_bytes) = if size <= config.compile_small_bytes as u64 {
            (config.compile_small_cpu_secs, config.compile_small_memory_bytes)
        } else {
            (config.compile_large_cpu_secs, self.large_memory_bytes)
        };
        let small = size <= config.compile_small_bytes as u64;
        let cpu_secs = if task == BuildTask::Scan { config.scan_cpu_secs } else { cpu_secs };
        BuildRequest { config: (**config).clone(), task, size, small, cpu_secs, memory_bytes }
    }

    fn program(&self) -> PathBuf {
        if self.config.compile_program.as_os_str().is_empty() {
            PathBuf::from("/proc/self/exe")
        } else {
            self.config.compile_program.clone()
        }
    }
}

fn large_memory_limit(wanted: u64, machine: u64) -> u64 {
    if machine < ENOUGH_MEMORY_BYTES { wanted.min(machine / 2) } else { wanted }
}

fn size_of(file: &Path) -> Result<u64, BuildError> {
    fs::metadata(file).map(|meta| meta.len()).map_err(|error| BuildError::io("read the upload", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_component_takes_at_most_half_of_a_small_memory() {
        const GIB: u64 = 1 << 30;
        assert_eq!(large_memory_limit(3 * GIB, 24 * GIB), 3 * GIB);
        assert_eq!(large_memory_limit(3 * GIB, 2 * GIB), GIB);
        assert_eq!(large_memory_limit(GIB / 2, 2 * GIB), GIB / 2);
    }
}
