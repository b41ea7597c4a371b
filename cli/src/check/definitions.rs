//! Definitions of our kinds: there, ours or known to be another's, and serving the version that the operator reads.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use weft_crds::Kind;

use super::{facts::Facts, report::Section};
use crate::names::PART_OF;

/// Judges them.
pub fn judge(facts: &Facts, installed: bool) -> Section {
    let mut section = Section::new("Definitions");
    let mut ours = 0;
    for kind in Kind::ALL {
        let name = format!("{}.{}", kind.plural(), kind.group());
        match facts.definitions.get(&name) {
            None => {}
            Some(Err(reason)) => section.note(format!("{name} is not checked: {reason}")),
            Some(Ok(None)) if installed => section.error(
                format!("{name} is missing: the chart is half installed"),
                "weft install (with crds.install=true, its default)",
            ),
            Some(Ok(None)) => {}
            Some(Ok(Some(definition))) => match owner(definition) {
                None => {
                    ours += 1;
                    served(&mut section, kind, &name, definition);
                }
                Some(owner) => {
                    foreign(&mut section, &name, &owner, installed);
                    served(&mut section, kind, &name, definition);
                }
            },
        }
    }
    if ours > 0 && section.is_fine() {
        section.fine(format!("{ours} of {} are Weft's", Kind::ALL.len()));
    }
    section
}

/// Whose the definition is when it is not ours.
fn owner(definition: &CustomResourceDefinition) -> Option<String> {
    let labels = definition.labels();
    if labels.get(PART_OF.0).is_some_and(|value| value == PART_OF.1) {
        return None;
    }
    let annotations = definition.annotations();
    let release = annotations.get("meta.helm.sh/release-name");
    let namespace = annotations.get("meta.helm.sh/release-namespace");
    Some(match (release, namespace) {
        (Some(release), Some(namespace)) => format!("the Helm release {namespace}/{release}"),
        _ if labels.contains_key("istio.io/rev")
            || labels.get("app").is_some_and(|app| app.starts_with("istio")) =>
        {
            "Istio".into()
        }
        _ => "somebody else".into(),
    })
}

fn foreign(section: &mut Section, name: &str, owner: &str, installed: bool) {
    if installed {
        section.warning(
            format!("{name} belongs to {owner}: Weft uses it and does not keep it up to date"),
            "to hand it over: weft install --set crds.install=true after the other owner let go of it",
        );
    } else {
        section.error(
            format!("{name} belongs to {owner}: Helm will refuse to install over it"),
            "leave it to its owner: weft install --set crds.install=false",
        );
    }
}

fn served(section: &mut Section, kind: Kind, name: &str, definition: &CustomResourceDefinition) {
    let wanted = kind.versions().first().copied().unwrap_or("v1");
    let version = definition.spec.versions.iter().find(|v| v.name == wanted && v.served);
    match version {
        None => section.error(
            format!("{name} does not serve the version {wanted}, which Weft reads"),
            "bring the definition up to date",
        ),
        Some(version) if version.subresources.as_ref().is_none_or(|s| s.status.is_none()) => {
            section.warning(
                format!("{name} has no status: Weft cannot say there what becomes of a resource"),
                "bring the definition up to date",
            );
        }
        Some(_) => {}
    }
}
