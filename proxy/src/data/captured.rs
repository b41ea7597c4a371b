//! The data path behind real packet rules, in a network namespace: what is captured arrives, and nothing goes in circles.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_api::node::Interception;

use super::{
    destination::Destination,
    testing::{
        Proxy, backend, chain, cluster, config_of, host, listener, manager, raw_backend, route,
        routes, tcp_chain, text, to_cluster,
    },
};
use crate::{
    capture::{
        init,
        settings::InitArgs,
        testing::{POD, in_namespace},
    },
    config::{
        ProxyConfig,
        cluster::{Cluster, Discovery, LbPolicy},
        listener::{Listener, Terminal, TrafficDirection},
        route::RouteAction,
    },
    settings::{Ports, Settings},
};

const LIMIT: Duration = Duration::from_secs(30);

/// What a connection to an address brings back for these bytes, as the application's user.
fn exchange(to: &str, bytes: &str) -> String {
    let to: SocketAddr = to.parse().unwrap();
    let mut stream = StdStream::connect_timeout(&to, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let _ = stream.write_all(bytes.as_bytes());
    let mut answer = String::new();
    // A reset is an end too.
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// The application: tells where it was called from.
fn application(listener: &StdListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let peer = stream.peer_addr().unwrap().ip();
        let _ = stream.read_exact(&mut [0]);
        let _ = stream.write_all(format!("called from {peer}").as_bytes());
    }
}

/// What the control plane would have said of `10.96.0.1:80`, of everything else, and of the pod's own ports.
fn config(service: SocketAddr, other: SocketAddr) -> ProxyConfig {
    let to_service = route("/", RouteAction::Forward(Box::new(to_cluster("service"))));
    let requests = chain(Terminal::Http(Arc::new(manager(routes(host(vec![to_service]))))));
    let inbound = Listener {
        direction: TrafficDirection::Inbound,
        ..listener("virtualInbound", vec![tcp_chain("InboundPassthroughCluster")])
    };
    let mut config = config_of(
        vec![
            listener("10.96.0.1_80", vec![requests]),
            listener("virtualOutbound", vec![tcp_chain("other")]),
            inbound,
        ],
        vec![
            cluster("service", &[service]),
            cluster("other", &[other]),
            Cluster {
                discovery: Discovery::OriginalDestination,
                lb: LbPolicy::ClusterProvided,
                bind_source: ["127.0.0.6", "::6"].map(|text| text.parse().unwrap()).into(),
                ..cluster("InboundPassthroughCluster", &[])
            },
        ],
    );
    for unknown in ["10.96.0.9_81", "2001:db8::9_81"] {
        config.listeners.insert(unknown.into(), None);
    }
    config
}

/// Runs the proxy as its user until told to end.
fn proxy(ready: &mpsc::Sender<()>, end: mpsc::Receiver<()>) {
    rustix::thread::set_thread_gid(rustix::process::Gid::from_raw(1337)).unwrap();
    rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(1337)).unwrap();
    // As long as the test takes: what it waits for has limits of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let service = backend(|_| async { text(200, "service") }).await;
        let other = raw_backend(|mut stream| async move {
            // What is not read would be a reset.
            let _ = stream.read_exact(&mut [0]).await;
            let _ = stream.write_all(b"somewhere else").await;
        })
        .await;
        let settings = Settings {
            interception: Interception::Redirect,
            pod_address: POD[0].parse().unwrap(),
            ports: Ports::default(),
            ..Settings::test()
        };
        let proxy = Proxy::with_settings(config(service, other), settings);
        for address in ["0.0.0.0", "::"] {
            for (port, destination) in
                [(15001, Destination::Captured), (15006, Destination::Inbound)]
            {
                let address = SocketAddr::new(address.parse().unwrap(), port);
                let listener = super::bind::listen(address).unwrap();
                proxy.listen_on(listener, destination);
            }
        }
        ready.send(()).unwrap();
        let ended = tokio::task::spawn_blocking(move || end.recv());
        let _ = ended.await;
    });
}

#[test]
fn what_is_captured_arrives_and_nothing_goes_in_circles() {
    in_namespace(|| {
        init::run(&InitArgs::parse(&[]).unwrap(), &mut Vec::new()).unwrap();
        let ((ready, is_ready), (end, ended)) = (mpsc::channel(), mpsc::channel());
        let proxying = std::thread::spawn(move || proxy(&ready, ended));
        is_ready.recv_timeout(LIMIT).unwrap();
        let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let answer = exchange("10.96.0.1:80", request);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("service"), "{answer}");
        for unknown in ["10.96.0.9:81", "[2001:db8::9]:81"] {
            assert_eq!(exchange(unknown, "x"), "somewhere else");
        }
        for (pod, from) in [("10.1.2.3:8080", "127.0.0.6"), ("[fd00:1::3]:8080", "::6")] {
            let listener = StdListener::bind(pod).unwrap();
            std::thread::spawn(move || application(&listener));
            // As from another pod: the proxy's own connections to its pod come back in.
            let calling = std::thread::spawn(move || {
                rustix::thread::set_thread_gid(rustix::process::Gid::from_raw(1337)).unwrap();
                rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(1337)).unwrap();
                exchange(pod, "x")
            });
            assert_eq!(calling.join().unwrap(), format!("called from {from}"));
        }
        for own in ["127.0.0.1:15001", "127.0.0.1:15006", "10.1.2.3:15001", "[::1]:15006"] {
            assert_eq!(exchange(own, request), "", "{own} is nobody's destination");
        }
        end.send(()).unwrap();
        proxying.join().unwrap();
    });
}
