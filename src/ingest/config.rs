//! The `[ingest]` section of the configuration.
//!
//! Must not know: where configuration is written down.

use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::ingest::client;
use crate::ingest::fallback_config::{self, FallbackConfig};
use crate::ingest::r2z2::missing_numbers::RecoveryWaits;
use crate::ingest::r2z2::waits::Waits;
use crate::telemetry::source_kind::SourceKind;

/// zKillboard's host, for which minimum waits are enforced.
pub const REAL_HOST: &str = "https://r2z2.zkillboard.com";

/// The `[ingest]` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The first source.
    #[serde(deserialize_with = "first_source")]
    pub source: SourceKind,
    /// How zKillboard and CCP can contact the operator: a mail address or a web page. Without it a source on
    /// the real host stays off.
    pub user_agent_contact: Option<String>,
    /// The origin of R2Z2; paths are appended.
    pub r2z2_base_url: String,
    /// The origin of zKillboard; paths are appended.
    pub zkb_base_url: String,
    /// The origin of ESI; paths are appended.
    pub esi_base_url: String,
    /// Wait after a 404 before the same number is requested again, milliseconds; at least 6000 on the real
    /// host.
    pub r2z2_idle_ms: u64,
    /// Wait between two documents, milliseconds; at least 100 on the real host.
    pub r2z2_pace_ms: u64,
    /// How long a killstream mirror may hold the request for the next number (`?wait=`), seconds; 0 sends no
    /// `wait`. Not for the real host.
    pub r2z2_wait_secs: u64,
    /// While a number is missing (from the second 404 on), one of this many numbers after it is tried after
    /// each 404, in turn. If that exists, the missing number is passed over. 0: none is tried.
    pub r2z2_ahead_numbers: u64,
    /// When a number is missing for longer than this, `sequence.json` shows whether the feed has moved on; if
    /// so, the number is passed over, milliseconds.
    pub r2z2_missing_ms: u64,
    /// When a number is missing for longer than this while `sequence.json` is behind it, the feed is followed
    /// from there again, milliseconds.
    pub r2z2_rollback_ms: u64,
    /// If `sequence.json` is this far past a missing number, or further than later numbers were tried, the
    /// follower continues at the oldest file that still exists.
    pub r2z2_far_numbers: u64,
    /// A number that was passed over is retried after a quarter of this (but not before `r2z2_idle_ms`), then
    /// after 1, 5, 8, 16, 32 and 60 times this, milliseconds; at least 6000 on the real host.
    pub r2z2_heal_ms: u64,
    /// How long after the end of a day its archive is requested, seconds. The default is half past six:
    /// archives are created after six.
    pub archive_after_secs: u64,
    /// Timeout of a request for an archive, milliseconds.
    pub archive_timeout_ms: u64,
    /// Wait after a 429 without `Retry-After`, milliseconds; at least 30000 on the real host.
    pub r2z2_limited_ms: u64,
    /// Wait after a 403, milliseconds; doubles up to fifteen times this; at least 60000 on the real host.
    pub r2z2_forbidden_ms: u64,
    /// Wait after a failed request, milliseconds; doubles up to sixty times this; at least 1000 on the real
    /// host.
    pub r2z2_failed_ms: u64,
    /// Timeout of a request, milliseconds.
    pub timeout_ms: u64,
    /// A longer document counts as a failure, bytes.
    pub document_max_bytes: usize,
    /// How often to retry while there is too little disk space, milliseconds.
    pub space_check_ms: u64,
    /// Files and folders to replay.
    pub replay: Vec<PathBuf>,
    /// How many times faster than real time to replay; 0: as fast as possible.
    pub replay_speed: f64,
    /// Whether all times are shifted so that the first killmail happens now.
    pub replay_rebase: bool,
    /// Other sources, each a `[[sources]]` table: fallbacks, or alongside the first one.
    pub sources: Vec<FallbackConfig>,
    /// A source that is refused or unreachable for this long is unavailable: the next one stands in,
    /// milliseconds.
    pub fallback_after_ms: u64,
    /// A source that is well again for this long is back: its fallback stops, milliseconds.
    pub fallback_back_ms: u64,
    /// How many numbers before its head a mirror starts as a fallback, to cover the time before it stood in.
    pub fallback_overlap_numbers: u64,
    /// A websocket is pinged this often; after three times as long without any message it is connected again,
    /// milliseconds.
    pub websocket_ping_ms: u64,
    /// How long a queue may hold a request until there is a package, seconds (1 to 10).
    pub redisq_wait_secs: u64,
    /// Wait between two requests to a queue, milliseconds; real ones allow two a second.
    pub redisq_pace_ms: u64,
    /// The version of ESI to use, a date.
    pub esi_compatibility_date: String,
    /// ESI's tokens for killmails in one window, until ESI states its own number.
    pub esi_tokens: u64,
    /// The length of that window, seconds.
    pub esi_window_secs: u64,
    /// Percentage of the tokens kept in reserve, percent.
    pub esi_spare_percent: u64,
    /// How many bodies may wait to be fetched from ESI; further documents are added to the refused ones.
    pub esi_wanted_max: usize,
    /// After this many failures a body is given up.
    pub esi_tries_max: u32,
    /// Under load ESI responds "invalid id or hash" (422) even to valid pairs. The waits before each retry,
    /// milliseconds; after the last one the body is given up.
    pub esi_unmatched_retry_ms: Vec<u64>,
}

fn first_source<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SourceKind, D::Error> {
    let kind = SourceKind::deserialize(deserializer)?;
    if kind.can_be_first() {
        Ok(kind)
    } else {
        let word = kind.word();
        Err(D::Error::custom(format!("{word} cannot be the first source; add it as a [[sources]] table")))
    }
}

impl Default for Config {
    fn default() -> Self {
        let waits = Waits::default();
        Self {
            source: SourceKind::R2z2,
            user_agent_contact: None,
            r2z2_base_url: REAL_HOST.to_owned(),
            zkb_base_url: "https://zkillboard.com".to_owned(),
            esi_base_url: "https://esi.evetech.net".to_owned(),
            r2z2_idle_ms: waits.idle_ms,
            r2z2_pace_ms: waits.pace_ms,
            r2z2_wait_secs: 0,
            r2z2_ahead_numbers: waits.ahead_numbers,
            r2z2_missing_ms: waits.missing_ms,
            r2z2_rollback_ms: waits.rollback_ms,
            r2z2_far_numbers: waits.far_numbers,
            r2z2_heal_ms: waits.recovery.first_ms,
            archive_after_secs: waits.recovery.archive_after_ms / 1000,
            archive_timeout_ms: 300_000,
            r2z2_limited_ms: waits.limited_ms,
            r2z2_forbidden_ms: waits.forbidden_ms,
            r2z2_failed_ms: waits.failed_ms,
            timeout_ms: 30_000,
            document_max_bytes: 32 << 20,
            space_check_ms: 5_000,
            replay: vec![],
            replay_speed: 1.0,
            replay_rebase: false,
            sources: vec![],
            fallback_after_ms: 60_000,
            fallback_back_ms: 10_000,
            fallback_overlap_numbers: 100,
            websocket_ping_ms: 30_000,
            redisq_wait_secs: 10,
            redisq_pace_ms: 600,
            esi_compatibility_date: "2026-08-18".to_owned(),
            esi_tokens: 3_600,
            esi_window_secs: 900,
            esi_spare_percent: 15,
            esi_wanted_max: 10_000,
            esi_tries_max: 10,
            esi_unmatched_retry_ms: vec![60_000, 600_000, 3_600_000],
        }
    }
}

impl Config {
    /// Whether R2Z2 is zKillboard's own host.
    #[must_use]
    pub fn is_real_host(&self) -> bool {
        let host = client::host(&self.r2z2_base_url).to_ascii_lowercase();
        host == "zkillboard.com" || host.ends_with(".zkillboard.com")
    }

    /// The waits of the R2Z2 follower.
    #[must_use]
    pub fn waits(&self) -> Waits {
        Waits {
            idle_ms: self.r2z2_idle_ms,
            pace_ms: self.r2z2_pace_ms,
            ahead_numbers: self.r2z2_ahead_numbers,
            missing_ms: self.r2z2_missing_ms,
            rollback_ms: self.r2z2_rollback_ms,
            far_numbers: self.r2z2_far_numbers,
            limited_ms: self.r2z2_limited_ms,
            forbidden_ms: self.r2z2_forbidden_ms,
            failed_ms: self.r2z2_failed_ms,
            recovery: RecoveryWaits {
                first_ms: self.r2z2_heal_ms,
                least_ms: self.r2z2_idle_ms,
                archive_after_ms: self.archive_after_secs.saturating_mul(1000),
            },
        }
    }

    /// Removes the trailing `/` of origins and names the sources that have no name.
    pub fn normalize(&mut self) {
        fallback_config::set_default_names(&mut self.sources, self.source);
        for origin in [&mut self.r2z2_base_url, &mut self.zkb_base_url, &mut self.esi_base_url] {
            origin.truncate(origin.trim_end_matches('/').len());
        }
        self.user_agent_contact = self.user_agent_contact.take().filter(|contact| !contact.trim().is_empty());
    }

    /// Waits shorter than the real host allows.
    fn too_short_waits(&self) -> Vec<String> {
        if self.source != SourceKind::R2z2 || !self.is_real_host() {
            return Vec::new();
        }
        let least = Waits::default();
        let waits = [
            ("r2z2_idle_ms", self.r2z2_idle_ms, least.idle_ms),
            ("r2z2_pace_ms", self.r2z2_pace_ms, least.pace_ms),
            ("r2z2_limited_ms", self.r2z2_limited_ms, least.limited_ms),
            ("r2z2_forbidden_ms", self.r2z2_forbidden_ms, least.forbidden_ms),
            ("r2z2_failed_ms", self.r2z2_failed_ms, least.failed_ms),
            ("r2z2_heal_ms", self.r2z2_heal_ms, least.idle_ms),
        ];
        let too_short = waits.into_iter().filter(|(_, ms, least)| ms < least);
        let host = &self.r2z2_base_url;
        too_short
            .map(|(name, ms, least)| format!("ingest.{name}: {ms} is under {least}, the minimum for {host}"))
            .collect()
    }

    /// Everything that is wrong with the section, each with the name of the setting.
    #[must_use]
    pub fn validate(&self) -> Vec<String> {
        let mut errors = vec![];
        let origins = [
            ("r2z2_base_url", &self.r2z2_base_url),
            ("zkb_base_url", &self.zkb_base_url),
            ("esi_base_url", &self.esi_base_url),
        ];
        for (name, origin) in origins {
            if !origin.starts_with("http://") && !origin.starts_with("https://") {
                errors.push(format!("ingest.{name}: `{origin}` is not an http:// or https:// URL"));
            }
        }
        errors.extend(self.too_short_waits());
        if self.r2z2_wait_secs > 0 && self.is_real_host() && self.source == SourceKind::R2z2 {
            errors.push(format!(
                "ingest.r2z2_wait_secs: {} does not support `wait`, only a killstream mirror does",
                self.r2z2_base_url
            ));
        }
        if self.r2z2_wait_secs.saturating_mul(2_000) > self.timeout_ms {
            errors.push(format!(
                "ingest.r2z2_wait_secs: {} s is over half of timeout_ms ({} ms)",
                self.r2z2_wait_secs, self.timeout_ms
            ));
        }
        if !(self.replay_speed.is_finite() && self.replay_speed >= 0.0) {
            errors.push(format!(
                "ingest.replay_speed: {} is not a speed; 1 is real time, 0 is as fast as possible",
                self.replay_speed
            ));
        }
        if self.source == SourceKind::Replay && self.replay.is_empty() {
            errors.push("ingest.replay: the source is replay, but no file or folder is given".to_owned());
        }
        errors.extend(fallback_config::validate(&self.sources, self.source));
        if self.esi_spare_percent > 90 {
            errors.push(format!(
                "ingest.esi_spare_percent: {} leaves too little to spend; the maximum is 90",
                self.esi_spare_percent
            ));
        }
        if self.esi_compatibility_date.chars().any(|c| !c.is_ascii_digit() && c != '-') {
            errors.push(format!(
                "ingest.esi_compatibility_date: `{}` is not a date",
                self.esi_compatibility_date
            ));
        }
        let contact = self.user_agent_contact.as_deref().unwrap_or_default();
        if contact.chars().any(|c| !(' '..='~').contains(&c)) {
            errors.push(
                "ingest.user_agent_contact: only printable ASCII is allowed, since it is sent in a header"
                    .to_owned(),
            );
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().validate(), [""; 0]);
        assert!(Config::default().is_real_host());
    }

    #[test]
    fn short_waits_are_refused_for_the_real_host_only() {
        let mut config = Config { r2z2_idle_ms: 600, r2z2_pace_ms: 10, ..Config::default() };
        let errors = config.validate();
        assert_eq!(errors.len(), 2);
        assert!(errors[0].contains("r2z2_idle_ms: 600 is under 6000"), "{errors:?}");
        config.source = SourceKind::None;
        assert_eq!(config.validate(), [""; 0], "there is no source");
        config.source = SourceKind::R2z2;
        for host in ["http://127.0.0.1:9", "https://zkillboard.com.example.org"] {
            config.r2z2_base_url = host.to_owned();
            assert_eq!(config.validate(), [""; 0]);
        }
        for host in ["https://R2Z2.zkillboard.com:443", "http://r2z2.zkillboard.com/x"] {
            config.r2z2_base_url = host.to_owned();
            assert_eq!(config.validate().len(), 2, "{host}");
        }
    }

    #[test]
    fn trailing_slashes_of_origins_are_removed() {
        let mut config = Config {
            r2z2_base_url: "http://h//".to_owned(),
            user_agent_contact: Some(" ".to_owned()),
            ..Config::default()
        };
        config.normalize();
        assert_eq!((config.r2z2_base_url.as_str(), config.user_agent_contact), ("http://h", None));
    }
}
