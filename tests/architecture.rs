//! The house rules a machine can check: floors, paths, who may name which engine, sizes, headers. Every rule
//! is also shown to fail on a planted violation.
//!
//! Sources are read as Rust tokens, so comments and texts are never mistaken for code, and macro bodies are
//! looked into.
//!
//! Must not know: what the program does; it is read, never run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

#[path = "architecture/planted.rs"]
mod planted;
#[path = "architecture/rooms.rs"]
mod rooms;
#[path = "architecture/words.rs"]
mod words;

/// Modules of `src` and the floor they stand on.
const FLOORS: &[(&str, u8)] = &[
    ("domain", 0),
    ("universe", 0),
    ("tasks", 0),
    ("clock", 0),
    ("budget", 0),
    ("network", 0),
    ("tls", 0),
    ("enum_with_all", 0),
    ("quota", 1),
    ("sample", 1),
    ("telemetry", 1),
    ("store", 1),
    ("plugin", 1),
    ("plugins", 2),
    ("body_requests", 2),
    ("feed", 3),
    ("wire", 4),
    ("webhook", 5),
    ("ingest", 6),
    ("http", 6),
    ("phoenix", 6),
    ("main", 7),
    ("lib", 7),
    ("cli", 7),
    ("server", 7),
    ("config", 7),
];

/// The top floor is wiring: it may use anything, its neighbours too.
const WIRING: u8 = 7;

/// Who may name what: a change of engine touches one folder.
const OWNERS: &[(&str, &[&str])] = &[
    ("sled", &["store"]),
    ("roaring", &["store"]),
    ("wasmtime", &["plugin"]),
    ("wasmtime_wasi", &["plugin"]),
    ("wasmparser", &["plugin"]),
    ("wit_component", &["plugin"]),
    ("seccompiler", &["plugin"]),
    ("hmac", &["store", "webhook"]),
    ("reqwest", &["ingest", "webhook", "cli"]),
    ("axum", &["http", "phoenix", "server"]),
    ("hyper", &["server"]),
    ("hyper_util", &["server"]),
    ("tokio_tungstenite", &["ingest"]),
    ("yawc", &["phoenix"]),
    ("anyhow", &["main", "cli"]),
    ("tikv_jemallocator", &["main"]),
];

/// What the words of the domain may not touch: disk, clock, network, runtime.
const OUTSIDE_THE_DOMAIN: &[&str] = &["tokio", "fs", "net", "SystemTime", "Instant", "File"];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const FUNCTION_LINES_P90: usize = 35;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Floor,
    UnknownModule,
    WholeCrate,
    Super,
    OwnName,
    InlinePath,
    BuriedUse,
    ReExport,
    Owner,
    Spawn,
    PureDomain,
    FileLength,
    FunctionLength,
    Header,
    Unreadable,
}

#[derive(Debug)]
struct Violation {
    rule: Rule,
    place: String,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({:?})", self.place, self.what, self.rule)
    }
}

/// One file under the eyes of the rules.
struct Reading<'a> {
    path: &'a str,
    module: String,
    floor: u8,
    names_command: bool,
    functions: Vec<usize>,
    found: Vec<Violation>,
    /// What is imported of this crate outside of tests: `store::keys::Tree`.
    imports: Vec<String>,
}

/// Where in the file the tokens stand.
#[derive(Clone, Copy, Default)]
struct Context {
    test: bool,
    body: bool,
}

/// Reads one file of `src`.
fn check(path: &str, text: &str) -> (Vec<Violation>, Vec<usize>) {
    let reading = read(path, text);
    (reading.found, reading.functions)
}

fn read<'a>(path: &'a str, text: &str) -> Reading<'a> {
    let rest = path.strip_prefix("src/").unwrap_or(path);
    let module = rest.split(['/', '.']).next().unwrap_or_default().to_owned();
    let floor = FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor);
    let mut reading = Reading {
        path,
        floor: floor.unwrap_or(WIRING),
        names_command: text.contains("Command"),
        module,
        functions: Vec::new(),
        found: Vec::new(),
        imports: Vec::new(),
    };
    if floor.is_none() {
        let what = format!("the module `{}` stands on no floor; give it one in {}", reading.module, file!());
        reading.report(Rule::UnknownModule, 1, what);
    }
    reading.sizes_and_header(text);
    match TokenStream::from_str(text) {
        Ok(tokens) => {
            let start = Context { test: path.ends_with("tests.rs"), body: false };
            reading.walk(&tokens.into_iter().collect::<Vec<_>>(), start);
        }
        Err(error) => reading.report(Rule::Unreadable, 1, format!("is no Rust: {error}")),
    }
    reading
}

impl Reading<'_> {
    fn report(&mut self, rule: Rule, line: usize, what: impl Into<String>) {
        self.found.push(Violation { rule, place: format!("{}:{line}", self.path), what: what.into() });
    }

    fn sizes_and_header(&mut self, text: &str) {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            self.report(
                Rule::FileLength,
                lines,
                format!("{lines} lines; a file has at most {FILE_LINES_MAX}"),
            );
        }
        let header = text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n");
        if header.is_empty() {
            self.report(Rule::Header, 1, "opens without `//!`: what is it for?");
        } else if self.floor < WIRING
            && !self.path.ends_with("tests.rs")
            && !header.to_lowercase().contains("must not know")
        {
            self.report(Rule::Header, 1, "does not say what it must not know");
        }
    }

    /// Goes through the tokens of one level, then into its groups.
    fn walk(&mut self, tokens: &[TokenTree], context: Context) {
        let mut at = 0;
        let mut test_item = false;
        while at < tokens.len() {
            let (here, line) = (&tokens[at], line_of(&tokens[at]));
            match here {
                TokenTree::Punct(p) if p.as_char() == '#' => {
                    if let Some(TokenTree::Group(g)) = tokens.get(at + 1)
                        && is_cfg_test(g)
                    {
                        test_item = true;
                    }
                }
                TokenTree::Ident(word) if word == "use" && !is_punct(tokens.get(at + 1), '<') => {
                    let end =
                        (at..tokens.len()).find(|i| is_punct(tokens.get(*i), ';')).unwrap_or(tokens.len());
                    let context = Context { test: context.test || test_item, ..context };
                    self.import(&tokens[at + 1..end], is_public(tokens, at), line, context);
                    (at, test_item) = (end, false);
                }
                TokenTree::Ident(word) => {
                    if word == "fn" {
                        self.function(tokens, at);
                    }
                    self.path_at(tokens, at, line, Context { test: context.test || test_item, ..context });
                }
                TokenTree::Group(group) => {
                    let braces = group.delimiter() == Delimiter::Brace;
                    let inside = Context {
                        test: context.test || test_item,
                        body: context.body || (braces && opens_body(tokens, at)),
                    };
                    self.walk(&group.stream().into_iter().collect::<Vec<_>>(), inside);
                    test_item &= !braces;
                }
                TokenTree::Punct(p) if p.as_char() == ';' => test_item = false,
                _ => {}
            }
            at += 1;
        }
    }

    /// Judges one `use`: where it leads and whether it may.
    fn import(&mut self, tree: &[TokenTree], public: bool, line: usize, context: Context) {
        if public {
            self.report(Rule::ReExport, line, "re-exports; a name has one home");
        }
        for path in use_paths(tree) {
            let segment = |n: usize| path.get(n).map_or("", String::as_str);
            match segment(0) {
                "crate" if context.body => {
                    self.report(Rule::BuriedUse, line, "`use crate::` inside a body; it belongs at the top")
                }
                "crate" => {
                    self.leads_to(segment(1), line);
                    if !context.test {
                        self.imports.push(path[1..].join("::"));
                    }
                }
                "super" if !(context.test && path == ["super", "*"]) => {
                    self.report(Rule::Super, line, "`super::`; say `crate::` and the whole way");
                }
                "killstream" => self.own_name(line),
                head => self.names(head, line, context),
            }
            let tail = path.iter().map(String::as_str).collect::<Vec<_>>();
            if path.len() > 1 && is_spawn(&tail) {
                self.spawns(line, context);
            }
            self.pure(&tail, line);
        }
    }

    /// Judges what an identifier outside a `use` begins or continues.
    fn path_at(&mut self, tokens: &[TokenTree], at: usize, line: usize, context: Context) {
        let word = tokens[at].to_string();
        let continues = is_colons(tokens, at + 1);
        let before = at.checked_sub(3).filter(|_| is_colons(tokens, at - 2)).map(|i| tokens[i].to_string());
        let after_dot = at > 0 && is_punct(tokens.get(at - 1), '.');
        let calls = matches!(tokens.get(at + 1), Some(TokenTree::Group(g)) if g.delimiter() == Delimiter::Parenthesis);
        if continues && before.is_none() {
            match word.as_str() {
                "crate" => {
                    self.report(Rule::InlinePath, line, "an inline `crate::` path; `use` it at the top")
                }
                "super" => self.report(Rule::Super, line, "`super::`; say `crate::` and the whole way"),
                "killstream" => self.own_name(line),
                head => self.names(head, line, context),
            }
        }
        if let Some(before) = before
            && is_spawn(&[&before, &word])
        {
            self.spawns(line, context);
        }
        let on_runtime =
            word == "spawn_blocking" || word == "spawn_local" || (word == "spawn" && !self.names_command);
        if after_dot && calls && on_runtime {
            self.spawns(line, context);
        }
        if continues || matches!(word.as_str(), "SystemTime" | "Instant") {
            self.pure(&[&word], line);
        }
    }

    fn function(&mut self, tokens: &[TokenTree], at: usize) {
        let Some(TokenTree::Ident(name)) = tokens.get(at + 1) else { return };
        for token in &tokens[at + 2..] {
            match token {
                TokenTree::Punct(p) if p.as_char() == ';' => return,
                TokenTree::Group(g) if g.delimiter() == Delimiter::Brace => {
                    let from = line_of(&tokens[at]);
                    let lines = g.span_close().end().line - from + 1;
                    self.functions.push(lines);
                    if lines > FUNCTION_LINES_MAX {
                        let what = format!(
                            "`{name}` has {lines} lines; a function has at most {FUNCTION_LINES_MAX}"
                        );
                        self.report(Rule::FunctionLength, from, what);
                    }
                    return;
                }
                _ => {}
            }
        }
    }

    fn leads_to(&mut self, target: &str, line: usize) {
        if target == self.module || self.floor == WIRING && self.module != "lib" {
            return;
        }
        match FLOORS.iter().find(|(name, _)| *name == target) {
            None => self.report(Rule::WholeCrate, line, format!("`crate::{target}` names no module")),
            Some((_, floor)) if *floor >= self.floor => {
                let what =
                    format!("`{}` (floor {}) uses `{target}` (floor {floor})", self.module, self.floor);
                self.report(Rule::Floor, line, what);
            }
            Some(_) => {}
        }
    }

    /// The binary is a crate of its own and has to say the library's name.
    fn own_name(&mut self, line: usize) {
        if self.module != "main" {
            self.report(Rule::OwnName, line, "`killstream::`; inside the house it is `crate::`");
        }
    }

    fn names(&mut self, head: &str, line: usize, context: Context) {
        let Some((_, owners)) = OWNERS.iter().find(|(name, _)| *name == head) else { return };
        let in_test = context.test && head == "anyhow";
        if !owners.contains(&self.module.as_str()) && !in_test {
            self.report(Rule::Owner, line, format!("names `{head}`; only {} may", owners.join(", ")));
        }
    }

    fn spawns(&mut self, line: usize, context: Context) {
        if self.module != "tasks" && !context.test {
            self.report(Rule::Spawn, line, "starts a task or thread; only `tasks` does, with a name");
        }
    }

    fn pure(&mut self, path: &[&str], line: usize) {
        let word = path.iter().find(|word| OUTSIDE_THE_DOMAIN.contains(word));
        if let (Some(word), "domain") = (word, self.module.as_str()) {
            self.report(
                Rule::PureDomain,
                line,
                format!("the domain touches `{word}`: no disk, no clock, no network"),
            );
        }
    }
}

/// Whether the end of a path starts work: `tokio::spawn`, `thread::Builder`, `JoinSet` and their like.
fn is_spawn(path: &[&str]) -> bool {
    let [.., before, last] = path else { return false };
    match *last {
        "spawn" => matches!(*before, "tokio" | "task" | "thread" | "Handle" | "runtime"),
        "spawn_blocking" | "spawn_local" => true,
        "Builder" | "scope" => *before == "thread",
        "JoinSet" => *before == "task",
        _ => false,
    }
}

/// The full paths a `use` tree names; `as` names are left out.
fn use_paths(tree: &[TokenTree]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for branch in tree.split(|t| is_punct(Some(t), ',')) {
        let mut path = Vec::new();
        let mut groups = Vec::new();
        for token in branch {
            match token {
                TokenTree::Ident(word) if word == "as" => break,
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Punct(p) if p.as_char() == '*' => path.push("*".to_owned()),
                TokenTree::Group(group) => {
                    groups = use_paths(&group.stream().into_iter().collect::<Vec<_>>())
                }
                _ => {}
            }
        }
        if groups.is_empty() && !path.is_empty() {
            paths.push(path);
        } else {
            paths.extend(groups.into_iter().map(|rest| path.iter().cloned().chain(rest).collect()));
        }
    }
    paths
}

/// Whether braces after these tokens hold statements: a function's body, not a module, `impl` or `trait`.
fn opens_body(tokens: &[TokenTree], at: usize) -> bool {
    let start = tokens[..at]
        .iter()
        .rposition(|t| {
            is_punct(Some(t), ';') || matches!(t, TokenTree::Group(g) if g.delimiter() == Delimiter::Brace)
        })
        .map_or(0, |i| i + 1);
    tokens[start..at].iter().any(|t| matches!(t, TokenTree::Ident(word) if word == "fn"))
}

fn is_public(tokens: &[TokenTree], at: usize) -> bool {
    let is_pub = |i: Option<usize>| i.and_then(|i| tokens.get(i)).is_some_and(|t| t.to_string() == "pub");
    let grouped =
        at > 0 && matches!(&tokens[at - 1], TokenTree::Group(g) if g.delimiter() == Delimiter::Parenthesis);
    is_pub(at.checked_sub(1)) || grouped && is_pub(at.checked_sub(2))
}

fn is_cfg_test(attribute: &Group) -> bool {
    let text = attribute.stream().to_string().replace(' ', "");
    text == "cfg(test)" || text.starts_with("cfg(any(test,") || text.starts_with("cfg(all(test,")
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == wanted)
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

fn line_of(token: &TokenTree) -> usize {
    token.span().start().line
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
    into.sort();
}

/// Every Rust file below these folders of the repository: path and text.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in folders {
        rust_files(&root.join(folder), &mut files);
    }
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
    files.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn the_house_keeps_its_rules() {
    let mut found = Vec::new();
    let (mut functions, mut imports) = (Vec::new(), Vec::new());
    let files = sources(&["src"]);
    assert!(files.len() > 10, "found only {} files below src", files.len());
    for (path, text) in &files {
        let reading = read(path, text);
        found.extend(reading.found.iter().map(ToString::to_string));
        functions.extend(reading.functions);
        found.extend(TokenStream::from_str(text).iter().flat_map(|tokens| words::given_up(path, tokens)));
        imports.push(rooms::File { path: path.clone(), imports: reading.imports });
    }
    found.extend(rooms::broken(&imports));
    functions.sort_unstable();
    let p90 = functions[functions.len() * 9 / 10];
    println!("{} files, {} functions, p90 {p90} lines", files.len(), functions.len());
    if p90 > FUNCTION_LINES_P90 {
        found.push(format!("one function in ten has over {FUNCTION_LINES_P90} lines (p90 {p90})"));
    }
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

#[test]
fn tests_examples_and_benches_keep_the_sizes() {
    let of_size =
        |v: &Violation| matches!(v.rule, Rule::FileLength | Rule::FunctionLength | Rule::Unreadable);
    let mut found = Vec::new();
    for (path, text) in sources(&["tests", "examples", "benches"]) {
        found.extend(check(&path, &text).0.into_iter().filter(of_size).map(|v| v.to_string()));
    }
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}
