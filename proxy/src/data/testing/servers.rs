//! Backends, and addresses for them.

use std::sync::{Mutex, atomic::Ordering::Relaxed};

use socket2::{Domain, Socket, Type};

use super::*;

/// A body of a backend's response.
pub type BackendBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// A response with a text.
pub fn text(status: u16, body: impl Into<Bytes>) -> Response<BackendBody> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// An HTTP server, HTTP/1 and HTTP/2, whose answers the closure makes.
pub async fn backend<F, R>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + 'static,
    R: Future<Output = Response<BackendBody>> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Rc::new(answer);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, std::convert::Infallible>(answered.await) }
                });
                let mut first = [0; 3];
                let size = stream.peek(&mut first).await.unwrap_or(0);
                let io = TokioIo::new(stream);
                if &first[..size] == b"PRI" {
                    let http2 = hyper::server::conn::http2::Builder::new(Local);
                    let _ = http2.serve_connection(io, service).await;
                } else {
                    let http1 = hyper::server::conn::http1::Builder::new();
                    let _ = http1.serve_connection(io, service).with_upgrades().await;
                }
            });
        }
    });
    address
}

/// A server of bytes: the closure has each connection.
pub async fn raw_backend<F, R>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + 'static,
    R: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(serve(stream));
        }
    });
    address
}

/// An address where nobody listens, nor ever will: it stays taken, by a socket that does not listen.
pub fn nobody() -> SocketAddr {
    static TAKEN: Mutex<Vec<Socket>> = Mutex::new(Vec::new());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    TAKEN.lock().unwrap().push(socket);
    address
}

/// An address to listen on whose port is free, and below those that the system gives to other tests meanwhile.
pub fn free_address() -> SocketAddr {
    const PORTS: std::ops::Range<u32> = 20_000..32_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Other processes begin elsewhere.
        let at = std::process::id() % 100 * 120 + NEXT.fetch_add(1, Relaxed);
        let port = u16::try_from(PORTS.start + at % (PORTS.end - PORTS.start)).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Runs hyper's tasks here.
#[derive(Clone, Copy)]
pub struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
