//! The proxies that are connected, for admin views.
//!
//! Fed by the server: a guard registers each stream and removes it when dropped. Read by the operator's `/debug` views.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use serde::Serialize;
use weft_api::node::NodeInfo;

use crate::{
    ResourceType, readable,
    resolver::{EncodedResource, Version},
    session::Session,
    subscription::{Nack, Subscription},
};

/// Whether a proxy has what it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SyncState {
    /// Nothing was sent, because nothing was asked for or there is nothing.
    NotSent,
    /// The proxy acknowledged all that it was sent.
    Synced,
    /// An answer is due.
    Stale,
    /// The proxy refused the last response.
    Rejected,
}

/// What a proxy has under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResourceView {
    /// The resource's name.
    pub name: String,
    /// The version sent last; `None` when the proxy was told that there is no such resource, or nothing yet.
    pub sent: Option<String>,
    /// The version acknowledged last.
    pub acked: Option<String>,
    /// The resource in readable form, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<serde_json::Value>,
}

/// One type's subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TypeView {
    /// Whether the proxy has what it was sent.
    pub state: SyncState,
    /// The proxy asked for all that it may see.
    pub wildcard: bool,
    /// The nonce of the last response.
    pub nonce_sent: Option<String>,
    /// The nonce of the last response that was acknowledged.
    pub nonce_acked: Option<String>,
    /// The last refusal.
    pub last_nack: Option<Nack>,
    /// What was asked for.
    pub resources: Vec<ResourceView>,
}

/// One connected proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionView {
    /// Tells streams of one node apart.
    pub connection: u64,
    /// The node's identifier.
    pub node: String,
    /// `<pod>.<namespace>`, as people name proxies.
    pub proxy: String,
    /// What the proxy says it is: program and version.
    pub version: String,
    /// The identity of the stream.
    pub identity: Option<String>,
    /// Seconds since the Unix epoch.
    pub connected_since: u64,
    /// By short name of the type (`cds`), those that the proxy has asked for.
    pub types: BTreeMap<&'static str, TypeView>,
}

/// How much of each resource a view shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Names and versions.
    #[default]
    Names,
    /// The resources too.
    Resources,
}

pub(crate) struct Connection {
    pub(crate) node: Arc<NodeInfo>,
    pub(crate) version: String,
    pub(crate) identity: Option<String>,
    pub(crate) since: SystemTime,
    pub(crate) session: Arc<Mutex<Session>>,
}

#[derive(Default)]
struct Table {
    last: u64,
    connections: BTreeMap<u64, Arc<Connection>>,
}

/// The proxies that are connected. Cheap to clone.
#[derive(Clone, Default)]
pub struct Connections(Arc<Mutex<Table>>);

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connections").field(&self.len()).finish()
    }
}

/// Keeps a connection in the table for as long as it lives.
pub(crate) struct Registered {
    table: Connections,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.table.lock().connections.remove(&self.id);
    }
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn register(&self, connection: Connection) -> Registered {
        let mut table = self.lock();
        table.last += 1;
        let id = table.last;
        table.connections.insert(id, Arc::new(connection));
        Registered { table: self.clone(), id }
    }

    /// How many streams there are.
    pub fn len(&self) -> usize {
        self.lock().connections.len()
    }

    /// Whether no proxy is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every connected proxy, in the order of connecting.
    pub fn list(&self, detail: Detail) -> Vec<ConnectionView> {
        self.select(detail, |_| true)
    }

    /// The streams of one proxy, by node identifier, `<pod>.<namespace>` or pod name.
    pub fn find(&self, proxy: &str, detail: Detail) -> Vec<ConnectionView> {
        self.select(detail, |connection| {
            let node = &connection.node;
            node.id() == proxy || proxy_name(node) == proxy || node.pod_name == proxy
        })
    }

    fn select(&self, detail: Detail, filter: impl Fn(&Connection) -> bool) -> Vec<ConnectionView> {
        let connections: Vec<_> = self
            .lock()
            .connections
            .iter()
            .filter(|(_, connection)| filter(connection))
            .map(|(id, connection)| (*id, connection.clone()))
            .collect();
        connections.iter().map(|(id, connection)| connection.view(*id, detail)).collect()
    }
}

fn proxy_name(node: &NodeInfo) -> String {
    format!("{}.{}", node.pod_name, node.namespace)
}

impl Connection {
    fn view(&self, id: u64, detail: Detail) -> ConnectionView {
        let since = self.since.duration_since(SystemTime::UNIX_EPOCH);
        ConnectionView {
            connection: id,
            node: self.node.id(),
            proxy: proxy_name(&self.node),
            version: self.version.clone(),
            identity: self.identity.clone(),
            connected_since: since.map_or(0, |since| since.as_secs()),
            types: ResourceType::ALL
                .into_iter()
                .filter_map(|kind| Some((kind.short(), self.type_view(kind, detail)?)))
                .collect(),
        }
    }

    fn type_view(&self, kind: ResourceType, detail: Detail) -> Option<TypeView> {
        // Resources are made readable after the lock is gone: the stream must not wait for it.
        let (mut view, bodies) = {
            let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
            let subscription = session.subscription(kind);
            if !subscription.is_started() {
                return None;
            }
            let mut bodies = Vec::new();
            let text = |version: Option<Version>| version.map(|version| version.to_string());
            let resources = subscription.resources().map(|known| {
                bodies.push(known.resource.cloned());
                ResourceView {
                    name: known.name.to_string(),
                    sent: text(known.sent),
                    acked: text(known.acked),
                    resource: None,
                }
            });
            let resources = resources.collect();
            let (nonce_sent, nonce_acked) = subscription.nonces();
            let view = TypeView {
                state: sync_state(subscription),
                wildcard: subscription.is_wildcard(),
                nonce_sent: nonce_sent.map(Into::into),
                nonce_acked: nonce_acked.map(Into::into),
                last_nack: subscription.last_nack().cloned(),
                resources,
            };
            (view, bodies)
        };
        if detail == Detail::Resources {
            for (resource, body) in view.resources.iter_mut().zip(bodies) {
                resource.resource =
                    body.map(|body: Arc<EncodedResource>| readable::resource(kind, &body.body));
            }
        }
        Some(view)
    }
}

fn sync_state(subscription: &Subscription) -> SyncState {
    let (sent, acked) = subscription.nonces();
    match (sent, acked) {
        (None, _) if subscription.resources().any(|known| known.acked.is_some()) => {
            SyncState::Synced
        }
        (None, _) => SyncState::NotSent,
        (Some(_), _) if subscription.is_outstanding() => SyncState::Stale,
        (Some(sent), acked) if acked == Some(sent) => SyncState::Synced,
        _ => SyncState::Rejected,
    }
}
