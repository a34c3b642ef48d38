//! The log on stderr. Each event is one line: line breaks and invisible characters in untrusted text are
//! escaped, so that it cannot forge another event.
//!
//! Must not know: which events there are.

use std::io::{self, IsTerminal, Stderr, Write, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::domain::safe_text;
use crate::store::engine;

/// Starts logging to stderr. `KILLSTREAM_LOG`, else `RUST_LOG`, is the filter; otherwise this crate logs at
/// `default` and others at `warn`.
pub fn start(default: &str) {
    let configured = ["KILLSTREAM_LOG", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok());
    let own = || format!("warn,{}=off,killstream={default}", engine::NAME);
    let filter = EnvFilter::try_new(configured.unwrap_or_else(own));
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    // Fails if a test harness has installed a subscriber already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(LineWriters)
        .with_ansi(stderr().is_terminal())
        .try_init();
}

struct LineWriters;

impl<'a> MakeWriter<'a> for LineWriters {
    type Writer = LineWriter<Stderr>;

    fn make_writer(&'a self) -> LineWriter<Stderr> {
        LineWriter(stderr())
    }
}

/// Writes each event as one line. The formatter passes an event in a single call of `write`.
struct LineWriter<W>(W);

impl<W: Write> Write for LineWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(&escape_event(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Escapes everything in the event that breaks the line or changes its direction.
fn escape_event(event: &[u8]) -> Vec<u8> {
    let (text, end) = event.strip_suffix(b"\n").map_or((event, ""), |text| (text, "\n"));
    let text = String::from_utf8_lossy(text);
    if !text.contains(is_misleading) {
        return event.to_vec();
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_misleading(c) {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean.push_str(end);
    clean.into_bytes()
}

/// Whether a character is misleading in a log. Tabs, and the escapes of colours, are not.
fn is_misleading(c: char) -> bool {
    !matches!(c, '\t' | '\u{1b}') && safe_text::is_misleading(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(event: &str) -> String {
        let mut out = LineWriter(Vec::new());
        out.write_all(event.as_bytes()).unwrap();
        String::from_utf8(out.0).unwrap()
    }

    #[test]
    fn an_event_stays_one_line() {
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
