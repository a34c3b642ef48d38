//! The process's limit of open files: raised as far as the system lets us, and how many connections fit under
//! it.
//!
//! Must not know: what the files are.

use std::io;

/// The limit of open files before and after it was raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What the process was started with.
    pub before: u64,
    /// What holds now.
    pub now: u64,
}

/// Raises the soft limit to the hard one; a process may do that without asking anyone. Where the system
/// refuses (a hard limit beyond what it really gives), the old one holds.
///
/// # Errors
/// The system does not tell its limit.
#[expect(unsafe_code, reason = "std has no way to the limits of the process")]
pub fn raise() -> io::Result<Limit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes into the struct it is handed and keeps nothing.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the call reads the struct it is handed and keeps nothing.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0;
    Ok(Limit { before, now: if raised { limit.rlim_max } else { before } })
}

/// Connections that fit: what the limit leaves after the reserve; under a very small limit, half of it.
#[must_use]
pub fn room(limit: u64, reserved: u64) -> usize {
    let room = limit.saturating_sub(reserved).max(limit / 2);
    usize::try_from(room).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_kept() {
        assert_eq!(room(20_000, 256), 19_744);
        assert_eq!((room(300, 256), room(0, 256)), (150, 0));
        assert_eq!(room(libc::RLIM_INFINITY, 256), usize::MAX - 256);
    }

    #[test]
    fn raised_is_as_high_as_it_goes() {
        let first = raise().unwrap();
        assert!(first.now >= first.before && first.now > 0);
        assert_eq!(raise().unwrap(), Limit { before: first.now, now: first.now });
    }
}
