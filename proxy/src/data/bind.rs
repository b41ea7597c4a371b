//! A data thread's sockets: what the configuration says is bound, with `SO_REUSEPORT`; differences only are applied.
//!
//! Each socket has an accept loop of its own on the thread. An address that cannot be bound is tried again.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use futures_util::FutureExt;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use weft_api::names::{HTTP_PROXY, VIRTUAL_INBOUND, VIRTUAL_OUTBOUND};

use super::{
    connection::{self, Ends},
    destination::Destination,
    thread::Thread,
};
use crate::{
    config::ProxyConfig,
    shared::{BindFailure, NamedService},
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// How long accepting pauses when there are no file descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// What a configuration wants bound.
#[derive(Debug, Default)]
pub struct Wanted {
    /// The addresses, and where connections to them want to go.
    pub addresses: HashMap<SocketAddr, Destination>,
    /// Addresses that two listeners want: the first by name has them.
    pub conflicts: Vec<BindFailure>,
}

/// The addresses that a configuration wants bound.
pub fn wanted(config: &ProxyConfig, named: &[NamedService]) -> Wanted {
    let mut wanted = Wanted::default();
    for service in named {
        let destination = Destination::Outbound { host: service.host.clone(), port: service.port };
        wanted.addresses.insert(service.bind, destination);
    }
    let mut bound: Vec<_> = config
        .listeners
        .iter()
        .filter_map(|(name, listener)| Some((name, &listener.as_ref()?.value.binds)))
        .filter(|(_, binds)| !binds.is_empty())
        .collect();
    bound.sort_unstable_by_key(|(name, _)| *name);
    for (name, binds) in bound {
        let destination = match &**name {
            HTTP_PROXY => Destination::HttpProxy,
            VIRTUAL_INBOUND => Destination::Inbound,
            VIRTUAL_OUTBOUND => Destination::Captured,
            _ => Destination::Listener(name.clone()),
        };
        for address in binds {
            match wanted.addresses.entry(*address) {
                Entry::Vacant(free) => {
                    free.insert(destination.clone());
                }
                Entry::Occupied(taken) => wanted.conflicts.push(BindFailure {
                    listener: name.clone(),
                    address: *address,
                    reason: format!("listener {} has it", taken.get().listener_name()).into(),
                }),
            }
        }
    }
    wanted
}

/// An open socket with its accept loop.
#[derive(Debug)]
struct Bound {
    destination: Destination,
    local: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

/// The sockets of a thread.
#[derive(Debug)]
pub struct Binds {
    thread: Rc<Thread>,
    bound: HashMap<SocketAddr, Bound>,
    /// What could not be bound the last time.
    failures: Vec<BindFailure>,
}

impl Binds {
    /// No sockets yet.
    pub fn new(thread: Rc<Thread>) -> Self {
        Self { thread, bound: HashMap::new(), failures: Vec::new() }
    }

    /// Opens what is wanted and not open, closes what is open and not wanted. Gives what could not be opened.
    pub fn apply(&mut self, wanted: Wanted) -> Vec<BindFailure> {
        let Wanted { addresses: wanted, conflicts: mut failures } = wanted;
        let mut opened = Vec::new();
        for (address, destination) in &wanted {
            let bound = self.bound.get(address);
            if bound.is_some_and(|bound| bound.destination == *destination) {
                continue;
            }
            match listen(*address) {
                Ok(listener) => opened.push((*address, listener, destination.clone())),
                Err(error) => failures.push(BindFailure {
                    listener: destination.listener_name(),
                    address: *address,
                    reason: error.to_string().into(),
                }),
            }
        }
        // Where a listener follows another on an address, both are there for a moment, so that nobody is refused.
        let gone: Vec<_> = self
            .bound
            .iter()
            .filter(|(address, bound)| wanted.get(*address) != Some(&bound.destination))
            .map(|(address, _)| *address)
            .collect();
        for address in gone {
            if let Some(bound) = self.bound.remove(&address) {
                if self.thread.index == 0 {
                    tracing::info!(%address, "listening ends");
                }
                let _ = bound.stop.send(true);
            }
        }
        for (address, listener, destination) in opened {
            self.start(address, listener, destination);
        }
        failures.sort_unstable_by(|a, b| (&a.listener, a.address).cmp(&(&b.listener, b.address)));
        self.tell(&failures);
        failures
    }

    /// Logs failures that are new; they are tried again every second.
    fn tell(&mut self, failures: &[BindFailure]) {
        if self.thread.index == 0 {
            for BindFailure { listener, address, reason } in failures {
                if !self.failures.iter().any(|old| old.address == *address && old.reason == *reason)
                {
                    tracing::warn!(%listener, %address, %reason, "cannot listen");
                }
            }
        }
        self.failures = failures.to_vec();
    }

    /// Whether anything is listened on.
    pub fn any(&self) -> bool {
        !self.bound.is_empty()
    }

    fn start(&mut self, address: SocketAddr, listener: TcpListener, destination: Destination) {
        let local = listener.local_addr().unwrap_or(address);
        // Every thread listens; one line is enough.
        if self.thread.index == 0 {
            tracing::info!(address = %local, ?destination, "listening");
        }
        let (stop, stopped) = watch::channel(false);
        let accepting = Accepting {
            thread: self.thread.clone(),
            listener,
            local: (!local.ip().is_unspecified()).then_some(local),
            destination: destination.clone(),
        };
        let accepting = tokio::task::spawn_local(accepting.run(stopped));
        self.bound.insert(address, Bound { destination, local, stop, accepting });
    }

    /// Where connections for this destination are accepted.
    pub fn local_addresses(&self, destination: &Destination) -> Vec<SocketAddr> {
        self.bound
            .values()
            .filter(|bound| bound.destination == *destination)
            .map(|bound| bound.local)
            .collect()
    }

    /// Closes all sockets, after what waited in their queues was accepted.
    pub async fn close(self) {
        for bound in self.bound.values() {
            let _ = bound.stop.send(true);
        }
        for (_, bound) in self.bound {
            // A loop that panicked has nothing left to accept.
            let _ = bound.accepting.await;
        }
    }
}

/// A listening socket as every data thread has one.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Whether an address can be bound, beside what this process has bound there.
///
/// # Errors
/// What the system says when it cannot.
pub fn check(address: SocketAddr) -> io::Result<()> {
    bind(address).map(drop)
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Linux gives it to every connection that is accepted.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A socket whose connections are accepted.
struct Accepting {
    thread: Rc<Thread>,
    listener: TcpListener,
    /// Our end of all of its connections; `None`: each has its own.
    local: Option<SocketAddr>,
    destination: Destination,
}

impl Accepting {
    /// Accepts until told to stop, and then what is waiting already.
    async fn run(self, mut stopped: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                // A sender that was dropped means the same.
                _ = stopped.wait_for(|stop| *stop) => break,
            };
            self.take(accepted).await;
        }
        // Whoever was in the queue has been told by the kernel that the connection is there.
        while let Some(accepted) = self.listener.accept().now_or_never() {
            if !self.take(accepted).await {
                break;
            }
        }
    }

    /// Serves what was accepted in a task of its own. False when nothing was.
    async fn take(&self, accepted: io::Result<(TcpStream, SocketAddr)>) -> bool {
        match accepted {
            Ok((stream, peer)) => {
                let local = self.local.map_or_else(|| stream.local_addr(), Ok);
                let Ok(local) = local else { return true };
                let ends = Ends { local, peer, destination: self.destination.clone() };
                let guard = self.thread.track();
                let serving = connection::accepted(&self.thread, stream, ends);
                // Not a block that awaits: it would have room for the connection twice.
                tokio::task::spawn_local(serving.map(|()| drop(guard)));
                true
            }
            Err(error) => {
                // A client that went away in the queue is its own affair; without descriptors a pause lets others finish.
                tracing::debug!(%error, "cannot accept");
                if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) {
                    tracing::warn!("no file descriptors left");
                    tokio::time::sleep(EXHAUSTED).await;
                }
                false
            }
        }
    }
}

/// Linux's numbers, the same on all architectures that Weft runs on.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_that_are_accepted_do_not_wait_for_full_packets() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(stream.nodelay().unwrap());
    }
}
