//! What server and compiling process say to each other: a line of JSON with the order and the component
//! behind it; lines of JSON with what is being done, the last of them with how it ended and the compiled code
//! behind it.
//!
//! Must not know: processes.

use serde::{Deserialize, Serialize};

use crate::plugin::component_info::ComponentInfo;
use crate::plugin::error::Refusal;
use crate::plugin::judging::repeatability_trial::TrialReport;
use crate::plugin::limits::Config;

/// The longest line either side takes, bytes.
pub const LINE_BYTES_MAX: u64 = 1 << 20;

/// What is to be done with a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
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
pub struct Order {
    /// The limits of plugins.
    pub config: Config,
    /// What is to be done.
    pub work: Work,
    /// Bytes of the component.
    pub size: u64,
    /// Whether the limits are those of small components.
    pub small: bool,
    /// CPU time it may take, seconds.
    pub cpu_secs: u64,
    /// Address space it may take, bytes.
    pub memory_bytes: u64,
}

impl Order {
    /// The setting of a limit.
    #[must_use]
    pub const fn setting(&self, of_cpu: bool) -> &'static str {
        match (self.small, of_cpu) {
            (_, true) if matches!(self.work, Work::Scan) => "plugin.scan_cpu_secs",
            (true, true) => "plugin.compile_small_cpu_secs",
            (true, false) => "plugin.compile_small_memory_bytes",
            (false, true) => "plugin.compile_large_cpu_secs",
            (false, false) => "plugin.compile_large_memory_bytes",
        }
    }
}

impl Order {
    /// It takes more memory than it may.
    #[must_use]
    pub fn too_much_memory(&self) -> Refusal {
        let (limit, setting) = (self.memory_bytes, self.setting(false));
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
    /// It was looked through.
    Scanned(ComponentInfo),
    /// It may run.
    Built {
        /// What is to be kept beside its code.
        about: ComponentInfo,
        /// What came of its trial.
        tried: TrialReport,
        /// Bytes of compiled code behind this line.
        code_bytes: u64,
    },
    /// It may not.
    Refused(Refusal),
}
