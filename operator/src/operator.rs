//! Wires the operator: what is started in which order, and stopped.
//!
//! Sockets are bound first (a mistake shows at once, early callers wait in the queue), then the source is read, and
//! only then anybody is served: proxies that outlived an operator must not be told of an empty mesh.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use tokio::{net::TcpListener, task::JoinHandle, time::interval};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use weft_ca::{
    authority::{Authority, AuthorityStore},
    service::{CertificateService, LifetimePolicy},
    state::StateDir,
    token::{LocalVerifier, TokenKey},
};
use weft_core::mesh::MeshConfig;
use weft_index::{Index, mesh_config};
use weft_xds::{AdsOptions, AdsServer, MeshResolver, SnapshotSender};

use crate::{
    admin::{self, Admin},
    mesh::{self, LatestView, MeshTask},
    server::{self, Server},
    settings::{Settings, Source},
    source::{Batch, first_seen::FirstSeen, folder::Folder, watch},
    tls::TlsStore,
};

/// How often certificates are looked after.
const REFRESH: Duration = Duration::from_secs(5);

/// Runs an operator until the signal.
///
/// # Errors
/// When it cannot start.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    Operator::start(settings, shutdown).await?.wait().await
}

/// A running operator.
#[derive(Debug)]
pub struct Operator {
    address: SocketAddr,
    admin: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Operator {
    /// Starts an operator that stops on the signal. It serves when this returns.
    ///
    /// # Errors
    /// When a setting makes no sense, a socket cannot be bound, or the folders cannot be used.
    pub async fn start(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let listener = bind(settings.listen, "--listen").await?;
        let admin_listener = bind(settings.admin, "--admin").await?;
        let (address, admin_address) = (listener.local_addr()?, admin_listener.local_addr()?);
        let state = state_dir(&settings)?;

        let mut registry = Registry::default();
        let view = LatestView::default();
        let snapshots = Arc::new(SnapshotSender::new());
        let mut task = MeshTask {
            index: Index::new(base_mesh(&settings)?),
            snapshots: snapshots.clone(),
            view: view.clone(),
            metrics: mesh::Metrics::register(&mut registry),
            trust_domain: None,
        };
        let mut batches = follow(&settings.source, state.clone())?;
        let first = batches.recv().await.context("the source ended before it was read")?;
        task.apply(first);
        let trust_domain = trust_domain(&settings, &view);
        task.trust_domain = Some(trust_domain.clone());

        let ca_metrics = weft_ca::metrics::Metrics::register(&mut registry);
        let now = OffsetDateTime::now_utc();
        let authority = AuthorityStore::open(state.clone(), &trust_domain, now)
            .context("the authority cannot be used")?;
        let authority = Arc::new(authority);
        publish_expiry(&ca_metrics, &authority.current());
        let key = TokenKey::load_or_create(&state).context("the key of workload tokens")?;
        let certificates = CertificateService::new(
            authority.clone(),
            LocalVerifier::new(&key, &trust_domain),
            lifetimes(&settings),
            ca_metrics.clone(),
        );
        let names = serving_names(&settings, address.ip());
        let tls = Arc::new(TlsStore::new(authority.clone(), names, now)?);

        let ads = AdsServer::new(
            MeshResolver,
            snapshots.subscribe(),
            &mut registry,
            shutdown.clone(),
            AdsOptions::default(),
        );
        let connections = ads.connections();
        let server = Server {
            listener,
            tls: tls.clone(),
            routes: Routes::new(ads.into_service()).add_service(certificates.into_server()),
            trust_domain: trust_domain.clone(),
            max_connections: settings.max_connections,
            drain_timeout: settings.drain_timeout,
            metrics: server::Metrics::register(&mut registry),
        };
        task.spawn(batches).context("cannot start the index's thread")?;
        let admin = Admin::new(view, connections, registry, trust_domain.clone());
        tracing::info!(%address, admin = %admin_address, %trust_domain, "serving");
        let tasks = vec![
            tokio::spawn(server.run(shutdown.clone())),
            tokio::spawn(admin::serve(admin_listener, admin, shutdown.clone())),
            tokio::spawn(refresh(tls, authority, ca_metrics, shutdown)),
        ];
        Ok(Self { address, admin: admin_address, tasks })
    }

    /// Where proxies connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The administration port.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Waits for the end after the signal.
    ///
    /// # Errors
    /// When a part failed before.
    pub async fn wait(self) -> anyhow::Result<()> {
        for task in self.tasks {
            task.await.context("a part of the operator failed")?;
        }
        tracing::info!("stopped");
        Ok(())
    }
}

async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{flag} {address} cannot be bound"))
}

fn state_dir(settings: &Settings) -> anyhow::Result<StateDir> {
    let state = StateDir::open(&settings.state_dir).context("--state-dir")?;
    for file in state.exposed_files() {
        tracing::warn!(file = %file.display(), "a private key can be read by others than its owner");
    }
    Ok(state)
}

fn base_mesh(settings: &Settings) -> anyhow::Result<MeshConfig> {
    let mut mesh = MeshConfig::default();
    if let Some(path) = &settings.mesh_config {
        let context = || format!("--mesh-config {}", path.display());
        let text = fs::read_to_string(path).with_context(context)?;
        let (parsed, warnings) = mesh_config::parse(&text, &mesh).with_context(context)?;
        for warning in warnings {
            tracing::warn!(file = %path.display(), "{warning}");
        }
        mesh = parsed;
    }
    if let Some(domain) = &settings.trust_domain {
        ensure!(is_trust_domain(domain), "--trust-domain {domain:?} is not a trust domain");
        mesh.trust_domain = domain.as_str().into();
    }
    Ok(mesh)
}

fn is_trust_domain(domain: &str) -> bool {
    let id = weft_api::identity::SpiffeId::new(domain, "ns", "sa");
    id.to_string().parse() == Ok(id)
}

fn follow(source: &Source, state: StateDir) -> anyhow::Result<tokio::sync::mpsc::Receiver<Batch>> {
    let Source::Dir(path) = source;
    if !path.is_dir() {
        bail!("--source dir:{}: there is no such folder", path.display());
    }
    let folder = Folder::new(path.clone(), FirstSeen::open(state));
    watch::follow(folder).context("cannot start the source's thread")
}

/// The flag's, else that of the mesh's settings as the source has them now. Later changes need a restart: identities
/// cannot be renamed while they are in use.
fn trust_domain(settings: &Settings, view: &LatestView) -> Arc<str> {
    let mesh = view.load().as_ref().map(|view| view.snapshot.mesh.trust_domain.clone());
    match (&settings.trust_domain, mesh) {
        (None, Some(mesh)) => mesh,
        (None, None) => MeshConfig::default().trust_domain,
        (Some(flag), mesh) => {
            if let Some(mesh) = mesh.filter(|mesh| **mesh != **flag) {
                tracing::error!(%flag, %mesh, "the mesh's settings have another trust domain than the flag");
            }
            flag.as_str().into()
        }
    }
}

fn lifetimes(settings: &Settings) -> LifetimePolicy {
    LifetimePolicy {
        default: settings.cert_ttl,
        max: settings.max_cert_ttl.unwrap_or(settings.cert_ttl),
    }
}

fn serving_names(settings: &Settings, address: IpAddr) -> Vec<String> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
        "weft-operator".to_owned(),
        "istiod.istio-system.svc".to_owned(),
    ];
    if !address.is_unspecified() {
        names.push(address.to_string());
    }
    names.extend(settings.serving_name.iter().cloned());
    names.sort();
    names.dedup();
    names
}

fn publish_expiry(metrics: &weft_ca::metrics::Metrics, authority: &Authority) {
    metrics.root_expiry.set(authority.roots_not_after().unix_timestamp() as f64);
    metrics.chain_expiry.set(authority.not_after().unix_timestamp() as f64);
}

async fn refresh(
    tls: Arc<TlsStore>,
    authority: Arc<AuthorityStore>,
    metrics: weft_ca::metrics::Metrics,
    shutdown: CancellationToken,
) {
    let mut ticks = interval(REFRESH);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        tls.refresh(OffsetDateTime::now_utc());
        publish_expiry(&metrics, &authority.current());
    }
}
