//! The protocol between server and compiling process. The server sends one line of JSON with the request,
//! followed by the component. The process answers with lines of JSON: stages, then the result, followed by
//! the compiled code.
//!
//! Must not know: processes.

use serde::{Deserialize, Serialize};

use crate::plugin::component_info::ComponentInfo;
use crate::plugin::error::Refusal;
use crate::plugin::judging::repeatability_trial::TrialReport;
use crate::plugin::limits::Config;

/// The longest line either side accepts, bytes.
pub const LINE_BYTES_MAX: u64 = 1 << 20;

/// What to do with a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuildTask {
    Scan,
    /// Compile it and create an instance.
    Build {
        /// Also try whether its verdicts are repeatable.
        probe: bool,
    },
}

/// A request to the compiling process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildRequest {
    /// The settings of plugins.
    pub config: Config,
    /// What to do.
    pub task: BuildTask,
    /// Size of the component, bytes.
    pub size: u64,
    /// Whether the limits are those of small components.
    pub small: bool,
    /// CPU time limit, seconds.
    pub cpu_secs: u64,
    /// Address space limit, bytes.
    pub memory_bytes: u64,
}

impl BuildRequest {
    /// The setting that `cpu_secs` comes from.
    #[must_use]
    pub const fn cpu_setting(&self) -> &'static str {
        match (self.task, self.small) {
            (BuildTask::Scan, _) => "plugin.scan_cpu_secs",
            (BuildTask::Build { .. }, true) => "plugin.compile_small_cpu_secs",
            (BuildTask::Build { .. }, false) => "plugin.compile_large_cpu_secs",
        }
    }

    /// The setting that `memory_bytes` comes from.
    #[must_use]
    pub const fn memory_setting(&self) -> &'static str {
        if self.small { "plugin.compile_small_memory_bytes" } else { "plugin.compile_large_memory_bytes" }
    }

    /// The refusal for a component that takes more memory than this.
    #[must_use]
    pub fn too_much_memory(&self) -> Refusal {
        let (limit, setting) = (self.memory_bytes, self.memory_setting());
        let configured = if self.small {
            self.config.compile_small_memory_bytes
        } else {
            self.config.compile_large_memory_bytes
        };
        let origin = if limit == configured {
            setting.to_owned()
        } else {
            format!("half of the memory of this machine; with more, {setting} allows {configured}")
        };
        Refusal::TooMuchMemory {
            message: format!("compiling it takes more than {limit} bytes of memory ({origin})"),
            limit,
        }
    }
}

/// The stage of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It waits to be scanned, is scanned, or waits for the compiler.
    Queued {
        /// How many uploads of its size are ahead of it, including the one being compiled.
        position: usize,
    },
    /// It is being compiled.
    Compiling,
    /// Its verdicts are being tried.
    Probing,
}

/// A message from the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The stage it has reached; more messages follow.
    Reached(Stage),
    /// It runs without a filter of system calls, because of this error; more messages follow.
    Unfiltered(String),
    /// The component passed the scan.
    Scanned(ComponentInfo),
    /// The component may run.
    Built {
        /// What is stored beside its compiled code.
        about: ComponentInfo,
        /// The result of its trial.
        tried: TrialReport,
        /// Size of the compiled code that follows this line, bytes.
        code_bytes: u64,
    },
    /// The component may not run.
    Refused(Refusal),
}
