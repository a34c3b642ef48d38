//! Compiled code, kept as files, so that nothing is compiled twice; and where uploads are kept until they are
//! taken in.
//!
//! Machine code cannot be checked by looking at it. Each file has a seal: a keyed hash of its name, of what
//! is known of it and of its content, with a key that stands in this data folder alone. A file without its
//! seal is not given out, and made again. The seal begins with another one, of everything but the content:
//! what is known of the code can be trusted before all of it is read.
//!
//! Must not know: what is in the files.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::domain::hex::hex;
use crate::store::engine::data_folder;
use crate::store::error::StoreError;
use crate::store::{Store, whole_file};

/// The folder of compiled code.
const COMPILED: &str = "compiled";
/// The folder of uploads on their way.
const UPLOADS: &str = "uploads";
/// Bytes of the key.
const KEY_BYTES: usize = 32;
/// Bytes of each of the two seals, before what is known of the code: that of what is known, then that of
/// everything.
const SEAL_BYTES: usize = 32;

/// Files are read in pieces of so many bytes.
const PIECE_BYTES: usize = 256 << 10;

/// Tells the names of uploads apart.
static UPLOAD: AtomicU64 = AtomicU64::new(0);

/// Compiled code whose seal is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The file.
    pub code: PathBuf,
    /// What was kept with it.
    pub about: Vec<u8>,
}

/// Compiled code that is kept; what is known of it and its size are as they were sealed, its content was not
/// looked at yet.
#[derive(Debug)]
pub struct Sealed {
    /// What is kept.
    pub kept: Compiled,
    /// Size of the code, bytes.
    pub bytes: u64,
    file: File,
    seal: [u8; SEAL_BYTES],
}

impl Store {
    /// The code compiled of a component (its SHA-256, hex) by this compiler, if it is there and its seal is
    /// right. Reads all of it.
    ///
    /// # Errors
    /// The file system.
    pub fn compiled(&self, digest: &str, compiler: &str) -> Result<Option<Compiled>, StoreError> {
        match self.sealed(digest, compiler)? {
            Some(sealed) => self.opened(digest, compiler, sealed),
            None => Ok(None),
        }
    }

    /// The same without the content: reads the seal alone. [`Store::opened`] looks at the rest.
    ///
    /// # Errors
    /// The file system.
    pub fn sealed(&self, digest: &str, compiler: &str) -> Result<Option<Sealed>, StoreError> {
        let (code, seal) = self.compiled_paths(digest, compiler)?;
        let whole = match fs::read(&seal) {
            Ok(whole) => whole,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Io { what: "read", path: seal, source }),
        };
        let Some((of_known, rest)) = whole.split_first_chunk::<SEAL_BYTES>() else { return Ok(None) };
        let Some((seal, about)) = rest.split_first_chunk::<SEAL_BYTES>() else { return Ok(None) };
        let file = match File::open(&code) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Io { what: "read", path: code, source }),
        };
        let bytes = file.metadata().map_err(StoreError::io("read", &code))?.len();
        if self
            .sealing_known(digest, compiler, about, bytes)
            .map_err(StoreError::io("read", &code))?
            .verify_slice(of_known)
            .is_err()
        {
            warn_of_change(&code);
            return Ok(None);
        }
        Ok(Some(Sealed { bytes, file, seal: *seal, kept: Compiled { code, about: about.to_vec() } }))
    }

    /// The code, if its content is what was sealed. Reads all of it.
    ///
    /// # Errors
    /// The file system.
    pub fn opened(
        &self,
        digest: &str,
        compiler: &str,
        sealed: Sealed,
    ) -> Result<Option<Compiled>, StoreError> {
        let Sealed { kept, file, seal, .. } = sealed;
        let sealing =
            self.sealing(digest, compiler, &kept.about, file).map_err(StoreError::io("read", &kept.code))?;
        if sealing.verify_slice(&seal).is_err() {
            warn_of_change(&kept.code);
            return Ok(None);
        }
        Ok(Some(kept))
    }

    /// Where the compiler may write code before it is kept.
    ///
    /// # Errors
    /// The file system.
    pub fn compiled_draft(&self, digest: &str, compiler: &str) -> Result<PathBuf, StoreError> {
        let (code, _) = self.compiled_paths(digest, compiler)?;
        let dir = self.engine.dir().join(COMPILED);
        data_folder::make(&dir).map_err(StoreError::io("make", &dir))?;
        Ok(code.with_extension(format!("draft-{}", UPLOAD.fetch_add(1, Ordering::Relaxed))))
    }

    /// Keeps a draft, with what is known of it; on disk when this returns. Where the code is then.
    ///
    /// # Errors
    /// The file system.
    pub fn keep_compiled(
        &self,
        digest: &str,
        compiler: &str,
        draft: &Path,
        about: &[u8],
    ) -> Result<PathBuf, StoreError> {
        let (code, seal) = self.compiled_paths(digest, compiler)?;
        let sealed = self.seal_of(digest, compiler, draft, about).map_err(StoreError::io("read", draft))?;
        // A seal without its code is no seal: the other order would leave code without one for good.
        whole_file::write(&seal, &sealed).map_err(StoreError::io("write", &seal))?;
        fs::rename(draft, &code).map_err(StoreError::io("rename", draft))?;
        Ok(code)
    }

    /// Forgets all code compiled of a component.
    ///
    /// # Errors
    /// The file system.
    pub fn remove_compiled(&self, digest: &str) -> Result<(), StoreError> {
        let dir = self.engine.dir().join(COMPILED);
        for name in names(&dir).map_err(StoreError::io("read", &dir))? {
            if name.starts_with(digest) {
                remove(&dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Removes what belongs to no component any more or was made by another compiler, and what was on its way
    /// when the server ended.
    ///
    /// # Errors
    /// The file system.
    pub fn tidy_compiled(&self, compiler: &str, is_known: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        let dir = self.engine.dir().join(COMPILED);
        for name in names(&dir).map_err(StoreError::io("read", &dir))? {
            let Some((digest, rest)) = name.split_once('-') else { continue };
            let kept = [format!("{compiler}.code"), format!("{compiler}.seal")];
            if !is_known(digest) || !kept.iter().any(|kept| kept == rest) {
                remove(&dir.join(&name))?;
            }
        }
        let dir = self.engine.dir().join(UPLOADS);
        for name in names(&dir).map_err(StoreError::io("read", &dir))? {
            remove(&dir.join(name))?;
        }
        Ok(())
    }

    /// Removes the oldest code until so many bytes are left, but none of those that stay.
    ///
    /// # Errors
    /// The file system.
    pub fn prune_compiled(&self, max_bytes: u64, stays: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        let dir = self.engine.dir().join(COMPILED);
        let mut codes = Vec::new();
        for name in names(&dir).map_err(StoreError::io("read", &dir))? {
            // Gone meanwhile, it takes no room.
            let Ok(meta) = fs::metadata(dir.join(&name)) else { continue };
            if name.ends_with(".code") {
                codes.push((meta.modified().ok(), meta.len(), name));
            }
        }
        let mut bytes: u64 = codes.iter().map(|(_, len, _)| len).sum();
        codes.sort_unstable();
        for (_, len, name) in codes {
            if bytes > max_bytes && !name.split('-').next().is_some_and(&stays) {
                remove(&dir.join(&name).with_extension("seal"))?;
                remove(&dir.join(&name))?;
                bytes = bytes.saturating_sub(len);
            }
        }
        Ok(())
    }

    /// A file for an upload; gone when it is dropped.
    ///
    /// # Errors
    /// The file system.
    pub fn upload_file(&self) -> Result<UploadFile, StoreError> {
        let dir = self.engine.dir().join(UPLOADS);
        data_folder::make(&dir).map_err(StoreError::io("make", &dir))?;
        Ok(UploadFile(dir.join(format!("{}.wasm", UPLOAD.fetch_add(1, Ordering::Relaxed)))))
    }

    /// Both seals of code in this file, and what is known of it.
    fn seal_of(&self, digest: &str, compiler: &str, code: &Path, about: &[u8]) -> io::Result<Vec<u8>> {
        let file = File::open(code)?;
        let known =
            self.sealing_known(digest, compiler, about, file.metadata()?.len())?.finalize().into_bytes();
        let all = self.sealing(digest, compiler, about, file)?.finalize().into_bytes();
        Ok([&known[..], &all[..], about].concat())
    }

    /// Of everything: names, what is known of the code, the code.
    fn sealing(&self, digest: &str, compiler: &str, about: &[u8], code: File) -> io::Result<Hmac<Sha256>> {
        let mut sealing = self.sealing_of([b"all", digest.as_bytes(), compiler.as_bytes(), about])?;
        each_piece(code, |piece| sealing.update(piece))?;
        Ok(sealing)
    }

    /// Of names, what is known of the code, and its size.
    fn sealing_known(
        &self,
        digest: &str,
        compiler: &str,
        about: &[u8],
        code_bytes: u64,
    ) -> io::Result<Hmac<Sha256>> {
        let mut sealing = self.sealing_of([b"known", digest.as_bytes(), compiler.as_bytes(), about])?;
        sealing.update(&code_bytes.to_le_bytes());
        Ok(sealing)
    }

    fn sealing_of(&self, parts: [&[u8]; 4]) -> io::Result<Hmac<Sha256>> {
        let key = self.seal_key()?;
        let mut sealing = Hmac::<Sha256>::new_from_slice(&key).map_err(io::Error::other)?;
        for part in parts {
            // Lengths, so that no two lists of parts are one.
            sealing.update(&(part.len() as u64).to_le_bytes());
            sealing.update(part);
        }
        Ok(sealing)
    }

    /// The key of this data folder; made when it is first needed.
    fn seal_key(&self) -> io::Result<Vec<u8>> {
        let path = self.engine.dir().join(COMPILED).join("key");
        match fs::read(&path) {
            Ok(key) if key.len() == KEY_BYTES => return Ok(key),
            // Cut off by a crash, or somebody's: nothing is sealed with it.
            Ok(_) => fs::remove_file(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut key = vec![0; KEY_BYTES];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        data_folder::make(&self.engine.dir().join(COMPILED))?;
        let draft = path.with_extension(format!("draft-{}", UPLOAD.fetch_add(1, Ordering::Relaxed)));
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(&key)?;
        file.sync_all()?;
        // The first that is whole is the key: what was sealed with it must stay right.
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => fs::read(&path),
        }
    }

    /// Code and seal. Digests and compilers become file names: nothing but hex may.
    fn compiled_paths(&self, digest: &str, compiler: &str) -> Result<(PathBuf, PathBuf), StoreError> {
        let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        if digest.len() != 64 || !is_hex(digest) || !is_hex(compiler) {
            return Err(StoreError::Engine {
                what: "name compiled code",
                why: format!("{digest:?}, {compiler:?} are not hex"),
            });
        }
        let dir = self.engine.dir().join(COMPILED);
        Ok((dir.join(format!("{digest}-{compiler}.code")), dir.join(format!("{digest}-{compiler}.seal"))))
    }
}

fn warn_of_change(code: &Path) {
    tracing::warn!("{} is not what was compiled here; it is made again", code.display());
}

/// An upload on its way.
#[derive(Debug)]
pub struct UploadFile(PathBuf);

impl UploadFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// The file system.
    pub fn write(&self, bytes: &[u8]) -> Result<(), StoreError> {
        fs::write(&self.0, bytes).map_err(StoreError::io("write", &self.0))
    }

    /// Its bytes.
    ///
    /// # Errors
    /// The file system.
    pub fn read(&self) -> Result<Vec<u8>, StoreError> {
        fs::read(&self.0).map_err(StoreError::io("read", &self.0))
    }

    /// Its size, bytes.
    ///
    /// # Errors
    /// The file system.
    pub fn size_bytes(&self) -> Result<usize, StoreError> {
        let meta = fs::metadata(&self.0).map_err(StoreError::io("read", &self.0))?;
        Ok(usize::try_from(meta.len()).unwrap_or(usize::MAX))
    }

    /// Its SHA-256, in hex.
    ///
    /// # Errors
    /// The file system.
    pub fn digest(&self) -> Result<String, StoreError> {
        let mut hasher = Sha256::new();
        let hashed = File::open(&self.0).and_then(|file| each_piece(file, |piece| hasher.update(piece)));
        hashed.map_err(StoreError::io("read", &self.0))?;
        Ok(hex(&hasher.finalize()))
    }
}

impl Drop for UploadFile {
    fn drop(&mut self) {
        // What cannot be removed now is at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

fn each_piece(mut file: File, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(()),
            read => take(&piece[..read]),
        }
    }
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(dir) {
        Ok(files) => Ok(files.filter_map(|file| file.ok()?.file_name().into_string().ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::Io { what: "remove", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
