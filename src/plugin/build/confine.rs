//! How the compiling process confines itself before it reads a byte of an upload: CPU time, memory, files,
//! network, priority.
//!
//! None of it needs privileges. What a system does not support is skipped, except the limits of time and
//! memory.
//!
//! Must not know: what is compiled.
#![expect(
    unsafe_code,
    reason = "limits of a process are set by system calls that the standard library does not have"
)]

use std::io;

use libc::c_int;

/// Resource limits of the process.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// CPU time, seconds.
    pub cpu_secs: u64,
    /// Address space, bytes.
    pub memory_bytes: u64,
}

/// Files the process may have open; memory images are files, too.
const FILES_MAX: u64 = 1_024;
/// `IOPRIO_CLASS_IDLE`, shifted to the position of the class (`linux/ioprio.h`).
const IO_IDLE: c_int = 3 << 13;
/// `IOPRIO_WHO_PROCESS`.
const IO_OF_PROCESS: c_int = 1;

/// Lowers the CPU priority by `nice`, 0 to 19.
pub fn lower_priority(nice: u8) {
    // SAFETY: the call takes numbers and touches no memory of ours.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, c_int::from(nice)) };
}

/// Closes everything but the standard streams, gives up gaining rights, takes the lowest disk priority, and
/// volunteers to be killed first when memory runs out.
pub fn isolate() {
    // Skipped on a system that has no such file or call.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    // SAFETY: these calls take numbers and touch no memory of ours. Descriptors from 3 on were inherited, and
    // nothing here uses them.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32);
        libc::syscall(libc::SYS_ioprio_set, IO_OF_PROCESS, 0, IO_IDLE);
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    }
}

/// Sets these limits permanently.
///
/// # Errors
/// The system does not accept them.
pub fn set_limits(limits: Limits) -> io::Result<()> {
    let set = |resource, most: u64| {
        // At the soft limit the process gets SIGXCPU, which tells the server why it ended; only the hard
        // limit behind it kills.
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most.saturating_add(1) };
        // SAFETY: the call reads the limit and does not keep it.
        if unsafe { libc::setrlimit(resource, &raw const limit) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    set(libc::RLIMIT_AS, limits.memory_bytes)?;
    set(libc::RLIMIT_CPU, limits.cpu_secs)?;
    set(libc::RLIMIT_CORE, 0)?;
    set(libc::RLIMIT_FSIZE, limits.memory_bytes)?;
    set(libc::RLIMIT_NOFILE, FILES_MAX)
}

/// From now on every system call that a compiler does not need fails with `ENOSYS`: no file can be opened, no
/// socket created, no program started.
///
/// # Errors
/// The system does not support system call filters.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub fn filter_syscalls() -> io::Result<()> {
    use std::collections::BTreeMap;

    use seccompiler::SeccompCmpArgLen::{Dword, Qword};
    use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, apply_filter_all_threads,
    };

    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    // Threads are allowed, processes are not. `clone3` passes its flags in memory that a filter cannot see;
    // it is denied, so threads are created with `clone`.
    let thread = u64::try_from(libc::CLONE_THREAD).unwrap_or_default();
    let is_thread = SeccompCondition::new(0, Qword, MaskedEq(thread), thread).map_err(io::Error::other)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![is_thread]).map_err(io::Error::other)?]);
    // The process may signal only itself.
    let own = SeccompCondition::new(0, Dword, Eq, u64::from(std::process::id())).map_err(io::Error::other)?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![own]).map_err(io::Error::other)?]);
    let commands = FILE_COMMANDS.iter().map(|command| {
        let is_it = SeccompCondition::new(1, Dword, Eq, u64::try_from(*command).unwrap_or_default())?;
        SeccompRule::new(vec![is_it])
    });
    rules.insert(libc::SYS_fcntl, commands.collect::<Result<_, _>>().map_err(io::Error::other)?);
    let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let none = SeccompAction::Errno(u32::try_from(libc::ENOSYS).unwrap_or_default());
    let filter = SeccompFilter::new(rules, none, SeccompAction::Allow, arch).map_err(io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    apply_filter_all_threads(&program).map_err(io::Error::other)
}

/// There is no filter for this architecture.
///
/// # Errors
/// Always.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn filter_syscalls() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The `fcntl` commands on open files: flags, and sealing a memory image.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const FILE_COMMANDS: &[c_int] = &[
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_DUPFD_CLOEXEC,
    libc::F_ADD_SEALS,
    libc::F_GET_SEALS,
];

/// What compiling and running a guest needs: memory, threads, time, the open streams.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const ALLOWED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_memfd_create,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_membarrier,
    libc::SYS_prctl,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
];
