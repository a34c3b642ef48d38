//! What the operating system reports about this process; zero where it reports nothing.
//!
//! Must not know: what the process does.

use std::fs;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Process {
    /// Resident memory, bytes.
    pub memory_bytes: u64,
    pub threads: u64,
    /// Open files and sockets.
    pub files: u64,
    /// The limit on open files and sockets.
    pub files_max: u64,
}

impl Process {
    /// Reads `/proc`: cheap, but it blocks.
    #[must_use]
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self {
            memory_bytes: field(&status, "VmRSS:") * 1024,
            threads: field(&status, "Threads:"),
            files: fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
            files_max: field(&limits, "Max open files"),
        }
    }

    /// Resident memory, MiB with two decimals.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "only two decimals are wanted")]
    pub fn memory_mb(&self) -> f64 {
        (self.memory_bytes as f64 / 10_485.76).round() / 100.0
    }
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let status = "Name:\tx\nVmRSS:\t   2048 kB\nThreads:\t7\n";
        assert_eq!(
            (field(status, "VmRSS:"), field(status, "Threads:"), field(status, "Nothing:")),
            (2048, 7, 0)
        );
        assert_eq!(Process { memory_bytes: 10_485_760, ..Process::default() }.memory_mb().to_string(), "10");
    }
}
