//! One client's subscriptions of every type, and the order in which they are served.
//!
//! Fed by the stream's requests, snapshots and clock; says what to send next. A stock Envoy is held back so that it never
//! has a route before the clusters and endpoints that it needs, nor loses them before the last route to them: clusters,
//! their endpoints, listeners, routes, each acknowledged before the next, and removals of clusters and endpoints at the end. A
//! proxy that warms by itself (weft-proxy) gets every type as soon as it can take it.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use tokio::time::{Duration, Instant};
use weft_api::xds::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use weft_core::change::Change;

use crate::{
    ResourceType,
    subscription::{Answer, Batch, Excess, Removals, Subscription},
};

/// How a client takes a push in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Warming {
    /// The client puts a route into effect only when all that it needs is there.
    ByClient,
    /// The order of what is sent has to see to it. A client that does not answer holds later types up for this long.
    ByOrder(Duration),
}

#[derive(Debug)]
pub(crate) struct Session {
    warming: Warming,
    subscriptions: [Subscription; ResourceType::ALL.len()],
    /// Clusters that were sent and whose endpoints the client has not been given yet.
    awaited: BTreeSet<Arc<str>>,
    /// Since when something is held back.
    waiting_since: Option<Instant>,
    nonce: u64,
}

impl Session {
    pub(crate) fn new(warming: Warming) -> Self {
        Self {
            warming,
            subscriptions: ResourceType::ALL.map(Subscription::new),
            awaited: BTreeSet::new(),
            waiting_since: None,
            nonce: 0,
        }
    }

    pub(crate) fn subscription(&self, kind: ResourceType) -> &Subscription {
        &self.subscriptions[kind as usize]
    }

    pub(crate) fn subscription_mut(&mut self, kind: ResourceType) -> &mut Subscription {
        &mut self.subscriptions[kind as usize]
    }

    pub(crate) fn request(
        &mut self,
        kind: ResourceType,
        request: DeltaDiscoveryRequest,
        now: SystemTime,
    ) -> Result<Answer, Excess> {
        let answer = self.subscription_mut(kind).request(request, now)?;
        if kind == ResourceType::Cluster && matches!(answer, Answer::Nack(_)) {
            // What was refused will not ask for its endpoints.
            self.awaited.clear();
        }
        Ok(answer)
    }

    /// Notes what a new snapshot may have changed.
    pub(crate) fn apply(&mut self, change: &Change, view_changed: bool) {
        for subscription in &mut self.subscriptions {
            subscription.apply(change, view_changed);
        }
    }

    /// The type to serve next, and what to do with resources of it that are gone. Call again after it was served.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(ResourceType, Removals)> {
        let Warming::ByOrder(patience) = self.warming else {
            let ready = |kind: &ResourceType| {
                let subscription = self.subscription(*kind);
                subscription.is_due() && !subscription.is_outstanding()
            };
            return ResourceType::ALL.into_iter().find(ready).map(|kind| (kind, Removals::Send));
        };
        let impatient = self.waiting_since.is_some_and(|since| now - since >= patience);
        let mut held_back = false;
        for kind in ResourceType::ALL {
            let subscription = self.subscription(kind);
            let due = subscription.is_due();
            if due && !subscription.is_outstanding() && (!held_back || impatient) {
                let removals = if kind.is_referred_to() { Removals::Hold } else { Removals::Send };
                return Some((kind, removals));
            }
            held_back |= due || subscription.is_outstanding() || self.awaits(kind);
        }
        if !held_back || impatient {
            for kind in ResourceType::ALL.into_iter().rev() {
                let subscription = self.subscription_mut(kind);
                if subscription.holds_removals() && !subscription.is_outstanding() {
                    subscription.release_removals();
                    return Some((kind, Removals::Send));
                }
            }
        }
        let waiting = held_back
            && self.subscriptions.iter().any(|subscription| {
                (subscription.is_due() && !subscription.is_outstanding())
                    || subscription.holds_removals()
            });
        if impatient {
            self.awaited.clear();
        }
        self.waiting_since = waiting.then(|| self.waiting_since.unwrap_or(now));
        None
    }

    /// When [`Self::next`] is to be called again even if nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.warming {
            Warming::ByClient => None,
            Warming::ByOrder(patience) => self.waiting_since.map(|since| since + patience),
        }
    }

    /// Whether the client has yet to ask for endpoints of clusters that it was sent, or to be given them.
    fn awaits(&self, kind: ResourceType) -> bool {
        kind == ResourceType::Endpoints && !self.awaited.is_empty()
    }

    /// Makes a batch a response, unless nothing is to be said.
    pub(crate) fn respond(
        &mut self,
        kind: ResourceType,
        mut batch: Batch,
        system_version: String,
    ) -> Option<DeltaDiscoveryResponse> {
        let await_endpoints = std::mem::take(&mut batch.await_endpoints);
        if matches!(self.warming, Warming::ByOrder(_)) {
            for cluster in await_endpoints {
                // Envoy makes a changed cluster anew and waits for endpoints, but does not ask again for those that it has.
                self.subscription_mut(ResourceType::Endpoints).send_again(&cluster);
                self.awaited.insert(cluster);
            }
        }
        self.nonce += 1;
        let nonce = format!("{:x}", self.nonce);
        let response = self.subscription_mut(kind).respond(batch, nonce, system_version);
        let (clusters, endpoints) = (
            &self.subscriptions[ResourceType::Cluster as usize],
            &self.subscriptions[ResourceType::Endpoints as usize],
        );
        self.awaited
            .retain(|cluster| clusters.has_answered(cluster) && !endpoints.has_answered(cluster));
        response
    }
}
