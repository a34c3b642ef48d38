//! Counts the bytes of a request's head as they arrive, in chunks of any size: those of the request line and
//! those of the headers.
//!
//! Must not know: sockets; what the headers mean.

/// The longest URL hyper accepts, bytes.
pub const URL_MAX_BYTES: usize = (u16::MAX - 1) as usize;
/// What the request line may hold besides the URL (method and version), bytes.
const LINE_BESIDE_URL_BYTES: usize = 64;

/// The longest request line, bytes.
pub const LINE_MAX_BYTES: usize = URL_MAX_BYTES + LINE_BESIDE_URL_BYTES;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLong {
    /// The request line, because of the URL.
    RequestLine,
    /// All headers together, in bytes.
    Headers,
    HeaderCount,
}

/// Limits of the headers of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// All headers together, bytes.
    pub bytes: usize,
    /// Number of headers.
    pub lines: usize,
}

/// How much of a head has been received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead {
    line_bytes: usize,
    header_bytes: usize,
    headers: usize,
    /// Whether the request line has ended.
    in_headers: bool,
    /// Whether nothing has followed the last line break yet.
    at_line_start: bool,
    is_complete: bool,
}

impl RequestHead {
    /// A head of which nothing has been received.
    pub const NEW: Self = Self {
        line_bytes: 0,
        header_bytes: 0,
        headers: 0,
        in_headers: false,
        at_line_start: false,
        is_complete: false,
    };

    /// Counts received bytes; those after the end of the head are ignored.
    ///
    /// # Errors
    /// The head is too long, complete or not.
    pub fn count(&mut self, bytes: &[u8], limits: HeadLimits) -> Result<(), TooLong> {
        for byte in bytes {
            if self.is_complete {
                break;
            }
            if self.in_headers {
                self.header_bytes += 1;
                match byte {
                    b'\n' if self.at_line_start => self.is_complete = true,
                    b'\n' => (self.at_line_start, self.headers) = (true, self.headers + 1),
                    b'\r' => {}
                    _ => self.at_line_start = false,
                }
            } else if !(self.line_bytes == 0 && matches!(byte, b'\r' | b'\n')) {
                // Line breaks before a request are skipped, as hyper does.
                self.line_bytes += 1;
                if *byte == b'\n' {
                    (self.in_headers, self.at_line_start) = (true, true);
                }
            }
        }
        match self {
            Self { line_bytes, .. } if *line_bytes > LINE_MAX_BYTES => Err(TooLong::RequestLine),
            Self { header_bytes, .. } if *header_bytes > limits.bytes => Err(TooLong::Headers),
            Self { headers, .. } if *headers > limits.lines => Err(TooLong::HeaderCount),
            _ => Ok(()),
        }
    }

    /// Bytes counted so far.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.line_bytes + self.header_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts a text in chunks of this size.
    fn count(text: &str, chunk: usize, headers_max: usize) -> (Result<(), TooLong>, RequestHead) {
        let mut head = RequestHead::NEW;
        let result = text
            .as_bytes()
            .chunks(chunk)
            .try_for_each(|chunk| head.count(chunk, HeadLimits { bytes: headers_max, lines: 3 }));
        (result, head)
    }

    #[test]
    fn request_line_and_headers_are_counted_separately() {
        let text = "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\nthe body is not counted";
        for chunk in [1, 2, 3, 7, 1000] {
            let (result, head) = count(text, chunk, 11);
            assert_eq!(
                (result, head.line_bytes, head.header_bytes, head.bytes()),
                (Ok(()), 16, 11, 27),
                "{chunk}"
            );
            assert_eq!(count(text, chunk, 10).0, Err(TooLong::Headers), "{chunk}");
        }
        assert_eq!(count("GET / HTTP/1.0\n\nx", 1, 1).0, Ok(()), "bare line breaks, no headers");
    }

    #[test]
    fn headers_are_limited_in_number() {
        let with = |lines: usize| format!("GET / HTTP/1.1\r\n{}\r\nbody\nbody\n", "a: b\r\n".repeat(lines));
        for chunk in [1, 5, 1000] {
            assert_eq!(count(&with(3), chunk, 1000).0, Ok(()), "{chunk}");
            assert_eq!(count(&with(4), chunk, 1000).0, Err(TooLong::HeaderCount), "{chunk}");
        }
    }

    #[test]
    fn a_long_url_does_not_count_as_headers() {
        let line = |url: usize| format!("GET /{} HTTP/1.1\r\n", "x".repeat(url - 1));
        let headers = format!("a: {}\r\n\r\n", "x".repeat(100 - 7));
        assert_eq!(count(&format!("{}{headers}", line(URL_MAX_BYTES)), 1000, 100).0, Ok(()));
        assert_eq!(count(&format!("{}{headers}", line(URL_MAX_BYTES)), 1000, 99).0, Err(TooLong::Headers));
        assert_eq!(count(&line(LINE_MAX_BYTES), 1000, 100).0, Err(TooLong::RequestLine));
        assert_eq!(
            count(&"x".repeat(LINE_MAX_BYTES + 1), 1000, 100).0,
            Err(TooLong::RequestLine),
            "without a line break"
        );
    }
}
