//! The memory of the machine, or less if a control group limits this process.
//!
//! Must not know: what the memory is for.

use std::fs;
use std::path::Path;

/// Assumed if nothing can be read, bytes (2 GiB).
const UNKNOWN: u64 = 2 << 30;

/// Memory that this process may use, bytes. `root` is the root of the file system: `/`, but for tests.
#[must_use]
pub fn memory_bytes(root: &Path) -> u64 {
    total_memory(root).into_iter().chain(cgroup_limits(root)).min().unwrap_or(UNKNOWN)
}

fn total_memory(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The limits of all control groups that contain this process, of both versions of control groups.
fn cgroup_limits(root: &Path) -> Vec<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut limits = Vec::new();
    for line in groups.lines() {
        // A number, the controllers and the path; `0::/a/b` in version 2.
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if controllers.is_empty() {
            collect_limits(&root.join("sys/fs/cgroup"), path, "memory.max", &mut limits);
        } else if controllers.split(',').any(|name| name == "memory") {
            collect_limits(&root.join("sys/fs/cgroup/memory"), path, "memory.limit_in_bytes", &mut limits);
        }
    }
    limits
}

/// The limits of the group and all its parents, since any of them may be limited. In a container the path may
/// exist only on the host; the group at the top is then the container's own.
fn collect_limits(mount: &Path, path: &str, file: &str, limits: &mut Vec<u64>) {
    let path = Path::new(path.trim_start_matches('/'));
    // `max` and the like mean no limit.
    limits.extend(path.ancestors().filter_map(|group| {
        fs::read_to_string(mount.join(group).join(file)).ok()?.trim().parse::<u64>().ok()
    }));
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn machine(files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const EIGHT_GIB: (&str, &str) =
        ("proc/meminfo", "MemTotal:        8388608 kB\nMemFree:         1000 kB\n");

    #[test]
    fn the_machine_without_groups() {
        assert_eq!(memory_bytes(machine(&[EIGHT_GIB]).path()), 8 * GIB);
        assert_eq!(memory_bytes(machine(&[]).path()), UNKNOWN);
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let group = ("proc/self/cgroup", "0::/system.slice/killstream.service\n");
        let own = ("sys/fs/cgroup/system.slice/killstream.service/memory.max", "max\n");
        assert_eq!(memory_bytes(machine(&[EIGHT_GIB, group, own]).path()), 8 * GIB);
        let above = ("sys/fs/cgroup/system.slice/memory.max", "2147483648\n");
        assert_eq!(memory_bytes(machine(&[EIGHT_GIB, group, own, above]).path()), 2 * GIB);
        let larger = ("sys/fs/cgroup/system.slice/memory.max", "99999999999\n");
        assert_eq!(memory_bytes(machine(&[EIGHT_GIB, group, own, larger]).path()), 8 * GIB);
    }

    #[test]
    fn a_container_finds_its_limit_at_the_top() {
        let group = ("proc/self/cgroup", "0::/docker/0123\n");
        assert_eq!(
            memory_bytes(machine(&[EIGHT_GIB, group, ("sys/fs/cgroup/memory.max", "1073741824\n")]).path()),
            GIB
        );
    }

    #[test]
    fn the_first_version_of_groups() {
        let group = ("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/\n");
        let none = ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(memory_bytes(machine(&[EIGHT_GIB, group, none]).path()), 8 * GIB);
        let limit = ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "3221225472\n");
        assert_eq!(memory_bytes(machine(&[EIGHT_GIB, group, none, limit]).path()), 3 * GIB);
    }
}
