//! Plugins and their components, and compiled code, which is used only with a valid seal.
//!
//! Must not know: what a component is.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::store::error::StoreError;
use crate::store::keys::Tree;
use crate::store::tests::{folder, open};

#[test]
fn plugins_and_components_are_kept() {
    let dir = folder();
    let store = open(&dir);
    let state: Vec<u8> = (0..150_000u32).map(|n| n as u8).collect();
    let digest = "ab".repeat(32);
    store.put_plugin("gatecamp", &state).expect("kept");
    store.put_plugin("gatecamp-2", b"small").expect("kept");
    let upload = store.upload_file().expect("made");
    upload.write(b"\0asm").expect("written");
    assert!(matches!(store.keep_component("../../evil", &upload), Err(StoreError::Engine { .. })));
    store.keep_component(&digest, &upload).expect("kept");
    assert!(!upload.path().exists());
    drop(store);
    let store = open(&dir);
    assert_eq!(
        store.plugins().expect("read"),
        [("gatecamp".to_owned(), state), ("gatecamp-2".to_owned(), b"small".to_vec())]
    );
    assert_eq!(store.read_component(&digest).expect("read").as_deref(), Some(&b"\0asm"[..]));
    let chunks = || {
        store
            .engine
            .scan(Tree::Plugins, b"gatecamp\0")
            .filter(|pair| pair.as_ref().is_ok_and(|(k, _)| k.starts_with(b"gatecamp\0")))
            .count()
    };
    assert_eq!(chunks(), 4);
    store.put_plugin("gatecamp", &[7; 60_000]).expect("kept");
    assert_eq!(
        (chunks(), store.plugins().expect("read")[0].1.len()),
        (2, 60_000),
        "the chunks beyond it are removed"
    );
    store.remove_plugin("gatecamp").expect("removed");
    assert_eq!(chunks(), 0);
    assert_eq!(fs::metadata(dir.path().join("plugins")).expect("there").permissions().mode() & 0o777, 0o700);
    store.remove_component(&digest).expect("removed");
    assert_eq!(
        (store.plugins().expect("read").len(), store.read_component(&digest).expect("read")),
        (1, None)
    );
}

#[test]
fn compiled_code_is_used_only_with_a_valid_seal() {
    let dir = folder();
    let store = open(&dir);
    let (one, two, compiler) = ("ab".repeat(32), "cd".repeat(32), "0123456789abcdef");
    let keep = |digest: &str, code: &[u8], metadata: &[u8]| {
        let draft = store.code_draft(digest, compiler).expect("a place");
        fs::write(&draft, code).expect("written");
        store.keep_code(digest, compiler, &draft, metadata).expect("kept");
    };
    let compiled = |digest: &str| store.compiled_code(digest, compiler).expect("read");
    assert_eq!(compiled(&one), None);
    keep(&one, b"code of one", b"metadata of one");
    keep(&two, b"code of two", b"metadata of two");
    let found = compiled(&one).expect("it is kept");
    assert_eq!(
        (fs::read(&found.path).expect("read"), found.metadata),
        (b"code of one".to_vec(), b"metadata of one".to_vec())
    );
    assert_eq!(store.compiled_code(&one, "fedcba9876543210").expect("read"), None, "another compiler");

    let (code_of_two, seal) = (compiled(&two).expect("kept").path, found.path.with_extension("seal"));
    for (path, bytes) in [
        (&found.path, b"code of oue".to_vec()),
        (&found.path, Vec::new()),
        (&seal, b"x".repeat(50)),
        (&seal, b"x".to_vec()),
    ] {
        let whole = fs::read(path).expect("read");
        fs::write(path, bytes).expect("written");
        assert_eq!(compiled(&one), None, "{}", path.display());
        fs::write(path, whole).expect("written");
    }
    // The seal of another component is not valid.
    let code_of_one = fs::read(&found.path).expect("read");
    fs::copy(&code_of_two, &found.path).expect("copied");
    fs::copy(code_of_two.with_extension("seal"), &seal).expect("copied");
    assert_eq!(compiled(&one), None);
    fs::write(&found.path, code_of_one).expect("written");
    keep(&one, b"code of one", b"metadata of one");

    store.evict_code(11, |digest| digest == one).expect("evicted");
    assert!(compiled(&one).is_some() && compiled(&two).is_none());
    keep(&two, b"code of two", b"metadata of two");
    fs::write(store.upload_file().expect("a place").path(), b"removed with its owner").expect("written");
    store.remove_stale_code(compiler, |digest| digest == two).expect("removed");
    assert!(compiled(&one).is_none() && compiled(&two).is_some());
    store.remove_stale_code("fedcba9876543210", |_| true).expect("removed");
    assert!(compiled(&two).is_none());
    // Another folder has another key.
    let elsewhere = folder();
    let other = open(&elsewhere);
    keep(&one, b"code of one", b"metadata of one");
    other.code_draft(&one, compiler).expect("a place");
    for file in fs::read_dir(dir.path().join("compiled")).expect("read") {
        let path = file.expect("a file").path();
        if path.file_name().is_some_and(|name| name != "key") {
            fs::copy(&path, elsewhere.path().join("compiled").join(path.file_name().expect("a name")))
                .expect("copied");
        }
    }
    assert_eq!(other.compiled_code(&one, compiler).expect("read"), None);
}
