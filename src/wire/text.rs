//! JSON written straight into bytes, without a tree in between.
//!
//! Must not know: what is written.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

/// JSON being written. Commas come by themselves; opening and closing must be paired by the caller.
#[derive(Debug, Default)]
pub struct Text(Vec<u8>);

impl Text {
    /// Room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Opens an object or list: `{` or `[`.
    pub fn open(&mut self, bracket: u8) {
        self.comma();
        self.0.push(bracket);
    }

    /// Closes an object or list: `}` or `]`.
    pub fn close(&mut self, bracket: u8) {
        self.0.push(bracket);
    }

    /// A key that needs no escaping.
    pub fn key(&mut self, name: &str) {
        self.comma();
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// A number, text, flag or list of such.
    pub fn value<T: Serialize + ?Sized>(&mut self, value: &T) {
        self.comma();
        // Writing into memory cannot fail, nor can numbers and texts.
        let _ = serde_json::to_writer(&mut self.0, value);
    }

    /// A key with its value.
    pub fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.key(name);
        self.value(value);
    }

    /// A key with its value, or neither.
    pub fn known<T: Serialize>(&mut self, name: &str, value: Option<&T>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    /// JSON as it is.
    pub fn raw(&mut self, json: &[u8]) {
        self.comma();
        self.0.extend_from_slice(json);
    }

    /// The fields of an object, without those named in `taken` and without nulls, however deep.
    pub fn fields(&mut self, fields: &Map<String, Value>, taken: &[&str]) {
        for (name, value) in fields {
            if !value.is_null() && !taken.contains(&name.as_str()) {
                self.value(name);
                self.0.push(b':');
                self.without_nulls(value);
            }
        }
    }

    fn without_nulls(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                self.open(b'{');
                self.fields(fields, &[]);
                self.close(b'}');
            }
            Value::Array(values) => {
                self.open(b'[');
                values.iter().filter(|v| !v.is_null()).for_each(|v| self.without_nulls(v));
                self.close(b']');
            }
            plain => self.value(plain),
        }
    }

    fn comma(&mut self) {
        if !matches!(self.0.last(), None | Some(b'{' | b'[' | b':')) {
            self.0.push(b',');
        }
    }

    /// What was written.
    #[must_use]
    pub fn done(self) -> Bytes {
        Bytes::from(self.0)
    }
}
