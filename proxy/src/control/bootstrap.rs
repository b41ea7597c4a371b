//! Envoy's bootstrap file as the proxy's whole configuration.
//!
//! The text becomes protobuf by Envoy's own descriptors, and is then decoded as what a control plane sends is. What the
//! proxy cannot do is refused with the field's path; what concerns only Envoy's own process is passed over.

use std::{
    collections::HashSet,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use prost::{Message, Name};
use weft_api::{
    type_url,
    xds::{
        envoy::config::{
            bootstrap::v3::{
                Admin as PbAdmin, Bootstrap as PbBootstrap, LayeredRuntime,
                runtime_layer::LayerSpecifier,
            },
            cluster::v3::{
                Cluster as PbCluster,
                cluster::{ClusterDiscoveryType, DiscoveryType},
            },
            core::v3::{Node as PbNode, address, config_source::ConfigSourceSpecifier},
            listener::v3::Listener as PbListener,
        },
        envoy::extensions::transport_sockets::tls::v3::Secret as PbSecret,
        google::protobuf::Any,
    },
};

pub mod document;
mod encode;
mod schema;
mod secrets;
mod unsupported;
mod well_known;

use document::DocumentError;
use schema::Schema;

use super::decode::{
    Invalid,
    invalid::{At, Reason, refuse_all},
    value::socket_addr,
};
use crate::settings::Said;

/// Why a bootstrap cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file is not there.
    #[error("cannot read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is neither YAML nor JSON.
    #[error("{path:?}: {source}")]
    Document {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DocumentError,
    },
    /// What it says cannot be used.
    #[error("{path:?}: {invalid}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and why.
        invalid: Invalid,
    },
}

/// A bootstrap, taken apart.
#[derive(Debug, Default)]
pub struct Bootstrap {
    /// The file that it is from.
    pub file: PathBuf,
    /// Node and administration.
    pub said: Said,
    /// Clusters and listeners of `static_resources`, in this order.
    pub resources: Vec<Resource>,
    /// Secrets of `static_resources`.
    pub secrets: Vec<Resource>,
    /// Load assignments that are in files.
    pub endpoint_files: Vec<PathBuf>,
    /// What is passed over, for the log.
    pub ignored: Vec<String>,
}

/// A listener, cluster or secret.
#[derive(Debug)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// Where it stands, e.g. `static_resources.listeners[0]`.
    pub path: String,
    /// As a control plane would send it.
    pub body: Any,
}

impl Bootstrap {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`BootstrapError`].
    pub fn read(path: &Path) -> Result<Self, BootstrapError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| BootstrapError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Reads what is in a file.
    ///
    /// # Errors
    /// See [`BootstrapError`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, BootstrapError> {
        let document = document::read(text)
            .map_err(|source| BootstrapError::Document { path: path.to_owned(), source })?;
        let mut bootstrap = message(&document)
            .and_then(|bootstrap| Self::of(&bootstrap))
            .map_err(|invalid| BootstrapError::Invalid { path: path.to_owned(), invalid })?;
        path.clone_into(&mut bootstrap.file);
        Ok(bootstrap)
    }

    fn of(bootstrap: &PbBootstrap) -> Result<Self, Invalid> {
        refuse_unsupported(bootstrap)?;
        let PbNode { id, cluster, .. } = bootstrap.node.clone().unwrap_or_default();
        let admin = bootstrap.admin.as_ref().map(admin).transpose().at("admin")?.flatten();
        let mut read = Self {
            said: Said { node_id: id, node_cluster: cluster, admin },
            ignored: ignored(bootstrap).at("layered_runtime")?,
            ..Self::default()
        };
        let statics = bootstrap.static_resources.clone().unwrap_or_default();
        read.add_clusters(&statics.clusters).at("static_resources")?;
        read.add_listeners(statics.listeners).at("static_resources")?;
        read.add_secrets(statics.secrets).at("static_resources")?;
        Ok(read)
    }

    fn add_clusters(&mut self, clusters: &[PbCluster]) -> Result<(), Invalid> {
        let mut names = HashSet::new();
        for (index, cluster) in clusters.iter().enumerate() {
            unique(&mut names, &cluster.name).at_index("clusters", index)?;
            if let Some(file) = endpoint_file(cluster).at_index("clusters", index)?
                && !self.endpoint_files.contains(&file)
            {
                self.endpoint_files.push(file);
            }
            self.resources.push(Resource {
                name: cluster.name.clone(),
                path: format!("static_resources.clusters[{index}]"),
                body: any(type_url::CLUSTER, cluster),
            });
        }
        Ok(())
    }

    fn add_listeners(&mut self, listeners: Vec<PbListener>) -> Result<(), Invalid> {
        let mut names = HashSet::new();
        for (index, mut listener) in listeners.into_iter().enumerate() {
            if listener.name.is_empty() {
                listener.name = address_name(&listener, index);
            }
            unique(&mut names, &listener.name).at_index("listeners", index)?;
            self.resources.push(Resource {
                name: listener.name.clone(),
                path: format!("static_resources.listeners[{index}]"),
                body: any(type_url::LISTENER, &listener),
            });
        }
        Ok(())
    }
}

impl Bootstrap {
    fn add_secrets(&mut self, secrets: Vec<PbSecret>) -> Result<(), Invalid> {
        let mut names = HashSet::new();
        for (index, secret) in secrets.into_iter().enumerate() {
            unique(&mut names, &secret.name).at_index("secrets", index)?;
            let secret = secrets::with_contents(secret).at_index("secrets", index)?;
            self.secrets.push(Resource {
                name: secret.name.clone(),
                path: format!("static_resources.secrets[{index}]"),
                body: any(type_url::SECRET, &secret),
            });
        }
        Ok(())
    }
}

/// The document as a message.
pub(super) fn message<T: Message + Name + Default>(
    document: &serde_json::Value,
) -> Result<T, Invalid> {
    let bytes = encode::message(&Schema::default(), &T::full_name(), document)?;
    super::decode::value::message(&bytes)
}

fn any(type_url: &str, message: &impl Message) -> Any {
    Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}

fn unique(names: &mut HashSet<String>, name: &str) -> Result<(), Invalid> {
    if name.is_empty() {
        return Err(Invalid::missing("name"));
    }
    if names.insert(name.to_owned()) {
        return Ok(());
    }
    Err(Invalid { path: "name".into(), reason: Reason::Duplicate(name.to_owned()) })
}

/// A listener need not have a name.
fn address_name(listener: &PbListener, index: usize) -> String {
    match listener.address.as_ref().map(socket_addr) {
        Some(Ok(address)) => format!("{}_{}", address.ip(), address.port()),
        _ => format!("listener_{index}"),
    }
}

/// Where an EDS cluster's endpoints are.
fn endpoint_file(cluster: &PbCluster) -> Result<Option<PathBuf>, Invalid> {
    if cluster.cluster_discovery_type != Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32))
    {
        return Ok(None);
    }
    let source = cluster
        .eds_cluster_config
        .as_ref()
        .and_then(|config| config.eds_config.as_ref())
        .and_then(|config| config.config_source_specifier.as_ref());
    let unsupported =
        |field: &str| Err(Invalid::unsupported(field)).at("eds_cluster_config.eds_config");
    match source {
        None => Err(Invalid::missing("eds_cluster_config.eds_config")),
        #[allow(deprecated)]
        Some(ConfigSourceSpecifier::Path(path)) => Ok(Some(path.into())),
        Some(ConfigSourceSpecifier::PathConfigSource(source)) => Ok(Some((&source.path).into())),
        Some(ConfigSourceSpecifier::ApiConfigSource(_)) => unsupported("api_config_source"),
        Some(ConfigSourceSpecifier::Ads(_)) => unsupported("ads"),
        Some(ConfigSourceSpecifier::Self_(_)) => unsupported("self"),
    }
}

fn admin(admin: &PbAdmin) -> Result<Option<SocketAddr>, Invalid> {
    refuse_all(&[
        (!admin.socket_options.is_empty(), "socket_options"),
        (!admin.access_log.is_empty(), "access_log"),
        (!admin.allow_paths.is_empty(), "allow_paths"),
    ])?;
    match &admin.address {
        None => Ok(None),
        Some(at) if matches!(at.address, Some(address::Address::Pipe(_))) => {
            Err(Invalid::unsupported("address.pipe"))
        }
        Some(at) => socket_addr(at).map(Some).at("address"),
    }
}

/// What a run-time setting would change, and where nothing reads it.
fn ignored(bootstrap: &PbBootstrap) -> Result<Vec<String>, Invalid> {
    let mut ignored = Vec::new();
    let unset = LayeredRuntime::default();
    let layers = &bootstrap.layered_runtime.as_ref().unwrap_or(&unset).layers;
    for (index, layer) in layers.iter().enumerate() {
        match &layer.layer_specifier {
            Some(LayerSpecifier::StaticLayer(values)) => {
                let mut keys: Vec<_> = values.fields.keys().collect();
                keys.sort_unstable();
                ignored.extend(keys.into_iter().map(|key| format!("run-time setting {key}")));
            }
            Some(LayerSpecifier::AdminLayer(_)) | None => {}
            Some(LayerSpecifier::DiskLayer(_)) => {
                return Err(Invalid::unsupported("disk_layer")).at_index("layers", index);
            }
            Some(LayerSpecifier::RtdsLayer(_)) => {
                return Err(Invalid::unsupported("rtds_layer")).at_index("layers", index);
            }
        }
    }
    if let Some(admin) = &bootstrap.admin {
        #[allow(deprecated)]
        if !matches!(admin.access_log_path.as_str(), "" | "/dev/null") {
            ignored.push("admin.access_log_path: administration has no access log".into());
        }
    }
    Ok(ignored)
}

fn refuse_unsupported(bootstrap: &PbBootstrap) -> Result<(), Invalid> {
    #[allow(deprecated)]
    let old_dns = bootstrap.use_tcp_for_dns_lookups || bootstrap.dns_resolution_config.is_some();
    refuse_all(&[
        (bootstrap.dynamic_resources.is_some(), "dynamic_resources"),
        (bootstrap.hds_config.is_some(), "hds_config"),
        (
            bootstrap.cluster_manager.as_ref().is_some_and(|manager| {
                manager.outlier_detection.is_some()
                    || manager.upstream_bind_config.is_some()
                    || manager.load_stats_config.is_some()
            }),
            "cluster_manager",
        ),
        (!bootstrap.header_prefix.is_empty(), "header_prefix"),
        (old_dns, "dns_resolution_config"),
        (bootstrap.typed_dns_resolver_config.is_some(), "typed_dns_resolver_config"),
        (!bootstrap.bootstrap_extensions.is_empty(), "bootstrap_extensions"),
        (!bootstrap.fatal_actions.is_empty(), "fatal_actions"),
        (!bootstrap.config_sources.is_empty(), "config_sources"),
        (bootstrap.default_config_source.is_some(), "default_config_source"),
        (!bootstrap.default_socket_interface.is_empty(), "default_socket_interface"),
        (!bootstrap.certificate_provider_instances.is_empty(), "certificate_provider_instances"),
        (bootstrap.default_regex_engine.is_some(), "default_regex_engine"),
        (bootstrap.xds_delegate_extension.is_some(), "xds_delegate_extension"),
        (bootstrap.xds_config_tracker_extension.is_some(), "xds_config_tracker_extension"),
        (bootstrap.application_log_config.is_some(), "application_log_config"),
    ])
}

#[cfg(test)]
mod tests;
