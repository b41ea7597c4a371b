//! What one client wants of one type of resource, what it was sent and what it acknowledged.
//!
//! Fed by the requests of its stream and by changes of the mesh; read by the stream, which resolves the names that are
//! due, and by admin views. Knows neither sockets nor snapshots. Follows the "incremental xDS" chapter of Envoy's
//! `xds_protocol` document.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::SystemTime,
};

use weft_api::xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};
use weft_api::xds::google::protobuf::Any;
use weft_core::change::Change;

use crate::{
    ResourceType,
    resolver::{EncodedResource, Resolved, Version},
};

/// The name that stands for every resource that the node may see.
pub(crate) const WILDCARD: &str = "*";

/// Names that one client may subscribe to in one type.
const MAX_NAMES: usize = 100_000;
/// The longest name, in bytes: a host and what stands around it have room.
const MAX_NAME: usize = 1_024;
/// Bytes of resources after which a response is cut; what is left follows once it was acknowledged. Half of what
/// gRPC clients accept by default.
const MAX_RESPONSE: usize = 2 << 20;

/// What the client has under a name, as far as the server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    /// It was told nothing.
    Nothing,
    /// It was told that there is no such resource.
    Absent,
    /// From an earlier stream: `None` is a version that is not ours.
    Earlier(Option<Version>),
    /// It was sent this.
    Sent(Arc<EncodedResource>),
}

impl Held {
    fn version(&self) -> Option<Version> {
        match self {
            Self::Nothing | Self::Absent => None,
            Self::Earlier(version) => *version,
            Self::Sent(resource) => Some(resource.version),
        }
    }

    fn is_resource(&self) -> bool {
        matches!(self, Self::Earlier(_) | Self::Sent(_))
    }
}

#[derive(Clone, Debug)]
struct Entry {
    /// The client asked for this name.
    named: bool,
    /// A wildcard covers this name.
    listed: bool,
    /// The client gave this name up, and has dropped what it had of it.
    given_up: bool,
    held: Held,
    /// What the client acknowledged last.
    acked: Option<Version>,
    resolved: Option<Arc<Resolved>>,
}

impl Entry {
    fn new() -> Self {
        Self {
            named: false,
            listed: false,
            given_up: false,
            held: Held::Nothing,
            acked: None,
            resolved: None,
        }
    }

    fn wanted(&self) -> bool {
        self.named || self.listed
    }
}

/// A response that was sent and not yet answered.
#[derive(Clone, Debug)]
struct Outstanding {
    nonce: String,
    sent: Vec<(Arc<str>, Option<Version>)>,
}

/// A response that the client refused.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Nack {
    /// The response's nonce.
    pub nonce: String,
    /// The client's reason, which names the resource and what is wrong with it.
    pub reason: String,
    /// What the response held, the first few names.
    pub resources: Vec<String>,
    /// Seconds since the Unix epoch.
    pub at: u64,
}

/// What a request said about an earlier response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing, or about a response that is not the last one.
    None,
    Ack,
    Nack(Nack),
}

/// A request that asks for more than a client may have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Excess {
    #[error("more than {MAX_NAMES} names of one type")]
    Names,
    #[error("a name of {0} bytes: {MAX_NAME} are the most")]
    Length(usize),
}

fn check_length(name: &str) -> Result<(), Excess> {
    if name.len() > MAX_NAME { Err(Excess::Length(name.len())) } else { Ok(()) }
}

/// A response in the making.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    resources: Vec<Resource>,
    removed: Vec<String>,
    sent: Vec<(Arc<str>, Option<Version>)>,
    bytes: usize,
    /// Clusters among it that the client cannot use before it has their endpoints.
    pub(crate) await_endpoints: Vec<Arc<str>>,
}

impl Batch {
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= MAX_RESPONSE
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a client has under a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    pub(crate) name: &'a Arc<str>,
    /// What was sent last on this stream.
    pub(crate) resource: Option<&'a Arc<EncodedResource>>,
    /// Its version, or what the client came with.
    pub(crate) sent: Option<Version>,
    /// What was acknowledged last.
    pub(crate) acked: Option<Version>,
}

/// How resources that are gone are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removals {
    /// The client is told at once.
    Send,
    /// Kept until [`Subscription::release_removals`]: something may still refer to them.
    Hold,
}

/// One type's subscription of one client.
#[derive(Debug)]
pub(crate) struct Subscription {
    kind: ResourceType,
    started: bool,
    wildcard: bool,
    /// The wildcard's names must be listed again.
    unlisted: bool,
    /// The client waits for an answer even if there is nothing to send.
    answer_due: bool,
    entries: BTreeMap<Arc<str>, Entry>,
    due: BTreeSet<Arc<str>>,
    held_removals: BTreeSet<Arc<str>>,
    outstanding: Option<Outstanding>,
    last_nack: Option<Nack>,
    last_sent: Option<String>,
    last_acked: Option<String>,
}

impl Subscription {
    pub(crate) fn new(kind: ResourceType) -> Self {
        Self {
            kind,
            started: false,
            wildcard: false,
            unlisted: false,
            answer_due: false,
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
            held_removals: BTreeSet::new(),
            outstanding: None,
            last_nack: None,
            last_sent: None,
            last_acked: None,
        }
    }

    /// Takes in a request of this type.
    pub(crate) fn request(
        &mut self,
        request: DeltaDiscoveryRequest,
        now: SystemTime,
    ) -> Result<Answer, Excess> {
        let answer = self.answer(&request, now);
        let first = !std::mem::replace(&mut self.started, true);
        if first {
            if request.resource_names_subscribe.is_empty() && self.kind.has_legacy_wildcard() {
                self.subscribe_all();
            }
            self.hold_earlier(request.initial_resource_versions)?;
        }
        for name in request.resource_names_subscribe {
            if name == WILDCARD {
                self.subscribe_all();
            } else {
                self.subscribe(name, first)?;
            }
        }
        for name in request.resource_names_unsubscribe {
            self.unsubscribe(&name);
        }
        if first && !self.wildcard {
            self.entries.retain(|_, entry| entry.named);
        }
        Ok(answer)
    }

    fn answer(&mut self, request: &DeltaDiscoveryRequest, now: SystemTime) -> Answer {
        let Some(outstanding) =
            self.outstanding.take_if(|outstanding| outstanding.nonce == request.response_nonce)
        else {
            return Answer::None;
        };
        let Some(error) = &request.error_detail else {
            for (name, version) in outstanding.sent {
                if let Some(entry) = self.entries.get_mut(&name) {
                    entry.acked = version;
                }
            }
            self.last_acked = Some(outstanding.nonce);
            self.forget_given_up();
            return Answer::Ack;
        };
        self.forget_given_up();
        let nack = Nack {
            nonce: outstanding.nonce,
            reason: error.message.chars().take(4096).collect(),
            resources: outstanding.sent.iter().take(16).map(|(name, _)| name.to_string()).collect(),
            at: now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        };
        self.last_nack = Some(nack.clone());
        Answer::Nack(nack)
    }

    fn subscribe_all(&mut self) {
        self.wildcard = true;
        self.unlisted = true;
        self.answer_due = true;
        for entry in self.entries.values_mut() {
            entry.given_up = false;
        }
    }

    fn hold_earlier(&mut self, versions: HashMap<String, String>) -> Result<(), Excess> {
        if versions.len() > MAX_NAMES {
            return Err(Excess::Names);
        }
        for (name, version) in versions {
            check_length(&name)?;
            let mut entry = Entry::new();
            entry.held = Held::Earlier(Version::parse(&version));
            self.entries.insert(name.into(), entry);
            // Nothing may differ, and then the client, which is not new, waits for nothing.
            self.answer_due = false;
        }
        Ok(())
    }

    fn subscribe(&mut self, name: String, first: bool) -> Result<(), Excess> {
        check_length(&name)?;
        if self.entries.len() >= MAX_NAMES && !self.entries.contains_key(name.as_str()) {
            return Err(Excess::Names);
        }
        let name: Arc<str> = name.into();
        let uncertain = self.uncertain(&name);
        let entry = self.entries.entry(name.clone()).or_insert_with(Entry::new);
        entry.named = true;
        entry.given_up = false;
        if !first {
            // Asked for again: the client may have dropped it.
            entry.held = uncertain;
        }
        self.held_removals.remove(&name);
        self.due.insert(name);
        Ok(())
    }

    fn unsubscribe(&mut self, name: &str) {
        if name == WILDCARD {
            self.wildcard = false;
            self.unlisted = false;
            for entry in self.entries.values_mut() {
                entry.listed = false;
                entry.given_up = !entry.named;
            }
        } else {
            let uncertain = self.uncertain(name);
            let Some(entry) = self.entries.get_mut(name) else { return };
            entry.named = false;
            if self.wildcard {
                // The client cannot know whether the wildcard covers it: it must be told again.
                entry.held = uncertain;
                self.due.insert(name.into());
                return;
            }
            entry.given_up = true;
        }
        self.forget_given_up();
    }

    /// What a client may hold that asked for a name anew or gave it up while a wildcard covers it: to be told again
    /// whatever it is.
    fn uncertain(&self, name: &str) -> Held {
        let held = self.entries.get(name).is_some_and(|entry| entry.held.is_resource());
        let mut coming = self.outstanding.iter().flat_map(|response| &response.sent);
        if held || coming.any(|(sent, version)| &**sent == name && version.is_some()) {
            Held::Earlier(None)
        } else {
            Held::Nothing
        }
    }

    /// Drops what the client gave up, but for what a response under way brings: a client that asks for it again before it
    /// reads that response ends up with it.
    fn forget_given_up(&mut self) {
        let coming: BTreeSet<_> = self
            .outstanding
            .iter()
            .flat_map(|response| &response.sent)
            .map(|(name, _)| name)
            .collect();
        self.entries.retain(|name, entry| !entry.given_up || coming.contains(name));
        let entries = &self.entries;
        self.due.retain(|name| entries.contains_key(name));
        self.held_removals.retain(|name| entries.contains_key(name));
    }

    /// Notes what a new snapshot may have changed.
    pub(crate) fn apply(&mut self, change: &Change, view_changed: bool) {
        let all = change.all || view_changed;
        for (name, entry) in &self.entries {
            let touched = all
                || entry.resolved.as_ref().is_none_or(|old| old.dependencies.touched_by(change));
            if touched {
                self.due.insert(name.clone());
            }
        }
        self.unlisted |= self.wildcard
            && (all
                || !change.hosts.is_empty()
                || !change.namespaces.is_empty()
                || change.gateways);
    }

    /// Whether [`Self::list`] is to be called before resources are sent.
    pub(crate) fn needs_list(&self) -> bool {
        self.unlisted
    }

    /// Takes in the names that the wildcard stands for.
    pub(crate) fn list(&mut self, names: Vec<Arc<str>>) {
        self.unlisted = false;
        let names: BTreeSet<_> = names.into_iter().collect();
        for (name, entry) in &mut self.entries {
            entry.listed = names.contains(name);
            if !entry.wanted() || entry.resolved.is_none() {
                self.due.insert(name.clone());
            }
        }
        for name in names {
            if !self.entries.contains_key(&name) {
                let entry = Entry { listed: true, ..Entry::new() };
                self.entries.insert(name.clone(), entry);
                self.due.insert(name);
            }
        }
    }

    /// Whether something may have to be sent, apart from removals that are held.
    pub(crate) fn is_due(&self) -> bool {
        self.unlisted || self.answer_due || !self.due.is_empty()
    }

    /// Whether a response waits for its answer. There is at most one.
    pub(crate) fn is_outstanding(&self) -> bool {
        self.outstanding.is_some()
    }

    pub(crate) fn holds_removals(&self) -> bool {
        !self.held_removals.is_empty()
    }

    /// What was held may now be removed.
    pub(crate) fn release_removals(&mut self) {
        self.due.append(&mut self.held_removals);
    }

    /// The next names to resolve, taken off the list of those due. `false`: nobody wants it any more.
    pub(crate) fn take_due(&mut self, at_most: usize) -> Vec<(Arc<str>, bool)> {
        let mut names = Vec::new();
        while names.len() < at_most
            && let Some(name) = self.due.pop_first()
        {
            if let Some(entry) = self.entries.get(&name) {
                names.push((name, entry.wanted()));
            }
        }
        names
    }

    /// Puts names back that were taken and not added to a batch.
    pub(crate) fn put_back(&mut self, names: impl IntoIterator<Item = Arc<str>>) {
        self.due.extend(names);
    }

    /// Adds what a name resolved to (`None`: nobody wants it) to a batch, if the client does not have it.
    pub(crate) fn add(
        &mut self,
        batch: &mut Batch,
        name: &Arc<str>,
        resolved: Option<Arc<Resolved>>,
        removals: Removals,
    ) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let resource = resolved.as_ref().and_then(|resolved| resolved.resource.clone());
        entry.resolved = resolved;
        self.held_removals.remove(name);
        match resource {
            Some(resource) if entry.held.version() == Some(resource.version) => {
                if matches!(entry.held, Held::Earlier(_)) {
                    entry.acked = Some(resource.version);
                    entry.held = Held::Sent(resource);
                }
            }
            Some(resource) => {
                if resource.needs_endpoints {
                    batch.await_endpoints.push(name.clone());
                }
                batch.bytes += resource.body.len() + name.len() + 64;
                batch.resources.push(Resource {
                    name: name.to_string(),
                    aliases: resource.aliases.clone(),
                    version: resource.version.to_string(),
                    resource: Some(Any {
                        type_url: self.kind.type_url().into(),
                        value: resource.body.to_vec(),
                    }),
                    ..Resource::default()
                });
                batch.sent.push((name.clone(), Some(resource.version)));
                entry.held = Held::Sent(resource);
            }
            None if entry.held.is_resource() && removals == Removals::Hold => {
                self.held_removals.insert(name.clone());
            }
            None if entry.held.is_resource() || (entry.held == Held::Nothing && entry.named) => {
                batch.bytes += name.len() + 2;
                batch.removed.push(name.to_string());
                batch.sent.push((name.clone(), None));
                entry.held = Held::Absent;
                if !entry.wanted() {
                    self.entries.remove(name);
                }
            }
            None if !entry.wanted() => {
                self.entries.remove(name);
            }
            None => {}
        }
    }

    /// Makes a batch a response, unless nothing is to be said.
    pub(crate) fn respond(
        &mut self,
        batch: Batch,
        nonce: String,
        system_version: String,
    ) -> Option<DeltaDiscoveryResponse> {
        let answer_due = std::mem::take(&mut self.answer_due);
        if batch.sent.is_empty() && !answer_due {
            return None;
        }
        self.last_sent = Some(nonce.clone());
        self.outstanding = Some(Outstanding { nonce: nonce.clone(), sent: batch.sent });
        Some(DeltaDiscoveryResponse {
            system_version_info: system_version,
            resources: batch.resources,
            type_url: self.kind.type_url().into(),
            removed_resources: batch.removed,
            nonce,
            ..DeltaDiscoveryResponse::default()
        })
    }

    /// Has a resource sent again whether or not it differs, if the client asked for it by name.
    pub(crate) fn send_again(&mut self, name: &Arc<str>) {
        if let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.wanted()) {
            entry.held = Held::Nothing;
            self.due.insert(name.clone());
        }
    }

    /// Whether the client asked for this name and has been answered.
    pub(crate) fn has_answered(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.wanted() && entry.held != Held::Nothing)
    }

    pub(crate) fn is_started(&self) -> bool {
        self.started
    }

    pub(crate) fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    pub(crate) fn last_nack(&self) -> Option<&Nack> {
        self.last_nack.as_ref()
    }

    /// The nonces of the last response and of the last one that was acknowledged.
    pub(crate) fn nonces(&self) -> (Option<&str>, Option<&str>) {
        (self.last_sent.as_deref(), self.last_acked.as_deref())
    }

    /// Every name with what the client has of it.
    pub(crate) fn resources(&self) -> impl Iterator<Item = Known<'_>> {
        self.entries.iter().map(|(name, entry)| Known {
            name,
            resource: match &entry.held {
                Held::Sent(resource) => Some(resource),
                _ => None,
            },
            sent: entry.held.version(),
            acked: entry.acked,
        })
    }
}

#[cfg(test)]
mod tests;
