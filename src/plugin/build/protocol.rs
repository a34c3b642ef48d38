//! What server and compiling process say to each other: a line of JSON with the order and the component
//! behind it; lines of JSON with what is being done, the last of them with how it ended and the compiled code
//! behind it.
//!
//! Must not know: processes.

use serde::{Deserialize, Serialize};

use crate::plugin::component_info::About;
use crate::plugin::error::Refusal;
use crate::plugin::judging::probe::Tried;
use crate::plugin::limits::Config;

/// The longest line either side takes, bytes.
pub const LINE_BYTES_MAX: u64 = 1 << 20;

/// What is to be done with a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuildTask {
    /// Look it through.
    Scan,
    /// Compile it, make an instance.
    Build {
        /// And try whether its verdicts are repeatable.
        probe: bool,
    },
}

/// An order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildRequest {
    /// The limits of plugins.
    pub config: Config,
    /// What is to be done.
    pub task: BuildTask,
    /// Bytes of the component.
    pub size: u64,
    /// Whether the limits are those of small components.
    pub small: bool,
    /// CPU time it may take, seconds.
    pub cpu_secs: u64,
    /// Address space it may take, bytes.
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

    /// It takes more memory than it may.
    #[must_use]
    pub fn too_much_memory(&self) -> Refusal {
        let (limit, setting) = (self.memory_bytes, self.memory_setting());
        let set = if self.small {
            self.config.compile_small_memory_bytes
        } else {
            self.config.compile_large_memory_bytes
        };
        let whence = if limit == set {
            setting.to_owned()
        } else {
            format!("half of what this machine has; with more, {setting} allows {set}")
        };
        Refusal::TooMuchMemory {
            message: format!("compiling it takes more than {limit} bytes of memory ({whence})"),
            limit,
        }
    }
}

/// What an upload is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It waits to be looked through, is, or waits for the compiler.
    Queued {
        /// How many of its size are before it, the one being compiled included.
        position: usize,
    },
    /// It is being compiled.
    Compiling,
    /// Its verdicts are being tried.
    Probing,
}

/// What the process says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// What it is at now; more follows.
    At(Stage),
    /// It runs without a filter of system calls, because of this error; more follows.
    Unfiltered(String),
    /// It was looked through.
    Scanned(About),
    /// It may run.
    Built {
        /// What is to be kept beside its code.
        about: About,
        /// What came of its trial.
        tried: Tried,
        /// Bytes of compiled code behind this line.
        code_bytes: u64,
    },
    /// It may not.
    Refused(Refusal),
}
