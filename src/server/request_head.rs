//! The head of a request as it comes: how long its request line is and how long its header lines are
//! together, in whatever pieces.
//!
//! Must not know: sockets; what the header lines say.

/// The longest URL, bytes: what the HTTP library reads.
pub const URL_MAX_BYTES: usize = (u16::MAX - 1) as usize;
/// Room for the method and the version beside the URL, bytes.
const LINE_BESIDE_URL_BYTES: usize = 64;

/// A request line ends at so many bytes.
pub const LINE_MAX_BYTES: usize = URL_MAX_BYTES + LINE_BESIDE_URL_BYTES;

/// What is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLong {
    /// The request line, and with it the URL.
    Line,
    /// The header lines together.
    Headers,
    /// The number of header lines.
    Lines,
}

/// What header lines may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    /// Bytes of all together.
    pub bytes: usize,
    /// How many.
    pub lines: usize,
}

/// How much of a head came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    line: usize,
    headers: usize,
    lines: usize,
    /// Whether the request line is over.
    in_headers: bool,
    /// Whether the last line break has nothing behind it yet.
    at_line_start: bool,
    whole: bool,
}

impl Head {
    /// Nothing came yet.
    pub const NEW: Self =
        Self { line: 0, headers: 0, lines: 0, in_headers: false, at_line_start: false, whole: false };

    /// Counts what came. Bytes behind the head are not counted.
    ///
    /// # Errors
    /// It is too long, whole or not.
    pub fn take(&mut self, bytes: &[u8], most: Most) -> Result<(), TooLong> {
        for byte in bytes {
            if self.whole {
                break;
            }
            if self.in_headers {
                self.headers += 1;
                match byte {
                    b'\n' if self.at_line_start => self.whole = true,
                    b'\n' => (self.at_line_start, self.lines) = (true, self.lines + 1),
                    b'\r' => {}
                    _ => self.at_line_start = false,
                }
            } else if !(self.line == 0 && matches!(byte, b'\r' | b'\n')) {
                // Line breaks before a request are passed over, as the HTTP library does.
                self.line += 1;
                if *byte == b'\n' {
                    (self.in_headers, self.at_line_start) = (true, true);
                }
            }
        }
        match self {
            Self { line, .. } if *line > LINE_MAX_BYTES => Err(TooLong::Line),
            Self { headers, .. } if *headers > most.bytes => Err(TooLong::Headers),
            Self { lines, .. } if *lines > most.lines => Err(TooLong::Lines),
            _ => Ok(()),
        }
    }

    /// Bytes counted.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.line + self.headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a text in pieces of this size.
    fn taken(text: &str, piece: usize, headers_max: usize) -> (Result<(), TooLong>, Head) {
        let mut head = Head::NEW;
        let result = text
            .as_bytes()
            .chunks(piece)
            .try_for_each(|piece| head.take(piece, Most { bytes: headers_max, lines: 3 }));
        (result, head)
    }

    #[test]
    fn lines_are_counted_apart_in_any_pieces() {
        let text = "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\nthe body is not counted";
        for piece in [1, 2, 3, 7, 1000] {
            let (result, head) = taken(text, piece, 11);
            assert_eq!((result, head.line, head.headers, head.bytes()), (Ok(()), 16, 11, 27), "{piece}");
            assert_eq!(taken(text, piece, 10).0, Err(TooLong::Headers), "{piece}");
        }
        assert_eq!(taken("GET / HTTP/1.0\n\nx", 1, 1).0, Ok(()), "bare line breaks, no headers");
    }

    #[test]
    fn lines_have_a_number() {
        let with = |lines: usize| format!("GET / HTTP/1.1\r\n{}\r\nbody\nbody\n", "a: b\r\n".repeat(lines));
        for piece in [1, 5, 1000] {
            assert_eq!(taken(&with(3), piece, 1000).0, Ok(()), "{piece}");
            assert_eq!(taken(&with(4), piece, 1000).0, Err(TooLong::Lines), "{piece}");
        }
    }

    #[test]
    fn a_long_address_takes_nothing_from_the_headers() {
        let line = |url: usize| format!("GET /{} HTTP/1.1\r\n", "x".repeat(url - 1));
        let headers = format!("a: {}\r\n\r\n", "x".repeat(100 - 7));
        assert_eq!(taken(&format!("{}{headers}", line(URL_MAX_BYTES)), 1000, 100).0, Ok(()));
        assert_eq!(taken(&format!("{}{headers}", line(URL_MAX_BYTES)), 1000, 99).0, Err(TooLong::Headers));
        assert_eq!(taken(&line(LINE_MAX_BYTES), 1000, 100).0, Err(TooLong::Line));
        assert_eq!(
            taken(&"x".repeat(LINE_MAX_BYTES + 1), 1000, 100).0,
            Err(TooLong::Line),
            "not even a line"
        );
    }
}
