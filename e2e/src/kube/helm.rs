//! The mesh's installation, by Helm as users do it.

use std::{process::Command, time::Instant};

use ::kube::Api;
use anyhow::{Context, bail, ensure};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration, apps::v1::Deployment,
};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::{Cluster, SYSTEM, until};
use crate::programs::repository;

/// The release.
pub const RELEASE: &str = "weft";

/// Runs Helm and returns what it wrote.
///
/// # Errors
/// When it is not there or fails; the message has what it said.
pub fn helm(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("helm").args(arguments).output();
    let output =
        output.context("helm cannot be run (./justw cluster env says which PATH has it)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("helm {}: {}", arguments.join(" "), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `helm upgrade --install` of the chart with these arguments besides, and waits until it is ready.
///
/// # Errors
/// What Helm says.
pub fn install(more: &[&str]) -> anyhow::Result<()> {
    let chart = repository().join("charts/weft").display().to_string();
    let mut arguments = vec!["upgrade", "--install", RELEASE, &chart];
    arguments.extend(["--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "5m"]);
    arguments.extend(more);
    helm(&arguments).map(drop)
}

/// The release's status, such as `deployed`; "" when there is none.
pub fn status() -> String {
    let status = helm(&["status", RELEASE, "--namespace", SYSTEM, "--output", "json"]);
    let status: Option<Value> = status.ok().and_then(|text| serde_json::from_str(&text).ok());
    let status = status.as_ref().and_then(|status| status.pointer("/info/status")?.as_str());
    status.unwrap_or_default().to_owned()
}

/// Installs the mesh where it is not, once a process, and waits until it takes pods.
///
/// # Errors
/// When it does not become ready.
pub async fn ensure_installed(cluster: &Cluster) -> anyhow::Result<()> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let installed = INSTALLED.get_or_try_init(async || {
        if status() != "deployed" {
            let start = Instant::now();
            tokio::task::spawn_blocking(|| install(&[])).await??;
            #[allow(clippy::print_stderr)] // A figure that people ask for, in the test's output.
            {
                eprintln!("MEASURED helm install to ready: {:.1} s", start.elapsed().as_secs_f64());
            }
        }
        takes_pods(cluster).await
    });
    installed.await?;
    Ok(())
}

/// Waits until the operator is available and its webhook is trusted.
///
/// # Errors
/// When that takes too long.
pub async fn takes_pods(cluster: &Cluster) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = cluster.api(SYSTEM);
    let webhooks: Api<MutatingWebhookConfiguration> = cluster.cluster_api();
    until("the mesh should be installed", async || {
        let operator = deployments.get("weft-operator").await?;
        let available = operator.status.and_then(|status| status.available_replicas);
        ensure!(available.unwrap_or_default() > 0, "the operator is not available");
        let webhook = webhooks.get("weft-sidecar-injector").await?;
        let entries = webhook.webhooks.unwrap_or_default();
        let trusted = |bundle: &k8s_openapi::ByteString| !bundle.0.is_empty();
        ensure!(!entries.is_empty(), "the injector has no webhooks");
        for entry in entries {
            let bundle = entry.client_config.ca_bundle;
            ensure!(bundle.as_ref().is_some_and(trusted), "{} has no CA bundle", entry.name);
        }
        Ok(())
    })
    .await
}
