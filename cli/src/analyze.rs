//! `weft analyze`: what becomes of the resources of a cluster, and what is wrong with them.
//!
//! The operator's own source, index and conditions, once, over all that the cluster has: what it says is what the operator
//! makes of it. With files it is `weft validate`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;
use weft_core::{credential::SecretNamespaces, mesh::MeshConfig};
use weft_crds::Condition;
use weft_index::Index;
use weft_operator::{
    kubernetes::MESH_CONFIG,
    source::{
        Batch, Event, Severity,
        kubernetes::{self as source, Running},
    },
};
use weft_status::ResourceConditions;

use crate::{
    kubernetes::{self, Target},
    output, validate,
};

/// Reading a large cluster takes a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// Say what is wrong with the mesh's resources, in a cluster or in files.
///
/// Of a cluster, everything is read as the operator reads it, and each resource that is not in effect as it is written gets
/// a line: KIND NAMESPACE/NAME: CONDITION: REASON. Ends with 1 when there was an error: a resource that is not accepted. With
/// files it says what weft validate says.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weft analyze -n shop
  weft analyze --all-namespaces --strict
  weft analyze mesh/ canary.yaml")]
pub struct Args {
    /// Files, folders (.yaml, .yml and .json files at any depth), or - for standard input. The cluster is not asked then.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Resources of this namespace. Default: that of the kubeconfig's context.
    #[arg(long, short, value_name = "NAMESPACE", conflicts_with = "files")]
    namespace: Option<String>,

    /// Resources of all namespaces.
    #[arg(long, short = 'A', conflicts_with_all = ["files", "namespace"])]
    all_namespaces: bool,

    /// Warnings count as errors.
    #[arg(long)]
    strict: bool,

    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    lines: Vec<String>,
    resources: usize,
    errors: usize,
    warnings: usize,
}

/// Analyzes, prints and says whether all is well.
///
/// # Errors
/// When the cluster or a file cannot be read.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if !args.files.is_empty() {
        return validate::files(&args.files, args.strict);
    }
    let (conditions, namespace) = kubernetes::block_on(async {
        let cluster = args.target.connect().await?;
        cluster.version().await?;
        let namespace = match (&args.namespace, args.all_namespaces) {
            (Some(namespace), _) => Some(namespace.clone()),
            (None, true) => None,
            (None, false) => Some(cluster.client.default_namespace().to_owned()),
        };
        Ok((conditions(&cluster).await?, namespace))
    })?;
    let findings = judge(&conditions, namespace.as_deref());
    let mut text: String = findings.lines.iter().map(|line| format!("{line}\n")).collect();
    let place = match &namespace {
        Some(namespace) => format!("namespace {namespace}"),
        None => "all namespaces".into(),
    };
    let Findings { resources, errors, warnings, .. } = findings;
    text.push_str(&format!(
        "{place}: {resources} resources, {errors} errors, {warnings} warnings\n"
    ));
    output::print(&text)?;
    let failed = errors > 0 || (args.strict && warnings > 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What the operator would say of every resource.
async fn conditions(cluster: &kubernetes::Cluster) -> anyhow::Result<Vec<ResourceConditions>> {
    let settings = source::Settings {
        namespace: cluster.namespace.clone(),
        mesh_config: MESH_CONFIG,
        // Whoever analyses need not be allowed to see keys.
        secret_namespaces: SecretNamespaces::Unknown,
    };
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let running = source::follow(&cluster.client, &settings, &stop);
    let batch = first(running).await?;
    let base = MeshConfig {
        root_namespace: cluster.namespace.as_str().into(),
        proxy_http_port: 0,
        ..MeshConfig::default()
    };
    let mut index = Index::new(base)
        .with_mesh_config(&cluster.namespace, MESH_CONFIG)
        .with_secret_namespaces(SecretNamespaces::Unknown);
    for event in batch.events {
        match event {
            Event::Apply(object) => _ = index.apply(object),
            Event::Delete(key) => _ = index.delete(key.kind, &key.namespace, &key.name),
            Event::Invalid { key, generation, problems } => {
                let reference = key.kind.reference(&key.namespace, &key.name);
                index.reject(&reference, key.kind, generation, problems);
            }
        }
    }
    let (snapshot, _) = index.snapshot();
    Ok(weft_status::conditions(&snapshot, index.diagnoses()))
}

/// All that there is; or why it cannot be read.
async fn first(running: Running) -> anyhow::Result<Batch> {
    let Running { mut batches, mut report, .. } = running;
    let refused = async {
        let refused = report.wait_for(|report| {
            report.problems.iter().any(|problem| problem.severity == Severity::Error)
        });
        match refused.await {
            Ok(report) => report
                .problems
                .iter()
                .filter(|problem| problem.severity == Severity::Error)
                .map(|problem| problem.message.as_str())
                .collect::<Vec<_>>()
                .join("; "),
            Err(_) => std::future::pending().await,
        }
    };
    let answer = async {
        tokio::select! {
            biased;
            batch = batches.recv() => batch.context("the cluster cannot be read"),
            reason = refused => bail!("the cluster cannot be read: {reason}"),
        }
    };
    tokio::time::timeout(PATIENCE, answer).await.context("the cluster was not read in time")?
}

fn judge(all: &[ResourceConditions], namespace: Option<&str>) -> Findings {
    let mut findings = Findings::default();
    let wanted =
        all.iter().filter(|each| namespace.is_none_or(|name| *each.reference.namespace == *name));
    for ResourceConditions { reference, conditions, .. } in wanted {
        findings.resources += 1;
        for condition in conditions {
            let Condition { type_, status, reason, message, .. } = condition;
            let text = match (type_.as_str(), status.as_str()) {
                ("Accepted", "False") => {
                    findings.errors += 1;
                    format!("{reference}: error: {message}")
                }
                // A resource that is not accepted was spoken of.
                (_, "False") if reason == "NotAccepted" => continue,
                ("Warnings", "True") => {
                    findings.warnings += 1;
                    format!("{reference}: warning: {message}")
                }
                (_, "False") => {
                    findings.warnings += 1;
                    format!("{reference}: warning: {type_} is false, {reason}: {message}")
                }
                _ => continue,
            };
            findings.lines.push(text);
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Condition {
        Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            ..Condition::default()
        }
    }

    fn resource(namespace: &str, name: &str, conditions: Vec<Condition>) -> ResourceConditions {
        let kind = weft_index::Kind::Mesh(weft_crds::Kind::VirtualService);
        let reference = kind.reference(namespace, name);
        ResourceConditions { reference, observed_generation: 1, conditions }
    }

    #[test]
    fn only_what_is_not_as_it_should_be_gets_a_line_and_only_refusals_are_errors() {
        let all = [
            resource("shop", "fine", vec![condition("Accepted", "True", "Accepted", "valid")]),
            resource(
                "shop",
                "bad",
                vec![
                    condition("Accepted", "False", "Invalid", "spec.hosts: is required"),
                    condition("InEffect", "False", "NotAccepted", "never accepted"),
                ],
            ),
            resource(
                "shop",
                "odd",
                vec![
                    condition("Accepted", "True", "Accepted", "valid"),
                    condition("ResolvedRefs", "False", "DestinationNotFound", "no host x"),
                    condition("Warnings", "True", "Warnings", "a is ignored"),
                ],
            ),
            resource("other", "bad", vec![condition("Accepted", "False", "Invalid", "no")]),
        ];
        let findings = judge(&all, Some("shop"));
        assert_eq!(
            findings.lines,
            [
                "VirtualService shop/bad: error: spec.hosts: is required",
                "VirtualService shop/odd: warning: ResolvedRefs is false, DestinationNotFound: no host x",
                "VirtualService shop/odd: warning: a is ignored",
            ]
        );
        assert_eq!((findings.resources, findings.errors, findings.warnings), (3, 1, 2));
        assert_eq!(judge(&all, None).errors, 2);
    }
}
