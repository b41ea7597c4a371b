//! The control thread: xDS, certificates, administration, lifecycle.
//!
//! Runs on a local (`!Send`) runtime, started by `main`; the data threads are its own to start and to end.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, LazyLock},
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::spawn_local,
    time::timeout,
};

pub mod admin;
pub mod ads;
pub mod agent;
mod backoff;
pub mod bootstrap;
pub mod certificates;
mod connect;
pub mod decode;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod fixtures;
mod health;
pub mod lifecycle;
pub mod names;
pub mod standalone;
pub mod store;

use admin::{Admin, Role};
use ads::{Ads, AdsStatus};
use agent::{Agent, AgentError};
use certificates::Certificates;
use decode::{Decoder, Invalid};
use lifecycle::LifecycleControl;
use store::{OnDemandLimits, Store};

use crate::{
    logging::LogHandle,
    settings::Settings,
    shared::{ControlSide, Lifecycle, STARTED, Shared},
};

/// What a data thread runs: returns when the lifecycle says so and its connections have gone.
pub type DataThread = fn(usize, Arc<Shared>);

/// Connections to one of the proxy's own ports that may wait to be accepted.
const BACKLOG: i32 = 128;
/// Until the connections have gone, or the pod's own time is over.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// What is left after a drain gets so long to be closed.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the process ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// One of the proxy's own ports is taken, or the address is not this machine's.
    #[error("cannot listen on {address} for {role:?}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What for.
        role: Role,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The hosts file cannot be written.
    #[error("cannot write the hosts file {path:?}")]
    HostsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A data thread cannot be started.
    #[error("cannot start a data thread")]
    Thread(#[source] io::Error),
    /// A data thread ended although nobody asked it to.
    #[error("data thread {0} ended by itself")]
    DataThread(usize),
    /// Signals cannot be listened for.
    #[error("cannot listen for signals")]
    Signal(#[source] io::Error),
    /// What the injector has written for the agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The bootstrap file.
    #[error(transparent)]
    Bootstrap(#[from] bootstrap::BootstrapError),
    /// The access log of the command line.
    #[error("access log: {0}")]
    AccessLog(Invalid),
}

/// Runs the proxy until it is told to end.
///
/// # Errors
/// What it needs of the machine is not to be had, or a data thread dies.
pub async fn run(
    settings: Settings,
    log: LogHandle,
    data_thread: DataThread,
) -> Result<(), ControlError> {
    LazyLock::force(&STARTED);
    if let Some(path) = &settings.hosts_file {
        write_hosts(path, &settings.hosts_lines())
            .map_err(|source| ControlError::HostsFile { path: path.clone(), source })?;
    }
    let decoder = Decoder::new(&settings).map_err(ControlError::AccessLog)?;
    let sockets = bind_own(&settings)?;
    let (shared, control) = Shared::new(settings);
    let lifecycle = Rc::new(LifecycleControl::new(shared.clone(), control.lifecycle.clone()));
    let ended = start_data_threads(&shared, data_thread)?;
    let agent = Agent::new(&shared.settings, lifecycle.clone())?;
    let own = Own { sockets, agent: Rc::new(agent), log };
    start_tasks(&shared, control, decoder, &lifecycle, own);
    tracing::info!(node = shared.node.id(), threads = shared.settings.concurrency, "started");
    supervise(&shared, &lifecycle, ended).await
}

/// The proxy's own ports, before anything else: a second proxy on the same address must not get further.
fn bind_own(settings: &Settings) -> Result<Vec<(Role, TcpListener)>, ControlError> {
    let ports = settings.ports;
    let mut sockets = Vec::new();
    for (role, port, addresses) in [
        (Role::Admin, ports.admin, &settings.admin_addresses),
        (Role::Status, ports.status, &settings.own_addresses),
        (Role::Health, ports.health, &settings.own_addresses),
        (Role::Metrics, ports.metrics, &settings.own_addresses),
    ] {
        for address in addresses {
            let address = SocketAddr::new(*address, port);
            let listener = listen(address)
                .and_then(TcpListener::from_std)
                .map_err(|source| ControlError::Bind { address, role, source })?;
            sockets.push((role, listener));
        }
    }
    Ok(sockets)
}

/// IPv4 and IPv6 have a socket each.
fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whole or not at all: others may be reading it.
fn write_hosts(path: &Path, lines: &str) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    std::fs::write(&temporary, lines)?;
    std::fs::rename(&temporary, path)
}

/// Tells of a data thread's end, also of one by panic.
struct EndGuard {
    thread: usize,
    ended: mpsc::UnboundedSender<usize>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        let _ = self.ended.send(self.thread);
    }
}

fn start_data_threads(
    shared: &Shared,
    data_thread: DataThread,
) -> Result<mpsc::UnboundedReceiver<usize>, ControlError> {
    let (ended, receiver) = mpsc::unbounded_channel();
    for thread in 0..shared.settings.concurrency {
        let guard = EndGuard { thread, ended: ended.clone() };
        let shared = Arc::new(shared.clone());
        thread::Builder::new()
            .name(format!("data-{thread}"))
            .spawn(move || {
                let _guard = guard;
                data_thread(thread, shared);
            })
            .map_err(ControlError::Thread)?;
    }
    Ok(receiver)
}

/// What the proxy has for itself and its pod.
struct Own {
    sockets: Vec<(Role, TcpListener)>,
    agent: Rc<Agent>,
    log: LogHandle,
}

fn start_tasks(
    shared: &Shared,
    control: ControlSide,
    decoder: Decoder,
    lifecycle: &Rc<LifecycleControl>,
    own: Own,
) {
    let settings = &shared.settings;
    let limits = OnDemandLimits { names: settings.on_demand_limit, idle: settings.on_demand_idle };
    let store = Rc::new(RefCell::new(Store::new(
        decoder,
        settings.listeners(),
        &shared.named_services,
        limits,
    )));
    let status = Rc::new(RefCell::new(AdsStatus::default()));
    let certificates =
        Certificates::new(settings.clone(), shared.identity.clone(), control.identity_changed);
    spawn_local(certificates.run());
    let ads = Ads::new(
        shared.clone(),
        control.config_changed,
        control.demands,
        store.clone(),
        status.clone(),
    );
    spawn_local(ads.run());
    spawn_local(health::run(shared.clone()));
    let admin = Rc::new(Admin::new(shared.clone(), store, status, lifecycle.clone(), own.log));
    for (role, listener) in own.sockets {
        spawn_local(admin::server::serve(listener, role, admin.clone(), own.agent.clone()));
    }
}

/// Waits for the end, and brings it about in order.
async fn supervise(
    shared: &Shared,
    lifecycle: &LifecycleControl,
    mut ended: mpsc::UnboundedReceiver<usize>,
) -> Result<(), ControlError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ControlError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ControlError::Signal)?;
    let mut running = shared.settings.concurrency;
    let told = loop {
        tokio::select! {
            _ = terminate.recv() => break true,
            _ = interrupt.recv() => break true,
            () = lifecycle.wait_for_quit() => break false,
            Some(thread) = ended.recv() => {
                if lifecycle.state() < Lifecycle::Draining {
                    return Err(ControlError::DataThread(thread));
                }
                running -= 1;
            }
        }
    };
    if let Some(pod) = &shared.settings.pod
        && told
        && lifecycle.state() == Lifecycle::Running
    {
        // Pod and proxy are told at the same time: others do not know yet, and the application may still need the mesh.
        // Where a hook has asked for `/drain` before, that time is over.
        tracing::info!(seconds = pod.termination_drain.as_secs(), "leaving");
        lifecycle.advance(Lifecycle::Leaving);
        tokio::select! {
            () = tokio::time::sleep(pod.termination_drain) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = lifecycle.wait_for_quit() => {}
        }
    }
    let patience = match &shared.settings.pod {
        Some(pod) if pod.exit_on_zero_connections => FOR_EVER,
        _ => shared.settings.drain_duration,
    };
    tracing::info!(seconds = patience.as_secs(), "draining");
    lifecycle.advance(Lifecycle::Draining);
    let all_ended = async {
        while running > 0 && ended.recv().await.is_some() {
            running -= 1;
        }
    };
    tokio::select! {
        _ = timeout(patience, all_ended) => {}
        // Whoever asks twice does not want to wait.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    lifecycle.advance(Lifecycle::Stopping);
    let _ = timeout(STOP_TIMEOUT, async {
        while running > 0 && ended.recv().await.is_some() {
            running -= 1;
        }
    })
    .await;
    tracing::info!("stopped");
    Ok(())
}

#[cfg(test)]
mod tests;
