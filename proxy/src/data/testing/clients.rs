//! Clients.

use super::*;

/// A response that was read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Status and body.
    pub fn summary(&self) -> (u16, &str) {
        (self.status, &self.body)
    }
}

/// An HTTP/1 client on one connection.
pub struct Client {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects.
    pub async fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::task::spawn_local(driver.with_upgrades());
        Self { sender }
    }

    /// Sends a request and reads the response.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
        self.sender.ready().await?;
        read(self.sender.send_request(request).await?).await
    }

    /// Sends a GET with these headers.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(get(path, headers)).await.unwrap()
    }

    /// Waits until the server has closed the connection.
    pub async fn closed(&self) {
        until(|| self.sender.is_closed()).await;
    }
}

/// A GET request for the host `shop`.
pub fn get(path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    request("GET", path, headers, "")
}

/// A request for the host `shop`.
pub fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "shop");
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_str(value).unwrap());
    }
    request.body(Full::new(body.into())).unwrap()
}

/// Reads a response whole.
pub async fn read(response: Response<Incoming>) -> Result<Answer, hyper::Error> {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    let body = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
}

/// One GET on a connection of its own.
pub async fn fetch(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    Client::new(address).await.get(path, headers).await
}

/// Sends bytes and reads until the server closes the connection.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    // A server that refuses early may reset the connection.
    let _ = stream.write_all(bytes).await;
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}
