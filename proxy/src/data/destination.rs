//! Where a connection wants to go, and the listener that takes it there.
//!
//! The one seam: only how a destination is learned differs (the socket's local address, a named service's address,
//! `CONNECT`, the kernel's original destination); what follows is the same code. See `ARCHITECTURE.md`.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use tokio::{net::TcpStream, sync::oneshot, time::timeout};
use weft_api::names::{HTTP_PROXY, OutboundListenerName, VIRTUAL_INBOUND, VIRTUAL_OUTBOUND};

use super::thread::Thread;
use crate::{
    capture::original,
    config::{OnDemand, ProxyConfig, listener::Listener, route::VirtualHost},
    settings::Settings,
    shared::{Demand, DemandKey, coarse_now},
};

/// Where a connection wants to go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// To the workload's application, at the connection's own destination address.
    Inbound,
    /// To a service or address: `<host or IP>_<port>`.
    Outbound {
        /// As the client named it.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
    /// To the explicit proxy: each request names its own.
    HttpProxy,
    /// To a listener that is bound by its name: a gateway's.
    Listener(Arc<str>),
    /// Somewhere outside: the kernel knows where, and [`Self::learn`] asks it.
    Captured,
}

impl Destination {
    /// The name of the listener that takes it.
    pub fn listener_name(&self) -> Arc<str> {
        match self {
            Self::Inbound => VIRTUAL_INBOUND.into(),
            Self::HttpProxy => HTTP_PROXY.into(),
            Self::Captured => VIRTUAL_OUTBOUND.into(),
            Self::Listener(name) => name.clone(),
            Self::Outbound { host, port } => {
                let host = host.to_ascii_lowercase();
                OutboundListenerName { host, port: *port }.to_string().into()
            }
        }
    }
}

impl Destination {
    /// The address that filter chains are matched by: the connection's own for the workload's ports, the service's port
    /// (and address, where it is one) for what goes out.
    pub fn matched(&self, local: SocketAddr) -> SocketAddr {
        match self {
            Self::Inbound | Self::HttpProxy | Self::Captured | Self::Listener(_) => local,
            Self::Outbound { host, port } => {
                SocketAddr::new(host.parse().unwrap_or(local.ip()), *port)
            }
        }
    }

    /// The address for clusters that take the connection's own destination: the application's for the workload's ports.
    pub fn original(&self, local: SocketAddr, application: IpAddr) -> Option<SocketAddr> {
        match self {
            Self::Inbound => Some(SocketAddr::new(application, local.port())),
            Self::HttpProxy | Self::Listener(_) => None,
            Self::Captured => Some(local),
            Self::Outbound { host, port } => {
                host.parse().ok().map(|address| SocketAddr::new(address, *port))
            }
        }
    }
}

/// Why a captured connection is not served.
#[derive(Debug, thiserror::Error)]
pub enum NotCaptured {
    /// The kernel does not say.
    #[error("the kernel does not know the connection's original destination")]
    Unknown(#[source] io::Error),
    /// It was made to the proxy's own port: to go there again would never end.
    #[error("the connection was made to the proxy's own port {0}")]
    Loop(u16),
}

impl Destination {
    /// Where a connection that was accepted goes to, and the address that its client named: `local`, except where the
    /// kernel has redirected it.
    ///
    /// # Errors
    /// See [`NotCaptured`].
    pub fn learn(
        self,
        settings: &Settings,
        stream: &TcpStream,
        local: SocketAddr,
    ) -> Result<(Self, SocketAddr), NotCaptured> {
        let redirected = match self {
            Self::Captured => true,
            Self::Inbound => settings.is_captured(),
            Self::Outbound { .. } | Self::HttpProxy | Self::Listener(_) => false,
        };
        if !redirected {
            return Ok((self, local));
        }
        let original = original::destination(stream).map_err(NotCaptured::Unknown)?;
        let port = original.port();
        if [settings.ports.inbound, settings.ports.outbound].contains(&port) {
            return Err(NotCaptured::Loop(port));
        }
        let destination = match self {
            Self::Captured => {
                Self::Outbound { host: original.ip().to_canonical().to_string().into(), port }
            }
            other => other,
        };
        Ok((destination, original))
    }
}

/// Why there is no listener for a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoListener {
    /// The mesh does not know the destination.
    #[error("the mesh does not know the destination")]
    Unknown,
    /// The control plane did not answer in time, or there are too many destinations.
    #[error("the destination's configuration did not come in time")]
    TimedOut,
}

/// What the configuration says of a name.
enum Held<T> {
    Here(T),
    Absent,
    NotAsked,
}

fn held<T>(entry: Option<&Option<OnDemand<T>>>) -> Held<Arc<T>> {
    match entry {
        Some(Some(on_demand)) => {
            on_demand.touch(coarse_now());
            Held::Here(on_demand.value.clone())
        }
        Some(None) => Held::Absent,
        None => Held::NotAsked,
    }
}

/// The listener for a destination; asked of the control plane on first use. What was captured and is unknown to the mesh
/// goes by the listener that everything captured came in by.
///
/// # Errors
/// See [`NoListener`].
pub async fn listener(
    thread: &Rc<Thread>,
    destination: &Destination,
) -> Result<Arc<Listener>, NoListener> {
    let name = destination.listener_name();
    let wanted = match destination {
        Destination::Outbound { .. } => Some(DemandKey::Listener(name.clone())),
        // These are always subscribed to.
        Destination::Inbound
        | Destination::HttpProxy
        | Destination::Captured
        | Destination::Listener(_) => None,
    };
    let look = |config: &ProxyConfig| held(config.listeners.get(&name));
    match find(thread, thread.config(), || wanted, look).await {
        Ok((_, listener)) => Ok(listener),
        Err(NoListener::Unknown) if thread.shared.settings.is_captured() => {
            let otherwise = thread.config().listeners.get(VIRTUAL_OUTBOUND).cloned().flatten();
            otherwise.map(|listener| listener.value).ok_or(NoListener::Unknown)
        }
        Err(error) => Err(error),
    }
}

/// A virtual host by its full name, and the configuration that it is from, which has its clusters; asked of the control
/// plane where `config` does not have it.
///
/// # Errors
/// See [`NoListener`].
pub async fn virtual_host(
    thread: &Rc<Thread>,
    config: Arc<ProxyConfig>,
    name: &str,
) -> Result<(Arc<ProxyConfig>, Arc<VirtualHost>), NoListener> {
    let wanted = || Some(DemandKey::VirtualHost(name.into()));
    find(thread, config, wanted, |config| held(config.virtual_hosts.get(name))).await
}

/// Looks in one configuration, and where it does not say, in the one that answers the wish. What is found comes with the
/// configuration that it was found in: only that one is sure to have what it refers to.
async fn find<T>(
    thread: &Rc<Thread>,
    config: Arc<ProxyConfig>,
    wanted: impl FnOnce() -> Option<DemandKey>,
    look: impl Fn(&ProxyConfig) -> Held<T>,
) -> Result<(Arc<ProxyConfig>, T), NoListener> {
    match look(&config) {
        Held::Here(found) => return Ok((config, found)),
        Held::Absent => return Err(NoListener::Unknown),
        Held::NotAsked => drop(config),
    }
    let Some(key) = wanted() else { return Err(NoListener::Unknown) };
    let (ready, answered) = oneshot::channel();
    let asked = async {
        thread.shared.demands.send(Demand { key, ready }).await.ok()?;
        answered.await.ok()
    };
    let answer = timeout(thread.shared.settings.on_demand_wait, asked).await;
    // Whatever happened to the wish, the configuration may hold the answer by now.
    let config = thread.config();
    match (look(&config), answer) {
        (Held::Here(found), _) => Ok((config, found)),
        (Held::Absent, _) => Err(NoListener::Unknown),
        (Held::NotAsked, _) => Err(NoListener::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_have_names_and_addresses() {
        let outbound = |host: &str| Destination::Outbound { host: host.into(), port: 80 };
        let local: SocketAddr = "127.20.1.1:8080".parse().unwrap();
        let application: IpAddr = "127.20.1.2".parse().unwrap();
        for (destination, name, matched, original) in [
            (Destination::Inbound, "virtualInbound", "127.20.1.1:8080", Some("127.20.1.2:8080")),
            (Destination::HttpProxy, "http_proxy", "127.20.1.1:8080", None),
            (outbound("Order.Default"), "order.default_80", "127.20.1.1:80", None),
            (Destination::Listener("edge_80".into()), "edge_80", "127.20.1.1:8080", None),
            (outbound("10.0.0.1"), "10.0.0.1_80", "10.0.0.1:80", Some("10.0.0.1:80")),
        ] {
            assert_eq!(&*destination.listener_name(), name);
            assert_eq!(destination.matched(local).to_string(), matched);
            let found = destination.original(local, application).map(|found| found.to_string());
            assert_eq!(found.as_deref(), original);
        }
    }
}
