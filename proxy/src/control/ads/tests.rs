use std::collections::HashSet;

use tokio::{
    sync::oneshot,
    task::{LocalSet, spawn_local},
};

use weft_api::node::ProxyKind;

use super::*;
use crate::{
    config::ProxyConfig,
    control::{
        certificates::Certificates,
        decode::Decoder,
        fake::{ControlPlane, FakeStream},
        fixtures::*,
        store::OnDemandLimits,
    },
    settings::Settings,
    shared::DemandKey,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A proxy's control half without its sockets.
struct Proxy {
    shared: Shared,
    store: Rc<RefCell<Store>>,
    status: Rc<RefCell<AdsStatus>>,
}

impl Proxy {
    fn start(settings: Settings) -> Self {
        let (shared, control) = Shared::new(settings);
        let settings = shared.settings.clone();
        let limits =
            OnDemandLimits { names: settings.on_demand_limit, idle: settings.on_demand_idle };
        let decoder = Decoder::new(&settings).unwrap();
        let store = Rc::new(RefCell::new(Store::new(
            decoder,
            shared.settings.listeners(),
            &shared.named_services,
            limits,
        )));
        let status = Rc::new(RefCell::new(AdsStatus::default()));
        let identity = shared.identity.clone();
        spawn_local(Certificates::new(settings, identity, control.identity_changed).run());
        let ads = Ads::new(
            shared.clone(),
            control.config_changed,
            control.demands,
            store.clone(),
            status.clone(),
        );
        spawn_local(ads.run());
        Self { shared, store, status }
    }

    async fn demand(&self, name: &str) -> oneshot::Receiver<()> {
        let (ready, waiting) = oneshot::channel();
        let key = DemandKey::VirtualHost(name.into());
        self.shared.demands.send(Demand { key, ready }).await.unwrap();
        waiting
    }

    /// Waits until the configuration in effect is as wanted.
    async fn config(&self, wanted: impl Fn(&ProxyConfig) -> bool) -> Arc<ProxyConfig> {
        let mut changed = self.shared.config_changed.clone();
        loop {
            let config = self.shared.config.load_full();
            if wanted(&config) {
                return config;
            }
            changed.changed().await.unwrap();
        }
    }
}

async fn local<T>(test: impl Future<Output = T>) -> T {
    let local = LocalSet::new();
    timeout(Duration::from_secs(60), local.run_until(test)).await.expect("the test ends")
}

/// Answers the subscription to one virtual host with everything it needs.
async fn serve_host(stream: &mut FakeStream, name: &str, cluster: &str) {
    let subscribed = stream.request_of(Kind::VirtualHost).await;
    assert_eq!(subscribed.resource_names_subscribe, [name]);
    let host = resource(name, "v1", &virtual_host("host", &[cluster]));
    stream.respond(response(Kind::VirtualHost, vec![host], &[])).await;
    let subscribed = stream.request_of(Kind::Cluster).await;
    assert_eq!(subscribed.resource_names_subscribe, [cluster]);
    let eds = resource(cluster, "c1", &eds_cluster(cluster));
    stream.respond(response(Kind::Cluster, vec![eds], &[])).await;
    let subscribed = stream.request_of(Kind::Endpoints).await;
    assert_eq!(subscribed.resource_names_subscribe, [cluster]);
    let endpoints = resource(cluster, "e1", &assignment(cluster, &["10.0.0.1:80"]));
    stream.respond(response(Kind::Endpoints, vec![endpoints], &[])).await;
}

#[tokio::test]
async fn the_first_request_names_the_node_and_what_every_proxy_needs() {
    local(async {
        let mut control_plane = ControlPlane::start(HOUR).await;
        let proxy = Proxy::start(control_plane.settings());
        let mut stream = control_plane.stream().await;
        let first = stream.request().await;
        assert_eq!(first.node.unwrap().id, proxy.shared.node.id());
        assert_eq!(first.type_url, Kind::Listener.type_url());
        assert_eq!(first.resource_names_subscribe, ["http_proxy", "virtualInbound"]);
        assert!(first.initial_resource_versions.is_empty());
        assert_eq!(stream.certificate, *proxy.shared.identity.load_full().unwrap().chain[0]);
    })
    .await;
}

#[tokio::test]
async fn a_gateway_asks_for_every_listener_and_tells_of_an_address_that_is_taken() {
    local(async {
        let mut control_plane = ControlPlane::start(HOUR).await;
        let settings = Settings { kind: ProxyKind::Router, ..control_plane.settings() };
        let proxy = Proxy::start(settings);
        let mut stream = control_plane.stream().await;
        let first = stream.request().await;
        assert!(first.node.unwrap().id.starts_with("router~"));
        assert_eq!(first.resource_names_subscribe, ["*"]);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = (taken.local_addr().unwrap(), taken);
        let mut listener = tcp_listener("edge", "c");
        listener.address = Some(address("127.0.0.1", taken.0.port()));
        listener.bind_to_port = None;
        let listeners = vec![resource("edge", "1", &listener)];
        stream.respond(response(Kind::Listener, listeners, &[])).await;
        let answer = stream.request_of(Kind::Listener).await;
        let reason = answer.error_detail.unwrap().message;
        let expected = format!("edge: address: cannot listen on {}: ", taken.0);
        assert!(reason.starts_with(&expected), "{reason}");
        // It stays nevertheless: what it needs is asked for.
        assert_eq!(stream.request_of(Kind::Cluster).await.resource_names_subscribe, ["c"]);
        assert_eq!(proxy.status.borrow().refused, 1);
    })
    .await;
}

#[tokio::test]
async fn a_demand_is_answered_when_all_that_it_needs_has_come() {
    local(async {
        let mut control_plane = ControlPlane::start(HOUR).await;
        let proxy = Proxy::start(control_plane.settings());
        let waiting = proxy.demand("http_proxy/b:80").await;
        let mut stream = control_plane.stream().await;
        serve_host(&mut stream, "http_proxy/b:80", "outbound|80||b").await;
        waiting.await.expect("the demand is answered");
        let config = proxy.shared.config.load_full();
        assert!(config.virtual_hosts["http_proxy/b:80"].is_some());
        assert_eq!(config.clusters["outbound|80||b"].endpoints.all.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn every_response_is_acknowledged_and_a_bad_resource_is_named() {
    local(async {
        let mut control_plane = ControlPlane::start(HOUR).await;
        let proxy = Proxy::start(control_plane.settings());
        let waiting = (proxy.demand("r/good").await, proxy.demand("r/bad").await);
        let mut stream = control_plane.stream().await;
        let mut names = stream.request_of(Kind::VirtualHost).await.resource_names_subscribe;
        if names.len() < 2 {
            names.extend(stream.request_of(Kind::VirtualHost).await.resource_names_subscribe);
        }
        names.sort();
        assert_eq!(names, ["r/bad", "r/good"]);
        let mut bad = virtual_host("host", &["x"]);
        bad.routes[0].action = None;
        let mut both = response(
            Kind::VirtualHost,
            vec![resource("r/bad", "1", &bad), resource("r/good", "1", &direct_host("host"))],
            &[],
        );
        both.nonce = "n1".into();
        stream.respond(both).await;
        let nack = stream.request_of(Kind::VirtualHost).await;
        assert_eq!(nack.response_nonce, "n1");
        let error = nack.error_detail.expect("a NACK");
        assert_eq!(error.code, tonic::Code::InvalidArgument as i32);
        assert_eq!(error.message, "r/bad: routes[0].action: missing");
        waiting.0.await.expect("the good one is in effect");
        waiting.1.await.expect("the bad one is answered as absent");
        let config = proxy.shared.config.load_full();
        assert!(config.virtual_hosts["r/good"].is_some());
        assert!(config.virtual_hosts["r/bad"].is_none());
        let mut good =
            response(Kind::VirtualHost, vec![resource("r/bad", "2", &direct_host("host"))], &[]);
        good.nonce = "n2".into();
        stream.respond(good).await;
        let ack = stream.request_of(Kind::VirtualHost).await;
        assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("n2", None));
        proxy.config(|config| config.virtual_hosts["r/bad"].is_some()).await;
        assert_eq!(proxy.status.borrow().refused, 1);
    })
    .await;
}

#[tokio::test]
async fn after_a_lost_stream_the_proxy_carries_on_and_tells_what_it_holds() {
    local(async {
        let mut control_plane = ControlPlane::start(HOUR).await;
        let proxy = Proxy::start(control_plane.settings());
        let waiting = proxy.demand("r/b").await;
        let mut stream = control_plane.stream().await;
        serve_host(&mut stream, "r/b", "b").await;
        waiting.await.unwrap();
        drop(stream);
        let mut stream = control_plane.stream().await;
        assert!(proxy.shared.config.load().virtual_hosts["r/b"].is_some(), "nothing is forgotten");
        let clusters = stream.request_of(Kind::Cluster).await;
        assert_eq!(clusters.resource_names_subscribe, ["b"]);
        assert_eq!(clusters.initial_resource_versions["b"], "c1");
        let endpoints = stream.request_of(Kind::Endpoints).await;
        assert_eq!(endpoints.initial_resource_versions["b"], "e1");
        let hosts = stream.request_of(Kind::VirtualHost).await;
        assert_eq!(hosts.initial_resource_versions["r/b"], "v1");
        let endpoints = resource("b", "e2", &assignment("b", &["10.0.0.1:80", "10.0.0.2:80"]));
        stream.respond(response(Kind::Endpoints, vec![endpoints], &[])).await;
        proxy.config(|config| config.clusters["b"].endpoints.all.len() == 2).await;
        assert_eq!(proxy.status.borrow().streams, 2);
    })
    .await;
}

#[tokio::test]
async fn what_is_not_used_is_unsubscribed() {
    local(async {
        let mut control_plane = ControlPlane::start(HOUR).await;
        let mut settings = control_plane.settings();
        settings.on_demand_idle = Duration::from_secs(4);
        let proxy = Proxy::start(settings);
        let waiting = proxy.demand("r/b").await;
        let mut stream = control_plane.stream().await;
        serve_host(&mut stream, "r/b", "b").await;
        waiting.await.unwrap();
        let mut gone = HashSet::new();
        while gone.len() < 3 {
            let request = stream.request().await;
            gone.extend(
                request
                    .resource_names_unsubscribe
                    .into_iter()
                    .map(|name| (request.type_url.clone(), name)),
            );
        }
        let expected = [(Kind::Cluster, "b"), (Kind::Endpoints, "b"), (Kind::VirtualHost, "r/b")]
            .map(|(kind, name)| (kind.type_url().to_owned(), name.to_owned()));
        assert_eq!(gone, HashSet::from(expected));
        let config = proxy.config(|config| config.clusters.is_empty()).await;
        assert!(config.virtual_hosts.is_empty());
        assert!(proxy.store.borrow().wanted(Kind::Endpoints).is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_name_that_gave_way_and_is_wanted_at_once_again_is_asked_for_again() {
    local(async {
        let mut control_plane = ControlPlane::start(HOUR).await;
        let mut settings = control_plane.settings();
        settings.on_demand_limit = 1;
        let proxy = Proxy::start(settings);
        let waiting = proxy.demand("r/a").await;
        let mut stream = control_plane.stream().await;
        serve_host(&mut stream, "r/a", "a").await;
        waiting.await.unwrap();
        let other = proxy.demand("r/b").await;
        let again = proxy.demand("r/a").await;
        other.await.expect_err("it gave way as well");
        let mut changes = Vec::new();
        while changes.last() != Some(&("subscribe", strings(&["r/a"]))) {
            let request = stream.request_of(Kind::VirtualHost).await;
            for (what, names) in [
                ("unsubscribe", request.resource_names_unsubscribe),
                ("subscribe", request.resource_names_subscribe),
            ] {
                if !names.is_empty() {
                    changes.push((what, names));
                }
            }
        }
        assert_eq!(changes[0], ("unsubscribe", strings(&["r/a"])));
        let host = resource("r/a", "v1", &direct_host("host"));
        stream.respond(response(Kind::VirtualHost, vec![host], &[])).await;
        again.await.expect("it is answered");
    })
    .await;
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_stream_is_replaced_when_its_certificate_expires_and_not_before() {
    local(async {
        let mut control_plane = ControlPlane::start(Duration::from_secs(8)).await;
        let proxy = Proxy::start(control_plane.settings());
        let waiting = proxy.demand("r/b").await;
        let mut first = control_plane.stream().await;
        serve_host(&mut first, "r/b", "b").await;
        waiting.await.unwrap();
        crate::control::fake::identity_generation(&proxy.shared, 2).await;
        let second_certificate = proxy.shared.identity.load_full().unwrap().chain[0].to_vec();
        assert_ne!(first.certificate, second_certificate);
        assert_eq!(proxy.status.borrow().streams, 1, "a renewal alone replaces nothing");
        let second = control_plane.stream().await;
        assert_ne!(second.certificate, first.certificate);
        assert!(proxy.shared.config.load().virtual_hosts["r/b"].is_some());
    })
    .await;
}
