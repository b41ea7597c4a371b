//! TLS to endpoints: identities, and the protocols that are offered and agreed on.

use super::*;
use crate::net::tls::tests::{Authority, CLIENT, SERVER, downstream, handle};

#[tokio::test(flavor = "local")]
async fn connecting_includes_the_tls_handshake_and_is_limited_in_time() {
    let server = Server::listen(|mut io, _| async move {
        let mut all = Vec::new();
        let _ = io.read_to_end(&mut all).await;
    })
    .await;
    let authority = Authority::new();
    let identity = handle(authority.identity(1, CLIENT));
    let test = Test::with_identity(&[], identity, |cluster| {
        cluster.connect_timeout = Duration::from_millis(50);
        over_tls(cluster, &[server.address], upstream(&[SERVER], &[]));
    });
    let error = test.send().await.unwrap_err();
    assert_eq!((error.kind, error.sent), (ErrorKind::ConnectTimeout, false));
    server.until_open(0).await;
}

#[tokio::test(flavor = "local")]
async fn a_renewed_identity_drops_no_connection() {
    let authority = Authority::new();
    let accepting = TlsContexts::new(handle(authority.identity(1, SERVER)));
    let settings = downstream(&["h2", "http/1.1"]);
    let server = Server::start_tls(Speaks::Http1, accepting, settings).await;
    let identity = handle(authority.identity(1, CLIENT));
    let test = Test::with_identity(&[], identity.clone(), |cluster| {
        over_tls(cluster, &[server.address], upstream(&[SERVER], &["istio-http/1.1", "http/1.1"]));
    });
    let response = test.send().await.unwrap();
    let info = response.body().connection().clone();
    assert!(info.is_mutual_tls());
    assert_eq!(info.remote, server.address);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "secret");
    identity.store(Some(Arc::new(authority.identity(2, CLIENT))));
    test.get().await.unwrap();
    assert_eq!(server.connections.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn alpn_decides_what_is_spoken() {
    let authority = Authority::new();
    for (offered, speaks) in [("h2", Speaks::Http2 { streams: 10 }), ("http/1.1", Speaks::Http1)] {
        let accepting = TlsContexts::new(handle(authority.identity(1, SERVER)));
        let server = Server::start_tls(speaks, accepting, downstream(&[offered])).await;
        let identity = handle(authority.identity(1, CLIENT));
        let test = Test::with_identity(&[], identity, |cluster| {
            over_tls(cluster, &[server.address], upstream(&[SERVER], &["h2", "http/1.1"]));
        });
        assert_eq!(test.get().await.unwrap().1, "secret", "{offered}");
    }
}

#[tokio::test(flavor = "local")]
async fn what_is_known_to_be_http_is_offered_as_http_to_the_mesh() {
    let authority = Authority::new();
    // A port that does not say what it speaks: the settings are those of bytes.
    let bytes = ["istio-peer-exchange", "istio"];
    let pick = |server: &Server, http2| {
        let identity = handle(authority.identity(1, CLIENT));
        let test = Test::with_identity(&[], identity, |cluster| {
            cluster.protocol = UpstreamProtocol::Downstream;
            over_tls(cluster, &[server.address], upstream(&[SERVER], &bytes));
        });
        test.runtime().pick(&PickContext { http2, ..PickContext::default() }).unwrap()
    };
    let start = async |speaks, accepted: &[&str]| {
        let accepting = TlsContexts::new(handle(authority.identity(1, SERVER)));
        Server::start_tls(speaks, accepting, downstream(accepted)).await
    };
    let http2 = Speaks::Http2 { streams: 10 };
    for (speaks, accepted) in [
        (Speaks::Http1, "istio-http/1.1"),
        (Speaks::Http1, "istio"),
        (Speaks::Http1, "http/1.1"),
        (http2, "istio-h2"),
        (http2, "istio"),
        (http2, "h2"),
    ] {
        let server = start(speaks, &[accepted]).await;
        let picked = pick(&server, speaks == http2);
        let response = picked.request(request(RequestBody::Empty)).await.unwrap();
        assert_eq!(response.body().connection().alpn(), Some(accepted.as_bytes()));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "secret");
    }
    // HTTP is nothing else, and bytes stay bytes.
    let server = start(Speaks::Http1, &["istio-peer-exchange"]).await;
    let refused = pick(&server, false).request(request(RequestBody::Empty)).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Tls);
    let server = start(Speaks::Http1, &["istio-http/1.1", "h2", "istio"]).await;
    let connection = pick(&server, false).connect().await.unwrap();
    assert_eq!(connection.info.alpn(), Some(&b"istio"[..]));
}

#[tokio::test(flavor = "local")]
async fn other_protocols_are_offered_as_they_are_configured() {
    let authority = Authority::new();
    let accepting = TlsContexts::new(handle(authority.identity(1, SERVER)));
    let server = Server::start_tls(Speaks::Http1, accepting, downstream(&["other"])).await;
    let identity = handle(authority.identity(1, CLIENT));
    let test = Test::with_identity(&[], identity, |cluster| {
        over_tls(cluster, &[server.address], upstream(&[SERVER], &["other"]));
    });
    assert_eq!(test.get().await.unwrap().1, "secret");
}
