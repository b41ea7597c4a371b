//! One client's stream: requests in, snapshots in, responses out.
//!
//! One task for each stream. At most one response of each type waits for its answer, so what a slow client costs is bounded
//! by its subscriptions. Ends when the client does, when it breaks the rules, or when the server drains.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use futures_util::{Stream, StreamExt};
use tokio::{
    sync::mpsc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use weft_api::{
    node::NodeInfo,
    xds::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};
use weft_core::view::NodeView;

use crate::{
    ResourceType, SnapshotReceiver,
    cache::ResourceCache,
    metrics::Metrics,
    resolver::Resolver,
    session::Session,
    snapshots::Look,
    subscription::{Answer, Batch, Removals},
};

/// Names resolved before other tasks get a turn.
const RESOLVE_AT_ONCE: usize = 64;

/// When a burst of snapshots is looked at: after it has been quiet for a while, but no later than a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debounce {
    /// How long nothing must have happened.
    pub quiet: Duration,
    /// The longest that a change waits.
    pub limit: Duration,
}

impl Default for Debounce {
    fn default() -> Self {
        Self { quiet: Duration::from_millis(10), limit: Duration::from_millis(50) }
    }
}

/// A burst of snapshots that is not over.
#[derive(Debug)]
struct Burst {
    look_at: Instant,
    limit: Instant,
}

impl Burst {
    fn extend(burst: Option<Self>, debounce: Debounce) -> Self {
        let now = Instant::now();
        let limit = burst.map_or(now + debounce.limit, |burst| burst.limit);
        Self { look_at: limit.min(now + debounce.quiet), limit }
    }
}

/// What streams share.
pub(crate) struct Shared<R: Resolver> {
    pub(crate) resolver: R,
    pub(crate) cache: ResourceCache<R::Snapshot>,
    pub(crate) metrics: Metrics,
    pub(crate) debounce: Debounce,
    pub(crate) drain: CancellationToken,
}

pub(crate) type Responses = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

pub(crate) struct AdsStream<R: Resolver> {
    pub(crate) shared: Arc<Shared<R>>,
    pub(crate) snapshots: SnapshotReceiver<R::Snapshot>,
    pub(crate) node: Arc<NodeInfo>,
    /// Shared with admin views, which only read it.
    pub(crate) session: Arc<Mutex<Session>>,
    pub(crate) responses: Responses,
    pub(crate) current: Option<(Look<R::Snapshot>, NodeView)>,
    /// Whether secrets may go to this peer: its certificate says that it is the proxy at the edge that it claims to be.
    pub(crate) secrets: bool,
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl<R: Resolver> AdsStream<R> {
    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves the stream to its end. `first` is the request that named the node.
    pub(crate) async fn run<I>(mut self, first: DeltaDiscoveryRequest, mut requests: I)
    where
        I: Stream<Item = Result<DeltaDiscoveryRequest, Status>> + Unpin,
    {
        let drain = self.shared.drain.clone();
        let end = tokio::select! {
            end = self.serve(first, &mut requests) => end,
            // An end without an error: the client reconnects, to another replica if there is one.
            () = drain.cancelled() => Ok(()),
        };
        if let Err(status) = end {
            tracing::warn!(code = ?status.code(), reason = status.message(), "ADS stream refused");
            // The client may be gone, and then nobody is left to be told.
            drop(self.responses.try_send(Err(status)));
        }
    }

    async fn serve<I>(
        &mut self,
        first: DeltaDiscoveryRequest,
        requests: &mut I,
    ) -> Result<(), Status>
    where
        I: Stream<Item = Result<DeltaDiscoveryRequest, Status>> + Unpin,
    {
        self.look();
        self.request(first).await?;
        let mut burst: Option<Burst> = None;
        loop {
            self.push().await?;
            let deadline = self.session().deadline();
            tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(request)) => self.request(request).await?,
                    // A reset is how most clients say goodbye.
                    Some(Err(error)) => {
                        tracing::debug!(%error, "ADS stream broke");
                        return Ok(());
                    }
                    None => return Ok(()),
                },
                () = self.snapshots.changed() => {
                    burst = Some(Burst::extend(burst, self.shared.debounce));
                }
                () = sleep_until(burst.as_ref().map(|burst| burst.look_at)) => {
                    burst = None;
                    self.look();
                }
                () = sleep_until(deadline) => {}
                () = self.responses.closed() => return Ok(()),
            }
        }
    }

    /// Takes in the latest snapshot.
    fn look(&mut self) {
        let Some(look) = self.snapshots.look() else { return };
        let view = self.shared.resolver.view(&look.snapshot, &self.node);
        let view_changed = self.current.as_ref().is_none_or(|(_, old)| *old != view);
        self.session().apply(&look.change, view_changed);
        self.current = Some((look, view));
    }

    async fn request(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        let Some(kind) = ResourceType::from_type_url(&request.type_url) else {
            return self.refuse_type(request).await;
        };
        if kind == ResourceType::Secret && !self.secrets {
            return self.refuse_type(request).await;
        }
        let answer = self
            .session()
            .request(kind, request, SystemTime::now())
            .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        match answer {
            Answer::None => {}
            Answer::Ack => tracing::trace!(kind = kind.short(), "acknowledged"),
            Answer::Nack(nack) => {
                self.shared.metrics.rejected(kind);
                tracing::warn!(
                    kind = kind.short(),
                    nonce = nack.nonce,
                    resources = ?nack.resources,
                    reason = nack.reason,
                    "proxy refused resources"
                );
            }
        }
        Ok(())
    }

    /// A type that Weft does not serve (to this client) has no resources: the client need not wait for them.
    async fn refuse_type(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        if request.resource_names_subscribe.is_empty() {
            return Ok(());
        }
        tracing::debug!(type_url = request.type_url, "resource type is not served");
        let response = DeltaDiscoveryResponse {
            type_url: request.type_url,
            removed_resources: request.resource_names_subscribe,
            nonce: "unserved".into(),
            ..DeltaDiscoveryResponse::default()
        };
        self.send(response).await
    }

    async fn send(&self, response: DeltaDiscoveryResponse) -> Result<(), Status> {
        self.responses.send(Ok(response)).await.map_err(|_| Status::cancelled("client is gone"))
    }

    /// Sends all that may be sent now.
    async fn push(&mut self) -> Result<(), Status> {
        let Some((look, view)) = self.current.clone() else { return Ok(()) };
        loop {
            let Some((kind, removals)) = self.session().next(Instant::now()) else { return Ok(()) };
            let started = Instant::now();
            let batch = self.batch(kind, removals, &look, &view).await;
            let bytes = batch.bytes();
            let response = self.session().respond(kind, batch, look.sequence.to_string());
            if let Some(response) = response {
                self.shared.metrics.pushed(kind, bytes, started.elapsed());
                tracing::debug!(
                    kind = kind.short(),
                    nonce = response.nonce,
                    resources = response.resources.len(),
                    removed = response.removed_resources.len(),
                    bytes,
                    "push"
                );
                self.send(response).await?;
            }
        }
    }

    /// Resolves what is due of a type, as far as it fits into a response.
    async fn batch(
        &self,
        kind: ResourceType,
        removals: Removals,
        look: &Look<R::Snapshot>,
        view: &NodeView,
    ) -> Batch {
        if self.session().subscription(kind).needs_list() {
            let names = self.shared.resolver.names(&look.snapshot, kind, view);
            self.session().subscription_mut(kind).list(names);
        }
        let mut batch = Batch::default();
        loop {
            let mut names =
                self.session().subscription_mut(kind).take_due(RESOLVE_AT_ONCE).into_iter();
            if names.len() == 0 {
                return batch;
            }
            for (name, wanted) in names.by_ref() {
                let resolved = wanted.then(|| {
                    self.shared.cache.resolve(&self.shared.resolver, look, (kind, &name), view)
                });
                self.session().subscription_mut(kind).add(&mut batch, &name, resolved, removals);
                if batch.is_full() {
                    break;
                }
            }
            if batch.is_full() {
                let rest = names.map(|(name, _)| name);
                self.session().subscription_mut(kind).put_back(rest);
                return batch;
            }
            tokio::task::yield_now().await;
        }
    }
}
