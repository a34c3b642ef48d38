//! Words that were given up: no file, type or function is called so again. One thing has one name, and the
//! name says what it is.
//!
//! Must not know: what is in the files beside their names.

use proc_macro2::{TokenStream, TokenTree};

/// Names of files and folders below `src`, and what such a thing is called instead.
const FILES: &[(&str, &str)] = &[
    ("accounts", "killmails"),
    ("ahead", "look_ahead"),
    ("ask", "exchange"),
    ("bands", "value_bands"),
    ("bell", "wakeups"),
    ("beside", "files_beside"),
    ("cast", "participants"),
    ("census", "scanner"),
    ("chance", "rng"),
    ("columns", "varint"),
    ("complaint", "serde_message"),
    ("conduct", "quarantine"),
    ("days", "daily_counts"),
    ("disk", "engine"),
    ("draft", "code_draft"),
    ("figures", "component_size"),
    ("gate", "acceptor"),
    ("given", "parameters"),
    ("holes", "missing_numbers"),
    ("hours", "time_bounds"),
    ("house", "app"),
    ("intake", "body"),
    ("judge", "subscription_plugin"),
    ("judges", "plugin_quota"),
    ("lanes", "queue"),
    ("legible", "safe_text"),
    ("link", "source_link"),
    ("lookup", "history"),
    ("made", "instance_counts"),
    ("mend", "repair"),
    ("meter", "rate"),
    ("notices", "revision_notices"),
    ("numbered", "feed_document"),
    ("others", "fallback_status"),
    ("pieces", "chunked_values"),
    ("pour", "lazy_body"),
    ("probe", "repeatability_trial"),
    ("pulse", "source_status"),
    ("purse", "memory_account"),
    ("queue_places", "queue_slots"),
    ("reading", "day_archive"),
    ("refusal", "connection_error"),
    ("rhythm", "usual_rate"),
    ("running", "open_channel"),
    ("sameness", "compare"),
    ("secondary", "fallback_config"),
    ("seek", "oldest_file_search"),
    ("sent", "delivered_ids"),
    ("slots", "stream_limits, or a quota"),
    ("small", "small_values"),
    ("standby", "fallback"),
    ("swap", "folder_swap"),
    ("tail", "newest_entries"),
    ("talk", "connection"),
    ("tally", "key_counts"),
    ("told", "filter_echo, or what is told"),
    ("traffic", "channel_counters"),
    ("turns", "load_turns"),
];

/// Names of types.
const TYPES: &[(&str, &str)] = &[
    ("About", "ComponentInfo"),
    ("Ahead", "LookAhead"),
    ("Around", "ChannelContext"),
    ("AskedId", "RequestedId"),
    ("Aside", "TemporaryBackup"),
    ("Bell", "Wakeups"),
    ("Beside", "FileCheck"),
    ("Cast", "Participants"),
    ("Census", "Scanner"),
    ("Conduct", "FaultHistory"),
    ("Crowded", "MemoryShortage"),
    ("Cure", "RecoveryStep"),
    ("Desk", "BodyRequests"),
    ("Disk", "Engine"),
    ("Door", "HttpState, or a transport"),
    ("Figures", "ComponentSize"),
    ("Gang", "Attackers"),
    ("Healing", "RecoveryWaits"),
    ("Hole", "MissingRange"),
    ("Gate", "Acceptor"),
    ("Grounds", "EvaluatorParts"),
    ("Holes", "MissingNumbers"),
    ("House", "App"),
    ("Intake", "BodyLimits"),
    ("Judge", "SubscriptionPlugin"),
    ("Judges", "PluginQuota"),
    ("Lane", "TurnQueue"),
    ("Keys", "ApiTokens"),
    ("Making", "EvaluatorSetup"),
    ("Meter", "Rate"),
    ("Missing", "LoadError"),
    ("Mistakes", "ConfigErrors"),
    ("Others", "FallbackStatus"),
    ("Outside", "HostServices"),
    ("Overdue", "Timeout"),
    ("OwnPace", "ClientPaced"),
    ("Parking", "BatchCache"),
    ("Patience", "LongPoll"),
    ("Payer", "AddressBudget"),
    ("Pour", "LazyBody"),
    ("Pulse", "SourceStatus"),
    ("Purse", "MemoryAccount"),
    ("Recent", "NewestPreload"),
    ("Rope", "ReaderId"),
    ("Rounds", "RoundRobin"),
    ("Runs", "RunContext"),
    ("Sameness", "MergeOutcome"),
    ("Second", "SecondCopy"),
    ("Secondary", "FallbackConfig"),
    ("Seek", "OldestFileSearch"),
    ("Skew", "AliasTable"),
    ("Slot", "Lease"),
    ("Slots", "Quota"),
    ("Standby", "Supervisor"),
    ("Small", "SmallValues"),
    ("Taking", "PageBuilder"),
    ("Tally", "KeyCounts"),
    ("Traffic", "ChannelCounters"),
    ("Unnamed", "DigestError"),
    ("Unready", "ConfigureError"),
    ("Unused", "Evictor"),
    ("Whence", "CallerLookup"),
    ("Whose", "EvictionScope"),
    ("Wish", "PreloadRequest"),
];

/// Names of functions.
const FUNCTIONS: &[(&str, &str)] = &[
    ("aside", "run_detached"),
    ("caught", "catch_panic"),
    ("hang", "register"),
    ("ring", "wake"),
    ("ring_all", "wake_all"),
    ("take_down", "unregister"),
    ("tie", "watch"),
    ("told_by", "revision_notice"),
    ("untie", "unwatch"),
    ("unwant", "remove_wanted"),
    ("want_still", "update_wanted"),
];

/// Every name in a file that was given up.
pub fn given_up(path: &str, tokens: &TokenStream) -> Vec<String> {
    let mut found: Vec<String> = path
        .strip_prefix("src/")
        .into_iter()
        .flat_map(|path| path.strip_suffix(".rs").unwrap_or(path).split('/'))
        .filter_map(|name| say(FILES, name, "file"))
        .collect();
    walk(&tokens.clone().into_iter().collect::<Vec<_>>(), &mut found);
    found.into_iter().map(|what| format!("{path}: {what}")).collect()
}

fn walk(tokens: &[TokenTree], found: &mut Vec<String>) {
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(word) => {
                let Some(TokenTree::Ident(name)) = tokens.get(at + 1) else { continue };
                let table = match word.to_string().as_str() {
                    "struct" | "enum" | "trait" | "type" => (TYPES, "type"),
                    "fn" => (FUNCTIONS, "function"),
                    _ => continue,
                };
                found.extend(say(table.0, &name.to_string(), table.1));
            }
            TokenTree::Group(group) => walk(&group.stream().into_iter().collect::<Vec<_>>(), found),
            _ => {}
        }
    }
}

fn say(table: &[(&str, &str)], name: &str, kind: &str) -> Option<String> {
    let (_, instead) = table.iter().find(|(given_up, _)| *given_up == name)?;
    Some(format!("the {kind} name `{name}` was given up; the word is {instead}"))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    #[test]
    fn planted_words_are_found() {
        let found = |path: &str, text: &str| given_up(path, &TokenStream::from_str(text).unwrap());
        assert_eq!(found("src/feed/wakeups.rs", "struct Wakeups; impl Wakeups { fn wake() {} }"), [""; 0]);
        assert_eq!(found("src/feed/bell.rs", "").len(), 1);
        assert_eq!(
            found("src/feed/a.rs", "mod m { pub enum Hole {} impl X { fn ring_all(&self) {} } }").len(),
            2
        );
        assert_eq!(
            found("src/feed/a.rs", "fn f(hole: Rope) { ring(hole) }"),
            [""; 0],
            "names are judged where they are given"
        );
    }
}
