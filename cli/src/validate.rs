//! `weft validate`: what is wrong with manifests before they are applied.

mod together;

use std::{path::PathBuf, process::ExitCode};

use weft_crds::{AnyResource, FieldError, ParseError, Parsed, parse_text, validate};
use weft_index::Object;
use weft_operator::source::object::{self, Understood};

use self::together::Together;

use crate::{
    manifest::{self, Manifest},
    output,
};

/// Check manifests before they are applied.
///
/// Prints a line for each finding, FILE: KIND NAMESPACE/NAME: FIELD: REASON, and ends with 1 when there was an error. A
/// warning speaks of something that is accepted and probably not meant. What is given is also checked together: subsets
/// that no rule defines, routes for the same host, and, when services are given, hosts that do not exist.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weft validate mesh/
  weft validate canary.yaml gateway.yaml
  kubectl get virtualservices -A -o yaml | weft validate -")]
pub struct Args {
    /// Files, folders (.yaml, .yml and .json files at any depth), or - for standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Warnings count as errors.
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Default)]
struct Findings {
    lines: Vec<String>,
    errors: usize,
    warnings: usize,
    resources: usize,
}

impl Findings {
    fn error(&mut self, file: &str, text: &str) {
        self.errors += 1;
        self.lines.push(format!("{file}: {text}"));
    }

    fn warning(&mut self, file: &str, text: &str) {
        self.warnings += 1;
        self.lines.push(format!("{file}: warning: {text}"));
    }
}

/// Checks, prints and says whether all is well.
///
/// # Errors
/// When a file that was named is not there.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    files(&args.files, args.strict)
}

/// Checks what is named, prints and says whether all is well.
///
/// # Errors
/// When a file that was named is not there.
pub fn files(names: &[PathBuf], strict: bool) -> anyhow::Result<ExitCode> {
    let manifests = manifest::read(names)?;
    let findings = check(&manifests);
    let mut text: String = findings.lines.iter().map(|line| format!("{line}\n")).collect();
    text.push_str(&summary(&findings, manifests.len()));
    output::print(&text)?;
    let failed = findings.errors > 0 || (strict && findings.warnings > 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn summary(findings: &Findings, files: usize) -> String {
    let count = |number: usize, what: &str| {
        format!("{number} {what}{}", if number == 1 { "" } else { "s" })
    };
    format!(
        "{}, {}: {}, {}\n",
        count(files, "file"),
        count(findings.resources, "resource"),
        count(findings.errors, "error"),
        count(findings.warnings, "warning")
    )
}

fn check(manifests: &[Manifest]) -> Findings {
    let mut findings = Findings::default();
    let mut together = Together::default();
    for Manifest { name, text } in manifests {
        match text {
            Err(reason) => findings.error(name, reason),
            Ok(text) => {
                for parsed in parse_text(text) {
                    findings.resources += 1;
                    if let Some(object) = check_document(name, parsed, &mut findings) {
                        together.add(name, object);
                    }
                }
            }
        }
    }
    for (file, warning) in together.warnings() {
        findings.warning(&file, &warning);
    }
    findings
}

/// Checks a document by itself, and gives what the mesh reads of it.
fn check_document(
    file: &str,
    parsed: Result<Parsed, ParseError>,
    findings: &mut Findings,
) -> Option<Object> {
    match parsed {
        Ok(Parsed::Ours(resource)) => {
            let valid = check_resource(file, &resource, findings);
            return valid.then_some(Object::Mesh(resource));
        }
        Ok(Parsed::Other(document)) => {
            let kind = format!("{} {}", document.api_version, document.kind);
            match object::read(document) {
                Ok(Understood::Object(object)) => return Some(object),
                Ok(Understood::Unused { expected: false }) => {}
                Ok(Understood::Unused { expected: true }) => {
                    findings.warning(file, &format!("{kind}: Weft does not know this kind"));
                }
                Err(reason) => findings.error(file, &reason),
            }
        }
        Err(error) => match error.kind() {
            Some(kind) => {
                let (namespace, name) =
                    (error.namespace().unwrap_or_default(), error.name().unwrap_or("(no name)"));
                for problem in error.problems() {
                    findings.error(file, &format!("{kind} {namespace}/{name}: {problem}"));
                }
            }
            None => findings.error(file, &error.to_string()),
        },
    }
    None
}

/// Whether the resource is valid.
fn check_resource(file: &str, resource: &AnyResource, findings: &mut Findings) -> bool {
    let label = format!("{} {}/{}", resource.kind(), resource.namespace(), resource.name());
    let line = |problem: &FieldError| format!("{label}: {problem}");
    let validation = validate(resource);
    for problem in &validation.errors {
        findings.error(file, &line(problem));
    }
    for problem in &validation.warnings {
        findings.warning(file, &line(problem));
    }
    validation.is_valid()
}
