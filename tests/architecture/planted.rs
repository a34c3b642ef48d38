//! Planted violations, each of which its rule must find, and what the rules must leave alone.
//!
//! Must not know: the sources of the house.

use super::*;

const HEAD: &str = "//! A room. Must not know: anything.\n";

fn rules_broken(path: &str, body: &str) -> Vec<Rule> {
    check(path, &format!("{HEAD}{body}")).0.into_iter().map(|v| v.rule).collect()
}

#[test]
fn planted_violations_are_found() {
    let planted: &[(&str, &str, Rule)] = &[
        ("src/store/mod.rs", "use crate::feed::Feed;", Rule::Floor),
        ("src/store/mod.rs", "use crate::{domain::id::Seq, wire::killmail};", Rule::Floor),
        ("src/store/mod.rs", "use crate::plugin::Engine;", Rule::Floor),
        ("src/domain/id.rs", "use crate::tasks::spawn;", Rule::Floor),
        (
            "src/http/stream.rs",
            "#[cfg(test)] mod tests { use crate::ingest::r2z2::follower_state; }",
            Rule::Floor,
        ),
        ("src/lib.rs", "use crate::cli::run;", Rule::Floor),
        ("src/helpers/mod.rs", "", Rule::UnknownModule),
        ("src/feed/mod.rs", "use crate::*;", Rule::WholeCrate),
        ("src/feed/mod.rs", "use crate as house;", Rule::WholeCrate),
        ("src/feed/mod.rs", "use super::bell;", Rule::Super),
        ("src/feed/mod.rs", "use super::*;", Rule::Super),
        ("src/feed/mod.rs", "fn f() { super::g() }", Rule::Super),
        ("src/feed/mod.rs", "#[cfg(test)] mod tests { use super::super::*; }", Rule::Super),
        ("src/feed/mod.rs", "use killstream::store::Store;", Rule::OwnName),
        ("src/feed/mod.rs", "fn f() -> killstream::store::Store {}", Rule::OwnName),
        ("src/feed/mod.rs", "fn f() { crate::store::open() }", Rule::InlinePath),
        ("src/feed/mod.rs", "fn f() { println!(\"{}\", crate::store::HEAD) }", Rule::InlinePath),
        ("src/feed/mod.rs", "macro_rules! m { () => { $crate::store::open() } }", Rule::InlinePath),
        ("src/feed/mod.rs", "struct S { store: crate::store::Store }", Rule::InlinePath),
        ("src/feed/mod.rs", "impl S { fn f() { use crate::store::open; } }", Rule::BuriedUse),
        ("src/feed/mod.rs", "pub use crate::store::Store;", Rule::ReExport),
        ("src/feed/mod.rs", "pub(crate) use bytes::Bytes;", Rule::ReExport),
        ("src/feed/mod.rs", "use sled::Db;", Rule::Owner),
        ("src/feed/mod.rs", "fn f(b: &roaring::RoaringBitmap) {}", Rule::Owner),
        ("src/http/mod.rs", "use wasmtime::component::Val;", Rule::Owner),
        ("src/feed/mod.rs", "use {std::fmt, reqwest::Client};", Rule::Owner),
        ("src/ingest/mod.rs", "use axum::Router;", Rule::Owner),
        ("src/server.rs", "fn f() -> anyhow::Result<()> {}", Rule::Owner),
        ("src/feed/mod.rs", "fn f() { tokio::spawn(g()); }", Rule::Spawn),
        ("src/feed/mod.rs", "use tokio::task::{spawn_blocking, yield_now};", Rule::Spawn),
        ("src/feed/mod.rs", "use std::thread; fn f() { thread::spawn(g); }", Rule::Spawn),
        ("src/feed/mod.rs", "use std::thread; fn f() { thread::Builder::new(); }", Rule::Spawn),
        ("src/feed/mod.rs", "fn f(h: Handle) { h.spawn(g()); }", Rule::Spawn),
        ("src/feed/mod.rs", "use tokio::task::JoinSet;", Rule::Spawn),
        ("src/domain/id.rs", "use std::time::SystemTime;", Rule::PureDomain),
        ("src/domain/id.rs", "use std::fs::read;", Rule::PureDomain),
        ("src/domain/id.rs", "fn f() { std::fs::read(p); }", Rule::PureDomain),
        ("src/feed/mod.rs", "fn {", Rule::Unreadable),
    ];
    for (path, body, rule) in planted {
        let broken = rules_broken(path, body);
        assert!(broken.contains(rule), "{path}: `{body}` should break {rule:?}, broke {broken:?}");
    }
    let long_file = "// x\n".repeat(FILE_LINES_MAX);
    assert_eq!(rules_broken("src/feed/mod.rs", &long_file), [Rule::FileLength]);
    let long_function = |lines: usize| format!("fn f() {{\n{}}}", "g();\n".repeat(lines - 2));
    assert_eq!(
        rules_broken("src/feed/mod.rs", &long_function(FUNCTION_LINES_MAX + 1)),
        [Rule::FunctionLength]
    );
    assert_eq!(rules_broken("src/feed/mod.rs", &long_function(FUNCTION_LINES_MAX)), []);
    assert_eq!(check("src/feed/mod.rs", "fn f() {}").0[0].rule, Rule::Header);
    assert_eq!(check("src/feed/mod.rs", "\n//! Late. Must not know: x.\n").0[0].rule, Rule::Header);
    assert_eq!(check("src/feed/mod.rs", "//! A room.\n").0[0].rule, Rule::Header);
}

#[test]
fn what_is_allowed_is_left_alone() {
    let allowed: &[(&str, &str)] = &[
        (
            "src/store/mod.rs",
            "use sled::Db; use crate::domain::{id::Seq, term::Term}; use crate::store::format::log_entry::Log;",
        ),
        (
            "src/feed/mod.rs",
            "#[cfg(test)] mod tests { use super::*; use crate::store::Store; use anyhow::Result; }",
        ),
        (
            "src/feed/mod.rs",
            "//! See [`crate::http`].\n/// As `super::x` and sled::Db do.\nconst A: &str = \"crate::http::x killstream::y\";",
        ),
        ("src/feed/bell_tests.rs", "use super::*;"),
        (
            "src/feed/mod.rs",
            "pub(super) fn f() {} pub(crate) fn g(a: fn(u8) -> u8) -> impl Fn() + use<> { f() }",
        ),
        ("src/feed/mod.rs", "use crate::tasks; fn f(sled: u8) { tasks::spawn(\"bell\", g()); sled.min(1); }"),
        ("src/cli/mod.rs", "use std::process::Command; fn f() { Command::new(\"x\").spawn(); }"),
        (
            "src/cli/mod.rs",
            "use crate::server::run; use crate::http::router; fn f() -> anyhow::Result<()> {}",
        ),
        ("src/main.rs", "use killstream::cli; fn main() -> anyhow::Result<()> { cli::run() }"),
        ("src/tasks.rs", "fn f() { tokio::spawn(g()); std::thread::spawn(h); }"),
        ("src/feed/mod.rs", "mod a; mod b; impl A { fn f(&self) {} } use crate::store::Store;"),
    ];
    for (path, body) in allowed {
        let broken = rules_broken(path, body);
        assert!(broken.is_empty(), "{path}: `{body}` broke {broken:?}");
    }
}
