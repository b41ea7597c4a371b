//! A GET over plain HTTP: all that the administration ports need. Proxies of the environment are not used.
//!
//! Over a connection of its own, or over any stream (a port that the API server forwards).

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, Uri,
    body::{Bytes, Incoming},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// An administration port answers sooner.
pub const TIMEOUT: Duration = Duration::from_secs(15);
/// A configuration dump of a large mesh may be long, but not longer.
const MAX_BODY: usize = 512 << 20;

/// Gets JSON from a base URL (`http://host:port`, or `host:port`) and a path.
///
/// # Errors
/// When nobody answers, or not with success and JSON. The message names the address.
pub fn get_json(base: &str, path: &str) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let url = url(base, path)?;
    let body = runtime.block_on(async {
        tokio::time::timeout(TIMEOUT, get(&url)).await.context("no answer in time")?
    });
    let body = body.with_context(|| url.to_string())?;
    serde_json::from_slice(&body).with_context(|| format!("{url} does not answer in JSON"))
}

/// Whether somebody accepts connections at an address of this machine.
pub fn answers(address: &str) -> bool {
    std::net::TcpStream::connect(address).is_ok()
}

fn url(base: &str, path: &str) -> anyhow::Result<Uri> {
    let base = base.strip_prefix("http://").unwrap_or(base).trim_end_matches('/');
    ensure!(!base.contains("://"), "{base}: only http:// is supported");
    let url: Uri = format!("http://{base}{path}").parse().with_context(|| base.to_owned())?;
    ensure!(url.port_u16().is_some(), "{base}: which port? Expected http://HOST:PORT");
    Ok(url)
}

/// Gets JSON over a stream.
///
/// # Errors
/// When the answer is not success and JSON.
pub async fn get_json_over(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
) -> anyhow::Result<Value> {
    let body = exchange(stream, host, path).await?;
    serde_json::from_slice(&body).with_context(|| format!("{path} is not answered in JSON"))
}

async fn get(url: &Uri) -> anyhow::Result<Bytes> {
    let authority = url.authority().context("no host")?;
    let stream = TcpStream::connect(authority.as_str())
        .await
        .with_context(|| format!("cannot connect to {authority}"))?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    exchange(stream, authority.as_str(), path).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
) -> anyhow::Result<Bytes> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    let request = Request::get(path).header("host", host).body(Empty::new())?;
    let exchange = async {
        let response: hyper::Response<Incoming> = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!(error))?
            .to_bytes();
        if !status.is_success() {
            bail!("{status}: {}", String::from_utf8_lossy(&body).trim());
        }
        Ok(body)
    };
    tokio::pin!(exchange);
    tokio::select! {
        body = &mut exchange => body,
        // The connection ends by itself when all was received.
        result = connection => {
            result?;
            exchange.await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_with_and_without_a_scheme_are_urls_and_mistakes_are_named() {
        for base in ["http://127.0.0.1:15014", "127.0.0.1:15014", "http://127.0.0.1:15014/"] {
            assert_eq!(url(base, "/a?b=c").unwrap().to_string(), "http://127.0.0.1:15014/a?b=c");
        }
        for (base, expected) in [("https://a:1", "only http://"), ("a", "which port"), ("", "")] {
            let error = format!("{:#}", url(base, "/").unwrap_err());
            assert!(error.contains(expected), "{base}: {error}");
        }
    }
}
