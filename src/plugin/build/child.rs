//! What the compiling process does: it confines itself, reads its order and the component, does the work,
//! reports, and ends. It ends with the server too, whose end of its stdin closes then.
//!
//! Must not know: how it was started.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Builder;

use crate::domain::entry::{Entry, SharedEntry};
use crate::plugin::build::compile;
use crate::plugin::build::compile::Upload;
use crate::plugin::build::confine::{self, Limits};
use crate::plugin::build::order::{LINE_BYTES_MAX, Order, Report, Stage, Work};
use crate::plugin::build::process::NO_FILTER;
use crate::plugin::counters::Counters;
use crate::plugin::error::Refusal;
use crate::plugin::history::NoHistory;
use crate::plugin::judging::repeatability_trial;
use crate::plugin::judging::repeatability_trial::TrialReport;
use crate::plugin::resources::capacity::InstanceAllocation;
use crate::plugin::resources::cpu_clock::Ticker;
use crate::plugin::sandbox::guest::Guest;
use crate::plugin::sandbox::setup::Setup;
use crate::plugin::sandbox::state::Outside;
use crate::plugin::scan;
use crate::tasks;

/// The stack that reading and compiling may take, bytes: nesting is bounded, but not to what a thread usually
/// has.
const STACK_BYTES: usize = 64 << 20;

/// What trials need from outside.
pub struct Trial {
    /// Killmails to be judged.
    pub sample: Vec<SharedEntry>,
    /// The canonical JSON of an entry.
    pub json: fn(&Entry) -> Bytes,
}

/// Runs the process to its end: 0 where a report was given.
pub fn run(trial: impl FnOnce() -> Trial + Send + 'static) -> ExitCode {
    confine::withdraw();
    match obey(trial) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The server reads it and tells of it.
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn obey(trial: impl FnOnce() -> Trial + Send + 'static) -> io::Result<()> {
    let mut stdin = BufReader::new(io::stdin());
    let mut line = String::new();
    (&mut stdin).take(LINE_BYTES_MAX).read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line)?;
    confine::stand_back(order.config.compile_nice);
    confine::limit(Limits { cpu_secs: order.cpu_secs, memory_bytes: order.memory_bytes })?;
    if let Err(error) = confine::filter_calls() {
        // The other limits still hold; the server tells the operator.
        eprintln!("{NO_FILTER}: {error}");
    }
    let mut bytes = Vec::new();
    (&mut stdin).take(order.size).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != order.size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    drop(tasks::thread("server-gone", move || end_with(stdin))?);
    let work = tasks::deep_thread("compile", STACK_BYTES, move || work(&order, &bytes, trial))?;
    work.join().map_err(|_| io::Error::other("the work panicked"))?
}

/// The server keeps its end of the stream open as long as it wants an answer.
fn end_with(mut stdin: impl Read) {
    let mut byte = [0];
    if matches!(stdin.read(&mut byte), Ok(0) | Err(_)) {
        std::process::abort();
    }
}

fn work(order: &Order, bytes: &[u8], trial: impl FnOnce() -> Trial) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut code = Vec::new();
    let report = match order.work {
        Work::Scan => scan::scan(bytes, &order.config).map(|seen| Report::Scanned(seen.about)),
        Work::Build { probe } => {
            build(order, bytes, probe.then(trial), &mut out).map(|(report, compiled)| {
                code = compiled;
                report
            })
        }
    };
    say(
        &mut out,
        &report.unwrap_or_else(|refusal| {
            Report::Refused(in_words(refusal, order).legible(order.config.text_bytes))
        }),
    )?;
    out.write_all(&code)?;
    out.flush()
}

fn say(out: &mut impl Write, report: &Report) -> io::Result<()> {
    serde_json::to_writer(&mut *out, report)?;
    out.write_all(b"\n")?;
    out.flush()
}

fn build(
    order: &Order,
    bytes: &[u8],
    trial: Option<Trial>,
    out: &mut impl Write,
) -> Result<(Report, Vec<u8>), Refusal> {
    let (json, sample) =
        trial.map_or((nothing as fn(&Entry) -> Bytes, None), |trial| (trial.json, Some(trial.sample)));
    let outside = Outside { history: Arc::new(NoHistory), json };
    let setup = Setup::new(order.config.clone(), outside, InstanceAllocation::OnDemand)
        .map_err(|error| Refusal::Crashed(error.to_string()))?;
    let ticker = Ticker::start(setup.weak()).map_err(|error| Refusal::Crashed(error.to_string()))?;
    let compiled = compile::compile(&setup, bytes)?;
    let upload = Upload { digest: "", size_bytes: bytes.len() };
    let component = compile::component(&setup, &compiled, upload, Arc::<Counters>::default())?;
    let _awake = ticker.keep_ticking();
    // WASI's streams want a tokio handle at hand; without one they start a runtime of their own, with threads
    // that are denied here.
    let runtime =
        Builder::new_current_thread().build().map_err(|error| Refusal::Crashed(error.to_string()))?;
    let _entered = runtime.enter();
    Guest::new(&setup, &component)?;
    let mut tried = TrialReport::default();
    if let Some(sample) = sample {
        // Who does not hear it waits all the same.
        let _ = say(out, &Report::At(Stage::Probing));
        tried = repeatability_trial::try_upload(&setup, &component, &sample)?;
    }
    let code = compile::code(&compiled)?;
    Ok((Report::Built { about: component.about().clone(), tried, code_bytes: code.len() as u64 }, code))
}

fn nothing(_: &Entry) -> Bytes {
    Bytes::new()
}

/// Where the system had no more memory, the error of the failed call means little to a person.
fn in_words(refusal: Refusal, order: &Order) -> Refusal {
    let enomem = io::Error::from_raw_os_error(libc::ENOMEM).to_string();
    if !refusal.to_string().contains(&enomem) {
        return refusal;
    }
    order.too_much_memory()
}
