//! Why a document is refused: one closed set of words for reports, metrics and the pile of what was kept raw.
//!
//! Must not know: how documents are read.

use std::fmt;

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Larger than any document we take.
    TooLarge,
    /// Not JSON, or JSON nested deeper than can be read safely.
    MalformedJson,
    /// JSON, but no object.
    NotAnObject,
    /// The feed's way to say that nothing happened.
    NoPackage,
    /// A published document without a killmail in it.
    Placeholder,
    /// CREST's form, given up in 2018.
    LegacyCrest,
    /// zKillboard's own form of 2013.
    Legacy2013,
    /// Lacks fields every killmail has.
    MissingFields,
    /// A reference without the key ESI needs.
    MissingHash,
    /// The killmail id is no positive integer.
    InvalidKillmailId,
    /// The solar system id is no positive integer.
    InvalidSystemId,
    /// The id of the killmail or of its solar system is over 32 bits.
    IdOutOfRange,
    /// Envelope and body name different killmails.
    IdMismatch,
    /// The victim is no object, or neither who nor what was lost.
    InvalidVictim,
    /// The attackers are no list.
    InvalidAttackers,
    /// No time.
    MissingTime,
    /// The time is no text.
    InvalidTimeType,
    /// The time is a text we cannot read.
    InvalidTimeFormat,
}

impl Reason {
    /// Every reason, in the order reports list them.
    pub const ALL: [Self; 18] = [
        Self::TooLarge,
        Self::MalformedJson,
        Self::NotAnObject,
        Self::NoPackage,
        Self::Placeholder,
        Self::LegacyCrest,
        Self::Legacy2013,
        Self::MissingFields,
        Self::MissingHash,
        Self::InvalidKillmailId,
        Self::InvalidSystemId,
        Self::IdOutOfRange,
        Self::IdMismatch,
        Self::InvalidVictim,
        Self::InvalidAttackers,
        Self::MissingTime,
        Self::InvalidTimeType,
        Self::InvalidTimeFormat,
    ];

    /// The word.
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

/// Why, in words a person can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The word.
    pub reason: Reason,
    /// What exactly is wrong.
    pub message: String,
    /// The member at fault, where it is one.
    pub field: Option<&'static str>,
}

impl Flaw {
    /// A flaw with its explanation.
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
