//! Images that only tests need, made of Debian's packages: a shell, and a database whose server speaks first.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use super::{
    images::{base, report},
    oci::{self, Layer, Settings},
    packages, say,
};

const PACKAGES: [(&str, &str); 3] = [
    ("busybox", "busybox-static"),
    ("mariadbd", "mariadb-server-core"),
    ("mariadb", "mariadb-client-core"),
];

/// Anybody from anywhere: what is tested is how the protocol passes the mesh.
const ACCOUNTS: &str = "\
CREATE DATABASE IF NOT EXISTS weft;
CREATE USER IF NOT EXISTS 'weft'@'%' IDENTIFIED BY 'weft';
GRANT ALL ON weft.* TO 'weft'@'%';
";

const SERVER: [&str; 10] = [
    "/usr/sbin/mariadbd",
    "--no-defaults",
    "--user=root",
    "--datadir=/var/lib/mysql",
    "--socket=/tmp/mariadb.sock",
    "--init-file=/etc/accounts.sql",
    "--innodb-log-file-size=4M",
    "--innodb-buffer-pool-size=16M",
    "--performance-schema=OFF",
    "--skip-name-resolve",
];

/// Makes `test-shell` and `test-mariadb`; says so and makes none where their packages are not and cannot come.
///
/// # Errors
/// With apt's own words, or when a file cannot be read.
pub fn build(target: &Path) -> anyhow::Result<()> {
    let missing = packages::missing_of(&PACKAGES);
    if !missing.is_empty() && !packages::installable() {
        say(&format!(
            "SKIPPED: the images that only tests need; missing packages: {}",
            missing.join(" ")
        ));
        return Ok(());
    }
    packages::install(&missing)?;
    let environment = vec!["PATH=/bin:/usr/bin:/usr/sbin".to_owned()];
    let settings = Settings { environment, ..Settings::default() };
    report(oci::write(target, "docker.io/weft/test-shell:dev", &settings, shell()?)?);
    let settings = Settings { entrypoint: SERVER.map(str::to_owned).to_vec(), ..settings };
    report(oci::write(target, "docker.io/weft/test-mariadb:dev", &settings, database()?)?);
    Ok(())
}

fn found(program: &str) -> anyhow::Result<PathBuf> {
    packages::find(program).with_context(|| format!("{program} is missing"))
}

/// `sh`, `wget`, `nc` and the like: one static program under many names.
fn shell() -> anyhow::Result<Layer> {
    let busybox = found("busybox")?;
    let output = Command::new(&busybox).arg("--list").stdin(Stdio::null()).output()?;
    let mut layer = base()?;
    layer.copy("/bin/busybox", 0o755, &busybox)?;
    for applet in String::from_utf8_lossy(&output.stdout).lines() {
        if applet != "busybox" {
            layer.link(&format!("/bin/{applet}"), "busybox")?;
        }
    }
    Ok(layer)
}

/// MariaDB's server with an empty database, its client, and the shell.
fn database() -> anyhow::Result<Layer> {
    let mut layer = shell()?;
    let programs = [("/usr/sbin/mariadbd", "mariadbd"), ("/usr/bin/mariadb", "mariadb")];
    let mut libraries = BTreeSet::new();
    for (path, program) in programs {
        let source = found(program)?;
        layer.copy(path, 0o755, &source)?;
        libraries.extend(shared_libraries(&source)?);
    }
    for library in libraries {
        layer.copy(&library, 0o755, Path::new(&library))?;
    }
    copy_tree(&mut layer, Path::new("/usr/share/mysql"), "/usr/share/mysql", &[])?;
    layer.file("/etc/accounts.sql", 0o644, ACCOUNTS.as_bytes())?;
    let data = tempfile::tempdir()?;
    let output = Command::new(found("mariadb-install-db")?)
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .args(["--user=root", "--innodb-log-file-size=4M"])
        .arg(format!("--datadir={}", data.path().display()))
        .stdin(Stdio::null())
        .output()
        .context("mariadb-install-db")?;
    if !output.status.success() {
        bail!("mariadb-install-db: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    // Logs of the machine that made the image.
    copy_tree(&mut layer, data.path(), "/var/lib/mysql", &["undo", "err", "pid"])?;
    Ok(layer)
}

/// The libraries that the loader would load, as absolute paths.
fn shared_libraries(program: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).stdin(Stdio::null()).output().context("ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        bail!("{}: {}", program.display(), line.trim());
    }
    Ok(paths_of_libraries(&text))
}

fn paths_of_libraries(ldd: &str) -> Vec<String> {
    let words =
        ldd.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(str::to_owned).collect()
}

/// A folder with all that is in it, but for files with these extensions.
fn copy_tree(
    layer: &mut Layer,
    source: &Path,
    target: &str,
    without: &[&str],
) -> anyhow::Result<()> {
    layer.folder(target, 0o755)?;
    let mut entries: Vec<_> = fs::read_dir(source)
        .with_context(|| source.display().to_string())?
        .collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let inside = format!("{target}/{}", entry.file_name().display());
        let extension = path.extension().unwrap_or_default().display().to_string();
        if path.is_dir() {
            copy_tree(layer, &path, &inside, without)?;
        } else if path.is_file() && !without.contains(&extension.as_str()) {
            layer.copy(&inside, 0o644, &path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_paths_that_the_loader_says() {
        let text =
            "\tlinux-vdso.so.1 (0x1)\n\tlibm.so.6 => /lib/libm.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n";
        assert_eq!(paths_of_libraries(text), ["/lib/libm.so.6", "/lib64/ld.so"]);
    }
}
