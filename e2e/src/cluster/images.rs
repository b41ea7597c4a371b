//! Our images as archives, made without Docker from static programs.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};

use super::{
    oci::{self, Layer, Settings},
    packages, say, test_images,
};
use crate::programs::repository;

/// Our images: name, programs in `/usr/local/bin` (the first is started).
const OURS: [(&str, &[&str]); 3] = [
    ("operator", &["weft-operator", "weft"]),
    ("proxy", &["weft-proxy"]),
    ("samples", &["weft-sample"]),
];

/// Where archives are unless somebody says otherwise.
pub fn default_folder() -> PathBuf {
    repository().join("target/images")
}

/// The archives in a folder; none when it is not there.
///
/// # Errors
/// When the folder cannot be read.
pub fn archives(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| folder.display().to_string())?,
    };
    let mut archives: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "tar"))
        .collect();
    archives.sort();
    Ok(archives)
}

/// Makes the images of the operator, the proxy and the samples, and those that tests need.
///
/// # Errors
/// When a program is missing or not static.
pub fn build(programs: &Path, target: &Path) -> anyhow::Result<()> {
    for (name, included) in OURS {
        let mut layer = base()?;
        for program in included {
            let stripped = strip(&programs.join(program), target)?;
            layer.file(&format!("/usr/local/bin/{program}"), 0o755, &stripped)?;
        }
        let settings = Settings {
            entrypoint: vec![format!("/usr/local/bin/{}", included[0])],
            user: oci::USER.into(),
            environment: vec![
                "PATH=/usr/local/bin".into(),
                "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt".into(),
            ],
        };
        report(oci::write(target, &format!("docker.io/weft/{name}:dev"), &settings, layer)?);
    }
    test_images::build(target)
}

/// Says what was written.
#[allow(clippy::cast_precision_loss)]
pub(super) fn report((path, size): (PathBuf, usize)) {
    say(&format!("{} ({:.1} MB compressed)", path.display(), size as f64 / 1e6));
}

/// What every image has: users, a place for temporary files, and the roots that public servers are checked against.
pub(super) fn base() -> anyhow::Result<Layer> {
    let mut layer = Layer::default();
    layer.folder("/tmp", 0o1777)?;
    layer.file("/etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\nweft:x:1337:1337::/:/bin/sh\n")?;
    layer.file("/etc/group", 0o644, b"root:x:0:\nweft:x:1337:\n")?;
    let roots = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if roots.is_file() {
        layer.copy("/etc/ssl/certs/ca-certificates.crt", 0o644, roots)?;
    }
    Ok(layer)
}

/// The program without its symbols, where `strip` is installed.
fn strip(program: &Path, target: &Path) -> anyhow::Result<Vec<u8>> {
    ensure!(program.is_file(), "{} is not built: ./justw programs", program.display());
    let content = fs::read(program).with_context(|| program.display().to_string())?;
    ensure!(
        is_static(&content),
        "{} needs shared libraries, which an image does not have: ./justw programs builds static ones",
        program.display()
    );
    if packages::find("strip").is_none() {
        return Ok(content);
    }
    fs::create_dir_all(target)?;
    let stripped = tempfile::NamedTempFile::new_in(target)?;
    let output = Command::new("strip")
        .arg("-o")
        .arg(stripped.path())
        .arg(program)
        .stdin(Stdio::null())
        .output()
        .context("strip")?;
    if !output.status.success() {
        bail!("strip {}: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(fs::read(stripped.path())?)
}

/// Whether an ELF program names no interpreter (`PT_INTERP`): it then loads no shared library. 64 bits only.
fn is_static(program: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = program.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let headers = || {
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        (0..count).map(|index| number(start + index * size, 4)).collect::<Option<Vec<_>>>()
    };
    program.starts_with(b"\x7fELF")
        && headers().is_some_and(|kinds| kinds.iter().all(|kind| *kind != INTERPRETER as usize))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        let mut program = vec![0; 64 + 2 * 56];
        program[..4].copy_from_slice(b"\x7fELF");
        program[32] = 64;
        program[54] = 56;
        program[56] = 2;
        program[64] = 1;
        program[64 + 56] = 2;
        assert!(is_static(&program));
        program[64 + 56] = 3;
        assert!(!is_static(&program));
        assert!(!is_static(&program[..100]));
        assert!(!is_static(b"#!/bin/sh"));
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_archives() {
        assert!(archives(Path::new("/nowhere")).unwrap().is_empty());
    }
}
