//! HTTP/2 from clients, judged by h2spec in its strict mode, with and without TLS.
//!
//! h2spec is a Go program: where Go is not installed, or h2spec's sources cannot be had, the test says so and passes.
// Helpers of tests are tests too, which clippy cannot know. Who is skipped says so.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, bail};
use weft_e2e::{
    cluster::{folder, go},
    edge::Edge,
    programs::repository,
};

/// All cases of h2spec 2.2.1, the strict one among them.
const CASES: &str = "146 tests, 146 passed, 0 skipped, 0 failed";

/// For each case; only what fails waits so long.
const SECONDS: &str = "30";

/// Builds h2spec once, from the versions in `e2e/h2spec/go.mod`; says why that cannot be.
fn h2spec() -> Result<PathBuf, String> {
    let go = go::installed()?;
    let home = folder::cache().map_err(|error| error.to_string())?.join("h2spec-2.2.1");
    let output = Command::new(go)
        .args(["install", "tool"])
        .env("GOBIN", &home)
        .env("GOFLAGS", "-mod=readonly")
        .env_remove("GOWORK")
        .current_dir(repository().join("e2e/h2spec"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let program = home.join("h2spec");
    if output.status.success() || program.is_file() {
        Ok(program)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

fn judge(h2spec: &Path, address: SocketAddr, options: &[&str]) -> anyhow::Result<()> {
    let Output { status, stdout, stderr } = Command::new(h2spec)
        .args(["--strict", "--timeout", SECONDS])
        .args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()])
        .args(options)
        .stdin(Stdio::null())
        .output()
        .context("h2spec cannot be run")?;
    let text = String::from_utf8_lossy(&stdout);
    if status.success() && text.contains(CASES) {
        return Ok(());
    }
    let failures = text.split_once("Failures:").map_or(&*text, |(_, failures)| failures);
    bail!("{address} {options:?}: {failures}{}", String::from_utf8_lossy(&stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_of_h2spec_passes() {
    let h2spec = match tokio::task::spawn_blocking(h2spec).await.unwrap() {
        Ok(h2spec) => h2spec,
        Err(reason) => {
            eprintln!("SKIPPED: h2spec is not to be had: {reason}");
            return;
        }
    };
    let edge = Edge::start("").await.unwrap();
    let (http2, tls) = (edge.http2, edge.tls);
    tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
        judge(&h2spec, http2, &[])?;
        judge(&h2spec, tls, &["--tls", "--insecure"])
    })
    .await
    .unwrap()
    .with_context(|| edge.log())
    .unwrap();
}
