//! Rights: the operator's, rule by rule as the chart grants them, and, before an installation, those of who installs.

use futures_util::{StreamExt, stream};
use k8s_openapi::api::{
    authorization::v1::{
        ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
        SubjectAccessReview, SubjectAccessReviewSpec,
    },
    rbac::v1::PolicyRule,
};
use kube::{Api, api::PostParams};

use super::{
    facts::{Facts, Fetched},
    report::Section,
};
use crate::{
    chart,
    kubernetes::{self, Cluster},
    names::OPERATOR,
};

/// Reviews that are under way at once.
const AT_ONCE: usize = 8;

/// What an installation creates, with the namespace's kinds last.
const INSTALLATION: [(&str, &str, bool); 13] = [
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", false),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", false),
    ("", "namespaces", false),
    ("", "serviceaccounts", true),
    ("", "services", true),
    ("", "configmaps", true),
    ("", "secrets", true),
    ("apps", "deployments", true),
    ("rbac.authorization.k8s.io", "roles", true),
    ("rbac.authorization.k8s.io", "rolebindings", true),
];

/// One thing that somebody must be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// The verb.
    pub verb: String,
    /// The API group, empty for the core's.
    pub group: String,
    /// The resource, with its subresource after a slash.
    pub resource: String,
    /// The only object that it is for.
    pub name: Option<String>,
    /// The only namespace that it is for.
    pub namespace: Option<String>,
}

impl Right {
    fn attributes(&self) -> ResourceAttributes {
        let (resource, subresource) = match self.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (self.resource.as_str(), None),
        };
        ResourceAttributes {
            group: Some(self.group.clone()),
            resource: Some(resource.to_owned()),
            subresource,
            verb: Some(self.verb.clone()),
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            ..Default::default()
        }
    }

    /// `list virtualservices.networking.istio.io`.
    fn describe(&self) -> String {
        let dot = if self.group.is_empty() { "" } else { "." };
        let name = self.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
        let place = self.namespace.as_deref().map(|ns| format!(" in {ns}")).unwrap_or_default();
        format!("{} {}{dot}{}{name}{place}", self.verb, self.resource, self.group)
    }

    fn rule(&self) -> String {
        let names = self.name.as_deref().map(|name| format!(", resourceNames: [{name}]"));
        format!(
            "{{apiGroups: [\"{}\"], resources: [{}]{}, verbs: [{}]}}",
            self.group,
            self.resource,
            names.unwrap_or_default(),
            self.verb
        )
    }
}

/// Asks the API server about each right.
///
/// # Errors
/// Never, as long as the chart's rules can be read.
pub async fn fetch(
    cluster: &Cluster,
    installed: bool,
) -> anyhow::Result<Vec<(Right, Fetched<bool>)>> {
    let rights = if installed {
        let mut rights = expand(&chart::cluster_rules()?, None);
        rights.extend(expand(&chart::own_rules()?, Some(&cluster.namespace)));
        rights
    } else {
        INSTALLATION.iter().map(|right| to_install(*right, &cluster.namespace)).collect()
    };
    let reviews = stream::iter(rights).map(|right| async move {
        let allowed = if installed {
            of_operator(cluster, &right).await
        } else {
            of_caller(cluster, &right).await
        };
        (right, allowed)
    });
    Ok(reviews.buffered(AT_ONCE).collect().await)
}

/// Judges them.
pub fn judge(facts: &Facts, installed: bool) -> Section {
    let mut section = Section::new("Rights");
    let mut unknown = None;
    for (right, allowed) in &facts.rights {
        match allowed {
            Ok(true) => {}
            Ok(false) if installed => {
                let role = if right.namespace.is_some() { "Role" } else { "ClusterRole" };
                section.error(
                    format!("the operator may not {}", right.describe()),
                    format!("add to the {role} {OPERATOR}: {}", right.rule()),
                );
            }
            Ok(false) => section.error(
                format!("you may not {}, which an installation does", right.describe()),
                "install as somebody who may",
            ),
            Err(reason) => unknown = Some(reason),
        }
    }
    if let Some(reason) = unknown {
        section.note(format!("not all rights are checked: {reason}"));
    } else if section.is_fine() && !facts.rights.is_empty() {
        let whose = if installed { "the operator has" } else { "you have" };
        section.fine(format!("{whose} all {} that are needed", facts.rights.len()));
    }
    section
}

/// The single rights of rules.
pub fn expand(rules: &[PolicyRule], namespace: Option<&str>) -> Vec<Right> {
    let mut rights = Vec::new();
    for rule in rules {
        let names: Vec<Option<String>> = match rule.resource_names.as_deref() {
            None | Some([]) => vec![None],
            Some(names) => names.iter().cloned().map(Some).collect(),
        };
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for name in &names {
                    rights.extend(rule.verbs.iter().map(|verb| Right {
                        verb: verb.clone(),
                        group: group.clone(),
                        resource: resource.clone(),
                        name: name.clone(),
                        namespace: namespace.map(str::to_owned),
                    }));
                }
            }
        }
    }
    rights
}

fn to_install((group, resource, namespaced): (&str, &str, bool), namespace: &str) -> Right {
    Right {
        verb: "create".into(),
        group: group.into(),
        resource: resource.into(),
        name: None,
        namespace: namespaced.then(|| namespace.to_owned()),
    }
}

async fn of_operator(cluster: &Cluster, right: &Right) -> Fetched<bool> {
    let account = format!("system:serviceaccount:{}:{OPERATOR}", cluster.namespace);
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(account),
            groups: Some(vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{}", cluster.namespace),
                "system:authenticated".into(),
            ]),
            resource_attributes: Some(right.attributes()),
            ..Default::default()
        },
        ..Default::default()
    };
    let api: Api<SubjectAccessReview> = cluster.all();
    let answer = api.create(&PostParams::default(), &review).await;
    let answer =
        answer.map_err(|error| kubernetes::explain("subjectaccessreviews", error).to_string())?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

async fn of_caller(cluster: &Cluster, right: &Right) -> Fetched<bool> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(right.attributes()),
            ..Default::default()
        },
        ..Default::default()
    };
    let api: Api<SelfSubjectAccessReview> = cluster.all();
    let answer = api.create(&PostParams::default(), &review).await;
    let answer = answer
        .map_err(|error| kubernetes::explain("selfsubjectaccessreviews", error).to_string())?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
