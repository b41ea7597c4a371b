//! The pieces of the chart: all there, or none.

use std::fmt::Debug;

use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    apps::v1::Deployment,
    core::v1::{ConfigMap, Service, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::{
    facts::{Facts, Fetched},
    report::Section,
};
use crate::{
    kubernetes::{self, Cluster},
    names::{CONFIG_MAP, INJECTOR, OPERATOR, VALIDATOR},
};

/// An object that the chart makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What is amiss without it.
    pub purpose: &'static str,
}

/// Asks for each piece.
pub async fn fetch(cluster: &Cluster) -> Vec<(Piece, Fetched<bool>)> {
    let c = cluster;
    vec![
        one(&c.own::<ServiceAccount>(), "ServiceAccount", OPERATOR, "the operator cannot start")
            .await,
        one(&c.own::<Deployment>(), "Deployment", OPERATOR, "no operator runs").await,
        one(
            &c.own::<Service>(),
            "Service",
            OPERATOR,
            "neither proxies nor the API server find the operator",
        )
        .await,
        one(&c.own::<ConfigMap>(), "ConfigMap", CONFIG_MAP, "mesh and injector have no settings")
            .await,
        one(&c.all::<ClusterRole>(), "ClusterRole", OPERATOR, "the operator may read nothing")
            .await,
        one(
            &c.all::<ClusterRoleBinding>(),
            "ClusterRoleBinding",
            OPERATOR,
            "the operator may read nothing",
        )
        .await,
        one(&c.own::<Role>(), "Role", OPERATOR, "the operator cannot keep its root").await,
        one(&c.own::<RoleBinding>(), "RoleBinding", OPERATOR, "the operator cannot keep its root")
            .await,
    ]
}

/// Whether anything of the chart is there.
pub fn any(facts: &Facts) -> bool {
    all(facts).iter().any(|(_, there)| *there == Ok(true))
}

/// Judges them.
pub fn judge(facts: &Facts) -> Section {
    let mut section = Section::new("Installation");
    let pieces = all(facts);
    for (Piece { kind, name, purpose }, there) in &pieces {
        match there {
            Ok(true) => {}
            Ok(false) => section.error(
                format!("{kind} {name} is missing: the chart is half installed, {purpose}"),
                "weft install",
            ),
            Err(reason) => section.note(format!("{kind} {name} is not checked: {reason}")),
        }
    }
    if section.is_fine() {
        let there = pieces.iter().filter(|(_, there)| *there == Ok(true)).count();
        section.fine(format!("{there} pieces of the chart are there"));
    }
    section
}

fn all(facts: &Facts) -> Vec<(Piece, Fetched<bool>)> {
    let injector = Piece {
        kind: "MutatingWebhookConfiguration",
        name: INJECTOR,
        purpose: "no pod gets a proxy",
    };
    let validator = Piece {
        kind: "ValidatingWebhookConfiguration",
        name: VALIDATOR,
        purpose: "invalid resources are not refused",
    };
    let mutating = facts.mutating.as_ref().map(|all| has(all, INJECTOR)).map_err(Clone::clone);
    let validating = facts.validating.as_ref().map(|all| has(all, VALIDATOR)).map_err(Clone::clone);
    let mut pieces = facts.pieces.clone();
    pieces.extend([(injector, mutating), (validator, validating)]);
    pieces
}

/// Where a list of configurations is at hand, it need not be asked for one by one.
trait Named {
    fn name(&self) -> Option<&str>;
}

impl Named for MutatingWebhookConfiguration {
    fn name(&self) -> Option<&str> {
        self.metadata.name.as_deref()
    }
}

impl Named for ValidatingWebhookConfiguration {
    fn name(&self) -> Option<&str> {
        self.metadata.name.as_deref()
    }
}

fn has(all: &[impl Named], name: &str) -> bool {
    all.iter().any(|configuration| configuration.name() == Some(name))
}

async fn one<K>(
    api: &Api<K>,
    kind: &'static str,
    name: &'static str,
    purpose: &'static str,
) -> (Piece, Fetched<bool>)
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let found = kubernetes::get(api, name).await;
    let there = found.map(|object| object.is_some()).map_err(|error| error.to_string());
    (Piece { kind, name, purpose }, there)
}
