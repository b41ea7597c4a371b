//! What the control thread and the data threads share: handles only, no locks on a request's path.
//!
//! [`Shared::new`] makes both ends once: [`Shared`] for the data threads, [`ControlSide`] for the control thread.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock, atomic::AtomicU64},
    time::Instant,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, oneshot, watch};
use weft_api::node::NodeInfo;

use crate::{config::ProxyConfig, identity::Identity, settings::Settings, stats::Registry};

/// Wishes that wait for the control thread; more of them wait at the data threads.
const DEMAND_QUEUE: usize = 1024;

/// A name that a data thread needs and the configuration does not hold yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DemandKey {
    /// An outbound listener, `<host or IP>_<port>`.
    Listener(Arc<str>),
    /// A virtual host, `<route configuration>/<authority>`.
    VirtualHost(Arc<str>),
}

/// A data thread's wish. `ready` fires once the name is in the configuration, or known to be absent.
///
/// It is dropped without firing when the name had to be given up (too many names, shutdown).
#[derive(Debug)]
pub struct Demand {
    /// What is needed.
    pub key: DemandKey,
    /// Fires when the configuration that answers has been swapped in.
    pub ready: oneshot::Sender<()>,
}

/// How far the process is in stopping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lifecycle {
    /// Serving.
    #[default]
    Running,
    /// The pod is about to go: inbound requests are answered, and their connections told to go away. New connections are
    /// taken: not everybody knows yet.
    Leaving,
    /// No new connections; requests in flight are finished, connections are told to go away. A data thread returns
    /// when its last connection has gone.
    Draining,
    /// Whatever is left is closed; a data thread returns at once.
    Stopping,
}

/// An address of the workload's own range that stands for a service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedService {
    /// Where the proxy listens for it.
    pub bind: SocketAddr,
    /// The service as the workload names it.
    pub host: Arc<str>,
    /// The service's port.
    pub port: u16,
}

/// An address that a listener wants and that cannot be bound; it is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindFailure {
    /// The listener.
    pub listener: Arc<str>,
    /// The address.
    pub address: SocketAddr,
    /// Why not.
    pub reason: Box<str>,
}

/// Handles that every data thread holds.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The process's settings.
    pub settings: Arc<Settings>,
    /// The workload as it is told to the control plane and to peers.
    pub node: Arc<NodeInfo>,
    /// The configuration in effect. Data threads keep an `arc_swap::Cache` of it.
    pub config: Arc<ArcSwap<ProxyConfig>>,
    /// Fires with the generation whenever `config` was swapped, for what must act on it (binding listeners).
    pub config_changed: watch::Receiver<u64>,
    /// The workload's certificate; `None` until the first one was signed.
    pub identity: Arc<ArcSwapOption<Identity>>,
    /// Fires with the identity's generation whenever `identity` was swapped.
    pub identity_changed: watch::Receiver<u64>,
    /// Where wishes go; bounded, so that a flood of unknown names waits instead of growing.
    pub demands: mpsc::Sender<Demand>,
    /// Drain signal.
    pub lifecycle: watch::Receiver<Lifecycle>,
    /// Addresses of named services.
    pub named_services: Arc<[NamedService]>,
    /// The metrics; a data thread counts with its own `stats.thread()`.
    pub stats: Arc<Registry>,
    /// Per data thread: the newest configuration generation whose listeners it has bound. Each thread writes its own.
    pub applied: Arc<[AtomicU64]>,
    /// Per data thread: what it could not bind. Each thread writes its own.
    pub bind_failures: Arc<[ArcSwap<Vec<BindFailure>>]>,
}

/// The other ends of [`Shared`]'s channels, and the right to write.
#[derive(Debug)]
pub struct ControlSide {
    /// Announces a swap of `Shared::config`.
    pub config_changed: watch::Sender<u64>,
    /// Announces a swap of `Shared::identity`.
    pub identity_changed: watch::Sender<u64>,
    /// The data threads' wishes.
    pub demands: mpsc::Receiver<Demand>,
    /// Starts draining and stopping.
    pub lifecycle: watch::Sender<Lifecycle>,
}

impl Shared {
    /// Makes both ends. Nothing is configured and there is no identity yet.
    pub fn new(settings: Settings) -> (Self, ControlSide) {
        let (config_changed, config_changed_receiver) = watch::channel(0);
        let (identity_changed, identity_changed_receiver) = watch::channel(0);
        let (demands, demands_receiver) = mpsc::channel(DEMAND_QUEUE);
        let (lifecycle, lifecycle_receiver) = watch::channel(Lifecycle::default());
        let shared = Self {
            node: Arc::new(settings.node_info()),
            named_services: settings.named_services.clone(),
            applied: (0..settings.concurrency).map(|_| AtomicU64::new(0)).collect(),
            bind_failures: (0..settings.concurrency).map(|_| ArcSwap::default()).collect(),
            settings: Arc::new(settings),
            config: Arc::new(ArcSwap::default()),
            config_changed: config_changed_receiver,
            identity: Arc::new(ArcSwapOption::empty()),
            identity_changed: identity_changed_receiver,
            demands,
            lifecycle: lifecycle_receiver,
            stats: Arc::default(),
        };
        let control =
            ControlSide { config_changed, identity_changed, demands: demands_receiver, lifecycle };
        (shared, control)
    }
}

/// When the process began, as near as it matters.
pub static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Seconds on the process's coarse clock; what `OnDemand::touch` wants.
pub fn coarse_now() -> u32 {
    u32::try_from(STARTED.elapsed().as_secs()).unwrap_or(u32::MAX)
}
