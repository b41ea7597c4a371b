//! The protocol over real sockets: a raw delta client against the server, with resources made of a table.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod client;
mod mesh;

use std::{sync::Arc, time::Duration};

use client::{Client, Seen};
use mesh::{Mesh, Server, change, endpoints, mesh};
use tonic::Code;
use weft_api::{
    identity::SpiffeId, node::NodeInfo, xds::envoy::service::discovery::v3::DeltaDiscoveryRequest,
};
use weft_xds::{
    AdsOptions, ResourceType,
    connections::{Detail, SyncState},
    server::{NodeRegistry, NodeTrust},
};

use ResourceType::{Cluster, Endpoints, Listener, Route};

fn seen(kind: ResourceType, resources: &[(&str, &str)], removed: &[&str]) -> Seen {
    Seen {
        kind,
        resources: resources.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        removed: removed.iter().map(|n| (*n).to_owned()).collect(),
    }
}

#[tokio::test]
async fn a_named_subscription_gets_the_resource_its_updates_and_nothing_else() {
    let server = Server::start(mesh(&[(Cluster, "a", "1"), (Cluster, "b", "1")])).await;
    let mut client = Client::connect(&server).await;
    client.subscribe(Cluster, &["a"]).await;
    assert_eq!(client.next_acked().await, seen(Cluster, &[("a", "1")], &[]));
    // A change of what is not subscribed, one that leaves the bytes as they are, then one that matters.
    server.publish(mesh(&[(Cluster, "a", "1"), (Cluster, "b", "2")]), change(&["b"]));
    server.publish(mesh(&[(Cluster, "a", "1"), (Cluster, "b", "2")]), change(&["a"]));
    client.settle().await;
    server.publish(mesh(&[(Cluster, "a", "2"), (Cluster, "b", "2")]), change(&["a"]));
    assert_eq!(client.next_acked().await, seen(Cluster, &[("a", "2")], &[]));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_answered_and_appears_later() {
    let server = Server::start(mesh(&[])).await;
    let mut client = Client::connect(&server).await;
    client.subscribe(Cluster, &["a"]).await;
    assert_eq!(client.next_acked().await, seen(Cluster, &[], &["a"]));
    server.publish(mesh(&[(Cluster, "a", "1")]), change(&["a"]));
    assert_eq!(client.next_acked().await, seen(Cluster, &[("a", "1")], &[]));
    server.publish(mesh(&[]), change(&["a"]));
    assert_eq!(client.next_acked().await, seen(Cluster, &[], &["a"]));
}

#[tokio::test]
async fn a_name_that_was_unsubscribed_is_not_sent_any_more() {
    let server = Server::start(mesh(&[(Cluster, "a", "1"), (Cluster, "b", "1")])).await;
    let mut client = Client::connect(&server).await;
    client.subscribe(Cluster, &["a", "b"]).await;
    client.next_acked().await;
    client.unsubscribe(Cluster, &["a"]).await;
    client.settle().await;
    server.publish(mesh(&[(Cluster, "a", "2"), (Cluster, "b", "2")]), change(&["a", "b"]));
    assert_eq!(client.next_acked().await, seen(Cluster, &[("b", "2")], &[]));
    // Asked for again, it is sent again.
    client.subscribe(Cluster, &["a"]).await;
    assert_eq!(client.next_acked().await, seen(Cluster, &[("a", "2")], &[]));
}

#[tokio::test]
async fn wildcards_follow_what_exists() {
    for names in [&["*"][..], &[]] {
        let server = Server::start(mesh(&[(Cluster, "a", "1"), (Cluster, "b", "1")])).await;
        let mut client = Client::connect(&server).await;
        client.subscribe(Cluster, names).await;
        assert_eq!(client.next_acked().await, seen(Cluster, &[("a", "1"), ("b", "1")], &[]));
        server.publish(mesh(&[(Cluster, "b", "1"), (Cluster, "c", "1")]), change(&["a", "c"]));
        assert_eq!(client.next_acked().await, seen(Cluster, &[("c", "1")], &["a"]));
    }
}

#[tokio::test]
async fn an_empty_wildcard_is_answered_with_an_empty_response() {
    let server = Server::start(mesh(&[])).await;
    let mut client = Client::connect(&server).await;
    client.subscribe(Listener, &[]).await;
    assert_eq!(client.next_acked().await, seen(Listener, &[], &[]));
}

#[tokio::test]
async fn a_name_under_a_wildcard_is_told_again_when_unsubscribed() {
    let server = Server::start(mesh(&[(Cluster, "a", "1")])).await;
    let mut client = Client::connect(&server).await;
    client.subscribe(Cluster, &["*", "a"]).await;
    assert_eq!(client.next_acked().await, seen(Cluster, &[("a", "1")], &[]));
    client.unsubscribe(Cluster, &["a"]).await;
    assert_eq!(client.next_acked().await, seen(Cluster, &[("a", "1")], &[]));
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_differs() {
    let server = Server::start(mesh(&[(Cluster, "a", "1"), (Cluster, "b", "1")])).await;
    let mut client = Client::connect(&server).await;
    client.subscribe(Cluster, &["a", "b", "c"]).await;
    client.next_acked().await;
    let mut held = client.versions(Cluster);
    held.push(("c".into(), "someone else's".into()));
    drop(client);
    server.publish(mesh(&[(Cluster, "a", "1"), (Cluster, "b", "2")]), change(&["b"]));

    let mut named = Client::connect(&server).await;
    named.resubscribe(Cluster, &["a", "b", "c"], &held).await;
    assert_eq!(named.next_acked().await, seen(Cluster, &[("b", "2")], &["c"]));
    let mut wildcard = Client::connect(&server).await;
    wildcard.resubscribe(Cluster, &["*"], &held).await;
    assert_eq!(wildcard.next_acked().await, seen(Cluster, &[("b", "2")], &["c"]));
    // What it already had counts as acknowledged.
    server
        .until(|views| views.iter().all(|view| view.types["cds"].state == SyncState::Synced))
        .await;
}

#[tokio::test]
async fn before_the_first_snapshot_nothing_is_taken_away() {
    let server = Server::start_empty(NodeTrust::Claims, None).await;
    let mut client = Client::connect(&server).await;
    client.resubscribe(Cluster, &["a"], &[("a".into(), "old".into())]).await;
    client.settle().await;
    server.publish(mesh(&[(Cluster, "a", "1")]), change(&[]));
    assert_eq!(client.next_acked().await, seen(Cluster, &[("a", "1")], &[]));
}

#[tokio::test]
async fn a_refusal_is_recorded_and_the_stream_goes_on() {
    let server = Server::start(mesh(&[(Cluster, "a", "1")])).await;
    let mut client = Client::connect(&server).await;
    client.subscribe(Cluster, &["a"]).await;
    client.next_acked().await;
    server.publish(mesh(&[(Cluster, "a", "bad")]), change(&["a"]));
    let response = client.next().await;
    client.nack(&response, "a: bad is no good").await;
    server.until(|views| views[0].types["cds"].state == SyncState::Rejected).await;
    let view = server.connections.list(Detail::Names).remove(0);
    let nack = view.types["cds"].last_nack.clone().unwrap();
    assert_eq!((nack.reason.as_str(), nack.resources), ("a: bad is no good", vec!["a".to_owned()]));
    let resource = &view.types["cds"].resources[0];
    assert_ne!(resource.sent, resource.acked);
    assert!(server.metrics().contains("pilot_total_xds_rejects{type=\"cds\"} 1"));
    // Not sent again as it is, only when it changes.
    server.publish(mesh(&[(Cluster, "a", "2")]), change(&["a"]));
    assert_eq!(client.next_acked().await, seen(Cluster, &[("a", "2")], &[]));
    server.until(|views| views[0].types["cds"].state == SyncState::Synced).await;
}

#[tokio::test]
async fn a_stale_nonce_acknowledges_nothing() {
    let server = Server::start(mesh(&[(Cluster, "a", "1")])).await;
    let mut client = Client::connect(&server).await;
    client.subscribe(Cluster, &["a"]).await;
    let response = client.next().await;
    let stale = DeltaDiscoveryRequest {
        type_url: Cluster.type_url().into(),
        response_nonce: "ffff".into(),
        ..DeltaDiscoveryRequest::default()
    };
    client.send(stale).await;
    server.publish(mesh(&[(Cluster, "a", "2")]), change(&["a"]));
    client.settle().await;
    assert_eq!(server.connections.list(Detail::Names)[0].types["cds"].state, SyncState::Stale);
    client.ack(&response).await;
    assert_eq!(client.next_acked().await, seen(Cluster, &[("a", "2")], &[]));
}

#[tokio::test]
async fn a_slow_client_skips_versions_but_ends_with_the_last() {
    let server = Server::start(mesh(&[(Cluster, "a", "0"), (Cluster, "b", "0")])).await;
    let mut client = Client::connect(&server).await;
    client.subscribe(Cluster, &["a", "b"]).await;
    let first = client.next().await;
    for n in 1..=300 {
        let n = n.to_string();
        server.publish(mesh(&[(Cluster, "a", n.as_str()), (Cluster, "b", "1")]), change(&["a"]));
    }
    server.publish(mesh(&[(Cluster, "a", "300"), (Cluster, "b", "1")]), change(&["b"]));
    client.settle().await;
    client.ack(&first).await;
    assert_eq!(client.next_acked().await, seen(Cluster, &[("a", "300"), ("b", "1")], &[]));
    client.settle().await;
}

#[tokio::test]
async fn endpoints_change_without_their_cluster() {
    let mut first = mesh(&[(Cluster, "a", "1"), (Endpoints, "a", "1")]);
    let server = Server::start(first.clone()).await;
    let mut client = Client::connect(&server).await;
    client.subscribe(Cluster, &["a"]).await;
    client.next_acked().await;
    client.subscribe(Endpoints, &["a"]).await;
    client.next_acked().await;
    first.insert(Endpoints, "a", "2");
    server.publish(first, endpoints(&["a"]));
    assert_eq!(client.next_acked().await, seen(Endpoints, &[("a", "2")], &[]));
}

/// Everything that both kinds of client are told of when a cluster comes, is used, and goes.
fn before_and_after() -> (Mesh, Mesh) {
    let before = [(Cluster, "old", "1"), (Endpoints, "old", "1"), (Route, "r", "old")];
    let after = [(Cluster, "new", "1"), (Endpoints, "new", "1"), (Route, "r", "new")];
    (mesh(&before), mesh(&after))
}

#[tokio::test]
async fn a_stock_envoy_gets_clusters_and_endpoints_first_and_removals_last() {
    let (before, after) = before_and_after();
    let server = Server::start(before).await;
    let mut client = Client::connect_stock(&server).await;
    client.subscribe(Cluster, &["*"]).await;
    client.next_acked().await;
    client.subscribe(Endpoints, &["old"]).await;
    client.next_acked().await;
    client.subscribe(Route, &["r"]).await;
    client.next_acked().await;

    server.publish(after, change(&["old", "new", "r"]));
    assert_eq!(client.next_acked().await, seen(Cluster, &[("new", "1")], &[]));
    client.settle().await; // No route before the endpoints were asked for.
    client.subscribe(Endpoints, &["new"]).await;
    let endpoints = client.next().await;
    assert_eq!(client.project(&endpoints), seen(Endpoints, &[("new", "1")], &[]));
    client.settle().await; // ... and acknowledged.
    client.ack(&endpoints).await;
    let routes = client.next().await;
    assert_eq!(client.project(&routes), seen(Route, &[("r", "new")], &[]));
    client.settle().await; // Nothing goes before the route has.
    client.ack(&routes).await;
    let mut gone = [client.next_acked().await, client.next_acked().await];
    gone.sort_by_key(|seen| seen.kind);
    assert_eq!(gone, [seen(Cluster, &[], &["old"]), seen(Endpoints, &[], &["old"])]);
}

#[tokio::test]
async fn a_stock_envoy_is_sent_the_endpoints_of_a_changed_cluster_again() {
    let server = Server::start(mesh(&[(Cluster, "a", "1"), (Endpoints, "a", "1")])).await;
    let mut client = Client::connect_stock(&server).await;
    client.subscribe(Cluster, &["*"]).await;
    client.next_acked().await;
    client.subscribe(Endpoints, &["a"]).await;
    client.next_acked().await;
    server.publish(mesh(&[(Cluster, "a", "2"), (Endpoints, "a", "1")]), change(&["a"]));
    assert_eq!(client.next_acked().await, seen(Cluster, &[("a", "2")], &[]));
    assert_eq!(client.next_acked().await, seen(Endpoints, &[("a", "1")], &[]));
}

#[tokio::test]
async fn a_stock_envoy_that_does_not_answer_holds_nothing_up_for_ever() {
    let server = Server::start(mesh(&[(Cluster, "a", "1"), (Route, "r", "1")])).await;
    let mut client = Client::connect_stock(&server).await;
    client.subscribe(Cluster, &["*"]).await;
    client.next().await;
    client.subscribe(Route, &["r"]).await;
    assert_eq!(client.next_acked().await, seen(Route, &[("r", "1")], &[]));
}

#[tokio::test]
async fn a_proxy_that_warms_by_itself_waits_for_nothing() {
    let (before, after) = before_and_after();
    let server = Server::start(before).await;
    let mut client = Client::connect(&server).await;
    client.subscribe(Cluster, &["old"]).await;
    client.subscribe(Route, &["r"]).await;
    client.next().await;
    client.next_acked().await;
    // The first response is still unanswered.
    server.publish(after, change(&["old", "new", "r"]));
    assert_eq!(client.next_acked().await, seen(Route, &[("r", "new")], &[]));
}

#[tokio::test]
async fn nodes_are_served_for_what_their_certificate_says() {
    let id = |namespace, account| SpiffeId::new("cluster.local", namespace, account);
    let table = [
        (Some(id("default", "order-service")), None),
        (Some(id("other", "order-service")), Some(Code::PermissionDenied)),
        (Some(id("default", "admin")), Some(Code::PermissionDenied)),
        (None, Some(Code::Unauthenticated)),
    ];
    for (identity, refusal) in table {
        let server = Server::start_empty(NodeTrust::Certificate, identity.clone()).await;
        server.publish(mesh(&[(Cluster, "a", "1")]), change(&[]));
        let mut client = match Client::try_connect(&server).await {
            Ok(client) => client,
            Err(status) => {
                assert_eq!(Some(status.code()), refusal, "{identity:?}");
                continue;
            }
        };
        client.subscribe(Cluster, &["a"]).await;
        let code = client.try_next().await.err().map(|status| status.code());
        assert_eq!(code, refusal, "{identity:?}");
    }
}

#[derive(Debug)]
struct Pods(&'static [&'static str]);

#[tonic::async_trait]
impl NodeRegistry for Pods {
    async fn check(&self, node: &NodeInfo) -> Result<(), String> {
        let known = self.0.contains(&node.pod_name.as_str());
        known.then_some(()).ok_or_else(|| format!("there is no pod {}", node.pod_name))
    }
}

#[tokio::test]
async fn a_node_that_nobody_knows_is_refused() {
    for (pods, refusal) in [
        (&["order-service-v1-0"][..], None),
        (
            &["other"],
            Some((Code::PermissionDenied, "there is no pod order-service-v1-0".to_owned())),
        ),
    ] {
        let options = AdsOptions {
            trust: NodeTrust::Claims,
            nodes: Some(Arc::new(Pods(pods))),
            ..AdsOptions::default()
        };
        let server = Server::start_with(options, None).await;
        server.publish(mesh(&[(Cluster, "a", "1")]), change(&[]));
        let mut client = Client::connect(&server).await;
        client.subscribe(Cluster, &["a"]).await;
        let refused = client.try_next().await.err();
        assert_eq!(refused.map(|status| (status.code(), status.message().to_owned())), refusal);
    }
}

#[tokio::test]
async fn a_node_that_is_not_described_is_refused() {
    let server = Server::start(mesh(&[])).await;
    for node in [None, Some(weft_api::xds::envoy::config::core::v3::Node::default())] {
        let mut client = Client::connect(&server).await;
        client.node = node;
        client.subscribe(Cluster, &["a"]).await;
        assert_eq!(client.try_next().await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_type_that_is_not_served_has_no_resources() {
    let server = Server::start(mesh(&[(Cluster, "a", "1")])).await;
    let mut client = Client::connect(&server).await;
    client.subscribe(Cluster, &["a"]).await;
    client.next_acked().await;
    let type_url = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    let request = DeltaDiscoveryRequest {
        type_url: type_url.into(),
        resource_names_subscribe: vec!["default".into()],
        ..DeltaDiscoveryRequest::default()
    };
    client.send(request).await;
    let response = client.next().await;
    assert_eq!(
        (response.type_url.as_str(), &response.removed_resources[..]),
        (type_url, &["default".to_owned()][..])
    );
}

/// The gauge of connected proxies; a proxy says the version that it has.
fn connected(proxies: u32) -> String {
    format!("pilot_xds{{version=\"weft-proxy/{}\"}} {proxies}", env!("CARGO_PKG_VERSION"))
}

#[tokio::test]
async fn proxies_are_listed_while_they_are_connected_and_streams_end_on_drain() {
    let server = Server::start(mesh(&[(Cluster, "a", "1")])).await;
    let mut client = Client::connect(&server).await;
    client.subscribe(Cluster, &["a"]).await;
    client.next_acked().await;
    server
        .until(|views| views.len() == 1 && views[0].types["cds"].state == SyncState::Synced)
        .await;
    let view = server.connections.find("order-service-v1-0.default", Detail::Names).remove(0);
    assert_eq!(view.types.keys().copied().collect::<Vec<_>>(), ["cds"]);
    assert_eq!(view.types["cds"].resources[0].sent, view.types["cds"].resources[0].acked);
    assert!(server.metrics().contains(&connected(1)), "{}", server.metrics());
    assert!(server.metrics().contains("pilot_xds_pushes{type=\"cds\"} 1"));
    server.drain.cancel();
    assert!(client.try_next().await.is_err());
    server.until(<[_]>::is_empty).await;
    assert!(server.metrics().contains(&connected(0)));
}

#[tokio::test]
async fn equal_views_share_one_resolution() {
    let server = Server::start(mesh(&[(Cluster, "a", "1")])).await;
    for _ in 0..3 {
        let mut client = Client::connect(&server).await;
        client.subscribe(Cluster, &["a"]).await;
        client.next_acked().await;
    }
    assert_eq!(server.resolutions(), 1);
    let mut client = Client::connect(&server).await;
    client.subscribe(Cluster, &["a", "b"]).await;
    client.next_acked().await;
    server.publish(mesh(&[(Cluster, "a", "1"), (Cluster, "b", "2")]), change(&["b"]));
    client.next_acked().await;
    assert_eq!(server.resolutions(), 3, "`a` was not touched, `b` was resolved twice");
}

#[tokio::test]
async fn a_response_is_cut_when_it_gets_large() {
    let big = "x".repeat(300_000);
    let names: Vec<String> = (0..20).map(|n| format!("c{n:02}")).collect();
    let resources: Vec<_> =
        names.iter().map(|name| (Cluster, name.as_str(), big.as_str())).collect();
    let server = Server::start(mesh(&resources)).await;
    let mut client = Client::connect(&server).await;
    client.subscribe(Cluster, &["*"]).await;
    let mut got = Vec::new();
    while got.len() < names.len() {
        got.extend(client.next_acked().await.resources.into_iter().map(|(name, _)| name));
    }
    assert_eq!(got, names);
    client.settle().await;
}

#[tokio::test]
async fn a_client_that_never_says_who_it_is_is_let_go() {
    let options = AdsOptions {
        trust: NodeTrust::Claims,
        first_request_timeout: Duration::from_secs(1),
        ..AdsOptions::default()
    };
    let server = Server::start_with(options, None).await;
    let mut client = Client::connect(&server).await;
    assert_eq!(client.try_next().await.unwrap_err().code(), Code::DeadlineExceeded);
}
