//! xDS resources to the proxy's own form, off the data threads.
//!
//! Strict: what would change what the proxy does and is not implemented is an error with the field's path, which
//! becomes a NACK; what only concerns statistics or tracing is passed over. Nothing here panics on any bytes.

// Servers send the older spellings of fields too.
#![allow(deprecated)]

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Weak},
};

use weft_api::xds::google::protobuf::Any;

use crate::{
    config::{
        access_log::AccessLog,
        listener::Listener,
        route::{RouteConfig, VirtualHost},
        tls::{Secret, SecretContent},
    },
    settings::{Ports, Settings},
};

mod access_log;
mod action;
mod cipher_suites;
pub mod cluster;
pub mod endpoint;
mod fault;
mod filter;
mod format;
mod header;
pub mod health;
mod http;
pub mod invalid;
mod listener;
mod matcher;
mod protocol;
mod rate_limit;
mod rate_limit_struct;
mod rbac;
mod retry;
mod route;
mod tcp;
mod tls;
pub mod value;

pub use invalid::Invalid;

use cluster::DecodedCluster;
use endpoint::Assignment;
use invalid::At;
use rate_limit::{BucketKey, TokenBuckets};

/// What decoding needs besides the bytes; lives as long as the control thread.
#[derive(Debug)]
pub struct Decoder {
    /// There is no mesh, and its secrets are names as others.
    standalone: bool,
    ports: Ports,
    own_addresses: Vec<IpAddr>,
    access_log: Option<Arc<AccessLog>>,
    buckets: TokenBuckets,
    names: RefCell<HashSet<Arc<str>>>,
    secrets: Secrets,
}

/// Secrets by name, as long as something uses them.
type Secrets = RefCell<HashMap<Box<str>, Weak<Secret>>>;

/// The decoding of one resource.
struct Context<'a> {
    standalone: bool,
    ports: Ports,
    own_addresses: &'a [IpAddr],
    access_log: Option<Arc<AccessLog>>,
    buckets: &'a TokenBuckets,
    /// How many equal buckets the resource has shown so far.
    seen_buckets: RefCell<HashMap<BucketKey, u32>>,
    resource: &'a str,
    names: &'a RefCell<HashSet<Arc<str>>>,
    secrets: &'a Secrets,
}

impl Context<'_> {
    /// The one copy of a name: route names, cluster names.
    fn intern(&self, name: &str) -> Arc<str> {
        intern(self.names, name)
    }

    /// The one secret of a name.
    fn secret(&self, name: &str) -> Arc<Secret> {
        let mut secrets = self.secrets.borrow_mut();
        if let Some(known) = secrets.get(name).and_then(Weak::upgrade) {
            return known;
        }
        secrets.retain(|_, secret| secret.strong_count() > 0);
        let new = Arc::new(Secret::new(name));
        secrets.insert(name.into(), Arc::downgrade(&new));
        new
    }
}

fn intern(names: &RefCell<HashSet<Arc<str>>>, name: &str) -> Arc<str> {
    let mut names = names.borrow_mut();
    if let Some(known) = names.get(name) {
        return known.clone();
    }
    let new: Arc<str> = name.into();
    names.insert(new.clone());
    new
}

impl Decoder {
    /// A decoder for a proxy with these settings.
    ///
    /// # Errors
    /// The access log of the settings cannot be made.
    pub fn new(settings: &Settings) -> Result<Self, Invalid> {
        Ok(Self {
            standalone: settings.standalone,
            ports: settings.ports,
            own_addresses: settings.own_addresses.clone(),
            access_log: settings
                .access_log
                .as_ref()
                .map(access_log::from_settings)
                .transpose()?
                .map(Arc::new),
            buckets: TokenBuckets::default(),
            names: RefCell::default(),
            secrets: RefCell::default(),
        })
    }

    fn context<'a>(&'a self, resource: &'a str) -> Context<'a> {
        Context {
            standalone: self.standalone,
            ports: self.ports,
            own_addresses: &self.own_addresses,
            access_log: self.access_log.clone(),
            buckets: &self.buckets,
            seen_buckets: RefCell::default(),
            resource,
            names: &self.names,
            secrets: &self.secrets,
        }
    }

    /// The one copy of a name.
    pub fn intern(&self, name: &str) -> Arc<str> {
        intern(&self.names, name)
    }

    /// Forgets names that nothing holds any more.
    pub fn forget_unused_names(&self) {
        self.names.borrow_mut().retain(|name| Arc::strong_count(name) > 1);
    }

    /// A listener.
    ///
    /// # Errors
    /// The first thing that is wrong, with its path; so it is for the other types.
    pub fn listener(&self, name: &str, any: &Any) -> Result<Listener, Invalid> {
        let pb = value::unpack(any)?;
        listener::listener(&self.context(name), &pb)
    }

    /// A route configuration.
    ///
    /// # Errors
    /// See [`Self::listener`].
    pub fn route_configuration(&self, name: &str, any: &Any) -> Result<RouteConfig, Invalid> {
        let pb = value::unpack(any)?;
        route::route_configuration(&self.context(name), &pb)
    }

    /// A virtual host.
    ///
    /// # Errors
    /// See [`Self::listener`].
    pub fn virtual_host(&self, name: &str, any: &Any) -> Result<VirtualHost, Invalid> {
        let pb = value::unpack(any)?;
        route::virtual_host(&self.context(name), &pb)
    }

    /// A cluster.
    ///
    /// # Errors
    /// See [`Self::listener`].
    pub fn cluster(&self, name: &str, any: &Any) -> Result<DecodedCluster, Invalid> {
        let pb: weft_api::xds::envoy::config::cluster::v3::Cluster = value::unpack(any)?;
        if pb.name != name {
            return Err(Invalid::value(&pb.name, "the resource's name")).at("name");
        }
        cluster::cluster(&self.context(name), &pb)
    }

    /// A secret's content.
    ///
    /// # Errors
    /// See [`Self::listener`].
    pub fn secret(&self, name: &str, any: &Any) -> Result<SecretContent, Invalid> {
        let pb: weft_api::xds::envoy::extensions::transport_sockets::tls::v3::Secret =
            value::unpack(any)?;
        if pb.name != name {
            return Err(Invalid::value(&pb.name, "the resource's name")).at("name");
        }
        tls::secret(&pb)
    }

    /// Gives those who use a secret its content.
    pub fn set_secret(&self, name: &str, content: Option<&Arc<SecretContent>>) {
        if let Some(secret) = self.secrets.borrow().get(name).and_then(Weak::upgrade) {
            let same = match (secret.content(), content) {
                (Some(old), Some(new)) => Arc::ptr_eq(&old, new),
                (None, None) => true,
                _ => false,
            };
            if !same {
                secret.set(content.cloned());
            }
        }
    }

    /// A load assignment.
    ///
    /// # Errors
    /// See [`Self::listener`].
    pub fn assignment(&self, any: &Any) -> Result<Assignment, Invalid> {
        let pb = value::unpack(any)?;
        endpoint::assignment(&pb)
    }
}

#[cfg(test)]
mod tests;
