//! The kinds that are watched, and what Kubernetes calls them.

use std::fmt;

use kube::core::{ApiResource, GroupVersionKind};
use weft_core::credential::SecretNamespaces;
use weft_index::Kind;

use super::Settings;

/// A kind to be watched.
#[derive(Clone, Debug)]
pub(super) struct WatchedKind {
    pub kind: Kind,
    pub group: &'static str,
    /// Newest first; any of them will do.
    pub versions: &'static [&'static str],
    pub plural: &'static str,
    /// Where, and which of them.
    pub scope: Scope,
}

/// Which objects of a kind are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Those of a namespace.
    Namespace(String),
    /// One: its namespace and name.
    One(String, String),
}

/// Tells watches apart: a kind, and the namespace where there is a watch for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WatchId {
    pub kind: Kind,
    pub namespace: Option<String>,
}

impl WatchId {
    /// Whether the mesh can do without: what cannot be read only lacks in what names it.
    pub fn is_optional(&self) -> bool {
        self.kind == Kind::Secret
    }
}

impl From<Kind> for WatchId {
    fn from(kind: Kind) -> Self {
        Self { kind, namespace: None }
    }
}

impl fmt::Display for WatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            None => self.kind.fmt(f),
            Some(namespace) => write!(f, "{} of namespace {namespace}", self.kind),
        }
    }
}

/// What is of no use as a credential: not asked for.
const OTHER_SECRETS: &str = "type!=kubernetes.io/service-account-token,\
                             type!=kubernetes.io/dockerconfigjson,type!=helm.sh/release.v1";

impl WatchedKind {
    /// How the API server is asked for a version of it.
    pub fn resource(&self, version: &str) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, version, self.kind.as_str());
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }

    /// The right that reading it takes.
    pub fn missing_rule(&self) -> Missing {
        Missing { group: self.group, plural: self.plural, scope: self.scope.clone() }
    }

    /// Which watch it is.
    pub fn id(&self) -> WatchId {
        let namespace = match &self.scope {
            Scope::Namespace(namespace) => Some(namespace.clone()),
            Scope::All | Scope::One(..) => None,
        };
        WatchId { kind: self.kind, namespace }
    }

    /// What the API server is to leave out.
    pub fn fields(&self) -> Option<String> {
        match (&self.scope, self.kind) {
            (Scope::One(_, name), _) => Some(format!("metadata.name={name}")),
            (_, Kind::Secret) => Some(OTHER_SECRETS.to_owned()),
            _ => None,
        }
    }
}

/// A rule that a role of the operator's lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    group: &'static str,
    plural: &'static str,
    scope: Scope,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, plural, scope } = self;
        write!(f, "cannot list {plural}")?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        match scope {
            Scope::All => {}
            Scope::Namespace(namespace) => write!(f, " in namespace {namespace}")?,
            Scope::One(namespace, name) => write!(f, " named {name} in namespace {namespace}")?,
        }
        write!(f, ": add the rule {{apiGroups: [\"{group}\"], resources: [\"{plural}\"]")?;
        if let Scope::One(_, name) = scope {
            write!(f, ", resourceNames: [\"{name}\"]")?;
        }
        f.write_str(", verbs: [get, list, watch]} to the operator's role")?;
        match scope {
            Scope::Namespace(namespace) => write!(f, " in namespace {namespace}"),
            Scope::All | Scope::One(..) => Ok(()),
        }
    }
}

/// Every kind that the index has a use for.
pub(super) fn all(settings: &Settings) -> Vec<WatchedKind> {
    let core = |kind, group, plural| WatchedKind {
        kind,
        group,
        versions: &["v1"],
        plural,
        scope: Scope::All,
    };
    let mut kinds = vec![
        core(Kind::Service, "", "services"),
        core(Kind::EndpointSlice, "discovery.k8s.io", "endpointslices"),
        core(Kind::Pod, "", "pods"),
        WatchedKind {
            scope: Scope::One(settings.namespace.clone(), settings.mesh_config.to_owned()),
            ..core(Kind::ConfigMap, "", "configmaps")
        },
    ];
    kinds.extend(weft_crds::Kind::ALL.into_iter().map(|kind| WatchedKind {
        kind: Kind::Mesh(kind),
        group: kind.group(),
        versions: kind.versions(),
        plural: kind.plural(),
        scope: Scope::All,
    }));
    let secrets = core(Kind::Secret, "", "secrets");
    match &settings.secret_namespaces {
        SecretNamespaces::All => kinds.push(secrets),
        SecretNamespaces::Named(names) => kinds.extend(names.iter().map(|name| {
            let scope = Scope::Namespace(name.clone());
            WatchedKind { scope, ..secrets.clone() }
        })),
        SecretNamespaces::Unknown => {}
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_explained_by_the_rule_that_gives_it() {
        let settings = Settings {
            namespace: "weft-system".into(),
            mesh_config: "weft",
            secret_namespaces: SecretNamespaces::Named(["edge".to_owned()].into()),
        };
        let kinds = all(&settings);
        let rule = |kind| {
            kinds.iter().find(|watched| watched.kind == kind).unwrap().missing_rule().to_string()
        };
        assert_eq!(
            rule(Kind::Mesh(weft_crds::Kind::VirtualService)),
            "cannot list virtualservices.networking.istio.io: add the rule {apiGroups: \
             [\"networking.istio.io\"], resources: [\"virtualservices\"], verbs: [get, list, watch]} to the \
             operator's role"
        );
        assert_eq!(
            rule(Kind::ConfigMap),
            "cannot list configmaps named weft in namespace weft-system: add the rule {apiGroups: [\"\"], \
             resources: [\"configmaps\"], resourceNames: [\"weft\"], verbs: [get, list, watch]} to the operator's role"
        );
        assert_eq!(
            rule(Kind::Secret),
            "cannot list secrets in namespace edge: add the rule {apiGroups: [\"\"], resources: [\"secrets\"], verbs: \
             [get, list, watch]} to the operator's role in namespace edge"
        );
    }
}
