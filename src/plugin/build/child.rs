//! The main function of the compiling process: it confines itself, reads a request and the component, does
//! the work, reports, and exits. It also exits with the server, because its stdin closes then.
//!
//! Must not know: how it was started.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Builder;

use crate::domain::entry::{Entry, SharedEntry};
use crate::plugin::build::compile;
use crate::plugin::build::compile::UploadId;
use crate::plugin::build::confine::{self, Limits};
use crate::plugin::build::protocol::{BuildRequest, BuildTask, LINE_BYTES_MAX, Report, Stage};
use crate::plugin::counters::Counters;
use crate::plugin::error::Refusal;
use crate::plugin::history::NoHistory;
use crate::plugin::judging::repeatability_trial;
use crate::plugin::judging::repeatability_trial::TrialReport;
use crate::plugin::resources::capacity::InstanceAllocation;
use crate::plugin::resources::cpu_clock::Ticker;
use crate::plugin::sandbox::guest::Guest;
use crate::plugin::sandbox::setup::Setup;
use crate::plugin::sandbox::state::HostServices;
use crate::plugin::scan;
use crate::tasks;

/// Stack of the thread that parses and compiles, bytes. Nesting is limited, but not to what a default stack
/// holds.
const STACK_BYTES: usize = 64 << 20;

/// What a trial needs from the rest of the program.
pub struct TrialInput {
    /// Killmails to evaluate.
    pub sample: Vec<SharedEntry>,
    /// The canonical JSON of an entry.
    pub json: fn(&Entry) -> Bytes,
}

/// Runs the process to its end. It succeeds if a report was sent.
pub fn run(trial: impl FnOnce() -> TrialInput + Send + 'static) -> ExitCode {
    confine::isolate();
    match serve_request(trial) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The server reads stderr and reports it.
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_request(trial: impl FnOnce() -> TrialInput + Send + 'static) -> io::Result<()> {
    let mut stdin = BufReader::new(io::stdin());
    let mut line = String::new();
    (&mut stdin).take(LINE_BYTES_MAX).read_line(&mut line)?;
    let request: BuildRequest = serde_json::from_str(&line)?;
    confine::lower_priority(request.config.compile_nice);
    confine::set_limits(Limits { cpu_secs: request.cpu_secs, memory_bytes: request.memory_bytes })?;
    if let Err(error) = confine::filter_syscalls() {
        // The other limits still hold; the server warns the operator.
        send_report(&mut io::stdout(), &Report::Unfiltered(error.to_string()))?;
    }
    let mut bytes = Vec::new();
    (&mut stdin).take(request.size).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != request.size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    drop(tasks::thread("server-gone", move || abort_when_closed(stdin))?);
    let worker = tasks::deep_thread("compile", STACK_BYTES, move || run_task(&request, &bytes, trial))?;
    worker.join().map_err(|_| io::Error::other("the work panicked"))?
}

/// The server keeps its end of stdin open as long as it wants an answer.
fn abort_when_closed(mut stdin: impl Read) {
    let mut byte = [0];
    if matches!(stdin.read(&mut byte), Ok(0) | Err(_)) {
        std::process::abort();
    }
}

fn run_task(request: &BuildRequest, bytes: &[u8], trial: impl FnOnce() -> TrialInput) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut code = Vec::new();
    let report = match request.task {
        BuildTask::Scan => scan::scan(bytes, &request.config).map(|seen| Report::Scanned(seen.about)),
        BuildTask::Build { probe } => {
            build(request, bytes, probe.then(trial), &mut out).map(|(report, compiled)| {
                code = compiled;
                report
            })
        }
    };
    send_report(
        &mut out,
        &report.unwrap_or_else(|refusal| {
            Report::Refused(explain_out_of_memory(refusal, request).legible(request.config.text_bytes))
        }),
    )?;
    out.write_all(&code)?;
    out.flush()
}

fn send_report(out: &mut impl Write, report: &Report) -> io::Result<()> {
    serde_json::to_writer(&mut *out, report)?;
    out.write_all(b"\n")?;
    out.flush()
}

fn build(
    request: &BuildRequest,
    bytes: &[u8],
    trial: Option<TrialInput>,
    out: &mut impl Write,
) -> Result<(Report, Vec<u8>), Refusal> {
    let (json, sample) =
        trial.map_or((no_json as fn(&Entry) -> Bytes, None), |trial| (trial.json, Some(trial.sample)));
    let services = HostServices { history: Arc::new(NoHistory), json };
    let setup = Setup::new(request.config.clone(), services, InstanceAllocation::OnDemand)
        .map_err(|error| Refusal::Crashed(error.to_string()))?;
    let ticker = Ticker::start(setup.weak()).map_err(|error| Refusal::Crashed(error.to_string()))?;
    let compiled = compile::compile(&setup, bytes)?;
    let upload = UploadId { digest: "", size_bytes: bytes.len() };
    let component = compile::check_linkage(&setup, &compiled, upload, Arc::<Counters>::default())?;
    let _awake = ticker.keep_ticking();
    // WASI's streams need a tokio runtime. Without one they start their own, with threads, which are denied
    // here.
    let runtime =
        Builder::new_current_thread().build().map_err(|error| Refusal::Crashed(error.to_string()))?;
    let _entered = runtime.enter();
    Guest::new(&setup, &component)?;
    let mut tried = TrialReport::default();
    if let Some(sample) = sample {
        // If the server no longer reads, writing the final report fails as well.
        let _ = send_report(out, &Report::Reached(Stage::Probing));
        tried = repeatability_trial::try_upload(&setup, &component, &sample)?;
    }
    let code = compile::serialize(&compiled)?;
    Ok((Report::Built { about: component.about().clone(), tried, code_bytes: code.len() as u64 }, code))
}

fn no_json(_: &Entry) -> Bytes {
    Bytes::new()
}

/// Replaces the error of a failed system call, which says little to a person, with the limit that caused it.
fn explain_out_of_memory(refusal: Refusal, request: &BuildRequest) -> Refusal {
    if is_out_of_memory(&refusal) { request.too_much_memory() } else { refusal }
}

/// Whether a system call failed with `ENOMEM`. wasmtime's system calls fail with an error type of a crate it
/// does not expose, so only the text of the refusal shows it.
fn is_out_of_memory(refusal: &Refusal) -> bool {
    let enomem = io::Error::from_raw_os_error(libc::ENOMEM).to_string();
    refusal.to_string().contains(&enomem)
}
