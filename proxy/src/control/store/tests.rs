use std::sync::atomic::Ordering;

use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::{config::route::ForwardTarget, control::fixtures::*, settings::Settings};

const NEEDED: Subscribed = Subscribed::Named(&["virtualInbound", "http_proxy"]);

struct Test {
    store: Store,
    now: Instant,
}

impl Default for Test {
    fn default() -> Self {
        Self::with(&[], OnDemandLimits { names: 100, idle: Duration::from_secs(60) })
    }
}

impl Test {
    fn with(named: &[NamedService], limits: OnDemandLimits) -> Self {
        let decoder = Decoder::new(&Settings::test()).unwrap();
        let mut test =
            Self { store: Store::new(decoder, NEEDED, named, limits), now: Instant::now() };
        test.publish();
        test
    }

    fn say(&mut self, kind: Kind, resources: Vec<PbResource>, removed: &[&str]) -> Vec<Rejection> {
        let rejections = self.store.apply(&response(kind, resources, removed), self.now);
        self.publish();
        rejections
    }

    fn good(&mut self, kind: Kind, resources: Vec<PbResource>) {
        let rejections = self.say(kind, resources, &[]);
        assert!(rejections.is_empty(), "{rejections:?}");
    }

    fn publish(&mut self) -> bool {
        let changed = self.store.publish(self.now).is_some();
        self.store.wake();
        changed
    }

    fn later(&mut self, time: Duration) {
        self.now += time;
        self.publish();
    }

    fn cluster(&mut self, name: &str, addresses: &[&str]) {
        self.good(Kind::Cluster, vec![resource(name, "1", &eds_cluster(name))]);
        self.good(Kind::Endpoints, vec![resource(name, "1", &assignment(name, addresses))]);
    }

    fn host(&mut self, asked: &str, version: &str, clusters: &[&str]) {
        self.good(
            Kind::VirtualHost,
            vec![resource(asked, version, &virtual_host("host", clusters))],
        );
    }

    fn demand(&mut self, name: &str, now: u32) -> oneshot::Receiver<()> {
        let (ready, waiting) = oneshot::channel();
        self.store.demand(&DemandKey::VirtualHost(name.into()), ready, now);
        self.publish();
        waiting
    }

    fn wanted(&self, kind: Kind) -> Vec<String> {
        let mut names: Vec<_> = self.store.wanted(kind).keys().map(ToString::to_string).collect();
        names.sort();
        names
    }

    /// The clusters that a virtual host in effect splits over; `None`: it is not there; empty: known to be absent.
    fn split(&self, name: &str) -> Option<Vec<String>> {
        let entry = self.store.published().virtual_hosts.get(name)?;
        let Some(host) = entry else {
            return Some(Vec::new());
        };
        let crate::config::route::RouteAction::Forward(forward) = &host.value.routes[0].action
        else {
            panic!("not a forwarding route");
        };
        let ForwardTarget::Weighted { clusters, .. } = &forward.target else {
            panic!("not a split");
        };
        Some(clusters.iter().map(|cluster| cluster.name.to_string()).collect())
    }

    fn clusters(&self) -> Vec<(String, Vec<String>)> {
        let mut clusters: Vec<_> = self
            .store
            .published()
            .clusters
            .iter()
            .map(|(name, cluster)| {
                let addresses =
                    cluster.endpoints.all.iter().map(|e| e.address.to_string()).collect();
                (name.to_string(), addresses)
            })
            .collect();
        clusters.sort();
        clusters
    }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn every_proxy_wants_its_listeners_and_those_of_named_services() {
    let named = [
        NamedService { bind: "127.0.0.1:80".parse().unwrap(), host: "b".into(), port: 80 },
        NamedService { bind: "127.0.0.1:81".parse().unwrap(), host: "b".into(), port: 81 },
    ];
    let limits = OnDemandLimits { names: 10, idle: Duration::from_secs(60) };
    let test = Test::with(&named, limits);
    assert_eq!(test.wanted(Kind::Listener), ["b_80", "b_81", "http_proxy", "virtualInbound"]);
    for kind in [Kind::Cluster, Kind::Endpoints, Kind::Route, Kind::VirtualHost] {
        assert!(test.wanted(kind).is_empty(), "{kind:?}");
    }
}

#[test]
fn a_virtual_host_takes_effect_when_its_clusters_are_there_with_their_endpoints() {
    let mut test = Test::default();
    let mut waiting = test.demand("http_proxy/b:80", 1);
    assert_eq!(test.wanted(Kind::VirtualHost), ["http_proxy/b:80"]);
    test.host("http_proxy/b:80", "1", &["b1", "b2"]);
    assert_eq!(test.wanted(Kind::Cluster), ["b1", "b2"]);
    assert_eq!(test.split("http_proxy/b:80"), None);
    test.cluster("b1", &["10.0.0.1:80"]);
    assert_eq!(test.split("http_proxy/b:80"), None, "b2 is missing");
    test.good(Kind::Cluster, vec![resource("b2", "1", &eds_cluster("b2"))]);
    assert_eq!(test.split("http_proxy/b:80"), None, "b2 has no endpoints yet");
    assert_eq!(waiting.try_recv(), Err(TryRecvError::Empty));
    test.good(Kind::Endpoints, vec![resource("b2", "1", &assignment("b2", &["10.0.0.2:80"]))]);
    assert_eq!(test.split("http_proxy/b:80"), Some(strings(&["b1", "b2"])));
    assert_eq!(waiting.try_recv(), Ok(()));
    let mut again = test.demand("http_proxy/b:80", 2);
    assert_eq!(again.try_recv(), Ok(()), "what is held is answered at once");
}

#[test]
fn a_changed_virtual_host_waits_for_its_new_cluster_and_then_lets_the_old_one_go() {
    let mut test = Test::default();
    let _waiting = test.demand("r/b", 1);
    test.host("r/b", "1", &["b1"]);
    test.cluster("b1", &["10.0.0.1:80"]);
    test.host("r/b", "2", &["b2"]);
    assert_eq!(test.split("r/b"), Some(strings(&["b1"])), "the old version stays");
    assert_eq!(test.wanted(Kind::Cluster), ["b1", "b2"]);
    test.cluster("b2", &["10.0.0.2:80"]);
    assert_eq!(test.split("r/b"), Some(strings(&["b2"])));
    assert_eq!(test.wanted(Kind::Cluster), ["b2"]);
    assert_eq!(test.wanted(Kind::Endpoints), ["b2"]);
    assert_eq!(test.clusters(), [("b2".to_owned(), strings(&["10.0.0.2:80"]))]);
}

#[test]
fn a_route_to_a_cluster_that_does_not_exist_takes_effect_without_it() {
    let mut test = Test::default();
    let mut waiting = test.demand("r/b", 1);
    test.host("r/b", "1", &["b1", "gone"]);
    test.cluster("b1", &["10.0.0.1:80"]);
    assert_eq!(test.split("r/b"), None);
    test.say(Kind::Cluster, vec![], &["gone"]);
    assert_eq!(test.split("r/b"), Some(strings(&["b1", "gone"])));
    assert_eq!(test.clusters(), [("b1".to_owned(), strings(&["10.0.0.1:80"]))]);
    assert_eq!(waiting.try_recv(), Ok(()));
}

#[test]
fn a_removed_cluster_stays_while_the_route_that_names_it_is_replaced() {
    let mut test = Test::default();
    let _waiting = test.demand("r/b", 1);
    test.host("r/b", "1", &["b1"]);
    test.cluster("b1", &["10.0.0.1:80"]);
    test.say(Kind::Cluster, vec![], &["b1"]);
    test.say(Kind::Endpoints, vec![], &["b1"]);
    assert_eq!(test.clusters(), [("b1".to_owned(), strings(&["10.0.0.1:80"]))]);
    test.later(REMOVAL_GRACE);
    assert!(test.clusters().is_empty(), "but not for ever");
    assert_eq!(test.split("r/b"), Some(strings(&["b1"])));
    test.cluster("b1", &["10.0.0.3:80"]);
    assert_eq!(test.clusters(), [("b1".to_owned(), strings(&["10.0.0.3:80"]))], "it may return");
}

#[test]
fn an_updated_cluster_keeps_its_endpoints_and_its_state() {
    let mut test = Test::default();
    let _waiting = test.demand("r/b", 1);
    test.host("r/b", "1", &["b1"]);
    test.cluster("b1", &["10.0.0.1:80", "10.0.0.2:80"]);
    let before = test.store.published().clusters["b1"].clone();
    let mut changed = eds_cluster("b1");
    changed.lb_policy = 3;
    test.good(Kind::Cluster, vec![resource("b1", "2", &changed)]);
    test.good(
        Kind::Endpoints,
        vec![resource("b1", "2", &assignment("b1", &["10.0.0.2:80", "10.0.0.3:80"]))],
    );
    let after = test.store.published().clusters["b1"].clone();
    assert_eq!(after.lb, crate::config::cluster::LbPolicy::Random);
    assert!(Arc::ptr_eq(&before.state, &after.state));
    assert_eq!(before.endpoints.all[1].address, after.endpoints.all[0].address);
    assert!(Arc::ptr_eq(&before.endpoints.all[1].state, &after.endpoints.all[0].state));
}

#[test]
fn a_listener_waits_for_its_routes_and_their_clusters() {
    let mut test = Test::default();
    let published = |test: &Test| test.store.published().listeners.contains_key("http_proxy");
    test.good(Kind::Listener, vec![resource("http_proxy", "1", &rds_listener("http_proxy", "r"))]);
    assert_eq!(test.wanted(Kind::Route), ["r"]);
    assert!(!published(&test));
    test.good(Kind::Route, vec![resource("r", "1", &route_config("r", &["b"]))]);
    assert_eq!(test.wanted(Kind::Cluster), ["b"]);
    assert!(!published(&test));
    test.cluster("b", &[]);
    assert!(published(&test));
    assert!(test.store.published().routes.contains_key("r"));
    assert_eq!(test.clusters(), [("b".to_owned(), vec![])], "no endpoints is an answer");
}

#[test]
fn one_bad_resource_is_refused_and_the_others_of_its_batch_are_taken() {
    let mut test = Test::default();
    let _waiting = (test.demand("r/a", 1), test.demand("r/b", 1));
    test.host("r/a", "1", &["x"]);
    test.cluster("x", &["10.0.0.1:80"]);
    let mut bad = virtual_host("host", &["y"]);
    bad.include_attempt_count_in_response = true;
    let rejections = test.say(
        Kind::VirtualHost,
        vec![resource("r/a", "2", &bad), resource("r/b", "1", &virtual_host("host", &["x"]))],
        &[],
    );
    let rejected: Vec<_> = rejections
        .iter()
        .map(|rejection| (rejection.name.as_str(), rejection.invalid.to_string()))
        .collect();
    assert_eq!(rejected, [("r/a", "include_attempt_count_in_response: not supported".to_owned())]);
    assert_eq!(test.split("r/a"), Some(strings(&["x"])), "the last good version stays");
    assert_eq!(test.split("r/b"), Some(strings(&["x"])));
    let versions = test.store.versions(Kind::VirtualHost);
    assert_eq!(versions["r/a"], "1");
    let overview = test.store.overview(Kind::VirtualHost);
    assert_eq!(
        overview[0].error.as_deref(),
        Some("include_attempt_count_in_response: not supported")
    );
}

#[test]
fn a_name_whose_first_version_is_refused_is_answered_as_absent() {
    let mut test = Test::default();
    let mut waiting = test.demand("r/a", 1);
    let mut bad = virtual_host("host", &["y"]);
    bad.include_attempt_count_in_response = true;
    test.say(Kind::VirtualHost, vec![resource("r/a", "1", &bad)], &[]);
    assert_eq!(waiting.try_recv(), Ok(()));
    assert_eq!(test.split("r/a"), Some(vec![]));
}

#[test]
fn an_absent_name_is_remembered_until_it_appears() {
    let mut test = Test::default();
    let mut waiting = test.demand("r/a", 1);
    test.say(Kind::VirtualHost, vec![], &["r/a"]);
    assert_eq!(waiting.try_recv(), Ok(()));
    assert_eq!(test.split("r/a"), Some(vec![]));
    let mut again = test.demand("r/a", 2);
    assert_eq!(again.try_recv(), Ok(()), "nobody waits twice");
    test.host("r/a", "1", &["x"]);
    test.cluster("x", &["10.0.0.1:80"]);
    assert_eq!(test.split("r/a"), Some(strings(&["x"])));
}

#[test]
fn names_that_are_not_used_are_dropped_with_all_that_they_needed() {
    let mut test = Test::default();
    let _waiting = (test.demand("r/a", 0), test.demand("r/b", 0), test.demand("r/none", 0));
    test.host("r/a", "1", &["x"]);
    test.host("r/b", "1", &["y"]);
    test.say(Kind::VirtualHost, vec![], &["r/none"]);
    test.cluster("x", &["10.0.0.1:80"]);
    test.cluster("y", &["10.0.0.2:80"]);
    test.store.published().virtual_hosts["r/a"].as_ref().unwrap().touch(50);
    assert!(!test.store.drop_idle(59));
    assert!(test.store.drop_idle(60));
    test.publish();
    assert_eq!(test.wanted(Kind::VirtualHost), ["r/a"]);
    assert_eq!(test.wanted(Kind::Cluster), ["x"]);
    assert_eq!(test.clusters(), [("x".to_owned(), strings(&["10.0.0.1:80"]))]);
    assert_eq!(test.split("r/b"), None);
    assert!(test.store.drop_idle(110));
    test.publish();
    assert!(test.wanted(Kind::VirtualHost).is_empty());
    assert_eq!(test.wanted(Kind::Listener), ["http_proxy", "virtualInbound"]);
}

#[test]
fn a_use_survives_an_update() {
    let mut test = Test::default();
    let _waiting = test.demand("r/a", 0);
    test.host("r/a", "1", &["x"]);
    test.cluster("x", &["10.0.0.1:80"]);
    let before = test.store.published().virtual_hosts["r/a"].clone().unwrap();
    test.host("r/a", "2", &["x"]);
    let after = test.store.published().virtual_hosts["r/a"].clone().unwrap();
    assert!(!Arc::ptr_eq(&before.value, &after.value));
    before.touch(7);
    assert_eq!(after.last_used.load(Ordering::Relaxed), 7);
}

#[test]
fn when_there_are_too_many_names_the_least_valuable_give_way() {
    let limits = OnDemandLimits { names: 3, idle: Duration::from_secs(60) };
    let mut test = Test::with(&[], limits);
    let _used = test.demand("r/used", 0);
    test.host("r/used", "1", &["x"]);
    test.cluster("x", &["10.0.0.1:80"]);
    let _absent = test.demand("r/absent", 5);
    test.say(Kind::VirtualHost, vec![], &["r/absent"]);
    let mut asked = test.demand("r/asked", 3);
    let _new = test.demand("r/new", 6);
    assert_eq!(test.wanted(Kind::VirtualHost), ["r/asked", "r/new", "r/used"]);
    let _newer = test.demand("r/newer", 7);
    assert_eq!(test.wanted(Kind::VirtualHost), ["r/new", "r/newer", "r/used"]);
    assert_eq!(asked.try_recv(), Err(TryRecvError::Closed), "who waited is told");
}

#[test]
fn a_flood_of_unknown_names_pushes_out_nothing_that_is_used() {
    let limits = OnDemandLimits { names: 64, idle: Duration::from_secs(60) };
    let mut test = Test::with(&[], limits);
    let _used = test.demand("r/used", 0);
    test.host("r/used", "1", &["x"]);
    test.cluster("x", &["10.0.0.1:80"]);
    for number in 0..1000 {
        let name = format!("r/unknown-{number}");
        let _waiting = test.demand(&name, 1);
        if number % 2 == 0 {
            test.say(Kind::VirtualHost, vec![], &[&name]);
        }
        assert!(test.wanted(Kind::VirtualHost).len() <= 64);
    }
    assert_eq!(test.split("r/used"), Some(strings(&["x"])));
}

#[test]
fn a_name_of_absurd_length_is_not_asked_for() {
    let mut test = Test::default();
    let mut waiting = test.demand(&format!("r/{}", "x".repeat(LONGEST_NAME)), 0);
    assert_eq!(waiting.try_recv(), Err(TryRecvError::Closed));
    assert!(test.wanted(Kind::VirtualHost).is_empty());
}

#[test]
fn nothing_is_swapped_when_nothing_has_changed() {
    let mut test = Test::default();
    let _waiting = test.demand("r/a", 0);
    test.host("r/a", "1", &["x"]);
    test.cluster("x", &["10.0.0.1:80"]);
    let generation = test.store.published().generation;
    assert!(!test.publish());
    test.say(Kind::Cluster, vec![resource("unwanted", "1", &eds_cluster("unwanted"))], &[]);
    assert_eq!(test.store.published().generation, generation);
    test.good(Kind::Endpoints, vec![resource("x", "2", &assignment("x", &["10.0.0.9:80"]))]);
    assert_eq!(test.store.published().generation, generation + 1);
}

#[test]
fn virtual_hosts_are_found_by_their_aliases() {
    let mut test = Test::default();
    let _waiting = (test.demand("r/b", 0), test.demand("r/b:80", 0));
    let mut host = resource("r/b.default.svc:80", "1", &virtual_host("host", &["x"]));
    host.aliases = strings(&["r/b", "r/b:80"]);
    test.good(Kind::VirtualHost, vec![host]);
    test.cluster("x", &["10.0.0.1:80"]);
    assert_eq!(test.split("r/b"), Some(strings(&["x"])));
    assert_eq!(test.split("r/b:80"), Some(strings(&["x"])));
    let mut gone = resource("r/b", "2", &virtual_host("host", &[]));
    gone.resource = None;
    test.good(Kind::VirtualHost, vec![gone]);
    assert_eq!(test.split("r/b"), Some(vec![]));
}

#[test]
fn a_dns_cluster_waits_for_the_first_look_up_and_keeps_what_it_had() {
    let mut test = Test::default();
    test.good(Kind::Listener, vec![resource("http_proxy", "1", &tcp_listener("http_proxy", "d"))]);
    let mut cluster = eds_cluster("d");
    cluster.cluster_discovery_type =
        Some(weft_api::xds::envoy::config::cluster::v3::cluster::ClusterDiscoveryType::Type(1));
    cluster.load_assignment = Some(assignment("d", &["db.example:5432"]));
    test.good(Kind::Cluster, vec![resource("d", "1", &cluster)]);
    assert!(test.clusters().is_empty());
    assert_eq!(test.store.names_to_resolve(), [(Box::from("db.example"), Duration::from_secs(5))]);
    test.store
        .resolved("db.example", vec!["10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap()]);
    test.publish();
    let expected = [("d".to_owned(), strings(&["10.0.0.1:5432", "10.0.0.2:5432"]))];
    assert_eq!(test.clusters(), expected);
    test.store.resolved("db.example", vec![]);
    test.publish();
    assert_eq!(test.clusters(), expected);
}

#[test]
fn versions_of_what_is_held_are_given_for_a_new_stream() {
    let mut test = Test::default();
    let _waiting = (test.demand("r/a", 0), test.demand("r/none", 0));
    test.host("r/a", "7", &["x"]);
    test.say(Kind::VirtualHost, vec![], &["r/none"]);
    assert_eq!(test.store.versions(Kind::VirtualHost), [("r/a".to_owned(), "7".to_owned())].into());
}

fn every_listener() -> Test {
    let decoder = Decoder::new(&Settings::test()).unwrap();
    let limits = OnDemandLimits { names: 1, idle: Duration::from_secs(60) };
    let mut test =
        Test { store: Store::new(decoder, Subscribed::All, &[], limits), now: Instant::now() };
    test.publish();
    test
}

#[test]
fn a_gateway_takes_every_listener_that_there_is_and_is_ready_once_they_are() {
    let mut test = every_listener();
    assert_eq!(test.wanted(Kind::Listener), ["*"]);
    assert!(!test.store.published().initialized);
    let listeners = || test_listeners(&[("0.0.0.0_80", "r"), ("0.0.0.0_81", "r")]);
    test.good(Kind::Listener, listeners());
    assert_eq!(test.wanted(Kind::Listener), ["*"]);
    assert_eq!(test.wanted(Kind::Route), ["r"]);
    assert!(!test.store.published().initialized, "they wait for their routes");
    let mut routes = route_config("r", &[]);
    routes.virtual_hosts = vec![direct_host("all")];
    test.good(Kind::Route, vec![resource("r", "1", &routes)]);
    assert!(test.store.published().initialized);
    assert_eq!(test.store.published().listeners.len(), 2);
    let generation = test.store.published().generation;
    test.good(Kind::Cluster, vec![]);
    assert_eq!(test.store.published().generation, generation, "nothing has changed");
    test.say(Kind::Listener, vec![], &["0.0.0.0_81"]);
    let held: Vec<_> = test.store.published().listeners.keys().cloned().collect();
    assert_eq!(held, [Arc::from("0.0.0.0_80")]);
    let versions = [("0.0.0.0_80".to_owned(), "1".to_owned())];
    assert_eq!(test.store.versions(Kind::Listener), versions.into());
}

fn test_listeners(listeners: &[(&str, &str)]) -> Vec<PbResource> {
    listeners.iter().map(|(name, route)| resource(name, "1", &rds_listener(name, route))).collect()
}

#[test]
fn a_gateway_without_listeners_is_ready_as_soon_as_it_knows() {
    let mut test = every_listener();
    test.good(Kind::Listener, vec![]);
    assert!(test.store.published().initialized);
}

#[test]
fn a_listener_whose_address_cannot_be_had_is_told_of() {
    let mut test = every_listener();
    let bound = |name: &str, port: u16| {
        let mut listener = tcp_listener(name, "c");
        listener.address = Some(address("127.0.0.1", port));
        listener.bind_to_port = None;
        resource(name, "1", &listener)
    };
    let said = response(
        Kind::Listener,
        vec![bound("a", 80), bound("b", 80), bound("c", 81), bound("d", 82)],
        &[],
    );
    assert!(test.store.apply(&said, test.now).is_empty());
    let refused = test.store.unbindable(&said, |address| match address.port() {
        81 => Err(io::Error::other("no")),
        _ => Ok(()),
    });
    let refused: Vec<_> =
        refused.iter().map(|r| (r.name.as_str(), r.invalid.to_string())).collect();
    let expected = [
        ("b", "address: cannot listen on 127.0.0.1:80: listener a has it".to_owned()),
        ("c", "address: cannot listen on 127.0.0.1:81: no".to_owned()),
    ];
    assert_eq!(refused, expected);
}

/// A certificate and its key, in PEM.
fn certificate(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// The name in the certificate that a listener shows now.
fn shown(test: &Test) -> Option<String> {
    use crate::config::tls::TlsSource;
    let listener = test.store.published().listeners.get("edge")?.as_ref()?.value.clone();
    let tls = listener.chains[0].tls.as_ref().unwrap();
    let [TlsSource::Secret(secret)] = tls.certificates.as_slice() else { panic!("no secret") };
    let SecretContent::Certificate(certified) = &*secret.content()? else { panic!("a bundle") };
    let (_, leaf) = x509_parser::parse_x509_certificate(&certified.cert[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
    let [x509_parser::extensions::GeneralName::DNSName(name)] = &names[..] else { panic!() };
    Some((*name).to_owned())
}

#[test]
fn a_listener_waits_for_its_secret_and_shows_every_good_version_of_it_at_once() {
    const NAME: &str = "kubernetes://shop";
    let secret = |version: &str, (certificate, key): (String, String)| {
        vec![resource(NAME, version, &certificate_secret(NAME, &certificate, &key))]
    };
    let mut test = every_listener();
    test.good(Kind::Listener, vec![resource("edge", "1", &tls_listener("edge", "c", NAME))]);
    test.cluster("c", &["10.0.0.1:80"]);
    assert_eq!(test.wanted(Kind::Secret), [NAME]);
    assert!(test.store.published().listeners.is_empty() && !test.store.published().initialized);
    test.good(Kind::Secret, secret("1", certificate("a.example")));
    assert!(test.store.published().initialized);
    assert_eq!(shown(&test).as_deref(), Some("a.example"));
    let generation = test.store.published().generation;
    test.good(Kind::Secret, secret("2", certificate("b.example")));
    assert_eq!(shown(&test).as_deref(), Some("b.example"));
    assert_eq!(test.store.published().generation, generation, "the listener is the same");
    let (good, other) = (certificate("c.example"), certificate("c.example"));
    let refused = test.say(Kind::Secret, secret("3", (good.0, other.1)), &[]);
    let expected = "tls_certificate: the key cannot be read: it is not the key of the certificate";
    assert_eq!(refused[0].invalid.to_string(), expected);
    assert_eq!(shown(&test).as_deref(), Some("b.example"), "the last good one stays");
    test.say(Kind::Secret, vec![], &[NAME]);
    test.later(REMOVAL_GRACE * 2);
    assert_eq!(shown(&test).as_deref(), Some("b.example"), "what uses it goes first");
    test.say(Kind::Listener, vec![], &["edge"]);
    assert!(test.wanted(Kind::Secret).is_empty());
}

#[test]
fn a_secret_that_does_not_exist_holds_nobody_up() {
    let mut test = every_listener();
    let listener = tls_listener("edge", "c", "kubernetes://gone");
    test.good(Kind::Listener, vec![resource("edge", "1", &listener)]);
    test.cluster("c", &["10.0.0.1:80"]);
    test.say(Kind::Secret, vec![], &["kubernetes://gone"]);
    assert!(test.store.published().listeners.contains_key("edge"));
    assert_eq!(shown(&test), None);
}
