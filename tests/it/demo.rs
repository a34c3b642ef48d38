//! The demo: every line it prints does what it promises, and what the README asks by example is answered.
//!
//! Must not know: what the lines ask for.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::support::server::Setup;

/// What a line prints and complains of. Requests end after some seconds: on a machine too busy for that they
/// are made again.
fn answer(line: &str) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let run = || Command::new("sh").args(["-c", &format!("{line} -sS")]).output().unwrap();
    let answers =
        std::iter::repeat_with(run).take(3).map(|output| (text(&output.stdout), text(&output.stderr)));
    let mut last = Default::default();
    for answer in answers {
        last = answer;
        if found(&last.0) {
            break;
        }
    }
    last
}

/// Whether an answer has something to look at: killmails that are worth something, or a count of some.
fn found(output: &str) -> bool {
    let counted =
        output.split_once("{\"data\":{\"count\":").is_some_and(|(_, count)| !count.starts_with('0'));
    counted
        || (output.contains("\"killmail_id\":")
            && output
                .split("\"totalValue\":")
                .skip(1)
                .all(|value| !value.starts_with("0.0") && !value.starts_with("0,")))
}

/// The README's questions by GET that end by themselves, asked at this address: each with the status of its
/// answer.
fn readme(address: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string("README.md").unwrap();
    let questions = text.lines().filter(|line| {
        line.starts_with("curl ") && line.contains("localhost:4004/api/v1/") && !line.ends_with('\\')
    });
    let questions = questions.filter(|line| !line.contains(" -N ") && !line.contains(" -T "));
    let ask = |line: &str| {
        let command = line.replace("localhost:4004", address);
        let output = Command::new("sh")
            .args(["-c", &format!("{command} -sS -o /dev/null -w '%{{http_code}}'")])
            .output()
            .unwrap();
        (command, String::from_utf8_lossy(&output.stdout).into_owned())
    };
    questions.map(ask).collect()
}

#[test]
fn every_printed_line_returns_killmails() {
    let setup = Setup::quiet();
    // Its folder goes with the test even if the demo is killed.
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
        let running: Vec<_> = commands.iter().map(|line| scope.spawn(move || answer(line))).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let asked = ready
        .as_ref()
        .map(|line| readme(line.trim_start_matches("listening on http://")))
        .unwrap_or_default();
    let _ = demo.kill();
    let _ = demo.wait();
    assert!(ready.is_some(), "{lines:#?}");
    assert!(asked.len() >= 4 && asked.iter().all(|(_, status)| status == "200"), "{asked:#?}");
    assert!(commands.len() >= 6, "{lines:#?}");
    assert!(commands.iter().any(|line| line.contains("plugin=")), "{commands:#?}");
    for (command, (output, error)) in commands.iter().zip(&outputs) {
        assert!(found(output), "{command}\n{output}\n{error}");
        if command.contains("plugin=") {
            assert!(output.contains("\"enriched\":"), "{command}\n{output}");
        }
    }
}
