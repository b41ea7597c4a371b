use super::*;
use crate::config::listener::{TcpProxy, Terminal, TrafficDirection, TransportMatch};

fn chain(name: &str, matches: FilterChainMatch) -> Arc<FilterChain> {
    Arc::new(FilterChain {
        name: name.into(),
        matches,
        tls: None,
        handshake_timeout: None,
        rbac: Vec::new(),
        terminal: Terminal::Tcp(Arc::new(TcpProxy {
            stat_prefix: "".into(),
            clusters: Vec::new(),
            idle_timeout: None,
            max_connect_attempts: 1,
            access_logs: Vec::new(),
        })),
    })
}

fn listener(chains: Vec<Arc<FilterChain>>, default_chain: Option<Arc<FilterChain>>) -> Listener {
    Listener {
        name: "virtualInbound".into(),
        binds: Vec::new(),
        direction: TrafficDirection::Inbound,
        proxy_protocol: None,
        inspect_tls: true,
        inspect_http: true,
        inspect_timeout: None,
        continue_on_timeout: false,
        chains,
        default_chain,
        access_logs: Vec::new(),
    }
}

fn protocols(list: &[&str]) -> Vec<Box<[u8]>> {
    list.iter().map(|protocol| protocol.as_bytes().into()).collect()
}

fn input(port: u16, transport: TransportMatch, name: &str, offered: &[&str]) -> Input {
    Input {
        destination: SocketAddr::new("127.20.1.1".parse().unwrap(), port),
        source: "127.20.1.9:4000".parse().unwrap(),
        sniffed: Sniffed {
            transport,
            server_name: (!name.is_empty()).then(|| name.into()),
            protocols: protocols(offered),
        },
    }
}

fn chosen(listener: &Listener, input: &Input) -> Option<String> {
    choose(listener, input).map(|chain| chain.name.to_string())
}

use TransportMatch::{Raw, Tls};

/// The chains of a permissive workload: an HTTP port, a TCP port and a port that is sniffed.
fn permissive() -> Listener {
    let istio = ["istio-http/1.0", "istio-http/1.1", "istio-h2", "istio", "istio-peer-exchange"];
    let port = |port, transport, list: &[&str]| FilterChainMatch {
        destination_port: Some(port),
        transport,
        application_protocols: protocols(list),
        ..FilterChainMatch::default()
    };
    listener(
        vec![
            chain("8080 mtls", port(8080, Some(Tls), &istio)),
            chain("8080 plain", port(8080, Some(Raw), &[])),
            chain("9000 mtls", port(9000, Some(Tls), &istio)),
            chain("9000 tls", port(9000, Some(Tls), &[])),
            chain("9000 plain", port(9000, Some(Raw), &[])),
            chain("7000 http", port(7000, Some(Raw), &["http/1.1", "h2c"])),
            chain("7000 plain", port(7000, Some(Raw), &[])),
        ],
        Some(chain("passthrough", FilterChainMatch::default())),
    )
}

#[test]
fn a_permissive_workloads_chains_are_told_apart() {
    let listener = permissive();
    for (port, transport, offered, expected) in [
        (8080, Tls, &["istio-http/1.1", "istio"][..], "8080 mtls"),
        (8080, Tls, &["http/1.1", "istio-h2"], "8080 mtls"),
        (8080, Raw, &[], "8080 plain"),
        (8080, Raw, &["http/1.1"], "8080 plain"),
        // TLS of the application's own on an HTTP port: no chain of the port, so the default.
        (8080, Tls, &["h2"], "passthrough"),
        (9000, Tls, &["istio-peer-exchange", "istio"], "9000 mtls"),
        (9000, Tls, &["h2"], "9000 tls"),
        (9000, Tls, &[], "9000 tls"),
        (9000, Raw, &[], "9000 plain"),
        (7000, Raw, &["h2c"], "7000 http"),
        (7000, Raw, &["http/1.0"], "7000 plain"),
        (7000, Raw, &[], "7000 plain"),
        (1234, Raw, &[], "passthrough"),
    ] {
        assert_eq!(
            chosen(&listener, &input(port, transport, "", offered)).as_deref(),
            Some(expected),
            "{port} {transport:?} {offered:?}"
        );
    }
}

#[test]
fn first_bytes_are_asked_for_what_the_chains_of_their_port_depend_on() {
    let port = |port, transport, list: &[&str]| FilterChainMatch {
        destination_port: Some(port),
        transport,
        application_protocols: protocols(list),
        ..FilterChainMatch::default()
    };
    let named = FilterChainMatch {
        destination_port: Some(443),
        server_names: vec!["a.example.com".into()],
        ..FilterChainMatch::default()
    };
    let mut listener = listener(
        vec![
            chain("any", port(8080, None, &[])),
            chain("plain", port(9000, Some(Raw), &[])),
            chain("http", port(7000, Some(Raw), &["http/1.1", "h2c"])),
            chain("anything", port(7000, None, &[])),
            chain("mesh", port(7001, Some(Tls), &["istio", "http/1.1"])),
            chain("alpn", port(7002, None, &["istio"])),
            chain("http or alpn", port(7003, None, &["http/1.1"])),
            chain("named", named),
        ],
        Some(chain("passthrough", FilterChainMatch::default())),
    );
    let questions = |tls, http| Questions { tls, http };
    let ports = [8080, 9000, 7000, 7001, 7002, 7003, 443, 1234];
    let ask = |listener: &Listener| {
        ports.map(|port| {
            Questions::of(listener, SocketAddr::new("127.20.1.1".parse().unwrap(), port))
        })
    };
    let asked = [
        questions(false, false),
        questions(true, false),
        questions(true, true),
        questions(true, false),
        questions(true, false),
        questions(true, true),
        questions(true, false),
        questions(false, false),
    ];
    assert_eq!(ask(&listener), asked);
    listener.inspect_http = false;
    assert_eq!(ask(&listener), asked.map(|asked| Questions { http: false, ..asked }));
    listener.inspect_tls = false;
    assert_eq!(ask(&listener), ports.map(|_| Questions::default()));
}

#[test]
fn without_a_default_a_connection_that_matches_nothing_has_no_chain() {
    let listener = Listener { default_chain: None, ..permissive() };
    assert_eq!(chosen(&listener, &input(1234, Raw, "", &[])), None);
    assert_eq!(chosen(&listener, &input(8080, Tls, "", &["h2"])), None);
}

#[test]
fn more_specific_matches_win_in_envoys_order() {
    let name = |names: &[&str]| FilterChainMatch {
        server_names: names.iter().map(|name| (*name).into()).collect(),
        ..FilterChainMatch::default()
    };
    let range = |net: &str| FilterChainMatch {
        destination_ranges: vec![net.parse().unwrap()],
        ..FilterChainMatch::default()
    };
    let names = listener(
        vec![
            chain("any", FilterChainMatch::default()),
            chain("short suffix", name(&["*.c"])),
            chain("long suffix", name(&["*.b.c"])),
            chain("exact", name(&["x", "a.b.c"])),
        ],
        None,
    );
    for (server_name, expected) in [
        ("a.b.c", "exact"),
        ("z.b.c", "long suffix"),
        ("b.c", "short suffix"),
        ("c", "any"),
        ("", "any"),
    ] {
        let chosen = chosen(&names, &input(1, Tls, server_name, &[]));
        assert_eq!(chosen.as_deref(), Some(expected), "{server_name}");
    }
    let ranges = listener(
        vec![
            chain("eight", range("127.0.0.0/8")),
            chain("sixteen", range("127.20.0.0/16")),
            chain("other", range("10.0.0.0/8")),
        ],
        None,
    );
    assert_eq!(chosen(&ranges, &input(1, Raw, "", &[])).as_deref(), Some("sixteen"));
    // There is no way back: the port decides first, even when nothing of it matches further on.
    let ports = listener(
        vec![
            chain(
                "any port",
                FilterChainMatch { transport: Some(Raw), ..FilterChainMatch::default() },
            ),
            chain(
                "port 1",
                FilterChainMatch {
                    destination_port: Some(1),
                    transport: Some(Tls),
                    ..FilterChainMatch::default()
                },
            ),
        ],
        None,
    );
    assert_eq!(chosen(&ports, &input(1, Raw, "", &[])), None);
    assert_eq!(chosen(&ports, &input(2, Raw, "", &[])).as_deref(), Some("any port"));
}

#[test]
fn the_clients_preference_orders_protocols() {
    let offers = |list: &[&str]| FilterChainMatch {
        application_protocols: protocols(list),
        ..FilterChainMatch::default()
    };
    let listener = listener(vec![chain("b", offers(&["b"])), chain("a", offers(&["a"]))], None);
    assert_eq!(chosen(&listener, &input(1, Tls, "", &["a", "b"])).as_deref(), Some("a"));
    assert_eq!(chosen(&listener, &input(1, Tls, "", &["b", "a"])).as_deref(), Some("b"));
    assert_eq!(chosen(&listener, &input(1, Tls, "", &["c"])), None);
}
