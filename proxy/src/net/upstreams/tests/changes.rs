//! Configurations that change under connections and requests.

use super::*;

#[tokio::test(flavor = "local")]
async fn connections_to_an_endpoint_that_left_are_closed_after_use() {
    let release = Rc::new(Notify::new());
    let held = release.clone();
    let old = Server::start(Speaks::Http1, move |_| {
        let held = held.clone();
        async move {
            held.notified().await;
            reply(200, "old")
        }
    })
    .await;
    let new = Server::start(Speaks::Http1, async |_| reply(200, "new")).await;
    let test = Rc::new(Test::new(&[old.address], |_| {}));
    let running = spawn_local({
        let test = test.clone();
        async move { test.get().await.unwrap().1 }
    });
    old.until_open(1).await;
    test.change(|cluster| cluster.endpoints = endpoints(&[new.address], None));
    assert_eq!(test.get().await.unwrap().1, "new");
    release.notify_one();
    assert_eq!(running.await.unwrap(), "old");
    old.until_open(0).await;
}

#[tokio::test(flavor = "local")]
async fn requests_that_wait_for_an_endpoint_that_left_are_served() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let speaks = match protocol {
            UpstreamProtocol::Http2 => Speaks::Http2 { streams: 10 },
            _ => Speaks::Http1,
        };
        let server = Server::start(speaks, async |_| reply(200, "")).await;
        let test = Rc::new(Test::new(&[server.address], |cluster| cluster.protocol = protocol));
        let state = test.cluster.borrow().state.clone();
        let all: Vec<_> = (0..3)
            .map(|_| {
                let test = test.clone();
                spawn_local(async move { test.get().await.map_err(|error| error.kind) })
            })
            .collect();
        while state.pending.get() < 3 {
            tokio::task::yield_now().await;
        }
        test.change(|cluster| cluster.endpoints = endpoints(&[], None));
        for one in all {
            assert_eq!(one.await.unwrap(), Ok((200, Bytes::new())));
        }
        server.until_open(0).await;
    }
}

#[tokio::test(flavor = "local")]
async fn connections_survive_changes_that_do_not_concern_them() {
    let server = Server::start(Speaks::Http1, async |_| reply(200, "")).await;
    let test = Test::new(&[server.address], |_| {});
    test.get().await.unwrap();
    let other = nobody();
    test.change(|cluster| {
        cluster.limits.max_requests = 10;
        cluster.endpoints = endpoints(&[server.address, other], None);
    });
    test.change(|cluster| cluster.endpoints = endpoints(&[server.address], None));
    test.get().await.unwrap();
    assert_eq!(server.connections.get(), 1);
    test.change(speak_http2);
    server.until_open(0).await;
}

#[tokio::test(flavor = "local")]
async fn a_cluster_that_left_closes_its_connections() {
    let server = Server::start(Speaks::Http1, async |_| reply(200, "")).await;
    let test = Test::new(&[server.address], |_| {});
    test.get().await.unwrap();
    test.upstreams.reconcile(&ProxyConfig::default());
    server.until_open(0).await;
    let name = test.cluster.borrow().name.clone();
    assert!(test.upstreams.get(&ProxyConfig::default(), &name).is_none());
}
