//! `weft check`: is the cluster fit for the mesh, and the mesh healthy; if not, why, and what to do.
//!
//! [`facts`] are fetched, then judged: each judgement is a plain function of facts. What may not be read is said and is no
//! error by itself.

mod definitions;
mod facts;
mod injectors;
mod operator;
mod pieces;
mod proxies;
mod report;
mod rights;
mod roots;
mod selector;

use std::process::ExitCode;

use self::{
    facts::Facts,
    report::{Report, Section},
};
use crate::{
    kubernetes::{self, Target},
    output,
};

/// The oldest minor version of Kubernetes 1 that the mesh is made for: native sidecars are on from there.
const OLDEST_MINOR: u32 = 29;

/// Check whether a cluster is fit for the mesh and, where it is installed, whether all of it is well.
///
/// Every finding says what is wrong and what to do. Ends with 1 when something is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weft check                before an installation, after it, and whenever something seems wrong
  weft check --installed    where the mesh must be installed")]
pub struct Args {
    /// That the mesh is not installed is an error.
    #[arg(long)]
    installed: bool,

    #[command(flatten)]
    target: Target,
}

/// Checks and says whether all is well.
///
/// # Errors
/// When the API server does not answer.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let facts = kubernetes::block_on(async {
        let cluster = args.target.connect().await?;
        facts::fetch(&cluster).await
    })?;
    let report = judge(&facts, args.installed);
    output::print(&report.to_string())?;
    Ok(if report.errors() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn judge(facts: &Facts, must_be_installed: bool) -> Report {
    let installed = pieces::any(facts);
    let mut report = Report::default();
    report.add(cluster(facts));
    report.add(definitions::judge(facts, installed));
    report.add(injectors::judge(facts));
    if installed {
        report.add(pieces::judge(facts));
        report.add(operator::judge(facts));
        report.add(roots::judge(facts));
        report.add(proxies::judge(facts));
    } else {
        let mut section = Section::new("Installation");
        let text = format!("Weft is not installed in the namespace {}", facts.namespace);
        let advice = "weft install, or helm install weft charts/weft";
        if must_be_installed {
            section.error(text, advice);
        } else {
            section.note(format!("{text}: {advice}"));
        }
        report.add(section);
    }
    report.add(rights::judge(facts, installed));
    report
}

fn cluster(facts: &Facts) -> Section {
    let mut section = Section::new("Cluster");
    let version = &facts.version;
    let digits = |text: &str| -> Option<u32> {
        text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
    };
    match (digits(&version.major), digits(&version.minor)) {
        (Some(1), Some(minor)) if minor < OLDEST_MINOR => section.error(
            format!("Kubernetes {} is older than 1.{OLDEST_MINOR}", version.git_version),
            "upgrade the cluster",
        ),
        _ => section.fine(format!("Kubernetes {} at {}", version.git_version, facts.server)),
    }
    section
}

#[cfg(test)]
mod tests;
