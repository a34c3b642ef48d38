//! The text formats of Prometheus and of OpenMetrics.
//!
//! Must not know: what is measured.

use std::fmt::{Display, Write};

/// Which of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Prometheus,
    /// OpenMetrics 1.0.0: counters are declared without `_total`, the text ends with `# EOF`.
    OpenMetrics,
}

impl Dialect {
    /// The media type of the response.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Metrics being written.
#[derive(Debug)]
pub struct Exposition {
    dialect: Dialect,
    text: String,
}

impl Exposition {
    /// Without metrics yet.
    #[must_use]
    pub const fn new(dialect: Dialect) -> Self {
        Self { dialect, text: String::new() }
    }

    /// Writes a counter; its name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// Writes a counter for each value of a label.
    pub fn counters<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (impl AsRef<str>, V)>,
    ) {
        self.family(name, "counter", help);
        for (word, value) in values {
            self.sample(name, &[(label, word.as_ref())], value);
        }
    }

    /// Writes a gauge.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// Writes a gauge for each value of a label.
    pub fn gauges<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (impl AsRef<str>, V)>,
    ) {
        self.family(name, "gauge", help);
        for (word, value) in values {
            self.sample(name, &[(label, word.as_ref())], value);
        }
    }

    /// The complete text.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.dialect == Dialect::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let declared = match self.dialect {
            Dialect::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
            Dialect::Prometheus => name,
        };
        // Writing into a string cannot fail.
        let _ =
            writeln!(self.text, "# HELP killstream_{declared} {help}\n# TYPE killstream_{declared} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(label, word)| format!("{label}=\"{}\"", escape(word))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "killstream_{name}{labels} {value}");
    }
}

fn escape(word: &str) -> String {
    word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dialect: Dialect) -> String {
        let mut text = Exposition::new(dialect);
        text.counter("things_total", "Things.", 3);
        text.gauges("open", "Open.", "kind", [("a\"b", 1)]);
        text.finish()
    }

    #[test]
    fn both_formats_are_written() {
        let samples = "killstream_things_total 3\n# HELP killstream_open Open.\n# TYPE killstream_open gauge\nkillstream_open{kind=\"a\\\"b\"} 1\n";
        assert_eq!(
            written(Dialect::Prometheus),
            format!(
                "# HELP killstream_things_total Things.\n# TYPE killstream_things_total counter\n{samples}"
            )
        );
        assert_eq!(
            written(Dialect::OpenMetrics),
            format!("# HELP killstream_things Things.\n# TYPE killstream_things counter\n{samples}# EOF\n")
        );
    }
}
