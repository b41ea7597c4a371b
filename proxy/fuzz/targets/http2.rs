//! Any frames of an HTTP/2 client, to a whole proxy before a server of HTTP/1: nothing panics or gets stuck, and what the
//! server gets is HTTP/1.
//!
//! The first byte of the input says how the others become frames. As they are, or each with a length that fits; then an
//! honest request follows, which is answered, refused, or ends the connection.

use std::{
    convert::Infallible,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    panic,
    path::Path,
    process,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use weft_proxy::{
    control::{bootstrap::Bootstrap, standalone},
    data, logging,
    settings::{Cli, Settings},
    shared::Shared,
};

use super::frames::{aligned, frame};

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The honest request's stream.
const LAST: u32 = 0x7fff_ffff;
/// Who has heard nothing for so long never will.
const STUCK: Duration = Duration::from_secs(60);

pub fn run(bytes: &[u8]) {
    static PROXY: OnceLock<SocketAddr> = OnceLock::new();
    let Some((mode, bytes)) = bytes.split_first() else { return };
    let address = *PROXY.get_or_init(start);
    let mut stream = connect(address);
    stream.set_read_timeout(Some(STUCK)).expect("a timeout");
    let frames = if mode & 1 == 0 { aligned(bytes).concat() } else { bytes.to_vec() };
    // It may have been sent away already.
    let _ = stream.write_all(&[HELLO, &frames].concat());
    if mode & 1 == 0 {
        let head = b"\x82\x86\x84\x41\x04shop";
        let _ = stream.write_all(&frame(1, 5, LAST, head));
        while let Some((kind, stream)) = next(&mut stream) {
            if kind == 7 || stream == LAST && [1, 3].contains(&kind) {
                break;
            }
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    while next(&mut stream).is_some() {}
}

/// Kind and stream of the next frame; none when the connection has ended.
fn next(stream: &mut TcpStream) -> Option<(u8, u32)> {
    let mut head = [0; 9];
    read(stream, &mut head)?;
    let [a, b, c, kind, _, d, e, f, g] = head;
    let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?];
    read(stream, &mut payload)?;
    Some((kind, u32::from_be_bytes([d, e, f, g])))
}

fn read(stream: &mut TcpStream, bytes: &mut [u8]) -> Option<()> {
    stream
        .read_exact(bytes)
        .map_err(|error| assert!(error.kind() != ErrorKind::WouldBlock, "the proxy is stuck"))
        .ok()
}

/// Starts proxy and server, for as long as the process runs.
fn start() -> SocketAddr {
    let server = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let upstream = server.local_addr().expect("an address");
    // tokio would keep a task's panic to itself.
    let told = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        told(panic);
        if thread::current().name().is_some_and(|name| name.starts_with("data-")) {
            process::abort();
        }
    }));
    thread::spawn(move || serve(server));
    // Who else fuzzes or tests on this machine has another process, and so another address.
    let [_, _, high, low] = process::id().to_be_bytes();
    let address = SocketAddr::from(([127, 77, high, low], 8080));
    thread::spawn(move || proxy(address, upstream));
    drop(connect(address));
    address
}

/// A connection to the proxy. It may only just be starting, and a port that was used is free again after a minute alone: many
/// inputs one after another use them up.
fn connect(address: SocketAddr) -> TcpStream {
    let began = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(error) => {
                assert!(began.elapsed() < 2 * STUCK, "no connection to the proxy: {error}");
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn runtime() -> LocalRuntime {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .expect("a runtime")
}

fn proxy(address: SocketAddr, server: SocketAddr) {
    let hcm = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let file = format!(
        "static_resources:
  listeners:
    - address: {{ socket_address: {{ address: {}, port_value: {} }} }}
      filter_chains:
        - filters:
            - name: hcm
              typed_config:
                \"@type\": type.googleapis.com/{hcm}
                stat_prefix: fuzz
                codec_type: HTTP2
                route_config:
                  virtual_hosts:
                    - name: any
                      domains: [\"*\"]
                      routes: [{{ match: {{ prefix: / }}, route: {{ cluster: server }} }}]
                http_filters:
                  - name: router
                    typed_config:
                      \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
    - name: server
      load_assignment:
        cluster_name: server
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address: {{ socket_address: {{ address: {}, port_value: {} }} }}
",
        address.ip(),
        address.port(),
        server.ip(),
        server.port()
    );
    let cli = Cli::parse_from(["weft-proxy", "--config", "fuzz", "--concurrency", "1"]);
    let bootstrap = Bootstrap::parse(Path::new("fuzz"), &file).expect("a bootstrap");
    let settings = Settings::standalone(&cli.standalone, bootstrap.said.clone());
    let log = logging::init("off", settings.log_format).expect("a log");
    let ended = runtime().block_on(standalone::run(settings, bootstrap, log, data_thread));
    panic!("the proxy has ended: {ended:?}");
}

fn data_thread(index: usize, shared: Arc<Shared>) {
    data::run(index, shared).expect("a data thread runs");
}

/// Reads whole requests and answers them, in HTTP/1 alone.
fn serve(listener: TcpListener) {
    listener.set_nonblocking(true).expect("a socket");
    runtime().block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            tokio::task::spawn_local(async move {
                let answer = service_fn(async |request: Request<Incoming>| {
                    let _ = request.into_body().collect().await;
                    Ok::<_, Infallible>(Response::new(Full::new(&b"answer"[..])))
                });
                let ended = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                if let Err(error) = ended.await
                    && error.is_parse()
                {
                    // In a task a panic would go by unseen.
                    eprintln!("the server got no HTTP/1: {error}");
                    process::abort();
                }
            });
        }
    });
}
