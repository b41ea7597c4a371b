//! Which route a request takes: route configuration, virtual host (asked for on first use), route, weighted cluster.

use std::{
    borrow::Cow,
    rc::Rc,
    sync::{Arc, LazyLock},
};

use ::http::StatusCode;

use super::{
    head::Head,
    matching::{find_named_host, find_route, without_port},
};
use crate::{
    config::{
        ProxyConfig,
        filter::{Fault, FilterOverrides, LocalRateLimit},
        http::RouteSource,
        rbac::Rbac,
        route::{
            Forward, ForwardTarget, HeaderMutation, PathMatch, Redirect, RetryPolicy, Route,
            RouteAction, RouteConfig, RouteMatch, TlsRequirement, VirtualHost, WeightedCluster,
        },
    },
    data::{
        destination::{self, NoListener},
        thread::Thread,
    },
};

/// The route of a request.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The route configuration.
    pub routes: Arc<RouteConfig>,
    /// The virtual host.
    pub host: Arc<VirtualHost>,
    /// The route.
    pub route: Arc<Route>,
    /// What the route was chosen from, until the cluster was: it has the route's clusters, also when a later one no
    /// longer does.
    pub config: Option<Arc<ProxyConfig>>,
    /// Which of several weighted clusters was drawn.
    weighted: Option<usize>,
}

impl Choice {
    fn new(
        config: Arc<ProxyConfig>,
        routes: Arc<RouteConfig>,
        host: Arc<VirtualHost>,
        route: Arc<Route>,
    ) -> Self {
        let weighted = match &route.action {
            RouteAction::Forward(forward) => draw(&forward.target),
            RouteAction::Redirect(_) | RouteAction::Direct { .. } => None,
        };
        Self { routes, host, route, config: Some(config), weighted }
    }

    /// The weighted cluster that was drawn.
    pub fn weighted(&self) -> Option<&WeightedCluster> {
        match &self.route.action {
            RouteAction::Forward(forward) => match &forward.target {
                ForwardTarget::Weighted { clusters, .. } => clusters.get(self.weighted?),
                ForwardTarget::Cluster(_) | ForwardTarget::Header(_) => None,
            },
            RouteAction::Redirect(_) | RouteAction::Direct { .. } => None,
        }
    }

    /// The name of the cluster to forward to.
    pub fn cluster(&self, forward: &Forward, head: &Head) -> Option<Arc<str>> {
        match &forward.target {
            ForwardTarget::Cluster(name) => Some(name.clone()),
            ForwardTarget::Weighted { .. } => self.weighted().map(|cluster| cluster.name.clone()),
            ForwardTarget::Header(name) => Some(head.headers.get(name)?.to_str().ok()?.into()),
        }
    }

    /// Retries: the route's, else the virtual host's.
    pub fn retry<'a>(&'a self, forward: &'a Forward) -> Option<&'a Arc<RetryPolicy>> {
        forward.retry.as_ref().or(self.host.retry.as_ref())
    }

    /// Mutations of the request in Envoy's order: the weighted cluster's, the route's, the virtual host's, the route
    /// configuration's. Of two that set one header the later counts.
    pub fn request_mutations(&self) -> impl Iterator<Item = &[HeaderMutation]> {
        [
            self.weighted().map(|cluster| &*cluster.request_headers).unwrap_or_default(),
            &*self.route.request_headers,
            &*self.host.request_headers,
            &*self.routes.request_headers,
        ]
        .into_iter()
    }

    /// Mutations of the response, in the same order.
    pub fn response_mutations(&self) -> impl Iterator<Item = &[HeaderMutation]> {
        [
            self.weighted().map(|cluster| &*cluster.response_headers).unwrap_or_default(),
            &*self.route.response_headers,
            &*self.host.response_headers,
            &*self.routes.response_headers,
        ]
        .into_iter()
    }

    /// The most specific RBAC override: `Some(None)` switches the filter off.
    pub fn rbac(&self) -> Option<&Option<Arc<Rbac>>> {
        self.weighted()
            .and_then(|cluster| cluster.filters.rbac.as_ref())
            .or(self.route.filters.rbac.as_ref())
            .or(self.host.filters.rbac.as_ref())
    }

    /// The most specific rate limit override.
    pub fn rate_limit(&self) -> Option<&Arc<LocalRateLimit>> {
        self.weighted()
            .and_then(|cluster| cluster.filters.local_rate_limit.as_ref())
            .or(self.route.filters.local_rate_limit.as_ref())
            .or(self.host.filters.local_rate_limit.as_ref())
    }

    /// The most specific fault override.
    pub fn fault(&self) -> Option<&Arc<Fault>> {
        self.weighted()
            .and_then(|cluster| cluster.filters.fault.as_ref())
            .or(self.route.filters.fault.as_ref())
            .or(self.host.filters.fault.as_ref())
    }
}

/// Draws one of several weighted clusters.
fn draw(target: &ForwardTarget) -> Option<usize> {
    let ForwardTarget::Weighted { clusters, total } = target else { return None };
    if *total == 0 {
        return None;
    }
    let mut drawn = fastrand::u64(0..*total);
    clusters.iter().position(|cluster| match drawn.checked_sub(u64::from(cluster.weight)) {
        Some(left) => {
            drawn = left;
            false
        }
        None => true,
    })
}

/// Why a request has no route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// Nothing matches.
    #[error("route_not_found")]
    NotFound {
        /// The virtual host that has no route for it; `None`: there is not even a host.
        host: Option<Arc<str>>,
    },
    /// The control plane did not say in time.
    #[error("route_not_received_in_time")]
    TimedOut,
}

const NO_HOST: NoRoute = NoRoute::NotFound { host: None };

/// Finds the route of a request, by the configuration that the connection manager is from.
///
/// Route and clusters are from one configuration: another may be swapped in at any moment.
///
/// # Errors
/// See [`NoRoute`].
pub async fn find(
    thread: &Rc<Thread>,
    mut config: Arc<ProxyConfig>,
    source: &RouteSource,
    head: &Head,
) -> Result<Choice, NoRoute> {
    let routes = match source {
        RouteSource::Inline(routes) => routes.clone(),
        RouteSource::Rds(name) => config.routes.get(name).cloned().ok_or(NO_HOST)?,
    };
    let authority = lower_case(head.authority());
    let wanted: &str =
        if routes.ignore_port_in_host { without_port(&authority) } else { &authority };
    let host = match find_named_host(&routes.hosts, wanted) {
        Some(host) => host.clone(),
        None if routes.on_demand && !authority.is_empty() => {
            let name = format!("{}/{authority}", routes.name);
            match destination::virtual_host(thread, config, &name).await {
                Ok((newer, host)) => {
                    config = newer;
                    host
                }
                // The virtual host for every authority is for those that the mesh does not know.
                Err(NoListener::Unknown) => {
                    config = thread.config();
                    routes.hosts.any.clone().ok_or(NO_HOST)?
                }
                Err(NoListener::TimedOut) => return Err(NoRoute::TimedOut),
            }
        }
        None => routes.hosts.any.clone().ok_or(NO_HOST)?,
    };
    let route = match host.require_tls {
        TlsRequirement::External | TlsRequirement::All if !head.https => Some(to_https()),
        _ => find_route(&host, head).cloned(),
    };
    let route = route.ok_or_else(|| NoRoute::NotFound { host: Some(host.name.clone()) })?;
    Ok(Choice::new(config, routes, host, route))
}

/// What a virtual host does that wants TLS.
fn to_https() -> Arc<Route> {
    static ROUTE: LazyLock<Arc<Route>> = LazyLock::new(|| {
        let redirect = Redirect {
            status: StatusCode::MOVED_PERMANENTLY,
            scheme: None,
            https: true,
            host: None,
            port: None,
            path: None,
            prefix_rewrite: None,
            regex_rewrite: None,
            strip_query: false,
        };
        Arc::new(Route {
            name: "".into(),
            matches: RouteMatch {
                path: PathMatch::Prefix { value: "/".into(), ignore_case: false },
                headers: Vec::new(),
                query: Vec::new(),
                grpc: false,
                fraction: None,
            },
            action: RouteAction::Redirect(Box::new(redirect)),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            filters: FilterOverrides::default(),
            config: None,
        })
    });
    ROUTE.clone()
}

fn lower_case(authority: &str) -> Cow<'_, str> {
    if authority.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(authority.to_ascii_lowercase())
    } else {
        Cow::Borrowed(authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::route::HeaderFormat, data::testing};

    fn target(weights: &[u32]) -> ForwardTarget {
        let cluster = |weight| WeightedCluster {
            name: "c".into(),
            weight,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            host_rewrite: None,
            filters: Default::default(),
        };
        ForwardTarget::Weighted {
            clusters: weights.iter().copied().map(cluster).collect(),
            total: weights.iter().copied().map(u64::from).sum(),
        }
    }

    #[test]
    fn clusters_are_drawn_by_their_weights() {
        let target_90_10 = target(&[90, 0, 10]);
        let mut counts = [0; 3];
        for _ in 0..100_000 {
            counts[draw(&target_90_10).unwrap()] += 1;
        }
        // Six standard deviations of a binomial distribution with p = 0.9 are 570.
        assert!((89_400..=90_600).contains(&counts[0]), "{counts:?}");
        assert_eq!(counts[1], 0);
        assert_eq!(draw(&target(&[0, 5])), Some(1));
        assert_eq!(draw(&target(&[])), None);
        assert_eq!(draw(&target(&[0])), None);
    }

    #[test]
    fn what_a_route_says_of_a_header_comes_after_what_its_weighted_cluster_says() {
        let set = |value| {
            let name = http::HeaderName::from_static("x-from");
            HeaderMutation::Set(name, HeaderFormat::Literal(http::HeaderValue::from_static(value)))
        };
        let ForwardTarget::Weighted { mut clusters, total } = target(&[1]) else { panic!() };
        clusters[0].request_headers = vec![set("cluster")];
        clusters[0].response_headers = vec![set("cluster")];
        let forward = testing::to(ForwardTarget::Weighted { clusters, total });
        let mut route = testing::route("/", RouteAction::Forward(Box::new(forward)));
        route.request_headers = vec![set("route")];
        route.response_headers = vec![set("route")];
        let mut host = testing::host(Vec::new());
        host.request_headers = vec![set("host")];
        let choice = Choice::new(Arc::default(), Arc::default(), host.into(), route.into());
        let mut head = crate::http::head::tests::head("GET", "a", "/", &[]);
        for mutations in choice.request_mutations() {
            crate::http::mutate::request(mutations, &mut head, &|_, _| String::new());
        }
        assert_eq!(head.headers["x-from"], "host");
        let mut headers = http::HeaderMap::new();
        for mutations in choice.response_mutations() {
            crate::http::mutate::response(mutations, &mut headers, &|_, _| String::new());
        }
        assert_eq!(headers["x-from"], "route");
    }
}
