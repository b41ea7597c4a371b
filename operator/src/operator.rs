//! Wires the operator: what is started in which order, and stopped.
//!
//! Sockets are bound first (a mistake shows at once, early callers wait in the queue), then the source is read, and
//! only then proxies are served: those that outlived an operator must not be told of an empty mesh. The administration
//! port answers from the start.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use weft_ca::{
    authority::{Authority, AuthorityStore},
    service::{CertificateService, LifetimePolicy},
    state::StateDir,
    token::{LocalVerifier, TokenKey, TokenVerifier},
};
use weft_core::credential::SecretNamespaces;
use weft_core::mesh::MeshConfig;
use weft_index::{Index, mesh_config};
use weft_webhook::InjectConfig;
use weft_xds::{AdsOptions, AdsServer, MeshResolver, SnapshotSender};

use crate::{
    admin::{self, Admin},
    kubernetes::{
        Cluster, MESH_CONFIG, Writers, authority, complain,
        injector::{self, Injector},
        pods::Pods,
        status::{self, StatusWriter},
        token_review::TokenReviewer,
    },
    listen::bind,
    mesh::{self, LatestView, MeshTask},
    server::{self, Server},
    settings::{Settings, Source},
    source::{
        Batch, Report,
        first_seen::FirstSeen,
        folder::Folder,
        kubernetes::{self, HeldStatuses},
        watch as folder_watch,
    },
    tls::TlsStore,
    webhooks,
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

/// Where resources come from, and where the operator's state is kept.
enum Home {
    Folder { state: StateDir, source: PathBuf },
    Cluster { cluster: Cluster, webhooks: TcpListener, secrets: SecretNamespaces },
}

/// The source, followed.
struct Followed {
    batches: mpsc::Receiver<Batch>,
    /// What there is to say before the first batch.
    report: Option<watch::Receiver<Arc<Report>>>,
    /// The statuses that resources have.
    held: HeldStatuses,
}

impl Operator {
    /// Starts an operator that stops on the signal. It serves when this returns, unless the signal came before.
    ///
    /// # Errors
    /// When a setting makes no sense, a socket cannot be bound, or the state cannot be used.
    pub async fn start(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let listener = bind(settings.listen, "--listen").await?;
        let admin_listener = bind(settings.admin, "--admin").await?;
        let (address, admin_address) = (listener.local_addr()?, admin_listener.local_addr()?);
        let home = Home::open(&settings).await?;
        let stop = delayed(&shutdown, settings.stop_delay);

        let mut registry = Registry::default();
        let (view_sender, view) = watch::channel(None);
        let snapshots = Arc::new(SnapshotSender::new());
        let mut task = MeshTask {
            index: home.index(base_mesh(&settings)?),
            snapshots: snapshots.clone(),
            view: view_sender,
            metrics: mesh::Metrics::register(&mut registry),
            trust_domain: None,
        };
        let Followed { mut batches, report, held } = home.follow(&stop)?;
        let ca_metrics = weft_ca::metrics::Metrics::register(&mut registry);
        let status_metrics = status::Metrics::register(&mut registry);
        let server_metrics = server::Metrics::register(&mut registry);
        let ads = AdsServer::new(
            MeshResolver,
            snapshots.subscribe(),
            &mut registry,
            stop.clone(),
            home.ads_options(&view),
        );
        let (inject, mut inject_config) = watch::channel(Arc::new(InjectConfig::default()));
        let (injector_problems, injector) = watch::channel(injector::Problems::default());
        let inject_state = weft_webhook::State::new(inject_config.clone(), &mut registry);
        let known_trust_domain = Arc::new(OnceLock::new());
        let admin = Admin::new(admin::Inner {
            view: view.clone(),
            connections: ads.connections(),
            registry,
            trust_domain: known_trust_domain.clone(),
            report,
            injector,
            stopping: shutdown.clone(),
        });
        let mut tasks = vec![tokio::spawn(admin::serve(admin_listener, admin, stop.clone()))];
        let started = Self { address, admin: admin_address, tasks: Vec::new() };

        let first = tokio::select! {
            first = batches.recv() => first.context("the source ended before it was read")?,
            () = shutdown.cancelled() => return Ok(Self { tasks, ..started }),
        };
        task.apply(first);
        let trust_domain = trust_domain(&settings, &view);
        task.trust_domain = Some(trust_domain.clone());
        let now = OffsetDateTime::now_utc();
        let authority = tokio::select! {
            authority = home.authority(&trust_domain, now) => Arc::new(authority?),
            () = shutdown.cancelled() => return Ok(Self { tasks, ..started }),
        };
        publish_expiry(&ca_metrics, &authority.current());
        let certificates = CertificateService::new(
            authority.clone(),
            home.verifier(&trust_domain)?,
            lifetimes(&settings),
            ca_metrics.clone(),
        );
        let names = serving_names(&settings, address.ip());
        let tls = Arc::new(TlsStore::new(authority.clone(), names, now)?);
        let server = Server {
            listener,
            tls: tls.clone(),
            routes: Routes::new(ads.into_service()).add_service(certificates.into_server()),
            trust_domain: trust_domain.clone(),
            max_connections: settings.max_connections,
            drain_timeout: settings.drain_timeout,
            metrics: server_metrics,
        };
        task.spawn(batches).context("cannot start the index's thread")?;
        tracing::info!(%address, admin = %admin_address, %trust_domain, "serving");
        tasks.push(tokio::spawn(server.run(stop.clone())));
        tasks.push(tokio::spawn(refresh(tls.clone(), authority.clone(), ca_metrics, stop.clone())));
        if let Home::Cluster { cluster, webhooks, .. } = home {
            let injector = Injector { settings: inject, problems: injector_problems };
            tokio::spawn(until(stop.clone(), injector.follow(cluster.clone())));
            tokio::select! {
                _ = inject_config.changed() => {}
                () = shutdown.cancelled() => return Ok(Self { tasks, ..started }),
            }
            let router = weft_webhook::router(inject_state);
            tasks.push(tokio::spawn(webhooks::serve(webhooks, tls, router, stop)));
            let follow = authority::follow(cluster.clone(), authority.clone(), shutdown.clone());
            tasks.push(tokio::spawn(follow));
            let statuses = StatusWriter::new(&cluster, view.clone(), held, status_metrics);
            let injection = inject_config;
            let writers = Writers { cluster, authority, view, injection, statuses };
            tasks.push(writers.spawn(&shutdown));
        }
        // Ready from here on.
        known_trust_domain.get_or_init(|| trust_domain);
        Ok(Self { tasks, ..started })
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

/// The task, unless the signal ends it.
async fn until(signal: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        () = signal.cancelled() => {}
    }
}

/// The signal, passed on when the delay is over.
fn delayed(signal: &CancellationToken, delay: Duration) -> CancellationToken {
    if delay.is_zero() {
        return signal.clone();
    }
    let (signal, passed_on) = (signal.clone(), CancellationToken::new());
    let stop = passed_on.clone();
    tokio::spawn(async move {
        signal.cancelled().await;
        tracing::info!(?delay, "not ready any more, stopping after the delay");
        sleep(delay).await;
        stop.cancel();
    });
    passed_on
}

/// The namespaces of `--secret-namespaces`.
fn secret_namespaces(names: &[String]) -> SecretNamespaces {
    if names.iter().any(|name| name == "*") {
        return SecretNamespaces::All;
    }
    let names = names.iter().map(|name| name.trim()).filter(|name| !name.is_empty());
    SecretNamespaces::Named(names.map(str::to_owned).collect())
}

impl Home {
    async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let source = match &settings.source {
            Source::Dir(source) => source.clone(),
            Source::Kubernetes => {
                let webhooks = bind(settings.webhook, "--webhook").await?;
                let cluster = Cluster::find(settings).await?;
                let secrets = secret_namespaces(&settings.secret_namespaces);
                return Ok(Self::Cluster { cluster, webhooks, secrets });
            }
        };
        let path =
            settings.state_dir.as_ref().context("--source dir:PATH needs --state-dir DIR")?;
        if !source.is_dir() {
            bail!("--source dir:{}: there is no such folder", source.display());
        }
        let state = StateDir::open(path).context("--state-dir")?;
        for file in state.exposed_files() {
            tracing::warn!(file = %file.display(), "a private key can be read by others than its owner");
        }
        Ok(Self::Folder { state, source })
    }

    fn index(&self, base: MeshConfig) -> Index {
        match self {
            Self::Folder { .. } => Index::new(base),
            Self::Cluster { cluster, secrets, .. } => {
                let index = Index::new(base).with_mesh_config(&cluster.namespace, MESH_CONFIG);
                index.with_secret_namespaces(secrets.clone())
            }
        }
    }

    fn follow(&self, stop: &CancellationToken) -> anyhow::Result<Followed> {
        match self {
            Self::Folder { state, source } => {
                let folder = Folder::new(source.clone(), FirstSeen::open(state.clone()));
                let batches =
                    folder_watch::follow(folder).context("cannot start the source's thread")?;
                Ok(Followed { batches, report: None, held: HeldStatuses::default() })
            }
            Self::Cluster { cluster, secrets, .. } => {
                let settings = kubernetes::Settings {
                    namespace: cluster.namespace.clone(),
                    mesh_config: MESH_CONFIG,
                    secret_namespaces: secrets.clone(),
                };
                let kubernetes::Running { batches, report, held } =
                    kubernetes::follow(&cluster.client, &settings, stop);
                tokio::spawn(until(stop.clone(), complain(cluster.clone(), report.clone())));
                Ok(Followed { batches, report: Some(report), held })
            }
        }
    }

    fn ads_options(&self, view: &LatestView) -> AdsOptions {
        match self {
            Self::Folder { .. } => AdsOptions::default(),
            Self::Cluster { .. } => AdsOptions {
                nodes: Some(Arc::new(Pods::new(view.clone()))),
                ..AdsOptions::default()
            },
        }
    }

    async fn authority(
        &self,
        trust_domain: &str,
        now: OffsetDateTime,
    ) -> anyhow::Result<AuthorityStore> {
        match self {
            Self::Folder { state, .. } => AuthorityStore::open(state.clone(), trust_domain, now)
                .context("the authority cannot be used"),
            Self::Cluster { cluster, .. } => authority::open(cluster, trust_domain, now).await,
        }
    }

    fn verifier(&self, trust_domain: &str) -> anyhow::Result<Box<dyn TokenVerifier>> {
        Ok(match self {
            Self::Folder { state, .. } => {
                let key = TokenKey::load_or_create(state).context("the key of workload tokens")?;
                Box::new(LocalVerifier::new(&key, trust_domain))
            }
            Self::Cluster { cluster, .. } => {
                Box::new(TokenReviewer::new(cluster.client.clone(), trust_domain))
            }
        })
    }
}

fn base_mesh(settings: &Settings) -> anyhow::Result<MeshConfig> {
    let mut mesh = MeshConfig::default();
    if settings.source == Source::Kubernetes {
        mesh.root_namespace = settings.namespace.as_str().into();
        // Applications need not name the proxy: what they send is captured.
        mesh.proxy_http_port = 0;
    }
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

/// The flag's, else that of the mesh's settings as the source has them now. Later changes need a restart: identities
/// cannot be renamed while they are in use.
fn trust_domain(settings: &Settings, view: &LatestView) -> Arc<str> {
    let mesh = view.borrow().as_ref().map(|view| view.snapshot.mesh.trust_domain.clone());
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
