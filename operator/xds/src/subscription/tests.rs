//! A client that follows the protocol ends with what the mesh has, whatever happens on the way.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use weft_api::xds::google::rpc::Status;

use super::*;
use crate::resolver::{Dependencies, ViewFields};

type Mesh = BTreeMap<String, u8>;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Step {
    /// A resource is there with this content, or is not.
    Change(usize, Option<u8>),
    Subscribe(Vec<usize>),
    Unsubscribe(usize),
    SubscribeAll,
    UnsubscribeAll,
    /// The server sends what it may.
    Serve,
    /// The client answers the oldest response.
    Ack,
    Nack,
    /// The stream breaks; the client comes back with what it has.
    Reconnect,
    /// What was held may go.
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..NAMES.len(), proptest::option::of(0..3u8)).prop_map(|(name, value)| Step::Change(name, value)),
        2 => proptest::collection::vec(0..NAMES.len(), 1..3).prop_map(Step::Subscribe),
        1 => (0..NAMES.len()).prop_map(Step::Unsubscribe),
        1 => Just(Step::SubscribeAll),
        1 => Just(Step::UnsubscribeAll),
        4 => Just(Step::Serve),
        4 => Just(Step::Ack),
        1 => Just(Step::Nack),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Release),
    ]
}

/// A client by the book: it applies what it accepts, and drops what it no longer wants.
#[derive(Debug, Default)]
struct Client {
    named: BTreeSet<String>,
    all: bool,
    held: BTreeMap<String, (String, Vec<u8>)>,
    unanswered: Option<DeltaDiscoveryResponse>,
}

struct World {
    mesh: Mesh,
    client: Client,
    server: Subscription,
    removals: Removals,
    nonce: u64,
}

impl World {
    fn resolve(&self, name: &str) -> Arc<Resolved> {
        let dependencies =
            Dependencies { hosts: [Arc::from(name)].into(), ..Dependencies::default() };
        let resource = self
            .mesh
            .get(name)
            .map(|value| Arc::new(EncodedResource::new(vec![*value].into(), Vec::new(), false)));
        Arc::new(Resolved { resource, dependencies, reads: ViewFields::default() })
    }

    fn request(&mut self, request: DeltaDiscoveryRequest) {
        self.server.request(request, SystemTime::UNIX_EPOCH).unwrap();
    }

    fn serve(&mut self) {
        if self.client.unanswered.is_some() || !self.server.is_due() {
            return;
        }
        if self.server.needs_list() {
            self.server.list(self.mesh.keys().map(|name| name.as_str().into()).collect());
        }
        let mut batch = Batch::default();
        for (name, wanted) in self.server.take_due(usize::MAX) {
            let resolved = wanted.then(|| self.resolve(&name));
            self.server.add(&mut batch, &name, resolved, self.removals);
        }
        self.nonce += 1;
        self.client.unanswered = self.server.respond(batch, self.nonce.to_string(), String::new());
    }

    fn answer(&mut self, accept: bool) {
        let Some(response) = self.client.unanswered.take() else { return };
        let mut request = DeltaDiscoveryRequest {
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        if accept {
            for resource in response.resources {
                if self.client.all || self.client.named.contains(&resource.name) {
                    let body = resource.resource.unwrap().value;
                    self.client.held.insert(resource.name, (resource.version, body));
                }
            }
            for name in response.removed_resources {
                self.client.held.remove(&name);
            }
        } else {
            request.error_detail = Some(Status::default());
        }
        self.request(request);
    }

    fn subscribe(&mut self, names: Vec<String>) {
        let request = DeltaDiscoveryRequest {
            resource_names_subscribe: names,
            ..DeltaDiscoveryRequest::default()
        };
        self.request(request);
    }

    fn unsubscribe(&mut self, name: &str) {
        let request = DeltaDiscoveryRequest {
            resource_names_unsubscribe: vec![name.into()],
            ..DeltaDiscoveryRequest::default()
        };
        self.request(request);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Change(name, value) => {
                let name = NAMES[name];
                match value {
                    Some(value) => _ = self.mesh.insert(name.into(), value),
                    None => _ = self.mesh.remove(name),
                }
                let change = Change { hosts: [name.into()].into(), ..Change::default() };
                self.server.apply(&change, false);
            }
            Step::Subscribe(names) => {
                let names: Vec<String> = names.iter().map(|name| NAMES[*name].to_owned()).collect();
                self.client.named.extend(names.clone());
                self.subscribe(names);
            }
            Step::Unsubscribe(name) => {
                let name = NAMES[name];
                if self.client.named.remove(name) {
                    if !self.client.all {
                        self.client.held.remove(name);
                    }
                    self.unsubscribe(name);
                }
            }
            Step::SubscribeAll => {
                self.client.all = true;
                self.subscribe(vec![WILDCARD.into()]);
            }
            Step::UnsubscribeAll if self.client.all => {
                self.client.all = false;
                let named = self.client.named.clone();
                self.client.held.retain(|name, _| named.contains(name));
                self.unsubscribe(WILDCARD);
            }
            Step::UnsubscribeAll => {}
            Step::Serve => self.serve(),
            Step::Ack => self.answer(true),
            Step::Nack => self.answer(false),
            Step::Reconnect => self.reconnect(),
            Step::Release => self.server.release_removals(),
        }
    }

    fn reconnect(&mut self) {
        self.client.unanswered = None;
        self.server = Subscription::new(ResourceType::Endpoints);
        let wildcard = self.client.all.then(|| WILDCARD.to_owned());
        let versions =
            self.client.held.iter().map(|(name, (version, _))| (name.clone(), version.clone()));
        let request = DeltaDiscoveryRequest {
            resource_names_subscribe: self.client.named.iter().cloned().chain(wildcard).collect(),
            initial_resource_versions: versions.collect::<HashMap<_, _>>(),
            ..DeltaDiscoveryRequest::default()
        };
        self.request(request);
    }

    /// Lets everything that is under way come to an end.
    fn settle(&mut self) {
        for _ in 0..10 {
            self.answer(true);
            self.serve();
            if self.client.unanswered.is_none() {
                self.server.release_removals();
                self.removals = Removals::Send;
            }
        }
    }
}

proptest! {
    #[test]
    fn a_client_ends_with_what_the_mesh_has(
        steps in proptest::collection::vec(step(), 0..40),
        hold in any::<bool>(),
    ) {
        let mut world = World {
            mesh: Mesh::new(),
            client: Client::default(),
            server: Subscription::new(ResourceType::Endpoints),
            removals: if hold { Removals::Hold } else { Removals::Send },
            nonce: 0,
        };
        let mut refused = false;
        for step in steps {
            refused |= matches!(step, Step::Nack);
            world.step(step);
        }
        world.settle();
        prop_assert!(world.client.unanswered.is_none(), "the server is never done");
        let expected: Mesh = world
            .mesh
            .iter()
            .filter(|(name, _)| world.client.all || world.client.named.contains(*name))
            .map(|(name, value)| (name.clone(), *value))
            .collect();
        let held: Mesh =
            world.client.held.iter().map(|(name, (_, body))| (name.clone(), body[0])).collect();
        if refused {
            // What was refused is not sent again until it changes; the client's older version may stay.
            prop_assert!(held.keys().all(|name| world.client.all || world.client.named.contains(name)));
        } else {
            prop_assert_eq!(held, expected);
        }
    }
}

#[test]
fn a_client_may_ask_for_so_many_names_of_so_many_bytes() {
    let subscribe = |names: Vec<String>| DeltaDiscoveryRequest {
        resource_names_subscribe: names,
        ..DeltaDiscoveryRequest::default()
    };
    let now = SystemTime::UNIX_EPOCH;
    let mut subscription = Subscription::new(ResourceType::Route);
    let many = (0..MAX_NAMES).map(|number| number.to_string()).collect();
    assert_eq!(subscription.request(subscribe(many), now), Ok(Answer::None));
    // Those that it has asked for it may ask for again.
    assert_eq!(subscription.request(subscribe(vec!["7".into()]), now), Ok(Answer::None));
    let one_more = subscribe(vec!["one more".into()]);
    assert_eq!(subscription.request(one_more, now), Err(Excess::Names));

    let long = |length| "n".repeat(length);
    let mut subscription = Subscription::new(ResourceType::Route);
    assert_eq!(subscription.request(subscribe(vec![long(MAX_NAME)]), now), Ok(Answer::None));
    let longer = subscribe(vec![long(MAX_NAME + 1)]);
    assert_eq!(subscription.request(longer, now), Err(Excess::Length(MAX_NAME + 1)));
    let held = DeltaDiscoveryRequest {
        initial_resource_versions: HashMap::from([(long(MAX_NAME + 1), String::new())]),
        ..DeltaDiscoveryRequest::default()
    };
    let mut subscription = Subscription::new(ResourceType::Route);
    assert_eq!(subscription.request(held, now), Err(Excess::Length(MAX_NAME + 1)));
}
