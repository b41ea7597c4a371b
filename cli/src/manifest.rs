//! Manifests that people name on the command line: files, folders, standard input.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::Context;

/// Deeper folders are not looked at.
const MAX_DEPTH: usize = 16;

/// A text with the name that messages give it.
#[derive(Debug)]
pub struct Manifest {
    /// The file's path, or `-`.
    pub name: String,
    /// Its content, or why it has none.
    pub text: Result<String, String>,
}

/// Reads what is named; `-` is standard input, of a folder every `.yaml`, `.yml` and `.json` file at any depth.
///
/// # Errors
/// When something that is named is not there.
pub fn read(names: &[PathBuf]) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for path in names {
        if path.as_os_str() == "-" {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes).context("standard input")?;
            manifests.push(manifest("-".into(), Ok(bytes)));
            continue;
        }
        let metadata = fs::metadata(path).with_context(|| path.display().to_string())?;
        let mut files = Vec::new();
        if metadata.is_dir() {
            walk(path, MAX_DEPTH, &mut files).with_context(|| path.display().to_string())?;
        } else {
            files.push(path.clone());
        }
        files.sort();
        manifests
            .extend(files.iter().map(|file| manifest(file.display().to_string(), fs::read(file))));
    }
    Ok(manifests)
}

fn manifest(name: String, bytes: io::Result<Vec<u8>>) -> Manifest {
    let text = bytes
        .map_err(|error| format!("cannot be read: {error}"))
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "not text".to_owned()));
    Manifest { name, text }
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let known = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if hidden {
            continue;
        }
        if path.is_dir() {
            if depth > 0 {
                walk(&path, depth - 1, files)?;
            }
        } else if known {
            files.push(path);
        }
    }
    Ok(())
}
