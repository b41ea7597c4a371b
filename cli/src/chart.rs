//! The Helm chart, carried in the program: what `weft install` installs is what this `weft` checks.

use std::{fs, path::Path};

use anyhow::Context;
use k8s_openapi::api::rbac::v1::PolicyRule;
use weft_crds::{Kind, chart_template};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../charts/weft/", $name)))),*]
    };
}

/// All but the definitions, which `weft_crds` makes.
const FILES: &[(&str, &str)] = files![
    ".helmignore",
    "Chart.yaml",
    "values.schema.json",
    "values.yaml",
    "templates/NOTES.txt",
    "templates/_helpers.tpl",
    "templates/availability.yaml",
    "templates/cleanup/job.yaml",
    "templates/cleanup/rbac.yaml",
    "templates/clusterrole.yaml",
    "templates/configmap.yaml",
    "templates/deployment.yaml",
    "templates/gateways/availability.yaml",
    "templates/gateways/deployment.yaml",
    "templates/gateways/networkpolicy.yaml",
    "templates/gateways/rbac.yaml",
    "templates/gateways/service.yaml",
    "templates/networkpolicy.yaml",
    "templates/podmonitor.yaml",
    "templates/role.yaml",
    "templates/service.yaml",
    "templates/serviceaccount.yaml",
    "templates/tests/check.yaml",
    "templates/webhooks.yaml",
];

/// Writes the chart to a folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    let definitions = Kind::ALL.map(|kind| {
        let (file, text) = chart_template(kind);
        (format!("templates/crds/{file}"), text)
    });
    let fixed = FILES.iter().map(|(name, text)| (*name, *text));
    for (name, text) in fixed.chain(definitions.iter().map(|(n, t)| (n.as_str(), t.as_str()))) {
        let file = folder.join(name);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        fs::write(&file, text).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// What the operator may do in all namespaces.
///
/// # Errors
/// Never, as long as the chart's rules are plain YAML; a test sees to that.
pub fn cluster_rules() -> anyhow::Result<Vec<PolicyRule>> {
    rules("templates/clusterrole.yaml")
}

/// What the operator may do in its own namespace.
///
/// # Errors
/// Never, as long as the chart's rules are plain YAML; a test sees to that.
pub fn own_rules() -> anyhow::Result<Vec<PolicyRule>> {
    rules("templates/role.yaml")
}

fn rules(name: &str) -> anyhow::Result<Vec<PolicyRule>> {
    let (_, text) = FILES.iter().find(|(file, _)| *file == name).context("no such template")?;
    let rules = text.split_once("\nrules:\n").map(|(_, rest)| rest).context("no rules")?;
    let rules = rules.split_once("\n---").map_or(rules, |(rules, _)| rules);
    serde_saphyr::from_str(rules).with_context(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf};

    use super::*;

    fn chart() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/weft")
    }

    fn files(folder: &Path) -> BTreeMap<String, String> {
        fn walk(folder: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, root, found);
                } else {
                    let name = path.strip_prefix(root).unwrap().display().to_string();
                    found.insert(name, fs::read_to_string(&path).unwrap());
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(folder, folder, &mut found);
        found
    }

    #[test]
    fn the_program_carries_the_whole_chart() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let (written, expected) = (files(folder.path()), files(&chart()));
        assert_eq!(written.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, text) in expected {
            assert!(written[&name] == text, "{name}");
        }
    }

    /// The kinds that a rule names, by group.
    fn kinds(rules: &[PolicyRule], verb: &str, suffix: &str) -> Vec<String> {
        let mut names = Vec::new();
        for rule in rules.iter().filter(|rule| rule.verbs.iter().any(|v| v == verb)) {
            for group in rule.api_groups.iter().flatten().filter(|g| g.ends_with(".istio.io")) {
                let resources = rule.resources.iter().flatten();
                let named = resources.filter_map(|resource| match suffix {
                    "" => (!resource.contains('/')).then_some(resource.as_str()),
                    suffix => resource.strip_suffix(suffix),
                });
                names.extend(named.map(|plural| format!("{plural}.{group}")));
            }
        }
        names.sort();
        names
    }

    #[test]
    fn the_operator_may_read_every_kind_of_ours_and_write_its_status() {
        let mut expected: Vec<String> =
            Kind::ALL.iter().map(|kind| format!("{}.{}", kind.plural(), kind.group())).collect();
        expected.sort();
        let rules = cluster_rules().unwrap();
        for verb in ["get", "list", "watch"] {
            assert_eq!(kinds(&rules, verb, ""), expected, "{verb}");
        }
        assert_eq!(kinds(&rules, "patch", "/status"), expected);
        assert!(!own_rules().unwrap().is_empty());
    }

    #[test]
    fn webhook_and_cleanup_name_every_kind_of_ours() {
        let files = files(&chart());
        for (name, word) in [("webhooks.yaml", "resources: ["), ("cleanup/rbac.yaml", "- ")] {
            let text = &files[&format!("templates/{name}")];
            for kind in Kind::ALL {
                assert!(text.contains(kind.plural()), "{name}: {kind}");
                assert!(text.contains(kind.group()) && text.contains(word));
                if word == "- " {
                    assert!(text.contains(&format!("- {}.{}\n", kind.plural(), kind.group())));
                }
            }
        }
    }

    #[test]
    fn no_rule_is_wider_than_what_it_names() {
        for rule in cluster_rules().unwrap().into_iter().chain(own_rules().unwrap()) {
            let groups = rule.api_groups.unwrap_or_default();
            let resources = rule.resources.unwrap_or_default();
            for text in groups.iter().chain(&resources).chain(&rule.verbs) {
                assert_ne!(text, "*");
            }
            if resources.iter().any(|r| r == "secrets") && rule.verbs.iter().any(|v| v != "create")
            {
                assert!(rule.resource_names.is_some(), "every secret of the namespace");
            }
        }
    }
}
