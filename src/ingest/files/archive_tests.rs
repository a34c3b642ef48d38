//! Files and archives of every format, intact and damaged.

use std::cell::Cell;
use std::convert::Infallible;
use std::fs;
use std::io::Write;

use tempfile::TempDir;

use super::*;
use crate::ingest::files::decompress::tests::COMPRESS;

const LINES: &str = "{\"a\":1}\n{\"a\":2}\n";
const BOTH: [&str; 2] = ["{\"a\":1}", "{\"a\":2}"];

/// The documents of a file, and what cannot be read.
fn read(bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, bytes).unwrap();
    let (mut found, mut unreadable) = (vec![], vec![]);
    let Ok(()) = read_documents::<Infallible>(&path, &|_| {}, &mut |one| {
        match one {
            Found::Document(document) => found.push(String::from_utf8_lossy(document).into_owned()),
            Found::Unreadable(one) => unreadable.push(one.to_string()),
        }
        Ok(())
    });
    (found, unreadable)
}

fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    for (name, text) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *text).unwrap();
    }
    builder.into_inner().unwrap()
}

fn zip_of(members: &[(&str, &[u8])], is_deflated: bool) -> Vec<u8> {
    let mut out = vec![];
    let mut archive = rawzip::ZipArchiveWriter::new(&mut out);
    archive.new_dir("folder/").create().unwrap();
    for (name, text) in members {
        let method = if is_deflated { CompressionMethod::DEFLATE } else { CompressionMethod::STORE };
        let (mut entry, config) = archive.new_file(name).compression_method(method).start().unwrap();
        let descriptor = if is_deflated {
            let mut writer =
                config.wrap(flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::default()));
            writer.write_all(text).unwrap();
            let (encoder, descriptor) = writer.finish().unwrap();
            encoder.finish().unwrap();
            descriptor
        } else {
            let mut writer = config.wrap(&mut entry);
            writer.write_all(text).unwrap();
            writer.finish().unwrap().1
        };
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
    out
}

#[test]
fn every_format_is_detected_by_its_first_bytes() {
    let members: [(&str, &[u8]); 2] = [("killmails/1.json", b"{\"a\":1}"), ("2.json", b"{\"a\":2}")];
    let mut forms =
        vec![LINES.as_bytes().to_vec(), format!("\u{feff}{LINES}").into_bytes(), tar_of(&members)];
    forms.extend([zip_of(&members, true), zip_of(&members, false)]);
    for (_, compress) in COMPRESS {
        forms.extend([compress(LINES.as_bytes()), compress(&tar_of(&members))]);
        // Files in archives may be compressed on their own.
        let (one, two) = (compress(b"{\"a\":1}"), compress(b"{\"a\":2}"));
        forms.extend([tar_of(&[("1", &one), ("2", &two)]), zip_of(&[("1", &one), ("2", &two)], false)]);
    }
    for (at, form) in forms.iter().enumerate() {
        assert_eq!(read(form), (BOTH.map(str::to_owned).to_vec(), vec![]), "form {at}");
    }
}

#[test]
fn a_byte_order_mark_is_skipped_everywhere() {
    let marked = format!("\u{feff}{LINES}").into_bytes();
    for form in [zip_of(&[("1", &marked)], true), tar_of(&[("1", &marked)]), COMPRESS[0].1(&marked)] {
        assert_eq!(read(&form), (BOTH.map(str::to_owned).to_vec(), vec![]));
    }
}

#[test]
fn damage_is_reported_in_plain_words() {
    let lines: String = (0..20_000).map(|n| format!("{{\"n\":{}}}\n", n * 7919 % 104_729)).collect();
    for (name, compress) in COMPRESS {
        let mut damaged = compress(lines.as_bytes());
        let middle = damaged.len() / 2;
        damaged[middle..middle + 40].iter_mut().for_each(|byte| *byte ^= 0x5A);
        let (_, unreadable) = read(&damaged);
        assert!(
            unreadable
                .iter()
                .all(|error| error.contains("it is damaged: ") || error.contains("it is cut off")),
            "{name}: {unreadable:?}"
        );
        assert_eq!(unreadable.len(), 1, "{name}");
    }
}

#[test]
fn the_start_of_a_truncated_file_is_read() {
    let lines: String = (0..20_000).map(|n| format!("{{\"n\":{}}}\n", n * 7919 % 104_729)).collect();
    for (name, compress) in COMPRESS {
        let whole = compress(lines.as_bytes());
        let (found, unreadable) = read(&whole[..whole.len() * 2 / 3]);
        assert_eq!(unreadable.len(), 1, "{name}");
        assert!(
            found.len() < 20_000 && (name == "bzip2" || name == "xz" || found.len() > 1_000),
            "{name}: {}",
            found.len()
        );
    }
    let tar = tar_of(&[("1", b"{\"a\":1}"), ("2", b"{\"a\":2}")]);
    let (found, unreadable) = read(&tar[..1_024 + 300]);
    assert_eq!((found.as_slice(), unreadable.len()), ([BOTH[0].to_owned()].as_slice(), 1));
}

#[test]
fn a_damaged_member_does_not_end_the_archive() {
    let cut = COMPRESS[0].1(LINES.repeat(100).as_bytes());
    let members: [(&str, &[u8]); 4] = [
        ("1", b"{\"a\":1}"),
        ("cut\n.gz", &cut[..cut.len() - 4]),
        ("b.7z", b"7z\xBC\xAF\x27\x1C\0\0"),
        ("2", b"{\"a\":2}"),
    ];
    for form in [tar_of(&members), zip_of(&members, true)] {
        let (found, unreadable) = read(&form);
        assert_eq!(
            (found.first().map(String::as_str), found.last().map(String::as_str)),
            (Some(BOTH[0]), Some(BOTH[1]))
        );
        assert_eq!(unreadable.len(), 2, "{unreadable:?}");
        assert!(
            unreadable[0].contains("cut\\n.gz in ") && unreadable[1].contains("b.7z in "),
            "{unreadable:?}"
        );
    }
    // The checksum shows that a byte has changed.
    let mut changed = zip_of(&[("1", b"{\"a\":1}"), ("2", b"{\"a\":2}")], false);
    let at = changed.windows(7).position(|some| some == b"{\"a\":1}").unwrap();
    changed[at + 5] = b'9';
    let (found, unreadable) = read(&changed);
    assert_eq!((found.last().map(String::as_str), unreadable.len()), (Some(BOTH[1]), 1), "{unreadable:?}");
    assert_eq!(read(&zip_of(&[("1", b"{}")], true)[..60]).1.len(), 1, "cut off");
}

#[test]
fn what_is_not_text_is_reported_and_not_read_as_documents() {
    let utf_16: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let zip = zip_of(&[("1", b"{}")], true);
    for (bytes, part) in [
        (&b"7z\xBC\xAF\x27\x1C\0\x04"[..], "7z"),
        (b"Rar!\x1A\x07\x01\0", "rar"),
        (b"\x04\x22\x4D\x18xxxx", "lz4"),
        (b"\x1F\x9D\x90xx", "compress"),
        (&utf_16, "UTF-16"),
        (&COMPRESS[0].1(&zip), "zip archive inside"),
        (b"\0asm\x01\0\0\0", "neither text"),
    ] {
        let (found, unreadable) = read(bytes);
        assert!(
            found.is_empty() && unreadable.len() == 1 && unreadable[0].contains(part),
            "{part}: {found:?} {unreadable:?}"
        );
    }
    assert_eq!(read(b"").1.len() + read(&[0; 4_096]).1.len(), 0, "an empty file is not a fault");
}

#[test]
fn progress_adds_up_to_the_size_of_the_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("lines");
    fs::write(&path, LINES.repeat(10_000)).unwrap();
    let seen = Cell::new(0);
    let Ok(()) = read_documents::<Infallible>(&path, &|n| seen.set(seen.get() + n), &mut |_| Ok(()));
    assert_eq!(seen.get(), LINES.len() as u64 * 10_000);
}
