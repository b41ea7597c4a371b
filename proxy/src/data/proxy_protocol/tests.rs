use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::{
    config::{
        http::HttpConnectionManager,
        listener::{FilterChain, Listener, Terminal},
        rbac::{Permission, Policy, Principal, Rbac, RbacAction, RbacRules},
        route::RouteAction,
    },
    data::{
        destination::Destination,
        testing::{
            Proxy, backend, chain, cluster, config_of, exchange, host, listener, manager,
            raw_backend, route, routes, run, tcp_chain, text, to_cluster,
        },
    },
};

const BOTH: ProxyProtocol = ProxyProtocol { optional: false, v1: true, v2: true };

/// Version 2, with what stands after the fixed part.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [BINARY, &[command, family], &length, body].concat()
}

/// From 192.0.2.1:1000 to 198.51.100.2:443.
fn v2_of_four(more: &[u8]) -> Vec<u8> {
    let ends = [192, 0, 2, 1, 198, 51, 100, 2, 3, 232, 1, 187];
    v2(0x21, 0x11, &[&ends, more].concat())
}

fn v2_of_six(source: &str) -> Vec<u8> {
    let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    v2(0x21, 0x21, &[&ip(source)[..], &ip("2001:db8::2"), &[3, 232], &[1, 187]].concat())
}

fn said(source: &str, destination: &str) -> Option<Addresses> {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    Some(Addresses { source, destination })
}

#[test]
fn headers_are_read() {
    let four = || said("192.0.2.1:1000", "198.51.100.2:443");
    let six = || said("[2001:db8::1]:1000", "[2001:db8::2]:443");
    let lines = [
        ("TCP4 192.0.2.1 198.51.100.2 1000 443", four()),
        ("TCP6 2001:db8::1 2001:db8::2 1000 443", six()),
        ("TCP6 2001:0DB8:0:0:0:0:0:1 2001:db8::2 1000 443", six()),
        ("TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 1000 443", four()),
        ("TCP4 0.0.0.0 255.255.255.255 0 65535", said("0.0.0.0:0", "255.255.255.255:65535")),
        ("UNKNOWN", None),
        ("UNKNOWN 1 2 3 and whatever", None),
    ];
    let lines = lines.map(|(line, addresses)| {
        (format!("PROXY {line}\r\n").into_bytes(), Version::V1, addresses)
    });
    let binaries = [
        (v2_of_four(b""), four()),
        (v2_of_four(b"\x01\x00\x02h2\x04\x00\x00"), four()),
        (v2_of_four(&[&[4, 15, 0][..], &[0; 3840]].concat()), four()),
        (v2_of_six("2001:db8::1"), six()),
        (v2(0x20, 0x00, b""), None),
        (v2(0x20, 0x11, b"whatever"), None),
        (v2(0x20, 0x31, b""), None),
        (v2(0x21, 0x00, b"whatever"), None),
    ];
    let binaries = binaries.map(|(bytes, addresses)| (bytes, Version::V2, addresses));
    for (bytes, version, addresses) in lines.into_iter().chain(binaries) {
        let header = Header { version, length: bytes.len(), addresses };
        let more = [&bytes, &b"\r\nmore"[..]].concat();
        let shown = bytes.escape_ascii();
        assert_eq!(parse(BOTH, &more), Parsed::Header(header), "{shown}");
        for cut in 0..bytes.len() {
            assert_eq!(parse(BOTH, &bytes[..cut]), Parsed::Partial, "{shown} at {cut}");
        }
    }
}

#[test]
fn what_only_begins_as_a_header_is_refused() {
    let long = format!("PROXY UNKNOWN {}", "x".repeat(100));
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 192.0.2.1 198.51.100.2 1000 443\r\n",
        "PROXY tcp4 192.0.2.1 198.51.100.2 1000 443\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.2 1000 443\r\n",
        "PROXY UNKNOWN\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1000 443\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1000 443 \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1000 443 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1000\r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.2 1000 443\r\n",
        "PROXY  TCP4 192.0.2.1 198.51.100.2 1000 443\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.2 1000 443\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.2 1000 443\r\n",
        "PROXY TCP4 192.0.2 198.51.100.2 1000 443\r\n",
        "PROXY TCP4 ::1 ::2 1000 443\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.2 1000 443\r\n",
        "PROXY TCP6 fe80::1%1 ::2 1000 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 01000 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +1000 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 -1 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1000 443\r\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2\r 1000 443\r\n",
        &long,
    ] {
        let parsed = parse(BOTH, line.as_bytes());
        assert!(matches!(parsed, Parsed::Malformed(Version::V1, _)), "{line:?}: {parsed:?}");
    }
    for bytes in [
        v2(0x11, 0x11, &[0; 12]),
        v2(0x22, 0x11, &[0; 12]),
        v2(0x21, 0x12, &[0; 12]),
        v2(0x21, 0x31, &[0; 216]),
        v2(0x21, 0x11, &[0; 11]),
        v2(0x21, 0x21, &[0; 12]),
        v2_of_four(b"\x01"),
        v2_of_four(b"\x01\x00\x03h2"),
        v2(0x20, 0x00, &[0; 4081]),
    ] {
        let parsed = parse(BOTH, &bytes);
        let shown = bytes.escape_ascii();
        assert!(matches!(parsed, Parsed::Malformed(Version::V2, _)), "{shown}: {parsed:?}");
    }
    let not_utf8 = [&b"PROXY UNKNOWN \xff"[..], b"\r\n"].concat();
    assert!(matches!(parse(BOTH, &not_utf8), Parsed::Malformed(Version::V1, _)));
}

#[test]
fn a_version_that_is_not_taken_is_like_any_other_bytes() {
    let only = |v1: bool| ProxyProtocol { v1, v2: !v1, ..BOTH };
    let line = b"PROXY UNKNOWN\r\n";
    assert_eq!(parse(only(false), line), Parsed::Absent);
    assert_eq!(parse(only(false), b"P"), Parsed::Absent);
    assert_eq!(parse(only(true), &v2_of_four(b"")), Parsed::Absent);
    assert!(matches!(parse(only(true), line), Parsed::Header(_)));
    assert!(matches!(parse(only(false), &v2_of_four(b"")), Parsed::Header(_)));
    for other in [&b"GET / HTTP/1.1\r\n"[..], b"PROXy ", b"\r\n\r\n\r\n", b"\x16\x03\x01"] {
        assert_eq!(parse(BOTH, other), Parsed::Absent);
    }
}

fn any_header() -> impl Strategy<Value = (Vec<u8>, Addresses)> {
    let ip =
        prop_oneof![any::<Ipv4Addr>().prop_map(IpAddr::V4), any::<Ipv6Addr>().prop_map(IpAddr::V6)];
    let port = any::<u16>();
    (ip.clone(), ip, port, port, any::<bool>()).prop_map(|(from, to, source, destination, text)| {
        // One family for both.
        let (from, to) = match (from, to) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => (from, to),
            _ => (from, from),
        };
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let (word, family) = if from.is_ipv4() { ("TCP4", 0x11) } else { ("TCP6", 0x21) };
        let bytes = match text {
            true => format!("PROXY {word} {from} {to} {source} {destination}\r\n").into_bytes(),
            false => {
                let ports = [source.to_be_bytes(), destination.to_be_bytes()].concat();
                v2(0x21, family, &[octets(from), octets(to), ports].concat())
            }
        };
        (bytes, Addresses::new((from, source), (to, destination)))
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read((bytes, addresses) in any_header()) {
        let Parsed::Header(header) = parse(BOTH, &bytes) else { panic!("no header") };
        prop_assert_eq!((header.length, header.addresses), (bytes.len(), Some(addresses)));
    }
}

/// A listener whose clients are announced, and that answers requests with a header that the application got.
fn announced(settings: ProxyProtocol, chains: Vec<FilterChain>) -> Listener {
    Listener { proxy_protocol: Some(settings), ..listener("edge", chains) }
}

fn http(change: impl FnOnce(&mut HttpConnectionManager)) -> FilterChain {
    let forward = RouteAction::Forward(Box::new(to_cluster("c")));
    let mut manager = manager(routes(host(vec![route("/", forward)])));
    manager.use_remote_address = true;
    change(&mut manager);
    chain(Terminal::Http(Arc::new(manager)))
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

async fn ask(address: SocketAddr, head: &[u8]) -> Option<String> {
    let answer = exchange(address, &[head, REQUEST].concat()).await;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some(body.to_owned())
}

async fn edge(settings: ProxyProtocol, chains: Vec<FilterChain>) -> (Proxy, SocketAddr) {
    let application = backend(|request| async move {
        let value = request.headers().get("x-forwarded-for").map(|value| value.to_str().unwrap());
        text(200, value.unwrap_or("none").to_owned())
    })
    .await;
    let config = config_of(vec![announced(settings, chains)], vec![cluster("c", &[application])]);
    let proxy = Proxy::new(config);
    let address = proxy.listen(Destination::Listener("edge".into())).await;
    (proxy, address)
}

#[test]
fn the_announced_client_is_the_client() {
    run(async {
        let (proxy, address) = edge(BOTH, vec![http(|_| {})]).await;
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 1000 443\r\n";
        assert_eq!(ask(address, line).await.as_deref(), Some("192.0.2.1"));
        assert_eq!(ask(address, &v2_of_four(b"")).await.as_deref(), Some("192.0.2.1"));
        assert_eq!(ask(address, &v2_of_six("2001:db8::1")).await.as_deref(), Some("2001:db8::1"));
        assert_eq!(ask(address, &v2(0x20, 0, b"")).await.as_deref(), Some("127.0.0.1"));
        assert_eq!(ask(address, b"PROXY UNKNOWN\r\n").await.as_deref(), Some("127.0.0.1"));
        assert_eq!(ask(address, b"").await, None, "nobody was announced");
        assert_eq!(ask(address, b"PROXY TCP4 1.2.3.4\r\n").await, None);
        proxy.thread.until_idle().await;
        let stats = proxy
            .shared
            .stats
            .render_text(&proxy.shared.config.load(), |name| name.starts_with("proxy_proto."));
        let wanted = [
            "proxy_proto.not_found_disallowed: 1\n",
            "proxy_proto.versions.v1.error: 1\n",
            "proxy_proto.versions.v1.found: 2\n",
            "proxy_proto.versions.v2.found: 3\n",
        ];
        assert_eq!(stats, wanted.concat());
    });
}

#[test]
fn headers_may_be_optional() {
    run(async {
        let settings = ProxyProtocol { optional: true, v1: false, ..BOTH };
        let (_proxy, address) = edge(settings, vec![http(|_| {})]).await;
        assert_eq!(ask(address, b"").await.as_deref(), Some("127.0.0.1"));
        assert_eq!(ask(address, &v2_of_four(b"")).await.as_deref(), Some("192.0.2.1"));
        // Not a request either.
        let answer = exchange(address, b"PROXY UNKNOWN\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    });
}

/// A policy that denies these.
fn denying(principal: Principal) -> Arc<Rbac> {
    let policy = Policy { permissions: vec![Permission::Any], principals: vec![principal] };
    let policies = vec![("p".into(), policy)];
    let rules = Some(RbacRules { action: RbacAction::Deny, policies });
    Rbac { rules, ..Rbac::default() }.into()
}

#[test]
fn policies_and_chains_tell_the_client_from_who_announces_it() {
    run(async {
        let client = || "192.0.2.0/24".parse().unwrap();
        let socket = || "127.0.0.0/8".parse().unwrap();
        for (principal, let_in) in [
            (Principal::RemoteIp(client()), false),
            (Principal::RemoteIp(socket()), true),
            (Principal::DirectRemoteIp(client()), true),
            (Principal::DirectRemoteIp(socket()), false),
        ] {
            let shown = format!("{principal:?}");
            let mut bytes = tcp_chain("c");
            bytes.rbac = vec![denying(principal)];
            bytes.matches.source_ranges = vec![client()];
            let application = raw_backend(|mut stream| async move {
                let mut read = [0; 4];
                let _ = stream.read_exact(&mut read).await;
                let _ = stream.write_all(&read).await;
            })
            .await;
            let listeners = vec![announced(BOTH, vec![bytes])];
            let proxy = Proxy::new(config_of(listeners, vec![cluster("c", &[application])]));
            let address = proxy.listen(Destination::Listener("edge".into())).await;
            let answer = exchange(address, &[&v2_of_four(b"")[..], b"echo"].concat()).await;
            assert_eq!(answer == "echo", let_in, "{shown}: {answer:?}");
            // No chain is for this client.
            let answer = exchange(address, b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\necho").await;
            assert_eq!(answer, "");
        }
    });
}

#[test]
fn a_header_may_come_in_pieces() {
    run(async {
        let (_proxy, address) = edge(BOTH, vec![http(|_| {})]).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in [&v2_of_four(b"")[..], REQUEST].concat() {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("192.0.2.1"), "{answer}");
    });
}

#[test]
fn who_is_not_announced_in_time_is_sent_away() {
    run(async {
        let listener = Listener {
            inspect_timeout: Some(Duration::from_millis(20)),
            // What is not announced is not taken for the client itself.
            continue_on_timeout: true,
            ..announced(BOTH, vec![tcp_chain("c")])
        };
        let proxy = Proxy::new(config_of(vec![listener], vec![cluster("c", &[])]));
        let address = proxy.listen(Destination::Listener("edge".into())).await;
        for begun in [&b""[..], b"PROXY ", &v2_of_four(b"")[..15]] {
            assert_eq!(exchange(address, begun).await, "");
        }
        proxy.thread.until_idle().await;
    });
}
