//! A CSV parser (RFC 4180) for the tool that refreshes the pack. It is strict: a misplaced quote is an error.
//!
//! Must not know: what the columns mean.

/// A parsed CSV file: the header, and the records with the line on which each starts.
#[derive(Debug, PartialEq)]
pub(super) struct Sheet {
    pub(super) header: Vec<String>,
    pub(super) records: Vec<(usize, Vec<String>)>,
}

/// Why a text is not valid CSV, and on which line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) line: usize,
    pub(super) reason: &'static str,
}

/// Parses a text. Every record must have as many fields as the header.
pub(super) fn parse(text: &str) -> Result<Sheet, Malformed> {
    let mut scanner = Scanner { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    let header = scanner.record()?.ok_or(Malformed { line: 1, reason: "no header" })?;
    let mut records = Vec::new();
    loop {
        let line = scanner.line;
        let Some(record) = scanner.record()? else { break };
        if record.len() != header.len() {
            return Err(Malformed { line, reason: "not as many fields as the header" });
        }
        records.push((line, record));
    }
    Ok(Sheet { header, records })
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
}

impl Scanner<'_> {
    /// The next record; `None` at the end of the text.
    fn record(&mut self) -> Result<Option<Vec<String>>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut fields = Vec::new();
        loop {
            fields.push(if self.skip("\"") { self.quoted()? } else { self.bare()? });
            if self.skip(",") {
                continue;
            }
            if self.skip("\r\n") || self.skip("\n") {
                self.line += 1;
                return Ok(Some(fields));
            }
            if self.rest.is_empty() {
                return Ok(Some(fields));
            }
            return Err(self.malformed("text after a closing quote, or a lone carriage return"));
        }
    }

    fn bare(&mut self) -> Result<String, Malformed> {
        let end = self.rest.find([',', '\r', '\n']).unwrap_or(self.rest.len());
        let (field, rest) = self.rest.split_at(end);
        if field.contains('"') {
            return Err(self.malformed("a quote inside a bare field"));
        }
        self.rest = rest;
        Ok(field.to_owned())
    }

    /// The rest of a quoted field, after its opening quote. Two quotes stand for one.
    fn quoted(&mut self) -> Result<String, Malformed> {
        let mut field = String::new();
        loop {
            let Some((part, rest)) = self.rest.split_once('"') else {
                return Err(self.malformed("a quoted field without an end"));
            };
            field.push_str(part);
            self.line += part.matches('\n').count();
            self.rest = rest;
            if !self.skip("\"") {
                return Ok(field);
            }
            field.push('"');
        }
    }

    fn skip(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn malformed(&self, reason: &'static str) -> Malformed {
        Malformed { line: self.line, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Vec<Vec<String>> {
        let sheet = parse(text).expect("well-formed");
        sheet.records.into_iter().map(|(_, record)| record).collect()
    }

    #[test]
    fn quotes_commas_and_line_ends_are_kept() {
        assert_eq!(fields("a,b\r\n1,\"x, \"\"y\"\"\r\nz\"\r\n"), [["1", "x, \"y\"\r\nz"]]);
        assert_eq!(fields("\u{feff}a,b\n,\"\"\n1,2"), [["", ""], ["1", "2"]]);
        assert_eq!(fields("a\n\"\"\"\"\n"), [["\""]]);
        assert_eq!(fields("a,b\n"), Vec::<Vec<String>>::new());
    }

    #[test]
    fn line_numbers_include_quoted_line_ends() {
        let sheet = parse("a\n\"1\n2\"\n3\n").expect("well-formed");
        assert_eq!(sheet.records.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn malformed_csv_is_refused_with_its_line() {
        for (text, line) in [
            ("", 1),
            ("a\nb\"c\n", 2),
            ("a\n\n\"b\"c\n", 3),
            ("a\n\"b\n", 2),
            ("a,b\n1,2\n3\n", 3),
            ("a\nb\rc\n", 2),
        ] {
            assert_eq!(parse(text).expect_err(text).line, line, "{text:?}");
        }
    }
}
