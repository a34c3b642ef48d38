//! The demo: every command it prints returns killmails, and the README's example requests work on it.
//!
//! Must not know: what the commands ask for.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::support::server::Setup;

/// The output and errors of a printed command. Requests end after some seconds; on a machine too busy for that
/// they are repeated.
fn run_printed(line: &str) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let run = || Command::new("sh").args(["-c", &format!("{line} -sS")]).output().unwrap();
    let outputs =
        std::iter::repeat_with(run).take(3).map(|output| (text(&output.stdout), text(&output.stderr)));
    let mut last = Default::default();
    for output in outputs {
        last = output;
        if has_results(&last.0) {
            break;
        }
    }
    last
}

/// Whether the output has killmails, all with a value, or a count above zero.
fn has_results(output: &str) -> bool {
    let counted =
        output.split_once("{\"data\":{\"count\":").is_some_and(|(_, count)| !count.starts_with('0'));
    counted
        || (output.contains("\"killmail_id\":")
            && output
                .split("\"totalValue\":")
                .skip(1)
                .all(|value| !value.starts_with("0.0") && !value.starts_with("0,")))
}

/// Runs the README's GET requests that end by themselves against this address. Returns each command with the
/// status of its response.
fn run_readme(address: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string("README.md").unwrap();
    let requests = text.lines().filter(|line| {
        line.starts_with("curl ") && line.contains("localhost:4004/api/v1/") && !line.ends_with('\\')
    });
    let requests = requests.filter(|line| !line.contains(" -N ") && !line.contains(" -T "));
    let run = |line: &str| {
        let command = line.replace("localhost:4004", address);
        let output = Command::new("sh")
            .args(["-c", &format!("{command} -sS -o /dev/null -w '%{{http_code}}'")])
            .output()
            .unwrap();
        (command, String::from_utf8_lossy(&output.stdout).into_owned())
    };
    requests.map(run).collect()
}

#[test]
fn every_printed_command_returns_killmails() {
    let setup = Setup::quiet();
    // Its folder is removed with the test's even if the demo is killed.
    let mut demo = setup.command("demo");
    demo.args(["--listen", "127.0.0.1:0"]).env("TMPDIR", setup.folder()).stdout(Stdio::piped());
    let mut demo = demo.spawn().unwrap();
    let mut lines = vec![];
    let mut out = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    let ready = out.by_ref().find(|line| {
        lines.push(line.clone());
        line.starts_with("listening on http://")
    });
    let commands: Vec<&String> = lines.iter().filter(|line| line.starts_with("  curl ")).collect();
    let outputs: Vec<(String, String)> = std::thread::scope(|scope| {
        let running: Vec<_> = commands.iter().map(|line| scope.spawn(move || run_printed(line))).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let asked = ready
        .as_ref()
        .map(|line| run_readme(line.trim_start_matches("listening on http://")))
        .unwrap_or_default();
    let _ = demo.kill();
    let _ = demo.wait();
    assert!(ready.is_some(), "{lines:#?}");
    assert!(asked.len() >= 4 && asked.iter().all(|(_, status)| status == "200"), "{asked:#?}");
    assert!(commands.len() >= 6, "{lines:#?}");
    assert!(commands.iter().any(|line| line.contains("plugin=")), "{commands:#?}");
    for (command, (output, error)) in commands.iter().zip(&outputs) {
        assert!(has_results(output), "{command}\n{output}\n{error}");
        if command.contains("plugin=") {
            assert!(output.contains("\"enriched\":"), "{command}\n{output}");
        }
    }
}
