use std::{sync::atomic::Ordering, time::Duration, time::Instant};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::{LocalSet, spawn_local},
};

use super::*;
use crate::{
    control::{
        agent::Agent,
        decode::Decoder,
        fixtures::*,
        store::{Kind, OnDemandLimits},
    },
    settings::Settings,
    shared::{ControlSide, DemandKey},
};

struct Test {
    admin: Rc<Admin>,
    shared: Shared,
    control: ControlSide,
    lifecycle: Rc<LifecycleControl>,
    store: Rc<RefCell<Store>>,
}

impl Default for Test {
    fn default() -> Self {
        let (shared, control) = Shared::new(Settings::test());
        let decoder = Decoder::new(&shared.settings).unwrap();
        let limits = OnDemandLimits { names: 10, idle: Duration::from_secs(60) };
        let store =
            Rc::new(RefCell::new(Store::new(decoder, shared.settings.listeners(), &[], limits)));
        let (state, _) = watch::channel(Lifecycle::Running);
        let lifecycle = Rc::new(LifecycleControl::new(shared.clone(), state));
        let admin = Rc::new(Admin::new(
            shared.clone(),
            store.clone(),
            Rc::default(),
            lifecycle.clone(),
            LogHandle::detached(),
        ));
        Self { admin, shared, control, lifecycle, store }
    }
}

impl Test {
    fn publish(&self) {
        if let Some(config) = self.store.borrow_mut().publish(Instant::now()) {
            self.shared.config.store(config);
        }
    }

    fn say(
        &self,
        kind: Kind,
        resources: Vec<weft_api::xds::envoy::service::discovery::v3::Resource>,
    ) {
        self.publish();
        let rejections =
            self.store.borrow_mut().apply(&response(kind, resources, &[]), Instant::now());
        assert!(rejections.is_empty(), "{rejections:?}");
        self.publish();
    }

    /// The listeners of every proxy, one virtual host fetched on demand, one cluster with two endpoints.
    fn configured() -> Self {
        let test = Self::default();
        let (ready, _) = oneshot::channel();
        let key = DemandKey::VirtualHost("http_proxy/b:80".into());
        test.store.borrow_mut().demand(&key, ready, 0);
        let mut inbound = tcp_listener("virtualInbound", "outbound|80||b");
        inbound.bind_to_port = None;
        test.say(
            Kind::Listener,
            vec![
                resource("virtualInbound", "l1", &inbound),
                resource("http_proxy", "l2", &rds_listener("http_proxy", "http_proxy")),
            ],
        );
        let mut routes = route_config("http_proxy", &["outbound|80||b"]);
        routes.virtual_hosts.clear();
        routes.vhds = Some(Default::default());
        test.say(Kind::Route, vec![resource("http_proxy", "r1", &routes)]);
        let host = virtual_host("b.default:80", &["outbound|80||b"]);
        test.say(Kind::VirtualHost, vec![resource("http_proxy/b:80", "v1", &host)]);
        let cluster = eds_cluster("outbound|80||b");
        test.say(Kind::Cluster, vec![resource("outbound|80||b", "c1", &cluster)]);
        let endpoints = assignment("outbound|80||b", &["10.0.0.1:80", "10.0.0.2:80"]);
        test.say(Kind::Endpoints, vec![resource("outbound|80||b", "e1", &endpoints)]);
        test
    }

    fn ask(&self, role: Role, method: &str, path: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let response = self.admin.answer(role, &request);
        let status = response.status().as_u16();
        let body = futures_util::FutureExt::now_or_never(http_body_util::BodyExt::collect(
            response.into_body(),
        ))
        .unwrap()
        .unwrap()
        .to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn json(&self, path: &str) -> Value {
        let (status, body) = self.ask(Role::Admin, "GET", path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

#[test]
fn the_proxy_is_ready_when_all_threads_have_bound_what_it_needs() {
    let test = Test::configured();
    let ready = || test.ask(Role::Health, "GET", "/healthz/ready");
    assert_eq!(ready(), (503, "INITIALIZING: no certificate yet\n".to_owned()));
    test.shared.identity.store(Some(std::sync::Arc::new(identity())));
    assert_eq!(ready(), (503, "INITIALIZING: listeners are not bound yet\n".to_owned()));
    let generation = test.shared.config.load().generation;
    test.shared.applied[0].store(generation, Ordering::Release);
    assert_eq!(ready(), (200, "LIVE\n".to_owned()));
    assert_eq!(test.json("/server_info")["state"], "LIVE");
    assert_eq!(test.ask(Role::Admin, "POST", "/healthcheck/fail").0, 200);
    assert_eq!(ready().0, 503);
    assert_eq!(test.ask(Role::Admin, "POST", "/healthcheck/ok").0, 200);
    assert_eq!(ready().0, 200);
    assert_eq!(test.ask(Role::Admin, "POST", "/drain_listeners").0, 200);
    assert_eq!(ready(), (503, "DRAINING\n".to_owned()));
    assert_eq!(test.lifecycle.state(), Lifecycle::Draining);
    test.lifecycle.advance(Lifecycle::Running);
    assert_eq!(test.lifecycle.state(), Lifecycle::Draining, "never back");
}

fn identity() -> crate::identity::Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    crate::identity::Identity {
        generation: 1,
        id: crate::control::fake::IDENTITY.parse().unwrap(),
        chain: Vec::new(),
        key: rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        roots: Vec::new(),
        serial: "2a".into(),
        not_before: std::time::UNIX_EPOCH,
        not_after: std::time::SystemTime::now() + Duration::from_secs(3 * 86_400 + 60),
    }
}

#[test]
fn a_proxy_without_its_listeners_is_not_ready() {
    let test = Test::default();
    test.shared.identity.store(Some(std::sync::Arc::new(identity())));
    assert_eq!(
        test.ask(Role::Status, "GET", "/healthz/ready"),
        (503, "INITIALIZING: listeners have not arrived yet\n".to_owned())
    );
}

#[test]
fn each_port_answers_its_own_paths_only() {
    let test = Test::default();
    for (role, path, expected) in [
        (Role::Admin, "/help", 200),
        (Role::Admin, "/stats/prometheus", 200),
        (Role::Admin, "/nonsense", 404),
        (Role::Status, "/stats/prometheus", 200),
        (Role::Status, "/config_dump", 404),
        (Role::Health, "/healthz/ready", 503),
        (Role::Health, "/stats/prometheus", 404),
        (Role::Metrics, "/stats/prometheus", 200),
        (Role::Metrics, "/quitquitquit", 404),
    ] {
        assert_eq!(test.ask(role, "GET", path).0, expected, "{role:?} {path}");
    }
}

#[test]
fn what_changes_the_proxy_needs_post() {
    let test = Test::default();
    for path in [
        "/drain_listeners",
        "/healthcheck/fail",
        "/healthcheck/ok",
        "/quitquitquit",
        "/logging?level=debug",
    ] {
        assert_eq!(test.ask(Role::Admin, "GET", path).0, 405, "{path}");
    }
    assert_eq!(test.lifecycle.state(), Lifecycle::Running);
    let (status, body) = test.ask(Role::Admin, "POST", "/logging?level=debug");
    assert_eq!((status, body.as_str()), (200, "active loggers:\n  weft-proxy: debug\n"));
    assert_eq!(test.ask(Role::Admin, "POST", "/logging?level=loud").0, 400);
}

#[test]
fn the_dump_shows_what_the_proxy_holds_in_envoys_shape() {
    let test = Test::configured();
    let dump = test.json("/config_dump");
    let configs = dump["configs"].as_array().unwrap();
    let part = |name: &str| {
        let name = format!("type.googleapis.com/envoy.admin.v3.{name}ConfigDump");
        configs.iter().find(|config| config["@type"] == name.as_str()).unwrap()
    };
    let listeners = &part("Listeners")["dynamic_listeners"];
    assert_eq!(listeners[0]["name"], "http_proxy");
    assert_eq!(listeners[1]["active_state"]["version_info"], "l1");
    let chain = &listeners[1]["active_state"]["listener"]["filter_chains"][0];
    assert_eq!(chain["filters"][0]["typed_config"]["cluster"], "outbound|80||b");
    let routes = &part("Routes")["dynamic_route_configs"][0];
    assert_eq!(routes["version_info"], "r1");
    let host = &routes["route_config"]["virtual_hosts"][0];
    assert_eq!(host["name"], "b.default:80");
    assert_eq!(
        host["routes"][0],
        serde_json::json!({
            "name": "default",
            "match": {"prefix": "/"},
            "route": {
                "weighted_clusters": {"clusters": [{"name": "outbound|80||b", "weight": 1}]},
                "timeout": "15s",
            },
        })
    );
    let cluster = &part("Clusters")["dynamic_active_clusters"][0];
    assert_eq!(
        (&cluster["version_info"], &cluster["cluster"]["type"]),
        (&"c1".into(), &"EDS".into())
    );
    let endpoints = &part("Endpoints")["dynamic_endpoint_configs"][0]["endpoint_config"];
    assert_eq!(endpoints["cluster_name"], "outbound|80||b");
    assert_eq!(part("Endpoints")["dynamic_endpoint_configs"][0]["version_info"], "e1");
    let addresses: Vec<_> = endpoints["endpoints"][0]["lb_endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|endpoint| endpoint["endpoint"]["address"]["socket_address"]["address"].clone())
        .collect();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.2"]);
    let part = test.json("/config_dump?resource=dynamic_active_clusters");
    assert_eq!(part["configs"].as_array().unwrap().len(), 1);
    assert_eq!(test.ask(Role::Admin, "GET", "/config_dump?resource=nonsense").0, 404);
}

#[test]
fn subscriptions_show_versions_and_refusals() {
    let test = Test::configured();
    let mut bad = eds_cluster("outbound|80||b");
    bad.lb_policy = 99;
    let rejections = test.store.borrow_mut().apply(
        &response(Kind::Cluster, vec![resource("outbound|80||b", "c2", &bad)], &[]),
        Instant::now(),
    );
    assert_eq!(rejections.len(), 1);
    assert_eq!(
        test.json("/subscriptions")["cds"],
        serde_json::json!([{
            "name": "outbound|80||b",
            "version": "c1",
            "warming": null,
            "absent": false,
            "error": "lb_policy: \"99\" is not supported",
        }])
    );
}

#[test]
fn clusters_and_listeners_come_as_text_and_as_json() {
    let test = Test::configured();
    let (_, text) = test.ask(Role::Admin, "GET", "/clusters");
    for line in [
        "outbound|80||b::default_priority::max_connections::1024",
        "outbound|80||b::10.0.0.1:80::cx_active::0",
        "outbound|80||b::10.0.0.2:80::health_flags::healthy",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    let json = test.json("/clusters?format=json");
    assert_eq!(json["cluster_statuses"][0]["host_statuses"].as_array().unwrap().len(), 2);
    let (_, text) = test.ask(Role::Admin, "GET", "/listeners");
    assert_eq!(text, "virtualInbound::127.0.0.1:15006\n");
    let json = test.json("/listeners?format=json");
    assert_eq!(
        json["listener_statuses"][0]["local_address"]["socket_address"]["port_value"],
        15006
    );
}

#[test]
fn stats_can_be_filtered() {
    let test = Test::default();
    let (_, text) = test.ask(Role::Admin, "GET", "/stats?filter=%5Econtrol_plane%5C.conn");
    assert_eq!(text, "control_plane.connected_state: 0\n");
    let json = test.json("/stats?filter=control_plane.streams&format=json");
    assert_eq!(json, serde_json::json!({"stats": [{"name": "control_plane.streams", "value": 0}]}));
    assert_eq!(test.ask(Role::Admin, "GET", "/stats?filter=(").0, 400);
    let (_, text) = test.ask(Role::Metrics, "GET", "/stats/prometheus");
    assert!(text.contains("\nenvoy_control_plane_connected_state{} 0\n"), "{text}");
}

#[test]
fn the_certificate_is_shown_without_its_key() {
    let test = Test::default();
    assert_eq!(test.json("/certs"), serde_json::json!({"certificates": []}));
    test.shared.identity.store(Some(std::sync::Arc::new(identity())));
    let certs = test.json("/certs");
    let leaf = &certs["certificates"][0]["cert_chain"][0];
    assert_eq!(leaf["serial_number"], "2a");
    assert_eq!(leaf["subject_alt_names"][0]["uri"], crate::control::fake::IDENTITY);
    assert_eq!(leaf["days_until_expiration"], "3");
    assert_eq!(leaf["valid_from"], "1970-01-01T00:00:00Z");
    drop(test.control);
}

async fn exchange(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn requests_come_over_real_sockets() {
    LocalSet::new()
        .run_until(async {
            let test = Test::default();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let agent = Agent::new(&test.shared.settings, test.lifecycle.clone()).unwrap();
            let agent = Rc::new(agent);
            spawn_local(server::serve(listener, Role::Admin, test.admin.clone(), agent));
            let answer =
                exchange(address, "GET /help HTTP/1.1\r\nhost: proxy\r\nconnection: close\r\n\r\n")
                    .await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.ends_with(HELP), "{answer}");
            let answer = exchange(address, "nonsense\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        })
        .await;
}

/// Anybody may connect to the ports that the kubelet's probes come by.
#[tokio::test]
async fn connections_on_which_nothing_happens_make_room() {
    LocalSet::new()
        .run_until(async {
            let test = Test::default();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let agent = Agent::new(&test.shared.settings, test.lifecycle.clone()).unwrap();
            spawn_local(server::serve(listener, Role::Health, test.admin.clone(), Rc::new(agent)));
            // More than there are places, and each has begun a request that does not end.
            let mut silent = Vec::new();
            for _ in 0..100 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(b"GET /healthz/ready HTTP/1.1\r\n").await.unwrap();
                silent.push(stream);
                let probe = "GET /healthz/ready HTTP/1.1\r\nhost: p\r\nconnection: close\r\n\r\n";
                let answer = exchange(address, probe).await;
                assert!(answer.starts_with("HTTP/1.1 "), "{answer:?}");
            }
            // The oldest had to go, the youngest is still there.
            let mut oldest = silent.remove(0);
            assert_eq!(oldest.read(&mut [0]).await.unwrap_or_default(), 0);
            let mut youngest = silent.pop().unwrap();
            youngest.write_all(b"host: p\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            youngest.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 "), "{answer:?}");
        })
        .await;
}
