//! The watch of one kind: lists, follows, and starts over whenever it must.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures_util::{StreamExt, pin_mut};
use kube::{
    Api, Client,
    core::DynamicObject,
    runtime::watcher::{self, watcher},
};
use tokio::{sync::mpsc, time::sleep};
use weft_index::Kind;

use super::{
    kinds::{Scope, WatchId, WatchedKind},
    read::{self, HeldStatuses},
};
use crate::{
    backoff::Backoff,
    source::{Event, object::ObjectKey},
};

/// How often a kind is looked for that does not exist.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// A kind that was there must be missing for so many looks in a row before its resources count as gone.
const GONE_AFTER: u32 = 3;

/// Whether a kind can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not listed yet.
    Pending,
    /// Listed and followed.
    Synced,
    /// The API server does not know the kind.
    Missing,
    /// It may not be read; with the rule that is missing.
    Forbidden(String),
    /// It cannot be read at the moment.
    Failing(String),
}

/// What a watch has to say.
#[derive(Debug)]
pub(super) enum Message {
    /// Changes of objects of a kind, and how many there are after them.
    Events {
        from: WatchId,
        events: Vec<Event>,
        objects: usize,
    },
    State(WatchId, State),
}

/// Nobody listens any more.
struct Unheard;

/// Why a round of following ended.
enum End {
    /// There is no such kind in this version.
    Missing,
    Unheard,
}

impl From<Unheard> for End {
    fn from(_: Unheard) -> Self {
        Self::Unheard
    }
}

/// The watch of one kind.
pub(super) struct Watch {
    client: Client,
    kind: WatchedKind,
    messages: mpsc::Sender<Message>,
    held: HeldStatuses,
    /// The resource version of every object that is there.
    known: HashMap<ObjectKey, String>,
    /// Those that a list which is under way has shown.
    listed: HashSet<ObjectKey>,
    /// What was said last.
    state: State,
}

impl Watch {
    pub fn new(
        client: Client,
        kind: WatchedKind,
        messages: mpsc::Sender<Message>,
        held: HeldStatuses,
    ) -> Self {
        Self {
            client,
            kind,
            messages,
            held,
            known: HashMap::new(),
            listed: HashSet::new(),
            state: State::Pending,
        }
    }

    /// Runs until nobody listens.
    pub async fn run(mut self) {
        let mut missing = 0;
        loop {
            for version in self.kind.versions {
                let synced = self.follow(version).await;
                if let (_, End::Unheard) = synced {
                    return;
                }
                if synced.0 {
                    missing = 0;
                }
            }
            missing += 1;
            let gone = missing >= GONE_AFTER || self.known.is_empty();
            if gone {
                let all = std::mem::take(&mut self.known);
                let events = all.into_keys().map(|key| self.deleted(key)).collect();
                if self.tell(events).await.is_err() || self.state(State::Missing).await.is_err() {
                    return;
                }
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Follows one version of the kind for as long as there is one; also says whether there was.
    async fn follow(&mut self, version: &str) -> (bool, End) {
        let resource = self.kind.resource(version);
        let client = self.client.clone();
        let api: Api<DynamicObject> = match &self.kind.scope {
            Scope::All => Api::all_with(client, &resource),
            Scope::Namespace(namespace) | Scope::One(namespace, _) => {
                Api::namespaced_with(client, namespace, &resource)
            }
        };
        let config = match self.kind.fields() {
            None => watcher::Config::default(),
            Some(fields) => watcher::Config::default().fields(&fields),
        };
        let stream = watcher(api, config);
        pin_mut!(stream);
        let mut backoff = Backoff::default();
        let mut synced = false;
        while let Some(event) = stream.next().await {
            let done = match event {
                Ok(event) => {
                    synced |= matches!(event, watcher::Event::InitDone);
                    backoff.reset();
                    self.event(&resource.api_version, event).await.map_err(End::from)
                }
                Err(error) => match self.failed(&error).await {
                    Ok(()) => {
                        sleep(backoff.next()).await;
                        Ok(())
                    }
                    Err(end) => Err(end),
                },
            };
            if let Err(end) = done {
                return (synced, end);
            }
        }
        (synced, End::Unheard)
    }

    async fn event(
        &mut self,
        api_version: &str,
        event: watcher::Event<DynamicObject>,
    ) -> Result<(), Unheard> {
        match event {
            watcher::Event::Init => {
                self.listed.clear();
                Ok(())
            }
            watcher::Event::InitApply(object) => {
                self.listed.insert(read::key(self.kind.kind, &object.metadata));
                self.apply(api_version, object).await
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let gone: Vec<_> =
                    self.known.keys().filter(|key| !listed.contains(key)).cloned().collect();
                let events: Vec<_> = gone
                    .into_iter()
                    .map(|key| {
                        self.known.remove(&key);
                        self.deleted(key)
                    })
                    .collect();
                self.tell(events).await?;
                self.state(State::Synced).await
            }
            watcher::Event::Apply(object) => {
                self.apply(api_version, object).await?;
                self.state(State::Synced).await
            }
            watcher::Event::Delete(object) => {
                let key = read::key(self.kind.kind, &object.metadata);
                self.known.remove(&key);
                let event = self.deleted(key);
                self.tell(vec![event]).await
            }
        }
    }

    /// An object that is the same as before is not told of again.
    async fn apply(&mut self, api_version: &str, object: DynamicObject) -> Result<(), Unheard> {
        let key = read::key(self.kind.kind, &object.metadata);
        let version = object.metadata.resource_version.clone().unwrap_or_default();
        if matches!(self.kind.kind, Kind::Mesh(_)) {
            // The same object may be there in another version of the API, in which its status has to be written from now on.
            self.held.note(self.kind.kind, api_version, &object);
        }
        if !version.is_empty() && self.known.get(&key) == Some(&version) {
            return Ok(());
        }
        self.known.insert(key, version);
        let event = read::read(self.kind.kind, api_version, object);
        self.tell(vec![event]).await
    }

    fn deleted(&self, key: ObjectKey) -> Event {
        if matches!(self.kind.kind, Kind::Mesh(_)) {
            self.held.forget(&key);
        }
        Event::Delete(key)
    }

    /// What an error of the API server means.
    async fn failed(&mut self, error: &watcher::Error) -> Result<(), End> {
        let code = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status.code),
            watcher::Error::WatchError(status) => Some(status.code),
            _ => None,
        };
        match code {
            Some(404) => return Err(End::Missing),
            Some(403) => {
                self.state(State::Forbidden(self.kind.missing_rule().to_string())).await?;
            }
            // The version that we had is too old: the watcher lists anew by itself.
            Some(410) => tracing::debug!(kind = %self.kind.kind, "listing anew"),
            _ => self.state(State::Failing(describe(error))).await?,
        }
        Ok(())
    }

    async fn state(&mut self, state: State) -> Result<(), Unheard> {
        if self.state == state {
            return Ok(());
        }
        self.state = state.clone();
        self.messages.send(Message::State(self.kind.id(), state)).await.map_err(|_| Unheard)
    }

    async fn tell(&self, events: Vec<Event>) -> Result<(), Unheard> {
        if events.is_empty() {
            return Ok(());
        }
        let message = Message::Events { from: self.kind.id(), events, objects: self.known.len() };
        self.messages.send(message).await.map_err(|_| Unheard)
    }
}

/// An error with its causes, as far as they say something new.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn an_object_in_another_version_of_the_api_is_the_same_and_its_status_goes_there() {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>("nobody asks".to_owned())
        });
        let ours = weft_crds::Kind::VirtualService;
        let kind = WatchedKind {
            kind: Kind::Mesh(ours),
            group: ours.group(),
            versions: ours.versions(),
            plural: ours.plural(),
            scope: Scope::All,
        };
        let (messages, mut told) = mpsc::channel(8);
        let held = HeldStatuses::default();
        let client = Client::new(service, "default");
        let mut watch = Watch::new(client, kind, messages, held.clone());
        let object: DynamicObject = serde_json::from_value(json!({
            "metadata": { "name": "orders", "namespace": "shop", "resourceVersion": "7" },
            "spec": { "hosts": ["orders"], "http": [{ "route": [{ "destination": { "host": "orders" } }] }] },
        }))
        .unwrap();
        let reference = watch.kind.kind.reference("shop", "orders");
        for version in ["networking.istio.io/v1", "networking.istio.io/v1beta1"] {
            watch.apply(version, object.clone()).await.ok().unwrap();
            assert_eq!(held.get(&reference).unwrap().api_version, version);
        }
        assert!(matches!(told.try_recv(), Ok(Message::Events { objects: 1, .. })));
        assert!(told.try_recv().is_err(), "it is told of once");
    }
}
