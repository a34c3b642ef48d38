//! Why a document is refused: a closed set of words for reports, metrics and the store of refused documents.
//!
//! Must not know: how documents are read.

use std::fmt;

/// The reason for refusing a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Larger than the limit.
    TooLarge,
    /// Not JSON, truncated, or malformed.
    MalformedJson,
    /// JSON, but not an object.
    NotAnObject,
    /// A null package: RedisQ's answer when nothing happened.
    NoPackage,
    /// A published document without a killmail.
    Placeholder,
    /// CREST's format, discontinued in 2018.
    LegacyCrest,
    /// zKillboard's format of 2013.
    Legacy2013,
    /// Required fields are missing.
    MissingFields,
    /// A reference without the hash that ESI requires.
    MissingHash,
    /// The killmail id is not a positive integer.
    InvalidKillmailId,
    /// The solar system id is not a positive integer.
    InvalidSystemId,
    /// The id of the killmail or of its solar system exceeds 32 bits.
    IdOutOfRange,
    /// Envelope and body have different killmail ids.
    IdMismatch,
    /// The victim is not an object.
    InvalidVictim,
    /// The attackers are not a list.
    InvalidAttackers,
    MissingTime,
    /// The time is not a string.
    InvalidTimeType,
    /// The time is a string in an unknown format.
    InvalidTimeFormat,
}

impl Reason {
    /// Its name in reports and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::MalformedJson => "malformed_json",
            Self::NotAnObject => "not_an_object",
            Self::NoPackage => "no_package",
            Self::Placeholder => "placeholder",
            Self::LegacyCrest => "legacy_crest",
            Self::Legacy2013 => "legacy_2013",
            Self::MissingFields => "missing_fields",
            Self::MissingHash => "missing_hash",
            Self::InvalidKillmailId => "invalid_killmail_id",
            Self::InvalidSystemId => "invalid_system_id",
            Self::IdOutOfRange => "id_out_of_range",
            Self::IdMismatch => "id_mismatch",
            Self::InvalidVictim => "invalid_victim",
            Self::InvalidAttackers => "invalid_attackers",
            Self::MissingTime => "missing_time",
            Self::InvalidTimeType => "invalid_time_type",
            Self::InvalidTimeFormat => "invalid_time_format",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a document cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadError {
    /// Why, as a word for metrics and reports.
    pub reason: Reason,
    /// What exactly is wrong, for people.
    pub message: String,
    /// The member at fault, where it is one.
    pub field: Option<&'static str>,
}

impl ReadError {
    /// Boxed, since it is rare and large.
    pub fn new(reason: Reason, message: impl Into<String>) -> Box<Self> {
        Box::new(Self { reason, message: message.into(), field: None })
    }

    /// Names the member at fault.
    #[must_use]
    pub fn about(mut self: Box<Self>, field: &'static str) -> Box<Self> {
        self.field = Some(field);
        self
    }
}
