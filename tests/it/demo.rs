//! The demo: every line it prints does what it promises.
//!
//! Must not know: what the lines ask for.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::support::server::Setup;

/// What a line prints and complains of. Requests end after some seconds: on a machine too busy for that they are made again.
fn answer(line: &str) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let run = || Command::new("sh").args(["-c", &format!("{line} -sS")]).output().unwrap();
    let answers = std::iter::repeat_with(run).take(3).map(|output| (text(&output.stdout), text(&output.stderr)));
    let mut last = Default::default();
    for answer in answers {
        last = answer;
        if last.0.contains("\"killmail_id\":") {
            break;
        }
    }
    last
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
    let _ = demo.kill();
    let _ = demo.wait();
    assert!(ready.is_some(), "{lines:#?}");
    assert!(commands.len() >= 6, "{lines:#?}");
    assert!(commands.iter().any(|line| line.contains("plugin=")), "{commands:#?}");
    for (command, (output, error)) in commands.iter().zip(&outputs) {
        assert!(output.contains("\"killmail_id\":"), "{command}\n{output}\n{error}");
        if command.contains("plugin=") {
            assert!(output.contains("\"enriched\":"), "{command}\n{output}");
        }
    }
}
