//! The kinds that are watched, and what Kubernetes calls them.

use std::fmt;

use kube::core::{ApiResource, GroupVersionKind};
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
    /// Only this object of this namespace.
    pub only: Option<(String, String)>,
}

impl WatchedKind {
    /// How the API server is asked for a version of it.
    pub fn resource(&self, version: &str) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, version, self.kind.as_str());
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }

    /// The right that reading it takes.
    pub fn missing_rule(&self) -> Missing {
        Missing { group: self.group, plural: self.plural, name: self.only.clone() }
    }
}

/// A rule that a role of the operator's lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    group: &'static str,
    plural: &'static str,
    name: Option<(String, String)>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, plural, name } = self;
        write!(f, "cannot list {plural}")?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        if let Some((namespace, name)) = name {
            write!(f, " named {name} in namespace {namespace}")?;
        }
        write!(f, ": add the rule {{apiGroups: [\"{group}\"], resources: [\"{plural}\"]")?;
        if let Some((_, name)) = name {
            write!(f, ", resourceNames: [\"{name}\"]")?;
        }
        f.write_str(", verbs: [get, list, watch]} to the operator's role")
    }
}

/// Every kind that the index has a use for.
pub(super) fn all(settings: &Settings) -> Vec<WatchedKind> {
    let core =
        |kind, group, plural| WatchedKind { kind, group, versions: &["v1"], plural, only: None };
    let mut kinds = vec![
        core(Kind::Service, "", "services"),
        core(Kind::EndpointSlice, "discovery.k8s.io", "endpointslices"),
        core(Kind::Pod, "", "pods"),
        WatchedKind {
            only: Some((settings.namespace.clone(), settings.mesh_config.to_owned())),
            ..core(Kind::ConfigMap, "", "configmaps")
        },
    ];
    kinds.extend(weft_crds::Kind::ALL.into_iter().map(|kind| WatchedKind {
        kind: Kind::Mesh(kind),
        group: kind.group(),
        versions: kind.versions(),
        plural: kind.plural(),
        only: None,
    }));
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_explained_by_the_rule_that_gives_it() {
        let settings = Settings { namespace: "weft-system".into(), mesh_config: "weft" };
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
    }
}
