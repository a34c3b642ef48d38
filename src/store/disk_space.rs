//! How much space is left on the disk.
//!
//! Must not know: what the space is for.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes an unprivileged user may still write to the file system of this folder.
///
/// # Errors
/// The folder does not exist, or the system call fails.
#[expect(unsafe_code, reason = "statvfs has no safe form in the standard library")]
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    let mut stats = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero byte, and `stats` is read only after the call filled it.
    let stats = unsafe {
        if libc::statvfs(path.as_ptr(), stats.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        stats.assume_init()
    };
    Ok(stats.f_bavail * stats.f_frsize)
}

/// Bytes a file of this length may still grow before it reaches the file size limit of this process
/// (`ulimit -f`); `u64::MAX` without a limit.
#[must_use]
#[expect(unsafe_code, reason = "getrlimit has no safe form in the standard library")]
pub fn growth_bytes(file_bytes: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result, and the call keeps no reference to it.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) } != 0;
    if failed || limit.rlim_cur == libc::RLIM_INFINITY {
        return u64::MAX;
    }
    limit.rlim_cur.saturating_sub(file_bytes)
}
