//! What listeners and routes name.

use std::sync::Arc;

use crate::config::{
    http::RouteSource,
    listener::{FilterChain, Listener, Terminal},
    route::{Forward, ForwardTarget, RouteAction, RouteConfig, VirtualHost},
    tls::TlsSource,
};
use crate::control::decode::cluster::DecodedCluster;

/// Names that must be there before a resource takes effect. Sorted, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Clusters.
    pub clusters: Vec<Arc<str>>,
    /// Route configurations.
    pub routes: Vec<Arc<str>>,
    /// Secrets.
    pub secrets: Vec<Arc<str>>,
}

impl References {
    /// Of a listener.
    pub fn of_listener(listener: &Listener) -> Self {
        let mut references = Self::default();
        for chain in listener.chains.iter().chain(&listener.default_chain) {
            references.add_chain(chain);
        }
        references.sorted()
    }

    /// Of a cluster.
    pub fn of_cluster(cluster: &DecodedCluster) -> Self {
        let mut references = Self::default();
        for tls in cluster.transports.iter().filter_map(|transport| transport.tls.as_ref()) {
            references.add_secrets(tls.identity.iter().chain(&tls.trust));
        }
        references.sorted()
    }

    /// Of a route configuration.
    pub fn of_route(config: &RouteConfig) -> Self {
        let mut references = Self::default();
        references.add_route_config(config);
        references.sorted()
    }

    /// Of a virtual host.
    pub fn of_virtual_host(host: &VirtualHost) -> Self {
        let mut references = Self::default();
        references.add_virtual_host(host);
        references.sorted()
    }

    /// Whether it leads anywhere.
    pub fn any_cluster(&self) -> bool {
        !(self.clusters.is_empty() && self.routes.is_empty())
    }

    fn sorted(mut self) -> Self {
        self.clusters.sort_unstable();
        self.clusters.dedup();
        self.routes.sort_unstable();
        self.routes.dedup();
        self.secrets.sort_unstable();
        self.secrets.dedup();
        self
    }

    fn add_chain(&mut self, chain: &FilterChain) {
        if let Some(tls) = &chain.tls {
            self.add_secrets(tls.certificates.iter().chain(&tls.trust));
        }
        match &chain.terminal {
            Terminal::Http(manager) => match &manager.routes {
                RouteSource::Inline(config) => self.add_route_config(config),
                RouteSource::Rds(name) => self.routes.push(name.clone()),
            },
            Terminal::Tcp(proxy) => {
                self.clusters.extend(proxy.clusters.iter().map(|(name, _)| name.clone()));
            }
        }
    }

    fn add_secrets<'a>(&mut self, sources: impl IntoIterator<Item = &'a TlsSource>) {
        self.secrets.extend(sources.into_iter().filter_map(|source| match source {
            TlsSource::Secret(secret) => Some(Arc::from(secret.name())),
            _ => None,
        }));
    }

    fn add_route_config(&mut self, config: &RouteConfig) {
        let hosts = &config.hosts;
        let all = hosts
            .exact
            .values()
            .chain(hosts.suffixes.iter().map(|(_, host)| host))
            .chain(hosts.prefixes.iter().map(|(_, host)| host))
            .chain(&hosts.any);
        for host in all {
            self.add_virtual_host(host);
        }
    }

    fn add_virtual_host(&mut self, host: &VirtualHost) {
        for route in &host.routes {
            if let RouteAction::Forward(forward) = &route.action {
                self.add_forward(forward);
            }
        }
    }

    fn add_forward(&mut self, forward: &Forward) {
        match &forward.target {
            ForwardTarget::Cluster(name) => self.clusters.push(name.clone()),
            ForwardTarget::Weighted { clusters, .. } => {
                self.clusters.extend(clusters.iter().map(|cluster| cluster.name.clone()));
            }
            // Only requests know; such a cluster is there when something else names it.
            ForwardTarget::Header(_) => {}
        }
        self.clusters.extend(forward.mirrors.iter().map(|mirror| mirror.cluster.clone()));
    }
}
