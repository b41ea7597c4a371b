use std::time::Duration;

use ::http::{Request, StatusCode};

use super::*;
use crate::{
    config::{
        http::{
            ClientCertDetails, CodecType, EscapedSlashes, PathNormalization, RouteSource,
            ServerHeader,
        },
        listener::TrafficDirection,
    },
    net::tls::PeerCertificate,
};

fn manager() -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: "test".into(),
        direction: TrafficDirection::Inbound,
        codec: CodecType::Auto,
        routes: RouteSource::Rds("r".into()),
        filters: Vec::new(),
        access_logs: Vec::new(),
        idle_timeout: None,
        stream_idle_timeout: None,
        request_headers_timeout: None,
        request_timeout: None,
        max_connection_duration: None,
        drain_timeout: Duration::from_secs(1),
        max_request_headers_bytes: 65_536,
        max_request_headers: 100,
        accept_http_10: true,
        server_name: HeaderValue::from_static("istio-envoy"),
        server_header: ServerHeader::Overwrite,
        use_remote_address: false,
        xff_trusted_hops: 0,
        generate_request_id: false,
        preserve_request_id: false,
        forward_client_cert: ForwardClientCert::Sanitize,
        client_cert_details: ClientCertDetails { subject: true, uri: true, dns: true },
        path: PathNormalization::default(),
        upgrades: vec!["websocket".into(), "connect".into()],
        max_concurrent_streams: None,
    }
}

fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn client(info: Option<&PeerInfo>) -> Client<'_> {
    Client { peer: "10.0.0.7:4000".parse().unwrap(), tls: info.is_some(), info }
}

fn accepted(manager: &HttpConnectionManager, uri: &str, headers: &[(&str, &str)]) -> Accepted {
    accept(manager, parts("GET", uri, headers), client(None)).unwrap()
}

fn list(headers: &HeaderMap) -> Vec<String> {
    headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

#[test]
fn what_must_not_go_on_is_refused() {
    let many: Vec<(String, String)> = (0..101).map(|n| (format!("a{n}"), "b".into())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (&**n, &**v)).collect();
    for (request, expected) in [
        (parts("GET", "/", &[]), Refusal::MissingHost),
        (parts("GET", "/", &[("host", "")]), Refusal::MissingHost),
        (parts("GET", "/", &[("host", "a"), ("host", "a")]), Refusal::DuplicateHost),
        (parts("GET", "/", &[("host", "a/b")]), Refusal::InvalidHost),
        (parts("GET", "/", &[("host", "u@a")]), Refusal::InvalidHost),
        (parts("GET", "/", &[("host", "a b")]), Refusal::InvalidHost),
        (parts("GET", "/", &many), Refusal::TooManyHeaders),
        (
            parts("POST", "/", &[("host", "a"), ("transfer-encoding", "gzip, chunked")]),
            Refusal::TransferEncoding,
        ),
        (
            parts(
                "POST",
                "/",
                &[
                    ("host", "a"),
                    ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "chunked"),
                ],
            ),
            Refusal::TransferEncoding,
        ),
        (parts("GET", "*", &[("host", "a")]), Refusal::MissingPath),
        (parts("GET", "a:80", &[("host", "a")]), Refusal::MissingPath),
    ] {
        let shown = format!("{request:?}");
        let refusal = accept(&manager(), request, client(None)).unwrap_err();
        assert_eq!(refusal, expected, "{shown}");
        assert!(StatusCode::from_u16(refusal.status()).is_ok());
    }
    // What HTTP/2 says as a path is one, and not what remains of an absolute target.
    for (method, path, taken) in [
        ("GET", "/", true),
        ("GET", "/?x", true),
        ("GET", "?x", false),
        ("GET", "*", false),
        ("OPTIONS", "*", true),
        ("OPTIONS", "?x", false),
    ] {
        let mut request = parts(method, "http://a", &[]);
        let mut uri = request.uri.into_parts();
        uri.path_and_query = Some(path.parse().unwrap());
        request.uri = ::http::Uri::from_parts(uri).unwrap();
        let absolute = accept(&manager(), request.clone(), client(None));
        assert!(absolute.is_ok(), "{method} {path}: {absolute:?}");
        request.version = Version::HTTP_2;
        let accepted = accept(&manager(), request, client(None));
        let target = accepted.map(|accepted| accepted.head.target.to_string());
        let expected = if taken { Ok(path.to_owned()) } else { Err(Refusal::MissingPath) };
        assert_eq!(target, expected, "{method} {path}");
    }
    let mut old = parts("GET", "/", &[("host", "a")]);
    old.version = Version::HTTP_10;
    let strict = HttpConnectionManager { accept_http_10: false, ..manager() };
    assert_eq!(accept(&strict, old, client(None)).unwrap_err(), Refusal::Version);
    let none = HttpConnectionManager { upgrades: Vec::new(), ..manager() };
    assert_eq!(
        accept(&none, parts("CONNECT", "a:80", &[]), client(None)).unwrap_err(),
        Refusal::Upgrade
    );
}

#[test]
fn paths_are_normalised_refused_or_redirected() {
    let with = |escaped_slashes| HttpConnectionManager {
        path: PathNormalization { normalize: true, merge_slashes: true, escaped_slashes },
        ..manager()
    };
    let host = &[("host", "a")];
    let run = |escaped, uri: &str| {
        accept(&with(escaped), parts("GET", uri, host), client(None))
            .map(|accepted| accepted.head.target.to_string())
    };
    assert_eq!(run(EscapedSlashes::Keep, "/a/..//b?c").as_deref(), Ok("/b?c"));
    assert_eq!(run(EscapedSlashes::Keep, "/a%00"), Err(Refusal::Path));
    assert_eq!(run(EscapedSlashes::Reject, "/a%2fb"), Err(Refusal::Path));
    assert_eq!(
        run(EscapedSlashes::UnescapeAndRedirect, "/a%2fb"),
        Err(Refusal::Redirect(PathAndQuery::from_static("/a/b")))
    );
}

#[test]
fn the_authority_of_an_absolute_target_counts() {
    let head = accepted(&manager(), "http://order:8080/x?y", &[("host", "other")]).head;
    assert_eq!((head.authority(), head.target.as_str()), ("order:8080", "/x?y"));
    let head = accepted(&manager(), "http://order", &[]).head;
    assert_eq!((head.authority(), head.target.as_str()), ("order", "/"));
    let head = accepted(&manager(), "/x", &[("host", "Shop")]).head;
    assert_eq!((head.authority(), head.headers.len()), ("Shop", 1));
}

#[test]
fn headers_of_one_hop_go_whichever_connection_line_names_them() {
    let head = accepted(
        &manager(),
        "/",
        &[
            ("host", "a"),
            ("connection", "close, x-one"),
            ("connection", "X-Two,x-forwarded-for"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("x-forwarded-for", "192.0.2.1"),
            ("keep-alive", "5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eA=="),
            ("te", "gzip, trailers"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("expect", "100-continue"),
        ],
    )
    .head;
    let mut left = list(&head.headers);
    left.sort();
    assert_eq!(
        left,
        ["te: trailers", "x-forwarded-for: 192.0.2.1", "x-forwarded-proto: http", "x-three: 3"]
    );
}

#[test]
fn attempts_are_counted_by_the_clients_proxy_alone_and_told_to_the_application() {
    let given = [("host", "a"), ("x-envoy-attempt-count", "2")];
    for (direction, expected) in
        [(TrafficDirection::Inbound, true), (TrafficDirection::Outbound, false)]
    {
        let manager = HttpConnectionManager { direction, ..manager() };
        let head = accepted(&manager, "/", &given).head;
        assert_eq!(head.headers.contains_key("x-envoy-attempt-count"), expected, "{direction:?}");
    }
}

#[test]
fn upgrades_are_recognised() {
    for (method, uri, headers, expected) in [
        (
            "GET",
            "/",
            vec![("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")],
            Wants::Upgrade("websocket".into()),
        ),
        ("GET", "/", vec![("upgrade", "websocket")], Wants::Response),
        ("GET", "/", vec![("connection", "upgrade")], Wants::Response),
        (
            "GET",
            "/",
            vec![("connection", "upgrade, http2-settings"), ("upgrade", "h2c")],
            Wants::Response,
        ),
        ("CONNECT", "a:80", vec![], Wants::Connect),
    ] {
        let headers = [vec![("host", "a:80")], headers].concat();
        let accepted = accept(&manager(), parts(method, uri, &headers), client(None)).unwrap();
        assert_eq!(accepted.wants, expected, "{headers:?}");
    }
}

#[test]
fn forwarded_headers_follow_the_edge_settings() {
    let edge = HttpConnectionManager { use_remote_address: true, ..manager() };
    let behind =
        HttpConnectionManager { use_remote_address: true, xff_trusted_hops: 1, ..manager() };
    let given = &[
        ("host", "a"),
        ("x-forwarded-for", "192.0.2.1, 192.0.2.2"),
        ("x-forwarded-proto", "https"),
    ];
    let show = |manager: &HttpConnectionManager, headers: &[(&str, &str)]| {
        let head = accepted(manager, "/", headers).head;
        let value = |name| head.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
        (
            value("x-forwarded-for"),
            value("x-forwarded-proto").unwrap(),
            remote_address(
                manager,
                (&head.headers, Seen::new(&head.headers)),
                "10.0.0.7:4000".parse().unwrap(),
            )
            .to_string(),
        )
    };
    assert_eq!(
        show(&manager(), given),
        (Some("192.0.2.1, 192.0.2.2".into()), "https".into(), "192.0.2.2:0".into())
    );
    assert_eq!(show(&manager(), &[("host", "a")]), (None, "http".into(), "10.0.0.7:4000".into()));
    assert_eq!(
        show(&edge, given),
        (Some("192.0.2.1, 192.0.2.2,10.0.0.7".into()), "http".into(), "10.0.0.7:4000".into())
    );
    assert_eq!(
        show(&behind, given),
        (Some("192.0.2.1, 192.0.2.2,10.0.0.7".into()), "https".into(), "192.0.2.2:0".into())
    );
}

#[test]
fn an_edge_believes_nobody_and_says_who_the_client_is() {
    let edge =
        HttpConnectionManager { use_remote_address: true, generate_request_id: true, ..manager() };
    let behind =
        HttpConnectionManager { xff_trusted_hops: 1, preserve_request_id: true, ..edge.clone() };
    let given = &[
        ("host", "a"),
        ("x-envoy-internal", "true"),
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-external-address", "192.0.2.9"),
        ("x-request-id", "mine"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-custom", "1"),
    ];
    let names = ["x-envoy-internal", "x-envoy-retry-on", "x-envoy-external-address", "x-custom"];
    let show = |manager: &HttpConnectionManager| {
        let headers = accepted(manager, "/", given).head.headers;
        let values = names.map(|name| headers.get(name).map(|v| v.to_str().unwrap().to_owned()));
        (values, headers["x-request-id"] == "mine")
    };
    let custom = || Some("1".to_owned());
    assert_eq!(show(&edge), ([None, None, Some("10.0.0.7".into()), custom()], false));
    assert_eq!(show(&behind), ([None, None, Some("192.0.2.1".into()), custom()], true));
    let (values, kept) = show(&manager());
    assert!(values.iter().all(Option::is_some) && kept, "no edge: {values:?}");
}

#[test]
fn client_certificates_are_told_as_the_mode_says() {
    let certificate = PeerCertificate {
        identity: None,
        uri_sans: vec!["spiffe://td/ns/a/sa/b".into()],
        dns_sans: vec!["b.a".into()],
        subject: "O=\"x\"".into(),
        hash: "ab12".into(),
    };
    let info = PeerInfo {
        certificate: certificate.into(),
        verified: true,
        local_identity: Some("spiffe://td/ns/c/sa/d".into()),
        ..PeerInfo::default()
    };
    let unverified = PeerInfo::default();
    let own = "By=spiffe://td/ns/c/sa/d;Hash=ab12;Subject=\"O=\\\"x\\\"\";URI=spiffe://td/ns/a/sa/b;DNS=b.a";
    let appended = format!("Hash=1,{own}");
    use ForwardClientCert::{AlwaysForwardOnly, AppendForward, ForwardOnly, Sanitize, SanitizeSet};
    for (mode, info, expected) in [
        (Sanitize, Some(&info), None),
        (Sanitize, None, None),
        (ForwardOnly, Some(&info), Some("Hash=1")),
        (ForwardOnly, None, None),
        (ForwardOnly, Some(&unverified), None),
        (AppendForward, Some(&info), Some(&*appended)),
        (AppendForward, None, None),
        (AppendForward, Some(&unverified), None),
        (SanitizeSet, Some(&info), Some(own)),
        (SanitizeSet, None, None),
        (AlwaysForwardOnly, None, Some("Hash=1")),
    ] {
        let manager = HttpConnectionManager { forward_client_cert: mode, ..manager() };
        let request = parts(
            "GET",
            "/",
            &[
                ("host", "a"),
                ("x-forwarded-client-cert", "Hash=1"),
                ("connection", "x-forwarded-client-cert"),
            ],
        );
        let head = accept(&manager, request, client(info)).unwrap().head;
        assert_eq!(
            head.headers.get(names::FORWARDED_CLIENT_CERT).map(|v| v.to_str().unwrap()),
            expected,
            "{mode:?}"
        );
    }
}

#[test]
fn request_ids_are_made_where_they_are_missing() {
    let making = HttpConnectionManager { generate_request_id: true, ..manager() };
    let made = accepted(&making, "/", &[("host", "a")]).head.headers[names::REQUEST_ID].clone();
    let text = made.to_str().unwrap();
    let shape: String = text.chars().map(|c| if c.is_ascii_hexdigit() { 'x' } else { c }).collect();
    assert_eq!(shape, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
    assert_eq!(&text[14..15], "4");
    assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
    let kept = accepted(&making, "/", &[("host", "a"), ("x-request-id", "mine")]).head;
    assert_eq!(kept.headers[names::REQUEST_ID], "mine");
}
