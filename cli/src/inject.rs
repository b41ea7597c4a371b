//! `weft inject`: what the webhook does to pods, done to manifests.

mod config;
mod documents;

use std::{path::PathBuf, process::ExitCode};

use weft_webhook::{InjectConfig, inject_document};

use crate::{
    manifest::{self, Manifest},
    output,
};

/// Add the proxy to the pods of manifests.
///
/// Writes the manifests with the proxy in every Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController,
/// Job and CronJob, also in lists; everything else passes as it is, comments and all. For namespaces that the webhook does not
/// serve, and to see what it would do. Settings are the chart's defaults; those of a mesh:
/// kubectl -n weft-system get configmap weft -o jsonpath='{.data.values}' > values.json
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weft inject -f shop.yaml | kubectl apply -f -
  kubectl get deployment orders -o yaml | weft inject -f - | kubectl apply -f -
  weft inject -f shop.yaml --values values.json --set logLevel=debug --set resources.requests.cpu=50m")]
pub struct Args {
    /// Files, folders (.yaml, .yml and .json files at any depth), or - for standard input.
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Namespace of what does not name its own.
    #[arg(short, long, default_value = weft_crds::DEFAULT_NAMESPACE, value_name = "NS")]
    namespace: String,

    /// File with the injector's settings, YAML or JSON: the key `values` of the ConfigMap `weft`.
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,

    /// One of the injector's settings, over those of --values; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// File with the mesh's configuration: the key `mesh` of the ConfigMap `weft`.
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
}

/// Writes the manifests, or says what is wrong with them.
///
/// # Errors
/// When a file that was named is not there, or the settings cannot be used.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = config::read(args.values.as_deref(), &args.set, args.mesh_config.as_deref())?;
    let manifests = manifest::read(&args.files)?;
    let (mut documents, mut problems, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    for manifest in &manifests {
        match inject(manifest, &args.namespace, &config) {
            Ok(injected) => {
                documents.extend(injected.documents);
                warnings.extend(injected.warnings);
            }
            Err(reasons) => problems.extend(reasons),
        }
    }
    for warning in &warnings {
        output::error(&format!("warning: {warning}"));
    }
    if problems.is_empty() {
        output::print(&documents::join(&documents))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Nothing is written then: a part of it would be applied.
    for problem in &problems {
        output::error(&format!("error: {problem}"));
    }
    Ok(ExitCode::FAILURE)
}

struct Injected {
    documents: Vec<String>,
    warnings: Vec<String>,
}

fn inject(
    manifest: &Manifest,
    namespace: &str,
    config: &InjectConfig,
) -> Result<Injected, Vec<String>> {
    let Manifest { name, text } = manifest;
    let text = text.as_ref().map_err(|reason| vec![format!("{name}: {reason}")])?;
    let mut injected = Injected { documents: Vec::new(), warnings: Vec::new() };
    let mut problems = Vec::new();
    for raw in documents::split(text) {
        let done = documents::parse(raw)
            .and_then(|document| inject_document(document, Some(namespace), config));
        match done {
            Ok(done) => {
                injected
                    .warnings
                    .extend(done.warnings.iter().map(|text| format!("{name}: {text}")));
                injected.documents.push(if done.changed {
                    documents::write(&done.value)
                        .map_err(|reason| vec![format!("{name}: {reason}")])?
                } else {
                    raw.to_owned()
                });
            }
            Err(reason) => problems.push(format!("{name}: {reason}")),
        }
    }
    if problems.is_empty() { Ok(injected) } else { Err(problems) }
}
