//! The compiling process: started, fed, listened to, and ended when nobody waits for it any more.
//!
//! Must not know: what it does with what it is fed.

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
use crate::plugin::build::order::{LINE_BYTES_MAX, Order, Report};
use crate::plugin::error::{Failed, Refusal};

/// The hidden command of our own program.
pub const COMMAND: &str = "compile-plugin";
/// Where a machine is busy, CPU time takes longer: the process is ended after so many times its CPU time.
const WALL_TIMES: u32 = 10;
/// Component and code are handed over in pieces of so many bytes.
const PIECE_BYTES: usize = 64 << 10;
/// What the process says where there is no filter of system calls.
pub const NO_FILTER: &str = "no filter of system calls";
/// What is kept of what it writes to stderr, bytes.
const STDERR_BYTES_MAX: u64 = 4 << 10;
/// What the standard library and the system say when memory ends.
const OUT_OF_MEMORY: [&str; 3] = ["memory allocation of", "out of memory", "Cannot allocate memory"];

/// One component in one process.
pub struct Run<'a> {
    /// What is started.
    pub program: PathBuf,
    /// What it is told to do.
    pub order: &'a Order,
    /// The component.
    pub file: &'a Path,
    /// Where compiled code goes.
    pub code: Option<&'a Path>,
    /// Hears what it is at.
    pub stage: Progress<'a>,
}

impl Run<'_> {
    /// Starts the process and waits for its report. Dropping the future ends the process.
    ///
    /// # Errors
    /// It cannot be started or fed. What it does to itself is a refusal.
    pub async fn report(&self) -> Result<Report, Failed> {
        let component =
            File::open(self.file).await.map_err(|error| Failed::system("read the upload", &error))?;
        let mut child =
            self.start().map_err(|error| Failed::system("start the compiling process", &error))?;
        let wall = Duration::from_secs(self.order.cpu_secs.max(1)) * WALL_TIMES;
        let Ok(talked) = timeout(wall, self.talk(&mut child, component)).await else {
            end(&mut child).await;
            let secs = wall.as_secs();
            let message = format!(
                "compiling it took more than {secs} s on the clock ({WALL_TIMES} times {})",
                self.order.setting(true)
            );
            return Ok(Report::Refused(Refusal::TooSlowToCompile { message, limit: secs }));
        };
        let (answer, said) = talked;
        match answer? {
            Some(report) => {
                end(&mut child).await;
                unfiltered(&said);
                Ok(report)
            }
            // It ended, or closed its stream to end.
            None => match timeout(wall, child.wait()).await {
                Ok(Ok(status)) => Ok(Report::Refused(self.ended(status, &said))),
                Ok(Err(error)) => Err(Failed::system("wait for the compiling process", &error)),
                Err(_) => {
                    end(&mut child).await;
                    Err(Failed::Failed("the compiling process neither answers nor ends".to_owned()))
                }
            },
        }
    }

    fn start(&self) -> io::Result<Child> {
        Command::new(&self.program)
            .arg(COMMAND)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Signals of the terminal are for the server.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Feeds it and listens, to the report or the end of what it says; and what it wrote to stderr.
    async fn talk(&self, child: &mut Child, component: File) -> (Result<Option<Report>, Failed>, String) {
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return (Ok(None), String::new());
        };
        let listen = self.listen(stdout);
        // It ends when its stdin does, so that stays open until it has answered.
        let (answer, said, fed) = tokio::join!(listen, heard(stderr), self.feed(stdin, component));
        let answer = fed.and(answer);
        (answer, said)
    }

    /// Writes order and component, as long as anybody reads them: who does not has ended, and that is told
    /// otherwise.
    async fn feed(&self, mut stdin: ChildStdin, component: File) -> Result<ChildStdin, Failed> {
        let mut line = serde_json::to_vec(self.order)
            .map_err(|error| Failed::system("write an order", &error.into()))?;
        line.push(b'\n');
        let mut taken = stdin.write_all(&line).await.is_ok();
        let mut component = component.take(self.order.size);
        let mut piece = vec![0; PIECE_BYTES];
        while taken {
            let read = component
                .read(&mut piece)
                .await
                .map_err(|error| Failed::system("read the upload", &error))?;
            if read == 0 {
                break;
            }
            taken = stdin.write_all(&piece[..read]).await.is_ok();
        }
        Ok(stdin)
    }

    /// What it says, to its report; `None`: it ended before, or says something else.
    async fn listen(&self, stdout: ChildStdout) -> Result<Option<Report>, Failed> {
        let mut lines = BufReader::new(stdout);
        loop {
            let mut line = Vec::new();
            let read = (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
            if read.is_err() || line.last() != Some(&b'\n') {
                return Ok(None);
            }
            let Ok(report) = serde_json::from_slice::<Report>(&line) else { return Ok(None) };
            match &report {
                Report::At(stage) => (self.stage)(*stage),
                // More than it may have in memory it does not have.
                Report::Built { code_bytes, .. } if *code_bytes > self.order.memory_bytes => return Ok(None),
                Report::Built { code_bytes, .. } => {
                    return Ok(self.keep(&mut lines, *code_bytes).await?.then_some(report));
                }
                _ => return Ok(Some(report)),
            }
        }
    }

    /// Writes compiled code into its file; `false`: the process ended amid it.
    async fn keep(&self, code: &mut (impl AsyncRead + Unpin), bytes: u64) -> Result<bool, Failed> {
        let Some(path) = self.code else { return Ok(true) };
        let failed = |error: io::Error| Failed::unwritten("keep compiled code", path, &error);
        let mut file = File::create(path).await.map_err(failed)?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut code = code.take(bytes);
        let mut kept = 0;
        loop {
            match code.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(read) => {
                    file.write_all(&piece[..read]).await.map_err(failed)?;
                    kept += read as u64;
                }
            }
        }
        file.sync_all().await.map_err(failed)?;
        Ok(kept == bytes)
    }

    /// What its end means for the component.
    fn ended(&self, status: ExitStatus, said: &str) -> Refusal {
        let cpu_secs = self.order.cpu_secs;
        if OUT_OF_MEMORY.iter().any(|words| said.contains(words)) {
            return self.order.too_much_memory();
        }
        match status.signal() {
            Some(libc::SIGXCPU) => {
                let message = format!(
                    "compiling it takes more than {cpu_secs} s of CPU time ({})",
                    self.order.setting(true)
                );
                Refusal::TooSlowToCompile { message, limit: cpu_secs }
            }
            signal => {
                let advice = advice(signal);
                let said = last_words(said);
                Refusal::Crashed(format!(
                    "the process that compiles it ended before it was done ({status}; {said}); {advice}"
                ))
            }
        }
    }
}

/// What it wrote of its end: where it was, and what.
fn last_words(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.contains(NO_FILTER))
        .take(2)
        .collect();
    if lines.is_empty() { "it said nothing".to_owned() } else { lines.join(" ") }
}

/// What can be done after an end by this signal, or by none.
const fn advice(signal: Option<i32>) -> &'static str {
    match signal {
        Some(libc::SIGKILL) => {
            "somebody ended it, mostly the system for want of memory: give the machine more, or lower plugin.compile_large_memory_bytes, \
             and upload it again"
        }
        Some(libc::SIGSYS) => {
            "it made a system call that is denied to it: a fault of this server or of a library under it, please report it with the component"
        }
        Some(libc::SIGTERM | libc::SIGINT | libc::SIGHUP) => "somebody ended it: upload it again",
        _ => {
            "upload it again; if that ends alike, the compiler cannot cope with this component: build it in another way (other version of \
             its tools, less optimisation), and please report it"
        }
    }
}

/// Says once that uploads are compiled without a filter of system calls.
fn unfiltered(said: &str) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if let Some(line) = said.lines().find(|line| line.contains(NO_FILTER))
        && !SAID.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(
            "uploads are compiled without a filter of system calls, which this system does not offer: {line}"
        );
    }
}

async fn heard(stderr: impl AsyncRead + Unpin) -> String {
    let mut said = Vec::new();
    let mut begin = stderr.take(STDERR_BYTES_MAX);
    // What cannot be read was not said.
    let _ = begin.read_to_end(&mut said).await;
    let _ = copy(&mut begin.into_inner(), &mut sink()).await;
    String::from_utf8_lossy(&said).into_owned()
}

/// Ends the process, whatever it is doing.
async fn end(child: &mut Child) {
    if let Err(error) = child.kill().await {
        tracing::debug!("a compiling process was gone already: {error}");
    }
}
