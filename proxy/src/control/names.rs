//! Addresses of names, by DNS and the hosts file, as the machine's resolver configuration says.
//!
//! Not the C library's look-up: a static program has none.

use std::{io, net::IpAddr, sync::OnceLock};

use hickory_resolver::TokioResolver;
use tokio::net::TcpStream;

/// The addresses of a name; an address stands for itself.
///
/// # Errors
/// There is no such name, nobody answers, or there is no resolver configuration.
pub async fn look_up(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let found = resolver()?.lookup_ip(host).await.map_err(io::Error::other)?;
    Ok(found.iter().collect())
}

/// Connects to the first of a name's addresses that answers.
///
/// # Errors
/// As [`look_up`], or none of them answers.
pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::other(format!("{host} has no address"));
    for address in look_up(host).await? {
        match TcpStream::connect((address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// One for the process: a pod's resolver configuration does not change.
fn resolver() -> io::Result<&'static TokioResolver> {
    static RESOLVER: OnceLock<TokioResolver> = OnceLock::new();
    if let Some(resolver) = RESOLVER.get() {
        return Ok(resolver);
    }
    let mut builder = TokioResolver::builder_tokio().map_err(io::Error::other)?;
    // Who asks knows how long an answer is good for him.
    builder.options_mut().cache_size = 0;
    let resolver = builder.build().map_err(io::Error::other)?;
    Ok(RESOLVER.get_or_init(|| resolver))
}
