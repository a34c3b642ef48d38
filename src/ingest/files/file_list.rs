//! Lists the files under given paths. Whatever is not a readable file is reported with the reason, and the
//! walk continues.
//!
//! Must not know: what is in the files.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A pipe that is already open may be read: opening it does not block.
const DESCRIPTORS: [&str; 3] = ["/dev/fd", "/dev/stdin", "/proc/self/fd"];

/// A file, or something in it, that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {why}", self.full_name())]
pub struct Unreadable {
    path: PathBuf,
    /// The file in the archive.
    member: Option<String>,
    why: String,
    /// Whether this path was given itself, rather than found in a folder.
    pub is_named: bool,
}

impl Unreadable {
    pub fn new(path: &Path, why: impl Into<String>) -> Self {
        Self { path: path.to_owned(), member: None, why: why.into(), is_named: false }
    }

    /// A file in the archive at `path`.
    pub fn member(path: &Path, member: &str, why: impl Into<String>) -> Self {
        Self { member: Some(member.escape_debug().to_string()), ..Self::new(path, why) }
    }

    fn full_name(&self) -> String {
        let path = self.path.display();
        self.member.as_ref().map_or_else(|| path.to_string(), |member| format!("{member} in {path}"))
    }
}

/// The files found.
#[derive(Debug, Default)]
pub struct FileList {
    /// In the order of the given paths; those in folders in the order of their names.
    pub files: Vec<PathBuf>,
    /// What is not a readable file.
    pub unreadable: Vec<Unreadable>,
}

impl FileList {
    /// Finds all files under these paths, except for hidden ones in folders.
    #[must_use]
    pub fn find(paths: &[PathBuf]) -> Self {
        let mut list = Self::default();
        for path in paths {
            let before = list.unreadable.len();
            list.walk(path, &mut Vec::new());
            for unreadable in
                list.unreadable.iter_mut().skip(before).filter(|unreadable| unreadable.path == *path)
            {
                unreadable.is_named = true;
            }
        }
        list
    }

    /// `above` are the folders (device and inode) through which the path was reached.
    fn walk(&mut self, path: &Path, above: &mut Vec<(u64, u64)>) {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                let this = (metadata.dev(), metadata.ino());
                if above.contains(&this) {
                    self.unreadable.push(Unreadable::new(path, "it is a link to a folder that contains it"));
                    return;
                }
                above.push(this);
                match list_folder(path) {
                    Ok(paths) => paths.iter().for_each(|path| self.walk(path, above)),
                    Err(error) => self.unreadable.push(Unreadable::new(path, error.to_string())),
                }
                above.pop();
            }
            Ok(metadata) => match not_a_file(path, &metadata) {
                None => self.files.push(path.to_owned()),
                Some(what) => self.unreadable.push(Unreadable::new(path, format!("it is {what}"))),
            },
            Err(error) => self.unreadable.push(Unreadable::new(path, describe(path, &error))),
        }
    }
}

fn list_folder(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')));
    paths.sort();
    Ok(paths)
}

/// What a path leads to if it is not a regular file; reading it might block forever.
#[must_use]
pub fn not_a_file(path: &Path, metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() || DESCRIPTORS.iter().any(|descriptors| path.starts_with(descriptors)) {
        return None;
    }
    Some(if kind.is_fifo() {
        "a named pipe; to read the output of a program, use /dev/stdin and pipe into it"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_dir() {
        "a folder"
    } else {
        "a device"
    })
}

fn describe(path: &Path, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound && path.is_symlink() {
        return "it is a link to something that does not exist".to_owned();
    }
    if path == Path::new("-") {
        return "there is no such file; use /dev/stdin to read standard input".to_owned();
    }
    if error.raw_os_error() == Some(libc::ELOOP) {
        return "it is a link that leads back to itself".to_owned();
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_are_walked_in_order_without_hidden_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        for name in ["b/z.json", "a.json", ".hidden"] {
            fs::write(folder.path().join(name), "{}").unwrap();
        }
        let found = FileList::find(&[folder.path().to_owned()]);
        let names: Vec<_> =
            found.files.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["a.json", "z.json"]);
        assert!(found.unreadable.is_empty());
    }

    #[test]
    fn what_is_not_a_file_is_reported_and_the_rest_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("deep")).unwrap();
        fs::write(path("deep/z.json"), "{}").unwrap();
        symlink(folder.path(), path("deep/up")).unwrap();
        symlink("nowhere", path("dangling")).unwrap();
        symlink("itself", path("itself")).unwrap();
        symlink("deep/z.json", path("good")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        let found = FileList::find(&[folder.path().to_owned(), path("missing")]);
        drop(socket);
        assert_eq!(found.files, [path("deep/z.json"), path("good")]);
        let told: Vec<String> = found.unreadable.iter().map(ToString::to_string).collect();
        for (name, why) in [
            ("dangling", "does not exist"),
            ("deep/up", "a folder that contains it"),
            ("itself", "back to itself"),
            ("socket", "a socket"),
            ("missing", "No such file"),
        ] {
            let name = path(name).display().to_string();
            assert!(told.iter().any(|text| text.contains(&name) && text.contains(why)), "{name}: {told:#?}");
        }
        assert_eq!(told.len(), 5);
        assert_eq!(found.unreadable.iter().filter(|unreadable| unreadable.is_named).count(), 1);
    }
}
