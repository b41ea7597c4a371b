//! The hooks of the proxy's container: small programs that talk to the proxy which runs in the same pod.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::settings::{DrainArgs, WaitArgs};

/// How long the proxy may take for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// More of an answer is not read.
const LONGEST: u64 = 4096;

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// No proxy, or no answer.
    #[error("the proxy does not answer on {0}")]
    NoAnswer(SocketAddr, #[source] io::Error),
    /// Another answer than the one that is needed.
    #[error("the proxy on {address} answers {answer:?}")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// The answer's status line and text.
        answer: String,
    },
}

/// Tells the proxy that the pod is about to go.
///
/// # Errors
/// There is no proxy, or it refuses.
pub fn drain(args: DrainArgs) -> Result<(), HookError> {
    ask("POST", "/drain", args.status_port)
}

/// Waits until the proxy is ready.
///
/// # Errors
/// It was not in time; the last answer says why.
pub fn wait(args: WaitArgs) -> Result<(), HookError> {
    let since = Instant::now();
    loop {
        match ask("GET", "/healthz/ready", args.health_port) {
            Ok(()) => return Ok(()),
            Err(error) if since.elapsed() >= args.timeout => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Sends a request and expects success.
fn ask(method: &str, path: &str, port: u16) -> Result<(), HookError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let answer =
        exchange(method, path, address).map_err(|error| HookError::NoAnswer(address, error))?;
    let mut lines = answer.lines();
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let text = lines.last().unwrap_or_default();
    Err(HookError::Refused { address, answer: format!("{status}: {text}") })
}

fn exchange(method: &str, path: &str, address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
