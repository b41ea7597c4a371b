//! VirtualServices as the model keeps them: names qualified, what they refer to known (`istio-behaviours` 2.1, 2.2).

pub mod delegate;
pub mod table;

use std::{collections::BTreeSet, sync::Arc};

use weft_crds::networking::{Destination, HttpRoute, VirtualServiceSpec};

use crate::host;

/// The reserved gateway name that means the sidecars of the mesh.
pub const MESH_GATEWAY: &str = "mesh";

/// A subset of a host, as a route names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubsetRef {
    /// The host, fully qualified.
    pub host: Arc<str>,
    /// The subset's name.
    pub subset: Arc<str>,
}

/// A spec whose hosts and destinations are fully qualified, and whose gateways are `<namespace>/<name>` or `mesh`.
/// A spec with hosts and no gateways is for the mesh; one without hosts is a delegate and has neither.
pub fn qualify(spec: &VirtualServiceSpec, namespace: &str, domain: &str) -> VirtualServiceSpec {
    let mut spec = spec.clone();
    let host = |name: &mut String| *name = host::resolve(name, namespace, domain);
    let gateways = |names: &mut Vec<String>| {
        names.iter_mut().for_each(|name| *name = gateway_name(name, namespace));
    };
    spec.hosts.iter_mut().for_each(host);
    if spec.gateways.is_empty() && !spec.hosts.is_empty() {
        spec.gateways.push(MESH_GATEWAY.to_owned());
    }
    gateways(&mut spec.gateways);
    for route in &mut spec.http {
        route.matches.iter_mut().for_each(|found| gateways(&mut found.gateways));
        route.route.iter_mut().for_each(|to| host(&mut to.destination.host));
        route.mirror.iter_mut().for_each(|to| host(&mut to.host));
        route.mirrors.iter_mut().for_each(|to| host(&mut to.destination.host));
        if let Some(delegate) = &mut route.delegate
            && delegate.namespace.is_empty()
        {
            namespace.clone_into(&mut delegate.namespace);
        }
    }
    for route in &mut spec.tls {
        route.matches.iter_mut().for_each(|found| gateways(&mut found.gateways));
        route.route.iter_mut().for_each(|to| host(&mut to.destination.host));
    }
    for route in &mut spec.tcp {
        route.matches.iter_mut().for_each(|found| gateways(&mut found.gateways));
        route.route.iter_mut().for_each(|to| host(&mut to.destination.host));
    }
    spec
}

/// The qualified name of a gateway (item 2): `gw`, `./gw`, `ns/gw` or the old `gw.ns[.svc...]`.
fn gateway_name(name: &str, namespace: &str) -> String {
    if name == MESH_GATEWAY {
        return name.to_owned();
    }
    match name.split_once('/') {
        Some((".", name)) => format!("{namespace}/{name}"),
        Some(_) => name.to_owned(),
        None => match name.split_once('.') {
            Some((name, rest)) => {
                format!("{}/{name}", rest.split_once('.').map_or(rest, |(namespace, _)| namespace))
            }
            None => format!("{namespace}/{name}"),
        },
    }
}

/// Whether a qualified spec routes the traffic of sidecars.
pub fn is_for_mesh(spec: &VirtualServiceSpec) -> bool {
    !spec.hosts.is_empty() && spec.gateways.iter().any(|gateway| gateway == MESH_GATEWAY)
}

/// The Gateways (`<namespace>/<name>`) whose traffic a qualified spec routes, each once.
pub fn gateways_of(spec: &VirtualServiceSpec) -> BTreeSet<&str> {
    let named = spec.gateways.iter().map(String::as_str);
    named.filter(|name| *name != MESH_GATEWAY && !spec.hosts.is_empty()).collect()
}

/// The destinations of one HTTP route, mirrors included.
fn http_destinations(route: &HttpRoute) -> impl Iterator<Item = &Destination> {
    let routed = route.route.iter().map(|to| &to.destination);
    routed.chain(&route.mirror).chain(route.mirrors.iter().map(|to| &to.destination))
}

/// Every destination that a spec names, in order, duplicates included.
pub fn destinations(spec: &VirtualServiceSpec) -> impl Iterator<Item = &Destination> {
    let tls = spec.tls.iter().flat_map(|route| &route.route).map(|to| &to.destination);
    let tcp = spec.tcp.iter().flat_map(|route| &route.route).map(|to| &to.destination);
    spec.http.iter().flat_map(http_destinations).chain(tls).chain(tcp)
}

/// Every subset that a qualified spec names.
pub fn subsets(spec: &VirtualServiceSpec) -> BTreeSet<SubsetRef> {
    destinations(spec)
        .filter(|destination| !destination.subset.is_empty())
        .map(|destination| SubsetRef {
            host: destination.host.as_str().into(),
            subset: destination.subset.as_str().into(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_names_are_qualified() {
        let cases = [
            ("mesh", "mesh"),
            ("gw", "ns/gw"),
            ("./gw", "ns/gw"),
            ("other/gw", "other/gw"),
            ("gw.other", "other/gw"),
            ("gw.other.svc.cluster.local", "other/gw"),
        ];
        for (name, expected) in cases {
            assert_eq!(gateway_name(name, "ns"), expected);
        }
    }

    #[test]
    fn qualifying_resolves_every_name_once_and_for_all() {
        let spec: VirtualServiceSpec = serde_json::from_value(serde_json::json!({
            "hosts": ["reviews", "*.example.com", "a.b"],
            "http": [{
                "match": [{"gateways": ["gw", "mesh"]}],
                "route": [{"destination": {"host": "reviews", "subset": "v1"}}],
                "mirror": {"host": "shadow", "subset": "v2"},
                "mirrors": [{"destination": {"host": "third.other.svc.cluster.local"}}],
            }, {"delegate": {"name": "d"}}],
            "tls": [{"match": [{"sniHosts": ["x"]}], "route": [{"destination": {"host": "t"}}]}],
            "tcp": [{"route": [{"destination": {"host": "c"}}]}],
        }))
        .unwrap();
        let spec = qualify(&spec, "ns", "cluster.local");
        assert_eq!(spec.hosts, ["reviews.ns.svc.cluster.local", "*.example.com", "a.b"]);
        assert_eq!(spec.gateways, ["mesh"]);
        assert_eq!(spec.http[0].matches[0].gateways, ["ns/gw", "mesh"]);
        assert_eq!(spec.http[1].delegate.as_ref().unwrap().namespace, "ns");
        let hosts: Vec<&str> = destinations(&spec).map(|to| to.host.as_str()).collect();
        assert_eq!(
            hosts,
            [
                "reviews.ns.svc.cluster.local",
                "shadow.ns.svc.cluster.local",
                "third.other.svc.cluster.local",
                "t.ns.svc.cluster.local",
                "c.ns.svc.cluster.local"
            ]
        );
        let subset =
            |host: &str, subset: &str| SubsetRef { host: host.into(), subset: subset.into() };
        assert_eq!(
            subsets(&spec),
            [
                subset("reviews.ns.svc.cluster.local", "v1"),
                subset("shadow.ns.svc.cluster.local", "v2")
            ]
            .into()
        );
        assert_eq!(qualify(&spec, "elsewhere", "cluster.local"), spec, "qualified names stay");
    }
}
