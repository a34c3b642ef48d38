//! The process's limit of open files: raised as far as allowed, and how many connections fit under it.
//!
//! Must not know: what the files are.

use std::io;

/// The limit of open files, before and after it was raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The limit the process was started with.
    pub before: u64,
    /// The limit now.
    pub now: u64,
}

/// Raises the soft limit to the hard one, which needs no privilege. If the system refuses (the hard limit is
/// larger than it really supports), the soft limit stays.
///
/// # Errors
/// The limit cannot be read.
#[expect(unsafe_code, reason = "std has no access to the limits of the process")]
pub fn raise_limit() -> io::Result<Limit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes to the struct behind the pointer and does not keep the pointer.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the call reads the struct behind the pointer and does not keep the pointer.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0;
    Ok(Limit { before, now: if raised { limit.rlim_max } else { before } })
}

/// How many connections fit: the limit minus the reserve, but at least half of the limit.
#[must_use]
pub fn connections_max(limit: u64, reserved: u64) -> usize {
    let connections = limit.saturating_sub(reserved).max(limit / 2);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_subtracted() {
        assert_eq!(connections_max(20_000, 256), 19_744);
        assert_eq!((connections_max(300, 256), connections_max(0, 256)), (150, 0));
        assert_eq!(connections_max(libc::RLIM_INFINITY, 256), usize::MAX - 256);
    }

    #[test]
    fn raising_twice_changes_nothing() {
        let first = raise_limit().unwrap();
        assert!(first.now >= first.before && first.now > 0);
        assert_eq!(raise_limit().unwrap(), Limit { before: first.now, now: first.now });
    }
}
