//! The delta ADS client: one stream for all types, every resource by name.
//!
//! Fed by the control plane and by the data threads' wishes; feeds the [`Store`] and swaps what it publishes. Without
//! a control plane the proxy carries on with what it holds.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use weft_api::xds::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
    google::rpc::Status as RpcStatus,
};

use super::{
    backoff::Backoff,
    certificates::with_causes,
    connect::{ConnectError, Connector},
    store::{Kind, Rejection, Store},
};
use crate::{
    data::bind,
    identity::Identity,
    shared::{Demand, Shared, coarse_now},
};

pub(super) mod local;

use local::{Event, Local};

/// The largest response; one with every endpoint of a large service is far smaller.
const MAX_RESPONSE: usize = 64 << 20;
/// Requests that wait for the stream.
const REQUESTS: usize = 64;
/// The longest text of a refusal.
const MAX_REASON: usize = 4096;
/// A control plane that takes connections must answer so soon.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Short: what changes meanwhile waits for it, and thousands of proxies spread over it are no burden.
const LONGEST_RETRY: Duration = Duration::from_secs(3);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum AdsError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the stream failed: {}", .0.message())]
    Stream(#[source] Box<tonic::Status>),
    #[error("the control plane ended the stream")]
    Ended,
    #[error("the control plane takes the stream but says nothing")]
    Silent,
    #[error("the certificate that the stream was opened with has expired")]
    Expired,
}

impl From<tonic::Status> for AdsError {
    fn from(status: tonic::Status) -> Self {
        Self::Stream(Box::new(status))
    }
}

/// What administration says of the stream.
#[derive(Clone, Debug, Default)]
pub struct AdsStatus {
    /// A stream is open.
    pub connected: bool,
    /// Streams that were opened.
    pub streams: u64,
    /// Responses taken in.
    pub responses: u64,
    /// Responses with a resource that was refused.
    pub refused: u64,
    /// Why the last stream ended.
    pub last_error: Option<String>,
}

/// The client.
pub struct Ads {
    connector: Connector,
    shared: Shared,
    config_changed: watch::Sender<u64>,
    identity_changed: watch::Receiver<u64>,
    store: Rc<RefCell<Store>>,
    status: Rc<RefCell<AdsStatus>>,
    local: Local,
}

/// What one stream knows: per type the names that were sent, and whether anything was.
#[derive(Default)]
struct Stream {
    sent: HashMap<Kind, HashMap<Arc<str>, u64>>,
    node_sent: bool,
}

impl Ads {
    /// A client that publishes to `shared.config`.
    pub fn new(
        shared: Shared,
        config_changed: watch::Sender<u64>,
        demands: mpsc::Receiver<Demand>,
        store: Rc<RefCell<Store>>,
        status: Rc<RefCell<AdsStatus>>,
    ) -> Self {
        Self {
            connector: Connector::new(shared.settings.control_plane.clone()),
            identity_changed: shared.identity_changed.clone(),
            local: Local::new(demands, shared.settings.on_demand_idle),
            shared,
            config_changed,
            store,
            status,
        }
    }

    /// Keeps a stream open, for ever.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            let Some(identity) = self.shared.identity.load_full() else {
                self.wait_for_identity().await;
                continue;
            };
            let before = self.status.borrow().responses;
            let Err(error) = self.session(&identity).await;
            let answered = self.status.borrow().responses > before;
            if answered {
                backoff.reset();
            }
            {
                let mut status = self.status.borrow_mut();
                status.connected = false;
                status.last_error = Some(with_causes(&error));
            }
            let renewed = matches!(error, AdsError::Expired);
            let wait = if renewed && answered { Duration::ZERO } else { backoff.wait() };
            tracing::warn!(error = %with_causes(&error), wait_ms = wait.as_millis(), "no configuration stream");
            self.idle(tokio::time::sleep(wait)).await;
        }
    }

    async fn wait_for_identity(&mut self) {
        let mut changed = self.identity_changed.clone();
        self.idle(async move {
            let _ = changed.changed().await;
        })
        .await;
    }

    /// Serves the data threads' wishes as far as it goes without a control plane, until `until`.
    async fn idle(&mut self, until: impl Future<Output = ()>) {
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return,
                event = self.local.next() => self.handle(event),
            }
        }
    }

    /// One stream, from its opening to its end.
    async fn session(&mut self, identity: &Identity) -> Result<std::convert::Infallible, AdsError> {
        let channel = self.connector.connect(Some(identity)).await?;
        let mut client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
        let (requests, outgoing) = mpsc::channel(REQUESTS);
        let mut stream = Stream::default();
        self.subscribe(&mut stream, &requests).await?;
        let opening = client.delta_aggregated_resources(ReceiverStream::new(outgoing));
        let mut responses =
            timeout(OPEN_TIMEOUT, opening).await.map_err(|_| AdsError::Silent)??.into_inner();
        {
            let mut status = self.status.borrow_mut();
            status.connected = true;
            status.streams += 1;
        }
        tracing::info!(id = %identity.id, "configuration stream open");
        self.serve(identity, &mut stream, &requests, &mut responses).await
    }

    async fn serve(
        &mut self,
        identity: &Identity,
        stream: &mut Stream,
        requests: &mpsc::Sender<DeltaDiscoveryRequest>,
        responses: &mut Streaming<DeltaDiscoveryResponse>,
    ) -> Result<std::convert::Infallible, AdsError> {
        // A stream must not outlive the certificate that it was opened with.
        let life = identity.not_after.duration_since(SystemTime::now()).unwrap_or_default();
        let expiry = tokio::time::sleep(life);
        tokio::pin!(expiry);
        loop {
            tokio::select! {
                response = responses.message() => {
                    let response = response?.ok_or(AdsError::Ended)?;
                    let answer = self.take(&response);
                    send(requests, answer).await?;
                }
                event = self.local.next() => self.handle(event),
                () = &mut expiry => return Err(AdsError::Expired),
            }
            self.subscribe(stream, requests).await?;
        }
    }

    /// Takes a response in and puts into effect what is complete; gives the ACK or NACK.
    fn take(&mut self, response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
        let rejections = {
            let mut store = self.store.borrow_mut();
            let mut rejections = store.apply(response, Instant::now());
            rejections.extend(store.unbindable(response, bind::check));
            rejections
        };
        tracing::debug!(
            type_url = response.type_url,
            resources = response.resources.len(),
            removed = response.removed_resources.len(),
            refused = rejections.len(),
            "configuration received"
        );
        for rejection in &rejections {
            tracing::warn!(
                type_url = response.type_url,
                name = rejection.name,
                version = rejection.version,
                reason = %rejection.invalid,
                "resource refused"
            );
        }
        {
            let mut status = self.status.borrow_mut();
            status.responses += 1;
            status.refused += u64::from(!rejections.is_empty());
        }
        self.publish();
        DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: refusal(&rejections),
            ..DeltaDiscoveryRequest::default()
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
            Event::Tick => {
                if store.drop_idle(coarse_now()) {
                    tracing::debug!("dropped what was not used for long");
                }
            }
            Event::Resolved(name, addresses) => store.resolved(&name, addresses),
        }
        drop(store);
        self.publish();
    }

    /// Swaps the configuration in when it has changed, then wakes those who wait for it.
    fn publish(&mut self) {
        let mut store = self.store.borrow_mut();
        if let Some(config) = store.publish(Instant::now()) {
            let generation = config.generation;
            self.shared.config.store(config);
            self.config_changed.send_replace(generation);
        }
        store.wake();
        self.local.resolve(store.names_to_resolve());
    }

    /// Tells the control plane which names are wanted now and which are not any more.
    async fn subscribe(
        &self,
        stream: &mut Stream,
        requests: &mpsc::Sender<DeltaDiscoveryRequest>,
    ) -> Result<(), AdsError> {
        for kind in Kind::ALL {
            let differences = {
                let store = self.store.borrow();
                stream.differences(kind, &store)
            };
            for mut request in differences {
                if !stream.node_sent {
                    stream.node_sent = true;
                    request.node = Some(self.shared.node.to_node());
                }
                send(requests, request).await?;
            }
        }
        Ok(())
    }
}

async fn send(
    requests: &mpsc::Sender<DeltaDiscoveryRequest>,
    request: DeltaDiscoveryRequest,
) -> Result<(), AdsError> {
    requests.send(request).await.map_err(|_| AdsError::Ended)
}

impl Stream {
    /// The requests that bring the control plane's list up to date.
    fn differences(&mut self, kind: Kind, store: &Store) -> Vec<DeltaDiscoveryRequest> {
        let wanted = store.wanted(kind);
        let first = !self.sent.contains_key(&kind);
        // A first request without names would be a wildcard subscription.
        if first && wanted.is_empty() {
            return Vec::new();
        }
        let sent = self.sent.entry(kind).or_default();
        let subscribe = without(&wanted, sent);
        let unsubscribe = without(sent, &wanted);
        // A name in both was dropped and wanted again. What was known of it is gone, so it must be sent again.
        let again = subscribe.iter().any(|name| unsubscribe.binary_search(name).is_ok());
        *sent = wanted;
        let versions = if first { store.versions(kind) } else { HashMap::default() };
        let request = |subscribe, unsubscribe, initial_resource_versions| DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            initial_resource_versions,
            ..DeltaDiscoveryRequest::default()
        };
        if again {
            let nothing = HashMap::default();
            return vec![
                request(Vec::new(), unsubscribe, nothing),
                request(subscribe, Vec::new(), versions),
            ];
        }
        if subscribe.is_empty() && unsubscribe.is_empty() {
            return Vec::new();
        }
        vec![request(subscribe, unsubscribe, versions)]
    }
}

/// Names of the one that the other does not have, or has for another slot; sorted.
fn without(these: &HashMap<Arc<str>, u64>, those: &HashMap<Arc<str>, u64>) -> Vec<String> {
    let mut names: Vec<_> = these
        .iter()
        .filter(|(name, number)| those.get(*name) != Some(*number))
        .map(|(name, _)| name.to_string())
        .collect();
    names.sort_unstable();
    names
}

/// The text of a NACK: every refused resource with its reason.
fn refusal(rejections: &[Rejection]) -> Option<RpcStatus> {
    if rejections.is_empty() {
        return None;
    }
    let mut message = rejections
        .iter()
        .map(|rejection| format!("{}: {}", rejection.name, rejection.invalid))
        .collect::<Vec<_>>()
        .join("; ");
    if message.len() > MAX_REASON {
        let end = (0..=MAX_REASON).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
        message.push_str("...");
    }
    Some(RpcStatus { code: tonic::Code::InvalidArgument as i32, message, ..RpcStatus::default() })
}

#[cfg(test)]
mod tests;
