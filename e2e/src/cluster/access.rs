//! Files for `KUBECONFIG`, and what a shell evaluates to use the cluster.

use std::{fs, path::Path};

use anyhow::Context;
use serde_json::json;

use super::{certificates::pair, folder::Folder};

/// The API server as the node's own programs call it.
pub const INSIDE: &str = "https://127.0.0.1:6443";

/// A kubeconfig for one user, with its certificate in it.
///
/// # Errors
/// When the certificate cannot be read.
pub fn kubeconfig(
    folder: &Folder,
    user: &str,
    server: &str,
    authority: &str,
) -> anyhow::Result<String> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let pair = pair(folder, user);
    let read = |path: &Path| -> anyhow::Result<String> {
        Ok(BASE64_STANDARD.encode(fs::read(path).with_context(|| path.display().to_string())?))
    };
    let name = format!("weft-{}", folder.name());
    // JSON is YAML, and no client cares.
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{ "name": name, "cluster": {
            "server": server,
            "certificate-authority-data": BASE64_STANDARD.encode(authority),
        }}],
        "users": [{ "name": name, "user": {
            "client-certificate-data": read(&pair.certificate)?,
            "client-key-data": read(&pair.key)?,
        }}],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
    });
    Ok(serde_json::to_string_pretty(&config)? + "\n")
}

/// The lines to evaluate: `eval "$(./justw cluster up)"`.
pub fn exports(kubeconfig: &Path, programs: &[&Path]) -> String {
    let folders: Vec<_> =
        programs.iter().map(|folder| quoted(&folder.display().to_string())).collect();
    format!(
        "export KUBECONFIG={}\nexport PATH={}:\"$PATH\"\n",
        quoted(&kubeconfig.display().to_string()),
        folders.join(":")
    )
}

/// For a shell, whatever is in it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_safe_to_evaluate() {
        let lines = exports(Path::new("/a b/it's"), &[Path::new("/c"), Path::new("/d")]);
        assert_eq!(lines, "export KUBECONFIG='/a b/it'\\''s'\nexport PATH=/c:/d:\"$PATH\"\n");
    }
}
