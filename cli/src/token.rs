//! `weft token`: who a workload is, where no Kubernetes says so.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use weft_ca::{state::StateDir, token};

use crate::{duration, output};

/// Make a token with which a workload gets its certificate.
///
/// The token is signed with the key in the operator's state folder (made when there is none), so this runs where that
/// folder is; the operator need not run. A proxy reads its token file again each time that it renews its certificate.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  weft token --state-dir state --namespace default --service-account orders --ttl 720h -o orders.token")]
pub struct Args {
    /// The operator's state folder.
    #[arg(long, env = "WEFT_STATE_DIR", value_name = "DIR")]
    state_dir: PathBuf,

    /// The workload's namespace.
    #[arg(long, short, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,

    /// The workload's service account.
    #[arg(long, short, value_name = "NAME")]
    service_account: String,

    /// How long the token can be used. Certificates that it was exchanged for live on.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration::parse)]
    ttl: Duration,

    /// Where to write the token, with mode 0600. Default: standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Makes the token.
///
/// # Errors
/// When the state folder or the output cannot be used.
pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.ttl >= Duration::from_secs(1), "--ttl must be at least 1s");
    let state = StateDir::open(&args.state_dir)
        .with_context(|| format!("--state-dir {}", args.state_dir.display()))?;
    let token = token::mint(&state, &args.namespace, &args.service_account, args.ttl)?;
    match &args.output {
        None => output::print(&format!("{token}\n")),
        Some(path) => write(path, &token).with_context(|| path.display().to_string()),
    }
}

/// Replaces the file at once: a proxy may read it at any time.
fn write(path: &Path, token: &str) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| writeln!(file, "{token}"))
        .and_then(|()| std::fs::rename(&draft, path));
    if written.is_err() {
        _ = std::fs::remove_file(&draft);
    }
    written
}
