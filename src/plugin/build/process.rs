//! Runs the compiling process: starts it, feeds it, reads its reports, and ends it when nobody waits any
//! more.
//!
//! Must not know: what the process does with what it gets.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, copy, sink};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::plugin::build::Progress;
use crate::plugin::build::protocol::{BuildRequest, LINE_BYTES_MAX, Report};
use crate::plugin::error::{BuildError, Refusal};
use crate::tasks;

/// The hidden command of our own program.
pub const COMMAND: &str = "compile-plugin";
/// On a busy machine CPU time takes longer. The process is killed after this many times its CPU time.
const WALL_TIMES: u32 = 10;
/// Component and code are copied in chunks of this size.
const CHUNK_BYTES: usize = 64 << 10;
/// The most that is kept of its stderr, bytes.
const STDERR_BYTES_MAX: u64 = 4 << 10;

pub struct CompileProcess<'a> {
    /// The program to start.
    pub program: PathBuf,
    /// The request to send.
    pub request: &'a BuildRequest,
    pub file: &'a Path,
    /// Where compiled code is written.
    pub code: Option<&'a Path>,
    /// Called with each stage that is reached.
    pub progress: Progress<'a>,
}

impl CompileProcess<'_> {
    /// Starts the process and waits for its report. Dropping the future ends the process.
    ///
    /// # Errors
    /// It cannot be started or fed. What it does to itself is a refusal instead.
    pub async fn run(&self) -> Result<Report, BuildError> {
        let component =
            File::open(self.file).await.map_err(|error| BuildError::io("read the upload", &error))?;
        let program = self.program.clone();
        // Until the new program runs, the thread that starts it stands still: not one that serves connections.
        let started = tasks::blocking("start-compiler", move || start(&program)).await;
        let mut child = started
            .map_err(io::Error::other)
            .flatten()
            .map_err(|error| BuildError::io("start the compiling process", &error))?;
        let wall = Duration::from_secs(self.request.cpu_secs.max(1)) * WALL_TIMES;
        let Ok(outcome) = timeout(wall, self.exchange(&mut child, component)).await else {
            kill(&mut child).await;
            let secs = wall.as_secs();
            let message = format!(
                "compiling it took more than {secs} s of wall time ({WALL_TIMES} times {})",
                self.request.cpu_setting()
            );
            return Ok(Report::Refused(Refusal::TooSlowToCompile { message, limit: secs }));
        };
        let (answer, stderr) = outcome;
        match answer? {
            Some(report) => {
                kill(&mut child).await;
                Ok(report)
            }
            // It has ended, or closed its stdout just before.
            None => match timeout(wall, child.wait()).await {
                Ok(Ok(status)) => Ok(Report::Refused(self.refusal_from_exit(status, &stderr))),
                Ok(Err(error)) => Err(BuildError::io("wait for the compiling process", &error)),
                Err(_) => {
                    kill(&mut child).await;
                    Err(BuildError::Internal("the compiling process neither responds nor exits".to_owned()))
                }
            },
        }
    }

    /// Sends the request, and reads the reports and stderr.
    async fn exchange(
        &self,
        child: &mut Child,
        component: File,
    ) -> (Result<Option<Report>, BuildError>, String) {
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return (Ok(None), String::new());
        };
        let listen = self.listen(stdout);
        // The process ends when its stdin does, so stdin stays open until it has answered.
        let (answer, stderr, fed) = tokio::join!(listen, read_stderr(stderr), self.feed(stdin, component));
        let answer = fed.and(answer);
        (answer, stderr)
    }

    /// Writes request and component as long as the process reads them. A process that stops reading has
    /// ended, and the caller reports why.
    async fn feed(&self, mut stdin: ChildStdin, component: File) -> Result<ChildStdin, BuildError> {
        let mut line = serde_json::to_vec(self.request)
            .map_err(|error| BuildError::io("write the request", &error.into()))?;
        line.push(b'\n');
        let mut accepted = stdin.write_all(&line).await.is_ok();
        let mut component = component.take(self.request.size);
        let mut chunk = vec![0; CHUNK_BYTES];
        while accepted {
            let read = component
                .read(&mut chunk)
                .await
                .map_err(|error| BuildError::io("read the upload", &error))?;
            if read == 0 {
                break;
            }
            accepted = stdin.write_all(&chunk[..read]).await.is_ok();
        }
        Ok(stdin)
    }

    /// Reads reports up to the final one; `None` if the process ends before it or sends something else.
    async fn listen(&self, stdout: ChildStdout) -> Result<Option<Report>, BuildError> {
        let mut lines = BufReader::new(stdout);
        loop {
            let mut line = Vec::new();
            let read = (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
            if read.is_err() || line.last() != Some(&b'\n') {
                return Ok(None);
            }
            let Ok(report) = serde_json::from_slice::<Report>(&line) else { return Ok(None) };
            match &report {
                Report::Reached(stage) => (self.progress)(*stage),
                Report::Unfiltered(error) => warn_unfiltered(error),
                // It cannot have more code than its memory limit allows.
                Report::Built { code_bytes, .. } if *code_bytes > self.request.memory_bytes => {
                    return Ok(None);
                }
                Report::Built { code_bytes, .. } => {
                    return Ok(self.save_code(&mut lines, *code_bytes).await?.then_some(report));
                }
                _ => return Ok(Some(report)),
            }
        }
    }

    /// Writes compiled code to its file; `false` if the process ended before all of it was sent.
    async fn save_code(&self, code: &mut (impl AsyncRead + Unpin), bytes: u64) -> Result<bool, BuildError> {
        let Some(path) = self.code else { return Ok(true) };
        let failed = |error: io::Error| BuildError::write("save compiled code", path, &error);
        let mut file = File::create(path).await.map_err(failed)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut code = code.take(bytes);
        let mut saved = 0;
        loop {
            match code.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(read) => {
                    file.write_all(&chunk[..read]).await.map_err(failed)?;
                    saved += read as u64;
                }
            }
        }
        file.sync_all().await.map_err(failed)?;
        Ok(saved == bytes)
    }

    /// The refusal for a process that ended without a report.
    fn refusal_from_exit(&self, status: ExitStatus, stderr: &str) -> Refusal {
        let cpu_secs = self.request.cpu_secs;
        if ran_out_of_memory(stderr) {
            return self.request.too_much_memory();
        }
        match status.signal() {
            Some(libc::SIGXCPU) => {
                let message = format!(
                    "compiling it takes more than {cpu_secs} s of CPU time ({})",
                    self.request.cpu_setting()
                );
                Refusal::TooSlowToCompile { message, limit: cpu_secs }
            }
            signal => {
                let advice = advice_for(signal, self.request.memory_setting());
                let stderr = first_lines(stderr);
                Refusal::Crashed(format!(
                    "the compiling process ended before it was done ({status}; {stderr}); {advice}"
                ))
            }
        }
    }
}

/// Starts the program as a compiling process.
fn start(program: &Path) -> io::Result<Child> {
    Command::new(program)
        .arg(COMMAND)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Signals from the terminal are for the server.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Whether the process ended because it had no more memory. A failed allocation aborts it, and all it leaves
/// is what the standard library or the system wrote to stderr.
fn ran_out_of_memory(stderr: &str) -> bool {
    const TEXTS: [&str; 3] = ["memory allocation of", "out of memory", "Cannot allocate memory"];
    TEXTS.iter().any(|text| stderr.contains(text))
}

/// The first lines it wrote: where it failed, and why.
fn first_lines(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).take(2).collect();
    if lines.is_empty() { "it wrote nothing to stderr".to_owned() } else { lines.join(" ") }
}

/// Advice after an end by this signal, or by none. The setting is that of the memory it may take.
fn advice_for(signal: Option<i32>, memory_setting: &str) -> String {
    let advice = match signal {
        Some(libc::SIGKILL) => {
            return format!(
                "it was killed, most likely by the system because memory ran out: give the machine more, or lower \
                 {memory_setting}, and upload it again"
            );
        }
        Some(libc::SIGSYS) => {
            "it made a system call that is denied to it, which is a bug of this server or of a library it uses: please report it \
             with the component"
        }
        Some(libc::SIGTERM | libc::SIGINT | libc::SIGHUP) => {
            "it was terminated from outside: upload it again"
        }
        _ => {
            "upload it again; if that ends in the same way, the compiler cannot handle this component: build it differently (another \
             version of its tools, less optimisation), and please report it"
        }
    };
    advice.to_owned()
}

/// Warns once that uploads are compiled without a filter of system calls.
fn warn_unfiltered(error: &str) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "uploads are compiled without a system call filter, which this system does not support: {error}"
        );
    }
}

/// The first [`STDERR_BYTES_MAX`] bytes of stderr. The rest is read and dropped, so that the process never
/// blocks on it.
async fn read_stderr(stderr: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let mut beginning = stderr.take(STDERR_BYTES_MAX);
    // A read error is treated like the end of the stream, because only the report matters.
    let _ = beginning.read_to_end(&mut bytes).await;
    let _ = copy(&mut beginning.into_inner(), &mut sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Kills the process, whatever it is doing.
async fn kill(child: &mut Child) {
    if let Err(error) = child.kill().await {
        tracing::debug!("a compiling process had already exited: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_after_a_kill_names_the_setting_of_its_lane() {
        for setting in ["plugin.compile_small_memory_bytes", "plugin.compile_large_memory_bytes"] {
            assert!(advice_for(Some(libc::SIGKILL), setting).contains(setting));
        }
    }
}
