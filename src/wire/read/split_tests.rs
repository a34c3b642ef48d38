//! Splitting of any stream, well-formed or not, in chunks of any size.
//!
//! Must not know: what a document means.

use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

/// The documents of a text that is pushed in chunks of `piece` bytes.
fn documents(text: &str, piece: usize) -> Vec<String> {
    let mut found = vec![];
    let mut splitter = Splitter::new(2000);
    let mut keep = |document: &[u8]| -> Result<(), Infallible> {
        found.push(String::from_utf8_lossy(document).into_owned());
        Ok(())
    };
    for bytes in text.as_bytes().chunks(piece) {
        splitter.push(bytes, &mut keep).unwrap();
    }
    splitter.finish(&mut keep).unwrap();
    found
}

fn check(text: &str, expected: &[&str]) {
    for piece in [1, 3, 7, 10_000] {
        assert_eq!(documents(text, piece), expected, "pieces of {piece}");
    }
}

#[test]
fn lines_are_documents() {
    check(
        "{\"a\":1}\n{\"a\":{\"b\":\"}\\\"{\"}}\r\n\n{\"a\":[1,2]}",
        &["{\"a\":1}", "{\"a\":{\"b\":\"}\\\"{\"}}", "{\"a\":[1,2]}"],
    );
}

#[test]
fn a_document_may_span_lines() {
    check("\u{feff}{\n \"a\": [\n  {\n  }\n ]\n}\n{}", &["{\n \"a\": [\n  {\n  }\n ]\n}", "{}"]);
    let attackers = "{\"attackers\": [{\"x\":1},\n{\"x\":2},\n{\"x\":{\n\"y\":[\n]}}], \"id\": 1}";
    check(attackers, &[attackers]);
    check(&format!("{attackers}\n{attackers}"), &[attackers, attackers]);
}

#[test]
fn elements_of_an_array_are_documents() {
    let deep = format!("{{\"a\":{}\n{}}}", "[{\"b\":".repeat(75), "1".to_owned() + &"}]".repeat(75));
    check(&format!("[{deep},{deep}]"), &[&deep, &deep]);
    check("[{\"a\":1},\n{\"b\":[]} , {}]\n{\"c\":2}", &["{\"a\":1}", "{\"b\":[]}", "{}", "{\"c\":2}"]);
}

#[test]
fn values_of_a_raw_day_are_documents() {
    check(
        "{\"12\":{\"killmail_id\":12,\"x\":{\"1\":{}}},\n \"13\": {\"killmail_id\":13}}\n{\"a\":1}",
        &["{\"killmail_id\":12,\"x\":{\"1\":{}}}", "{\"killmail_id\":13}", "{\"a\":1}"],
    );
}

#[test]
fn a_broken_line_costs_only_itself() {
    check(
        "{\"a\":1\n{\"b\":2}\nnonsense\n{\"c\":\"cut\n{\"d\":4}\n{\"e",
        &["{\"a\":1", "{\"b\":2}", "nonsense", "{\"c\":\"cut", "{\"d\":4}", "{\"e"],
    );
    // Truncated where the following lines could still belong to it.
    check(
        "{\"a\":[1,\n{\"b\":2}\n{\"c\":3}\n{\"d\":[\n4]}\n",
        &["{\"a\":[1,", "{\"b\":2}", "{\"c\":3}", "{\"d\":[\n4]}"],
    );
    check("{\"a\":[{\"b\":[\n{\"c\":3},\n{\"d\":4}", &["{\"a\":[{\"b\":[", "{\"c\":3}", "{\"d\":4}"]);
    check("{\"a\":]}\n{}", &["{\"a\":]}", "{}"]);
}

#[test]
fn zeros_at_the_end_are_ignored() {
    check("{\"a\":1}\n\0\0\0\0", &["{\"a\":1}"]);
    check("\0\0", &[]);
}

#[test]
fn an_oversized_document_is_truncated_and_the_next_is_complete() {
    for long in [
        format!("{{\"a\":\"{}\"}}\n{{}}", "x".repeat(5000)),
        format!("{{\"a\":[\n{}0]}}\n{{}}", "1,\n".repeat(2000)),
    ] {
        let found = documents(&long, 64);
        assert_eq!(found.len(), 2);
        assert!(found[0].len() < 2000);
        assert_eq!(found[1], "{}");
    }
}

#[test]
fn depth_is_bounded_and_costs_only_the_lines_it_touches() {
    let deep = "{\"a\":\n".repeat(1_000);
    let found = documents(&format!("{deep}{{}}"), 100);
    assert_eq!(found.len(), 1_001);
    assert_eq!(found.last().unwrap(), "{}");
}

proptest! {
    /// Concatenated JSON objects, pretty-printed or not, come out unchanged, whatever the chunks.
    #[test]
    fn well_formed_objects_are_one_document_each(values in proptest::collection::vec(any::<(u8, String, bool)>(), 1..6), piece in 1_usize..50) {
        let texts: Vec<String> = values
            .into_iter()
            .map(|(n, text, pretty)| {
                let value = serde_json::json!({ "x": [{ "text": text, "n": n }, { "n": [n, null, true] }], "deep": { "er": {} } });
                let one = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
                // Some printers begin each element on its own line.
                one.replace("\n    {", "\n{").replace("},{", "},\n{")
            })
            .filter(|text| text.len() < 1000 && serde_json::from_str::<serde_json::Value>(text).is_ok())
            .collect();
        prop_assert_eq!(documents(&texts.join("\n"), piece), texts);
    }

    /// Any bytes give the same documents in any chunks, and every line with a letter is in one of them.
    #[test]
    fn any_bytes_are_split(text in "[\\[\\]{}:,\"0-2ab\\\\\n ]{0,200}", piece in 1_usize..20) {
        let found = documents(&text, piece);
        prop_assert_eq!(&found, &documents(&text, text.len().max(1)));
        let letters = |text: &str| text.matches(['a', 'b']).count();
        prop_assert_eq!(found.iter().map(|document| letters(document)).sum::<usize>(), letters(&text));
    }
}
