//! Several Gateways on one proxy: who gets which port and which host (`istio-behaviours`, items 27 to 29).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use weft_crds::networking::{GatewaySpec, Server, ServerTlsMode};

use super::{
    Content, Fault, FaultReason, GatewayListener, GatewayServer, ListenerKind, ServerHost,
};
use crate::{
    credential::{SecretNamespaces, authorities_of},
    resource::{Resource, ResourceRef},
    selector::{Labels, selects},
    snapshot::Snapshot,
};

/// A proxy at the edge.
#[derive(Clone, Copy, Debug)]
pub struct GatewayNode<'a> {
    /// Its namespace: secrets are looked for there.
    pub namespace: &'a str,
    /// Its labels: Gateways of any namespace select by them.
    pub labels: &'a Labels,
    /// Its address.
    pub address: IpAddr,
}

/// What a proxy serves, and what it does not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    /// The Gateways that select it, oldest first.
    pub gateways: Vec<Arc<Resource<GatewaySpec>>>,
    /// Its listeners by address and port.
    pub listeners: Vec<GatewayListener>,
    /// What is not served.
    pub faults: Vec<Fault>,
}

impl Merged {
    /// The listener with this name.
    pub fn listener(&self, name: &str) -> Option<&GatewayListener> {
        self.listeners.iter().find(|listener| listener.name() == name)
    }

    /// The servers whose requests have this route configuration.
    pub fn routed_by<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a GatewayServer> {
        self.listeners.iter().flat_map(move |listener| {
            let together = listener.http_route_name().is_some_and(|own| own == name);
            listener.servers.iter().filter(move |server| {
                together
                    || (listener.kind == ListenerKind::Tls
                        && server.route_name().is_some_and(|own| own == name))
            })
        })
    }
}

/// What a port is taken for while servers come one by one.
struct Port {
    listener: GatewayListener,
    /// Who spoke first.
    owner: ResourceRef,
    /// Server names of TLS, also those of servers that lack their secret: nobody else gets them meanwhile.
    names: HashMap<String, ResourceRef>,
}

/// What a proxy serves: the servers of all Gateways that select it, the oldest first.
pub fn merge(snapshot: &Snapshot, node: GatewayNode<'_>) -> Merged {
    let selecting =
        snapshot.gateways.iter().filter(|gateway| selects(&gateway.spec.selector, node.labels));
    let mut gateways: Vec<_> = selecting.cloned().collect();
    gateways.sort_by(|a, b| a.oldest_first(b));
    let mut ports: BTreeMap<(Option<IpAddr>, u16), Port> = BTreeMap::new();
    let mut faults = Vec::new();
    for gateway in &gateways {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let fault =
                |reason| Fault { gateway: gateway.reference.clone(), server: index, reason };
            let found = read(gateway, index, server);
            let (bind, server) = match found {
                Ok(found) => found,
                Err(reason) => {
                    faults.push(fault(reason));
                    continue;
                }
            };
            let lacking = lacking_credentials(snapshot, node.namespace, &server);
            for port in snapshot.gateway_ports(node, server.port()) {
                let port = ports.entry((bind, port)).or_insert_with(|| Port {
                    listener: GatewayListener {
                        bind,
                        port,
                        kind: server.content.listener(),
                        servers: Vec::new(),
                    },
                    owner: gateway.reference.clone(),
                    names: HashMap::new(),
                });
                let reasons = port.add(server.clone(), !lacking.is_empty());
                faults.extend(reasons.into_iter().map(fault));
            }
            faults.extend(lacking.into_iter().map(fault));
        }
    }
    let listeners = ports.into_values().map(|port| port.listener);
    // A server may have several ports; its faults are told once.
    let faults: BTreeSet<Fault> = faults.into_iter().collect();
    Merged {
        gateways,
        listeners: listeners.filter(|listener| !listener.servers.is_empty()).collect(),
        faults: faults.into_iter().collect(),
    }
}

/// A server with the address that it is bound to.
fn read(
    gateway: &Arc<Resource<GatewaySpec>>,
    index: usize,
    server: &Server,
) -> Result<(Option<IpAddr>, GatewayServer), FaultReason> {
    let unsupported = |what: &str| FaultReason::Unsupported(what.to_owned());
    let bind = match server.bind.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| unsupported("only IP addresses can be bound to"))?),
    };
    let content = Content::of(server).ok_or_else(|| {
        let protocol = server.port.as_ref().map_or("", |port| &port.protocol);
        FaultReason::Unsupported(format!("protocol {protocol} is not served by gateways"))
    })?;
    if let Some(tls) = &server.tls {
        let checks = [
            (tls.mode == ServerTlsMode::AutoPassthrough, "mode AUTO_PASSTHROUGH is not served"),
            (!tls.ca_crl.is_empty(), "caCrl is not checked, so the server is left out"),
            (
                !tls.verify_certificate_spki.is_empty() || !tls.verify_certificate_hash.is_empty(),
                "verifyCertificateSpki and verifyCertificateHash are not checked, so the server is left out",
            ),
            (
                tls.insecure_skip_verify == Some(true)
                    && matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual),
                "insecureSkipVerify is not served: clients' certificates are always checked",
            ),
        ];
        let terminates = matches!(content, Content::Https | Content::TerminatedTls);
        let wrong = checks.iter().enumerate().find(|(at, (wrong, _))| {
            *wrong && (terminates || (*at == 0 && content == Content::Passthrough))
        });
        if let Some((_, (_, what))) = wrong {
            return Err(unsupported(what));
        }
    }
    let own = gateway.namespace();
    let hosts = server.hosts.iter().map(|host| ServerHost::parse(host, own)).collect();
    Ok((bind, GatewayServer { gateway: gateway.clone(), index, content, hosts }))
}

/// Why the secrets of a server that terminates TLS cannot be used.
fn lacking_credentials(
    snapshot: &Snapshot,
    namespace: &str,
    server: &GatewayServer,
) -> Vec<FaultReason> {
    let Some(tls) = server.tls() else { return Vec::new() };
    let unknown = snapshot.credentials.namespaces == SecretNamespaces::Unknown;
    if unknown || !matches!(server.content, Content::Https | Content::TerminatedTls) {
        return Vec::new();
    }
    let credentials = &snapshot.credentials;
    let names = std::iter::once(&tls.credential_name).chain(&tls.credential_names);
    let pairs = names
        .filter(|name| !name.is_empty())
        .filter_map(|name| credentials.key_pair(namespace, name).err());
    let authority = authorities_of(tls);
    let authority = authority.and_then(|name| credentials.authorities(namespace, name).err());
    pairs.chain(authority).map(FaultReason::Credential).collect()
}

impl Port {
    /// Adds a server; what of it is not served here. One that lacks a secret only keeps its names.
    fn add(&mut self, mut server: GatewayServer, lacks: bool) -> Vec<FaultReason> {
        let (number, kind) = (self.listener.port, server.content.listener());
        let taken = kind == ListenerKind::Tcp && !self.listener.servers.is_empty();
        if self.listener.kind != kind || taken {
            return vec![FaultReason::ProtocolConflict {
                port: number,
                spoken: self.listener.kind,
                by: self.owner.clone(),
            }];
        }
        let mut reasons = Vec::new();
        if kind == ListenerKind::Tls {
            let own = server.gateway.reference.clone();
            let mut mine = BTreeSet::new();
            server.hosts.retain(|host| {
                if mine.contains(&host.name) {
                    return true;
                }
                match self.names.get(&host.name) {
                    None => {
                        self.names.insert(host.name.clone(), own.clone());
                        mine.insert(host.name.clone());
                        true
                    }
                    Some(by) => {
                        reasons.push(FaultReason::DuplicateHost {
                            host: host.name.clone(),
                            port: number,
                            by: by.clone(),
                        });
                        false
                    }
                }
            });
        }
        if !lacks && !server.hosts.is_empty() {
            self.listener.servers.push(server);
        }
        reasons
    }
}
