//! The log on stderr: one event is one line, and nothing that comes from outside can make it look like
//! another.
//!
//! Must not know: which events there are.

use std::io::{self, IsTerminal, Stderr, Write, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::domain::safe_text;

/// Logs to stderr; `KILLSTREAM_LOG` or `RUST_LOG` say what.
pub fn start(default: &str) {
    let said = ["KILLSTREAM_LOG", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok());
    let filter = EnvFilter::try_new(said.unwrap_or_else(|| format!("warn,sled=off,killstream={default}")));
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    // Refused when a test harness logs already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Lines)
        .with_ansi(stderr().is_terminal())
        .try_init();
}

/// Makes writers of lines.
struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<Stderr>;

    fn make_writer(&'a self) -> Line<Stderr> {
        Line(stderr())
    }
}

/// Takes each event in one piece, as the formatter hands it over, and writes it as one line.
struct Line<W>(W);

impl<W: Write> Write for Line<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(&line(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The event with everything escaped that breaks a line or turns its order.
fn line(event: &[u8]) -> Vec<u8> {
    let (text, end) = event.strip_suffix(b"\n").map_or((event, ""), |text| (text, "\n"));
    let text = String::from_utf8_lossy(text);
    if !text.contains(misleads) {
        return event.to_vec();
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if misleads(c) {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean.push_str(end);
    clean.into_bytes()
}

/// What misleads, but the tab, and the escape that colours begin with.
fn misleads(c: char) -> bool {
    !matches!(c, '\t' | '\u{1b}') && safe_text::is_misleading(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(event: &str) -> String {
        let mut out = Line(Vec::new());
        out.write_all(event.as_bytes()).unwrap();
        String::from_utf8(out.0).unwrap()
    }

    #[test]
    fn an_event_is_one_line_in_its_own_order() {
        assert_eq!(written("WARN äöü \u{1b}[33mtext\u{1b}[0m\ta\n"), "WARN äöü \u{1b}[33mtext\u{1b}[0m\ta\n");
        assert_eq!(written("name=\u{202e}gpj.exe\n"), "name=\\u{202e}gpj.exe\n");
        assert_eq!(written("a\nERROR forged\r\n"), "a\\nERROR forged\\r\n");
        for c in [
            '\u{85}', '\u{2028}', '\u{2029}', '\u{200f}', '\u{2067}', '\u{61c}', '\u{b}', '\u{c}', '\u{7f}',
            '\u{9b}',
        ] {
            let text = written(&format!("a{c}b\n"));
            assert_eq!(text, format!("a\\u{{{:x}}}b\n", u32::from(c)), "{c:?}");
        }
    }
}
