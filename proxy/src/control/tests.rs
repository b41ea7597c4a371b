use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::LocalSet,
};

use super::{
    fake::{ControlPlane, FakeStream},
    fixtures::*,
    store::Kind,
    *,
};
use crate::{data::testing::free_address, settings::Ports};

fn own_ports(control_plane: &ControlPlane) -> Settings {
    // The proxy's ports are fixed numbers: they cannot be left to the system.
    let [admin, inbound, http_proxy, status, health, metrics] =
        std::array::from_fn(|_| free_address().port());
    let mut settings = control_plane.settings();
    settings.ports = Ports { admin, outbound: 0, inbound, http_proxy, status, health, metrics };
    settings
}

fn data_thread(index: usize, shared: Arc<Shared>) {
    crate::data::run(index, shared).unwrap();
}

/// Gives a proxy its listeners, a virtual host for every authority, and one cluster.
async fn serve(mut stream: FakeStream, application: SocketAddr) -> FakeStream {
    let mut inbound = tcp_listener("virtualInbound", "app");
    inbound.bind_to_port = None;
    let mut proxy = rds_listener("http_proxy", "http_proxy");
    proxy.address = Some(address("127.0.0.1", 15007));
    proxy.bind_to_port = None;
    let listeners =
        vec![resource("virtualInbound", "1", &inbound), resource("http_proxy", "1", &proxy)];
    stream.respond(response(Kind::Listener, listeners, &[])).await;
    let mut routes = route_config("http_proxy", &[]);
    routes.virtual_hosts.clear();
    routes.vhds = Some(Default::default());
    stream.request_of(Kind::Route).await;
    stream.respond(response(Kind::Route, vec![resource("http_proxy", "1", &routes)], &[])).await;
    stream
        .respond(response(Kind::Cluster, vec![resource("app", "1", &eds_cluster("app"))], &[]))
        .await;
    stream.request_of(Kind::Endpoints).await;
    let endpoints = assignment("app", &[&application.to_string()]);
    stream.respond(response(Kind::Endpoints, vec![resource("app", "1", &endpoints)], &[])).await;
    stream
}

async fn exchange(port: u16, request: String) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(port: u16, method: &str, target: &str) -> String {
    exchange(port, format!("{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
        .await
}

/// Answers every connection with one response.
async fn application(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await.unwrap();
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn a_proxy_becomes_ready_serves_a_first_request_on_demand_and_drains() {
    let test = async {
        let mut control_plane = ControlPlane::start(Duration::from_secs(3600)).await;
        let settings = own_ports(&control_plane);
        let ports = settings.ports;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap();
        spawn_local(application(listener));
        let proxy = spawn_local(run(settings, LogHandle::detached(), data_thread));
        let stream = control_plane.stream().await;
        assert!(get(ports.health, "GET", "/healthz/ready").await.starts_with("HTTP/1.1 503 "));
        let mut stream = serve(stream, upstream).await;
        while !get(ports.health, "GET", "/healthz/ready").await.starts_with("HTTP/1.1 200 ") {
            tokio::task::yield_now().await;
        }
        let hosts = spawn_local(async move {
            let asked = stream.request_of(Kind::VirtualHost).await.resource_names_subscribe;
            assert_eq!(asked, ["http_proxy/b:80"]);
            let host = resource(&asked[0], "1", &virtual_host("b", &["app"]));
            stream.respond(response(Kind::VirtualHost, vec![host], &[])).await;
            stream
        });
        let answer = get(ports.http_proxy, "GET", "http://b:80/").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"), "{answer}");
        let _stream = hosts.await.unwrap();
        let dump = get(ports.admin, "GET", "/config_dump").await;
        assert!(dump.contains("\"dynamic_route_configs\""), "{dump}");
        let answer = get(ports.admin, "POST", "/quitquitquit").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        proxy.await.unwrap().unwrap();
    };
    timeout(Duration::from_secs(60), LocalSet::new().run_until(test)).await.expect("the test ends");
}

#[tokio::test]
async fn a_port_that_is_taken_ends_the_start_with_its_address() {
    LocalSet::new()
        .run_until(async {
            let control_plane = ControlPlane::start(Duration::from_secs(3600)).await;
            let mut settings = own_ports(&control_plane);
            let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            settings.ports.status = taken.local_addr().unwrap().port();
            let error = run(settings, LogHandle::detached(), data_thread).await.unwrap_err();
            let expected = format!("cannot listen on {} for Status", taken.local_addr().unwrap());
            assert_eq!(error.to_string(), expected);
        })
        .await;
}

#[tokio::test]
async fn a_data_thread_that_dies_ends_the_process() {
    LocalSet::new()
        .run_until(async {
            let control_plane = ControlPlane::start(Duration::from_secs(3600)).await;
            let settings = own_ports(&control_plane);
            let error = run(settings, LogHandle::detached(), |_, _| {}).await.unwrap_err();
            assert_eq!(error.to_string(), "data thread 0 ended by itself");
        })
        .await;
}
