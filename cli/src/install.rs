//! `weft install` and `weft uninstall`: the chart that this program carries, by `helm`.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};

use crate::{chart, kubernetes::Target};

const RELEASE: &str = "weft";

/// Install the mesh in a cluster, or bring it to this version, with the Helm chart that this program carries.
///
/// Runs `helm`, which must be on the PATH.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weft install
  weft install --set operator.replicas=2 --set meshConfig.accessLogFile=/dev/stdout
  weft install -f values.yaml --dry-run > weft.yaml")]
pub struct Args {
    /// Print the manifests instead; no cluster is needed.
    #[arg(long)]
    dry_run: bool,

    /// A file of values, as in docs/install.md. May be given more than once.
    #[arg(long, short = 'f', value_name = "FILE")]
    values: Vec<PathBuf>,

    /// One value. May be given more than once.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Another chart than the one that this program carries: a folder or an archive.
    #[arg(long, value_name = "PATH")]
    chart: Option<PathBuf>,

    /// Do not wait until the operator is ready.
    #[arg(long)]
    no_wait: bool,

    /// How long to wait.
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    timeout: String,

    #[command(flatten)]
    target: Target,
}

/// Remove the mesh from a cluster.
///
/// Runs `helm uninstall`. What the operator made goes too; resources of the mesh and their definitions stay when there are
/// any. Running pods keep their proxies until they are restarted.
#[derive(Debug, clap::Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    target: Target,
}

/// Installs, or prints what would be.
///
/// # Errors
/// When there is no `helm`, or it fails.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir().context("a folder for the chart")?;
    let chart = match &args.chart {
        Some(path) => path.clone(),
        None => {
            chart::write(folder.path())?;
            folder.path().to_owned()
        }
    };
    let mut helm = Command::new("helm");
    helm.args(subcommand(args)).arg(chart);
    for file in &args.values {
        helm.arg("--values").arg(file);
    }
    for value in &args.set {
        helm.arg("--set").arg(value);
    }
    finish(&mut helm)
}

/// Uninstalls.
///
/// # Errors
/// When there is no `helm`, or it fails.
pub fn uninstall(args: &UninstallArgs) -> anyhow::Result<ExitCode> {
    let mut helm = Command::new("helm");
    helm.args(["uninstall", RELEASE, "--wait"]).args(args.target.helm_arguments());
    finish(&mut helm)
}

fn subcommand(args: &Args) -> Vec<String> {
    if args.dry_run {
        let namespace = &args.target.weft_namespace;
        return ["template", RELEASE, "--namespace", namespace, "--no-hooks"]
            .map(str::to_owned)
            .into();
    }
    let mut arguments: Vec<String> =
        ["upgrade", "--install", RELEASE, "--create-namespace"].map(str::to_owned).into();
    arguments.extend(args.target.helm_arguments());
    if !args.no_wait {
        arguments.extend(["--wait".to_owned(), "--timeout".to_owned(), args.timeout.clone()]);
    }
    arguments
}

fn finish(helm: &mut Command) -> anyhow::Result<ExitCode> {
    let status = match helm.status() {
        Ok(status) => status,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "helm is not on the PATH: install it, or apply what `weft install --dry-run` prints on a machine that has it"
        ),
        Err(error) => return Err(error).context("helm"),
    };
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn helm(line: &[&str]) -> String {
        subcommand(&Line::parse_from(line.iter().copied()).args).join(" ")
    }

    #[test]
    fn the_same_cluster_is_named_to_helm() {
        assert_eq!(
            helm(&["x"]),
            "upgrade --install weft --create-namespace --namespace weft-system --wait --timeout 5m"
        );
        assert_eq!(
            helm(&["x", "--kubeconfig", "k", "--context", "c", "--no-wait"]),
            "upgrade --install weft --create-namespace --namespace weft-system --kubeconfig k --kube-context c"
        );
        assert_eq!(
            helm(&["x", "--dry-run", "--weft-namespace", "mesh"]),
            "template weft --namespace mesh --no-hooks"
        );
    }
}
