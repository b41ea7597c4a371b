//! The state folder: the only thing that the authority keeps between runs.
//!
//! Files have the names of Istio's `cacerts` secret, so that a user's own authority is put in place by copying four
//! files. The folder is made with mode 0700 and private keys with 0600; a file is replaced whole or not at all, and
//! whoever creates something holds the folder's lock, so several processes may start on one folder at once.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The signing certificate: a root, or an intermediate of the user's.
pub const CA_CERT: &str = "ca-cert.pem";
/// The signing certificate's private key.
pub const CA_KEY: &str = "ca-key.pem";
/// The trust bundle of the mesh: one root or several.
pub const ROOT_CERT: &str = "root-cert.pem";
/// What stands between the signing certificate and a root; absent when the authority signs with its root.
pub const CERT_CHAIN: &str = "cert-chain.pem";
/// The private key that signs workload tokens where no Kubernetes does.
pub const TOKEN_KEY: &str = "token-key.pem";

const LOCK: &str = ".lock";
/// Nothing in the folder is larger; a device or a mistaken path is not read to its end.
const MAX_FILE: u64 = 1 << 20;

/// Why the state folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// A file is larger than anything that belongs there.
    #[error("{} is larger than 1 MiB", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file is not text.
    #[error("{} is not text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
}

/// Whether a file's content may be read by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// Mode 0600.
    Private,
    /// Mode 0644.
    Public,
}

/// A state folder that exists.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// The folder's lock, released when dropped (or when the process ends).
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateDir {
    /// Uses a folder, and makes it (mode 0700) when it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made, or is something else.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StateError> {
        let path = path.into();
        if !path.is_dir() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|source| io_error("create", &path, source))?;
        }
        Ok(Self { path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of one of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A file's text; `None` when there is no such file.
    ///
    /// # Errors
    /// When it is there and cannot be read, is no text or is too large.
    pub fn read(&self, name: &str) -> Result<Option<String>, StateError> {
        use io::Read;
        let path = self.file(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error("open", &path, source)),
        };
        let mut content = Vec::new();
        file.take(MAX_FILE + 1)
            .read_to_end(&mut content)
            .map_err(|source| io_error("read", &path, source))?;
        if content.len() as u64 > MAX_FILE {
            return Err(StateError::TooLarge { path });
        }
        String::from_utf8(content).map(Some).map_err(|_| StateError::NotText { path })
    }

    /// Writes a file so that a reader sees the old content or the new, also after a crash.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, name: &str, content: &str, secrecy: Secrecy) -> Result<(), StateError> {
        let path = self.file(name);
        let temporary = self.file(&format!(".{name}.{}", std::process::id()));
        let mode = match secrecy {
            Secrecy::Private => 0o600,
            Secrecy::Public => 0o644,
        };
        // What an earlier process of the same number left behind when it was killed.
        let _ = fs::remove_file(&temporary);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(content.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| File::open(&self.path)?.sync_all());
        written.map_err(|source| {
            let _ = fs::remove_file(&temporary);
            io_error("write", &path, source)
        })
    }

    /// Waits for the lock that whoever creates files must hold.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let path = self.file(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| io_error("open", &path, source))?;
        file.lock().map_err(|source| io_error("lock", &path, source))?;
        Ok(StateLock { _file: file })
    }

    /// Private files that others than their owner can read, for a warning.
    pub fn exposed_files(&self) -> Vec<PathBuf> {
        [CA_KEY, TOKEN_KEY]
            .into_iter()
            .map(|name| self.file(name))
            .filter(|path| {
                fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
            })
            .collect()
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_folder_and_its_private_files_are_their_owners_alone() {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDir::open(parent.path().join("a/b")).unwrap();
        state.write(CA_KEY, "key", Secrecy::Private).unwrap();
        state.write(ROOT_CERT, "root", Secrecy::Public).unwrap();
        assert_eq!(mode(state.path()), 0o700);
        assert_eq!(mode(&state.file(CA_KEY)), 0o600);
        assert_eq!(mode(&state.file(ROOT_CERT)), 0o644);
        assert_eq!(state.exposed_files(), Vec::<PathBuf>::new());
        fs::set_permissions(state.file(CA_KEY), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(state.exposed_files(), vec![state.file(CA_KEY)]);
    }

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        assert_eq!(state.read(CA_CERT).unwrap(), None);
        state.write(CA_CERT, "one", Secrecy::Public).unwrap();
        state.write(CA_CERT, "two", Secrecy::Public).unwrap();
        assert_eq!(state.read(CA_CERT).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_text_or_too_large_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        fs::write(state.file(CA_CERT), [0xff, 0xfe]).unwrap();
        assert!(matches!(state.read(CA_CERT), Err(StateError::NotText { .. })));
        fs::write(state.file(CA_CERT), vec![b'a'; (1 << 20) + 1]).unwrap();
        assert!(matches!(state.read(CA_CERT), Err(StateError::TooLarge { .. })));
    }
}
