//! What the compiling process takes from itself before it reads a byte of an upload: time, memory, files,
//! network, priority.
//!
//! None of it needs privileges. What a system does not offer is left out; the limits of time and memory are
//! always there.
//!
//! Must not know: what is compiled.
#![expect(
    unsafe_code,
    reason = "limits of a process are set by system calls that the standard library does not have"
)]

use std::io;

use libc::c_int;

/// What the process may have.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// CPU time, seconds.
    pub cpu_secs: u64,
    /// Address space, bytes.
    pub memory_bytes: u64,
}

/// Files that the process may have open: images of memories are such.
const FILES_MAX: u64 = 1_024;
/// `IOPRIO_CLASS_IDLE` in the place of the class (`linux/ioprio.h`).
const IO_IDLE: c_int = 3 << 13;
/// `IOPRIO_WHO_PROCESS`.
const IO_OF_PROCESS: c_int = 1;

/// Stands back when others want the CPU, this much: 0 to 19.
pub fn lower_priority(nice: u8) {
    // SAFETY: the call takes numbers and touches no memory of ours.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, c_int::from(nice)) };
}

/// Leaves nothing open but the standard streams, gains no rights, comes last at the disk, and is the first to
/// go when memory ends.
pub fn isolate() {
    // Where the system has no such file or call, it stays as it was.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    // SAFETY: these calls take numbers and touch no memory of ours; descriptors from 3 on were inherited,
    // nothing here uses them.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32);
        libc::syscall(libc::SYS_ioprio_set, IO_OF_PROCESS, 0, IO_IDLE);
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    }
}

/// Takes these limits for good.
///
/// # Errors
/// The system does not take them.
pub fn set_limits(limits: Limits) -> io::Result<()> {
    let set = |resource, most: u64| {
        // At the end of its CPU time a process gets the signal that says so, and is killed only at a second
        // limit behind it.
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most.saturating_add(1) };
        // SAFETY: the limit is read by the call and not kept.
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

/// From now on the system answers "there is no such call" to everything a compiler does not need: no file is
/// opened, no socket made, no program started.
///
/// # Errors
/// The system knows no filters of calls.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub fn filter_syscalls() -> io::Result<()> {
    use std::collections::BTreeMap;

    use seccompiler::SeccompCmpArgLen::{Dword, Qword};
    use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, apply_filter_all_threads,
    };

    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    // Threads yes, processes no. The call `clone3` keeps its flags where no filter sees them; without it,
    // threads are made by this one.
    let thread = u64::try_from(libc::CLONE_THREAD).unwrap_or_default();
    let is_thread = SeccompCondition::new(0, Qword, MaskedEq(thread), thread).map_err(io::Error::other)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![is_thread]).map_err(io::Error::other)?]);
    // It may end itself, nobody else.
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

/// This architecture has no filter yet.
///
/// # Errors
/// Always.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn filter_syscalls() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What may be asked of an open file: its flags, and that the image of a memory stays as it is.
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

/// What compiling and running a guest takes: memory, threads, time, the streams that are open.
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
