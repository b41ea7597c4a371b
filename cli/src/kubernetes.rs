//! The Kubernetes cluster that a command speaks to.
//!
//! [`Target`] is how people name it on the command line, [`Cluster`] the connection. What fails says what was asked for,
//! of which server, and, when a right is missing, which one.

mod forward;

use std::{fmt::Debug, future::Future, path::PathBuf};

use anyhow::Context;
use kube::{
    Api, Client, Config, Resource,
    api::{ApiResource, ListParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use weft_crds::Kind;

pub use forward::get_json;

/// Objects that one answer of the API server has at most.
const PAGE: u32 = 500;

/// Which cluster, and where in it the control plane is.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub struct Target {
    /// The kubeconfig. Default: KUBECONFIG, else ~/.kube/config, else the pod's own service account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The context in the kubeconfig. Default: its current one.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,

    /// Namespace of the control plane.
    #[arg(long, env = "WEFT_NAMESPACE", value_name = "NAMESPACE", default_value = "weft-system")]
    pub weft_namespace: String,
}

/// A connection to the API server.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// Namespace of the control plane.
    pub namespace: String,
    server: String,
}

/// Why an object or a list is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// A right is missing.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// The API server does not know the kind.
    #[error("the cluster does not know {0}")]
    UnknownKind(String),
    /// Anything else.
    #[error("{what}")]
    Failed {
        /// What was asked for.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Target {
    /// Connects.
    ///
    /// # Errors
    /// When there is no kubeconfig that names a cluster, or it cannot be read.
    pub async fn connect(&self) -> anyhow::Result<Cluster> {
        let options = KubeConfigOptions { context: self.context.clone(), ..Default::default() };
        let config = match &self.kubeconfig {
            Some(file) => {
                let kubeconfig =
                    Kubeconfig::read_from(file).with_context(|| file.display().to_string())?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await?
            }
            None if self.context.is_some() => Config::from_kubeconfig(&options).await?,
            None => Config::infer().await.context(
                "no cluster: set KUBECONFIG or give --kubeconfig (no kubeconfig was found, and this is not a pod)",
            )?,
        };
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).with_context(|| server.clone())?;
        Ok(Cluster { client, namespace: self.weft_namespace.clone(), server })
    }

    /// What `helm` and `kubectl` need to speak to the same cluster; `helm` names its context otherwise.
    pub fn helm_arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--namespace".to_owned(), self.weft_namespace.clone()];
        if let Some(file) = &self.kubeconfig {
            arguments.extend(["--kubeconfig".to_owned(), file.display().to_string()]);
        }
        if let Some(context) = &self.context {
            arguments.extend(["--kube-context".to_owned(), context.clone()]);
        }
        arguments
    }
}

impl Cluster {
    /// The API server's address.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// An API of the control plane's namespace.
    pub fn own<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// An API of all namespaces, or of what has none.
    pub fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// Asks whether the API server answers at all.
    ///
    /// # Errors
    /// When it does not; the message names it.
    pub async fn version(&self) -> anyhow::Result<k8s_openapi::apimachinery::pkg::version::Info> {
        let version = self.client.apiserver_version().await;
        version.with_context(|| format!("the API server at {} does not answer", self.server))
    }
}

/// Where a command's work runs. A client lives no longer than the runtime that it was made on.
///
/// # Errors
/// When the system refuses.
pub fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Runs all of a command's work.
///
/// # Errors
/// Those of the work.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    runtime()?.block_on(work)
}

/// All objects of a list, page by page.
///
/// # Errors
/// Why they cannot be listed.
pub async fn list<K>(api: &Api<K>, mut parameters: ListParams) -> Result<Vec<K>, QueryError>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    parameters = parameters.limit(PAGE);
    let mut objects = Vec::new();
    loop {
        let page =
            api.list(&parameters).await.map_err(|error| explain(api.resource_url(), error))?;
        objects.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(objects),
        }
    }
}

/// An object, `None` when it is not there.
///
/// # Errors
/// Why that cannot be told.
pub async fn get<K>(api: &Api<K>, name: &str) -> Result<Option<K>, QueryError>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    api.get_opt(name)
        .await
        .map_err(|error| explain(&format!("{}/{name}", api.resource_url()), error))
}

/// Puts the API server's answer into words.
pub fn explain(what: &str, error: kube::Error) -> QueryError {
    match error {
        kube::Error::Api(status) if status.is_forbidden() => {
            QueryError::Forbidden(status.message.clone())
        }
        kube::Error::Api(status) if status.is_not_found() => {
            QueryError::UnknownKind(what.to_owned())
        }
        error => QueryError::Failed { what: what.to_owned(), source: Box::new(error) },
    }
}

/// How the API server calls a kind of ours, in the version that it stores.
pub fn resource(kind: Kind) -> ApiResource {
    let version = kind.versions().first().copied().unwrap_or("v1");
    ApiResource {
        group: kind.group().to_owned(),
        version: version.to_owned(),
        api_version: format!("{}/{version}", kind.group()),
        kind: kind.as_str().to_owned(),
        plural: kind.plural().to_owned(),
    }
}
