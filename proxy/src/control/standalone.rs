//! The control thread of a proxy whose configuration is a bootstrap file: no control plane, no certificate of the mesh.
//!
//! The file's resources go into the [`Store`] as a control plane's would. What remains to do while the proxy runs is
//! names that are looked up again, and files of endpoints that change.

use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::spawn_local,
    time::{Interval, MissedTickBehavior, interval},
};
use weft_api::{
    type_url,
    xds::{
        envoy::{
            config::endpoint::v3::ClusterLoadAssignment,
            service::discovery::v3::{
                DeltaDiscoveryResponse, DiscoveryResponse, Resource as PbResource,
            },
        },
        google::protobuf::Any,
    },
};

use super::{
    ControlError, DataThread, Own,
    admin::{self, Admin},
    ads::{
        AdsStatus,
        local::{Event, Local},
    },
    agent::Agent,
    bind_own,
    bootstrap::{Bootstrap, BootstrapError, document, message},
    decode::{
        Decoder, Invalid,
        invalid::{At, Reason},
        value::{is, type_name, unpack},
    },
    health,
    lifecycle::LifecycleControl,
    start_data_threads,
    store::{Kind, OnDemandLimits, Store},
    supervise,
};
use crate::{
    config::ProxyConfig,
    logging::LogHandle,
    settings::{Settings, Subscribed},
    shared::{STARTED, Shared, coarse_now},
};

/// How often files of endpoints are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the proxy until it is told to end.
///
/// # Errors
/// The bootstrap says what the proxy cannot do, what it needs of the machine is not to be had, or a data thread dies.
pub async fn run(
    settings: Settings,
    bootstrap: Bootstrap,
    log: LogHandle,
    data_thread: DataThread,
) -> Result<(), ControlError> {
    LazyLock::force(&STARTED);
    let store = load(&settings, &bootstrap)?;
    for ignored in &bootstrap.ignored {
        tracing::warn!(ignored, "of no effect");
    }
    let files = bootstrap.endpoint_files;
    drop(bootstrap.resources);
    let sockets = bind_own(&settings)?;
    let (shared, control) = Shared::new(settings);
    let lifecycle = Rc::new(LifecycleControl::new(shared.clone(), control.lifecycle));
    let ended = start_data_threads(&shared, data_thread)?;
    let agent = Rc::new(Agent::new(&shared.settings, lifecycle.clone())?);
    let own = Own { sockets, agent, log };
    let store = Rc::new(RefCell::new(store));
    let source = Source {
        local: Local::new(control.demands, shared.settings.on_demand_idle),
        shared: shared.clone(),
        config_changed: control.config_changed,
        store: store.clone(),
        files: Files::new(files),
    };
    spawn_local(source.run());
    spawn_local(health::run(shared.clone()));
    let status = Rc::new(RefCell::new(AdsStatus::default()));
    let admin = Rc::new(Admin::new(shared.clone(), store, status, lifecycle.clone(), own.log));
    for (role, listener) in own.sockets {
        spawn_local(admin::server::serve(listener, role, admin.clone(), own.agent.clone()));
    }
    tracing::info!(
        node = shared.settings.pod_name,
        threads = shared.settings.concurrency,
        "started"
    );
    supervise(&shared, &lifecycle, ended).await
}

/// The store with everything that a bootstrap holds.
///
/// # Errors
/// The first thing that the proxy cannot do, with its path.
pub fn load(settings: &Settings, bootstrap: &Bootstrap) -> Result<Store, BootstrapError> {
    let refused = |invalid| BootstrapError::Invalid { path: bootstrap.file.clone(), invalid };
    let decoder = Decoder::new(settings).map_err(refused)?;
    let limits = OnDemandLimits { names: settings.on_demand_limit, idle: settings.on_demand_idle };
    let mut store = Store::new(decoder, Subscribed::All, &[], limits);
    let clusters = bootstrap.resources.iter().filter(|found| is_cluster(&found.body));
    store.keep_clusters(clusters.map(|found| found.name.as_str()));
    for resource in &bootstrap.resources {
        let mut rejections = store.apply(
            &response(&resource.body.type_url, [(resource.name.as_str(), resource.body.clone())]),
            Instant::now(),
        );
        if let Some(rejection) = rejections.pop() {
            return Err(refused(rejection.invalid.within(&resource.path)));
        }
    }
    // To know what is wanted: endpoints and secrets.
    store.publish(Instant::now());
    for secret in &bootstrap.secrets {
        let named = [(secret.name.as_str(), secret.body.clone())];
        let response = response(type_url::SECRET, named);
        if let Some(rejection) = store.apply(&response, Instant::now()).pop() {
            return Err(refused(rejection.invalid.within(&secret.path)));
        }
    }
    if let Some((name, reference)) = store.unknown_reference() {
        let path = bootstrap.resources.iter().find(|found| found.name == *name);
        let path = path.map_or("static_resources", |found| &found.path);
        return Err(refused(Invalid { path: path.into(), reason: Reason::Reference(reference) }));
    }
    for file in &bootstrap.endpoint_files {
        endpoints(&mut store, file)?;
    }
    let missing: Vec<String> = store
        .overview(Kind::Endpoints)
        .into_iter()
        .filter(|found| found.live.is_none() && found.warming.is_none())
        .map(|found| found.name.to_string())
        .collect();
    store.apply(
        &DeltaDiscoveryResponse {
            type_url: type_url::CLUSTER_LOAD_ASSIGNMENT.to_owned(),
            removed_resources: missing,
            ..DeltaDiscoveryResponse::default()
        },
        Instant::now(),
    );
    Ok(store)
}

fn is_cluster(body: &Any) -> bool {
    body.type_url == type_url::CLUSTER
}

fn response<'a>(
    type_url: &str,
    resources: impl IntoIterator<Item = (&'a str, Any)>,
) -> DeltaDiscoveryResponse {
    let resources = resources.into_iter().map(|(name, body)| PbResource {
        name: name.to_owned(),
        version: "1".to_owned(),
        resource: Some(body),
        ..PbResource::default()
    });
    DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        resources: resources.collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

/// Takes the load assignments of a file in: a `DiscoveryResponse`, as Envoy has it.
fn endpoints(store: &mut Store, file: &Path) -> Result<(), BootstrapError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| BootstrapError::Read { path: file.to_owned(), source })?;
    let document = document::read(&text)
        .map_err(|source| BootstrapError::Document { path: file.to_owned(), source })?;
    let assignments = message(&document).and_then(|found| assignments(&found));
    let assignments = assignments
        .map_err(|invalid| BootstrapError::Invalid { path: file.to_owned(), invalid })?;
    let named = assignments.iter().map(|(name, body)| (name.as_str(), body.clone()));
    let response = response(type_url::CLUSTER_LOAD_ASSIGNMENT, named);
    let mut rejections = store.apply(&response, Instant::now());
    match rejections.pop() {
        None => Ok(()),
        Some(rejection) => {
            let index = assignments.iter().position(|(name, _)| *name == rejection.name);
            let path = format!("resources[{}]", index.unwrap_or_default());
            let invalid = rejection.invalid.within(&path);
            Err(BootstrapError::Invalid { path: file.to_owned(), invalid })
        }
    }
}

fn assignments(response: &DiscoveryResponse) -> Result<Vec<(String, Any)>, Invalid> {
    let named = response.resources.iter().enumerate().map(|(index, body)| {
        if !is::<ClusterLoadAssignment>(body) {
            return Err(Invalid::unsupported_value(type_name(body))).at_index("resources", index);
        }
        let assignment: ClusterLoadAssignment = unpack(body).at_index("resources", index)?;
        Ok((assignment.cluster_name, body.clone()))
    });
    named.collect()
}

/// Keeps the configuration current.
struct Source {
    shared: Shared,
    config_changed: watch::Sender<u64>,
    store: Rc<RefCell<Store>>,
    local: Local,
    files: Files,
}

impl Source {
    async fn run(mut self) {
        // Loading has published already what did not have to wait.
        let loaded = self.store.borrow().published().clone();
        self.put_into_effect(loaded);
        loop {
            self.publish();
            tokio::select! {
                event = self.local.next() => self.handle(event),
                () = self.files.tick() => {
                    for file in self.files.changed() {
                        match endpoints(&mut self.store.borrow_mut(), &file) {
                            Ok(()) => tracing::info!(?file, "endpoints read"),
                            Err(error) => tracing::warn!(%error, "endpoints not read; the last good ones stay"),
                        }
                    }
                }
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let mut store = self.store.borrow_mut();
        match event {
            Event::Demands(demands) => {
                for demand in demands {
                    store.demand(&demand.key, demand.ready, coarse_now());
                }
            }
            Event::Tick => {}
            Event::Resolved(name, addresses) => store.resolved(&name, addresses),
        }
    }

    fn publish(&mut self) {
        let published = self.store.borrow_mut().publish(Instant::now());
        if let Some(config) = published {
            self.put_into_effect(config);
        }
        let mut store = self.store.borrow_mut();
        store.wake();
        self.local.resolve(store.names_to_resolve());
    }

    fn put_into_effect(&self, config: Arc<ProxyConfig>) {
        let generation = config.generation;
        self.shared.config.store(config);
        self.config_changed.send_replace(generation);
    }
}

/// Files, and what was last seen of them. A new file may be put in an old one's place, or a link changed.
struct Files {
    seen: HashMap<PathBuf, Option<Arc<[u8]>>>,
    tick: Interval,
}

impl Files {
    fn new(paths: Vec<PathBuf>) -> Self {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first look reads them once more: they may have changed since they were loaded.
        Self { seen: paths.into_iter().map(|path| (path, None)).collect(), tick }
    }

    /// Completes when it is time to look; never where there are no files. Cancel safe.
    async fn tick(&mut self) {
        if self.seen.is_empty() {
            std::future::pending::<()>().await;
        }
        self.tick.tick().await;
    }

    fn changed(&mut self) -> Vec<PathBuf> {
        let mut changed = Vec::new();
        for (path, seen) in &mut self.seen {
            let now = content(path);
            if now.is_some() && now != *seen {
                *seen = now;
                changed.push(path.clone());
            }
        }
        changed
    }
}

fn content(path: &Path) -> Option<Arc<[u8]>> {
    std::fs::read(path).ok().map(Into::into)
}

#[cfg(test)]
mod tests;
