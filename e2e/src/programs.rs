//! Where the programs are: beside the executable that asks, built by `just programs`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The folder of the built programs.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// `WEFT_PROGRAMS`, or the target folder that the running executable is in.
    ///
    /// # Errors
    /// When a program is missing.
    pub fn find() -> anyhow::Result<Self> {
        if let Some(folder) = std::env::var_os("WEFT_PROGRAMS") {
            return Self::in_folder(folder.into());
        }
        let executable = std::env::current_exe().context("the running executable")?;
        let mut folder = executable.parent().context("the running executable's folder")?;
        if folder.ends_with("deps") {
            folder = folder.parent().context("the target folder")?;
        }
        Self::in_folder(folder.to_path_buf())
    }

    /// The programs in this folder.
    ///
    /// # Errors
    /// When a program is missing.
    pub fn in_folder(folder: PathBuf) -> anyhow::Result<Self> {
        for name in ["weft", "weft-operator", "weft-proxy", "weft-sample"] {
            if !folder.join(name).is_file() {
                bail!("{name} is not in {}: run ./justw programs first", folder.display());
            }
        }
        Ok(Self { folder })
    }

    /// A program's path.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// The root of the sources.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A file of `samples/`.
///
/// # Errors
/// When it cannot be read.
pub fn sample(path: &str) -> anyhow::Result<String> {
    let path = repository().join("samples").join(path);
    std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))
}
