//! Compiled code, stored in files so that nothing is compiled twice; and the files of uploads that are not
//! accepted yet.
//!
//! Machine code cannot be validated by reading it. So each file has a seal: a keyed hash of its name, its
//! metadata and its content, with a key that exists only in this data folder. Code without a valid seal is
//! not used; it is compiled again. The seal begins with a second one that covers everything but the content,
//! so that the metadata can be trusted before all of the code is read.
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

/// Folder of compiled code.
const COMPILED: &str = "compiled";
/// Folder of uploads that are not accepted yet.
const UPLOADS: &str = "uploads";
const KEY_BYTES: usize = 32;
/// Bytes of each of the two seals. In the file, the seal of the metadata comes first, then the seal of
/// everything, then the metadata.
const SEAL_BYTES: usize = 32;

/// Files are read in blocks of this size.
const BLOCK_BYTES: usize = 256 << 10;

/// Makes the names of temporary files unique.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// Compiled code whose seals are valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledCode {
    pub path: PathBuf,
    /// The metadata that was stored with it.
    pub metadata: Vec<u8>,
}

/// Compiled code whose metadata and size are as they were sealed; its content has not been read yet.
#[derive(Debug)]
pub struct SealedCode {
    /// The code, not verified.
    pub unverified: CompiledCode,
    /// Size of the code, bytes.
    pub bytes: u64,
    file: File,
    seal: [u8; SEAL_BYTES],
}

impl Store {
    /// The code that this compiler made of a component (its SHA-256, hex), if it is stored and its seals are
    /// valid. Reads all of it.
    ///
    /// # Errors
    /// The file system.
    pub fn compiled_code(&self, digest: &str, compiler: &str) -> Result<Option<CompiledCode>, StoreError> {
        match self.sealed_code(digest, compiler)? {
            Some(sealed) => self.verify_code(digest, compiler, sealed),
            None => Ok(None),
        }
    }

    /// As [`Store::compiled_code`], but reads only the seals and the metadata. [`Store::verify_code`] reads the
    /// rest.
    ///
    /// # Errors
    /// The file system.
    pub fn sealed_code(&self, digest: &str, compiler: &str) -> Result<Option<SealedCode>, StoreError> {
        let CodePaths { code: path, seal } = self.code_paths(digest, compiler)?;
        let seals = match fs::read(&seal) {
            Ok(seals) => seals,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Io { what: "read", path: seal, source }),
        };
        let Some((metadata_seal, rest)) = seals.split_first_chunk::<SEAL_BYTES>() else { return Ok(None) };
        let Some((seal, metadata)) = rest.split_first_chunk::<SEAL_BYTES>() else { return Ok(None) };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Io { what: "read", path, source }),
        };
        let bytes = file.metadata().map_err(StoreError::io("read", &path))?.len();
        if self
            .hash_metadata(digest, compiler, metadata, bytes)
            .map_err(StoreError::io("read", &path))?
            .verify_slice(metadata_seal)
            .is_err()
        {
            warn_of_change(&path);
            return Ok(None);
        }
        let unverified = CompiledCode { path, metadata: metadata.to_vec() };
        Ok(Some(SealedCode { unverified, bytes, file, seal: *seal }))
    }

    /// The code, if its content is what was sealed. Reads all of it.
    ///
    /// # Errors
    /// The file system.
    pub fn verify_code(
        &self,
        digest: &str,
        compiler: &str,
        sealed: SealedCode,
    ) -> Result<Option<CompiledCode>, StoreError> {
        let SealedCode { unverified, file, seal, .. } = sealed;
        let hash = self
            .hash_all(digest, compiler, &unverified.metadata, file)
            .map_err(StoreError::io("read", &unverified.path))?;
        if hash.verify_slice(&seal).is_err() {
            warn_of_change(&unverified.path);
            return Ok(None);
        }
        Ok(Some(unverified))
    }

    /// A path where the compiler may write code before it is stored.
    ///
    /// # Errors
    /// The file system.
    pub fn code_draft(&self, digest: &str, compiler: &str) -> Result<PathBuf, StoreError> {
        let CodePaths { code, .. } = self.code_paths(digest, compiler)?;
        let dir = self.engine.dir().join(COMPILED);
        data_folder::make(&dir).map_err(StoreError::io("make", &dir))?;
        Ok(code.with_extension(format!("draft-{}", NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed))))
    }

    /// Stores a draft with its metadata; on disk when this returns. Gives the path of the code.
    ///
    /// # Errors
    /// The file system.
    pub fn keep_code(
        &self,
        digest: &str,
        compiler: &str,
        draft: &Path,
        metadata: &[u8],
    ) -> Result<PathBuf, StoreError> {
        let CodePaths { code, seal } = self.code_paths(digest, compiler)?;
        let seals = self.seals(digest, compiler, draft, metadata).map_err(StoreError::io("read", draft))?;
        // A seal without its code does no harm; the other order could leave code without a seal for good.
        whole_file::write(&seal, &seals).map_err(StoreError::io("write", &seal))?;
        fs::rename(draft, &code).map_err(StoreError::io("rename", draft))?;
        Ok(code)
    }

    /// Removes all code compiled from a component.
    ///
    /// # Errors
    /// The file system.
    pub fn remove_code(&self, digest: &str) -> Result<(), StoreError> {
        let dir = self.engine.dir().join(COMPILED);
        for name in names(&dir).map_err(StoreError::io("read", &dir))? {
            if name.starts_with(digest) {
                remove(&dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Removes code whose component is gone or that another compiler made, drafts, and uploads that were not
    /// accepted when the server ended.
    ///
    /// # Errors
    /// The file system.
    pub fn remove_stale_code(
        &self,
        compiler: &str,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<(), StoreError> {
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

    /// Removes the oldest code until at most `max_bytes` are left, except for code of components that `stays`
    /// names.
    ///
    /// # Errors
    /// The file system.
    pub fn evict_code(&self, max_bytes: u64, stays: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        let dir = self.engine.dir().join(COMPILED);
        let mut codes = Vec::new();
        for name in names(&dir).map_err(StoreError::io("read", &dir))? {
            // Removed in the meantime.
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

    /// A file for an upload; removed when it is dropped.
    ///
    /// # Errors
    /// The file system.
    pub fn upload_file(&self) -> Result<UploadFile, StoreError> {
        let dir = self.engine.dir().join(UPLOADS);
        data_folder::make(&dir).map_err(StoreError::io("make", &dir))?;
        Ok(UploadFile(dir.join(format!("{}.wasm", NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed)))))
    }

    /// What is stored beside the code: both seals and the metadata.
    fn seals(&self, digest: &str, compiler: &str, code: &Path, metadata: &[u8]) -> io::Result<Vec<u8>> {
        let file = File::open(code)?;
        let metadata_seal =
            self.hash_metadata(digest, compiler, metadata, file.metadata()?.len())?.finalize().into_bytes();
        let seal = self.hash_all(digest, compiler, metadata, file)?.finalize().into_bytes();
        Ok([&metadata_seal[..], &seal[..], metadata].concat())
    }

    /// The keyed hash of everything: names, metadata, code.
    fn hash_all(
        &self,
        digest: &str,
        compiler: &str,
        metadata: &[u8],
        code: File,
    ) -> io::Result<Hmac<Sha256>> {
        let mut hash = self.hash_parts([b"all", digest.as_bytes(), compiler.as_bytes(), metadata])?;
        read_blocks(code, |block| hash.update(block))?;
        Ok(hash)
    }

    /// The keyed hash of names, metadata and the size of the code.
    fn hash_metadata(
        &self,
        digest: &str,
        compiler: &str,
        metadata: &[u8],
        code_bytes: u64,
    ) -> io::Result<Hmac<Sha256>> {
        let mut hash = self.hash_parts([b"known", digest.as_bytes(), compiler.as_bytes(), metadata])?;
        hash.update(&code_bytes.to_le_bytes());
        Ok(hash)
    }

    fn hash_parts(&self, parts: [&[u8]; 4]) -> io::Result<Hmac<Sha256>> {
        let key = self.seal_key()?;
        let mut hash = Hmac::<Sha256>::new_from_slice(&key).map_err(io::Error::other)?;
        for part in parts {
            // With the lengths, so that no two lists of parts have the same hash.
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Ok(hash)
    }

    /// The key of this data folder; created when it is first needed.
    fn seal_key(&self) -> io::Result<Vec<u8>> {
        let path = self.engine.dir().join(COMPILED).join("key");
        match fs::read(&path) {
            Ok(key) if key.len() == KEY_BYTES => return Ok(key),
            // Cut off by a crash, or put there by someone else: nothing is sealed with it.
            Ok(_) => fs::remove_file(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut key = vec![0; KEY_BYTES];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        data_folder::make(&self.engine.dir().join(COMPILED))?;
        let draft = path.with_extension(format!("draft-{}", NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed)));
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(&key)?;
        file.sync_all()?;
        // The first complete file is the key: seals made with it must stay valid.
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => fs::read(&path),
        }
    }

    /// Digests and compilers become file names, so only hex is accepted.
    fn code_paths(&self, digest: &str, compiler: &str) -> Result<CodePaths, StoreError> {
        let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        if digest.len() != 64 || !is_hex(digest) || !is_hex(compiler) {
            return Err(StoreError::Engine {
                what: "name compiled code",
                why: format!("{digest:?}, {compiler:?} are not hex"),
            });
        }
        let dir = self.engine.dir().join(COMPILED);
        Ok(CodePaths {
            code: dir.join(format!("{digest}-{compiler}.code")),
            seal: dir.join(format!("{digest}-{compiler}.seal")),
        })
    }
}

/// The files of one piece of compiled code.
struct CodePaths {
    code: PathBuf,
    seal: PathBuf,
}

fn warn_of_change(code: &Path) {
    tracing::warn!("{} is not what was compiled here; it is compiled again", code.display());
}

/// The file of an upload that is not accepted yet; removed when this is dropped.
#[derive(Debug)]
pub struct UploadFile(PathBuf);

impl UploadFile {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes the whole file.
    ///
    /// # Errors
    /// The file system.
    pub fn write(&self, bytes: &[u8]) -> Result<(), StoreError> {
        fs::write(&self.0, bytes).map_err(StoreError::io("write", &self.0))
    }

    /// Reads the whole file.
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
        let hashed = File::open(&self.0).and_then(|file| read_blocks(file, |block| hasher.update(block)));
        hashed.map_err(StoreError::io("read", &self.0))?;
        Ok(hex(&hasher.finalize()))
    }
}

impl Drop for UploadFile {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

fn read_blocks(mut file: File, mut consume: impl FnMut(&[u8])) -> io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(()),
            read => consume(&block[..read]),
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
