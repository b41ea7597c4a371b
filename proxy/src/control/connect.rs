//! Connections to the control plane: TLS checked against the configured root, with the workload's certificate once
//! there is one.

use std::{path::PathBuf, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use super::names;
use crate::{identity::Identity, settings::ControlPlaneSettings};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent control plane is noticed after an interval and a timeout.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The root file cannot be read.
    #[error("cannot read the control plane's root {path:?}")]
    Root {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The root file holds no usable certificate.
    #[error("{0:?} holds no PEM certificate")]
    NoRoot(PathBuf),
    /// The name to check the control plane's certificate for is none.
    #[error("{0:?} is not a host name or address")]
    Name(String),
    /// The workload's certificate or the root cannot be used.
    #[error("TLS settings")]
    Tls(#[from] rustls::Error),
    /// `HOST:PORT` makes no URI.
    #[error("{0:?} is not an address")]
    Address(String),
    /// Nobody answers, or the handshake fails.
    #[error("cannot connect")]
    Transport(#[from] tonic::transport::Error),
}

/// Makes connections to one control plane.
#[derive(Clone, Debug)]
pub struct Connector {
    settings: ControlPlaneSettings,
}

impl Connector {
    /// A connector for this control plane.
    pub fn new(settings: ControlPlaneSettings) -> Self {
        Self { settings }
    }

    /// Connects; with the identity's certificate when there is one.
    ///
    /// # Errors
    /// The settings are not usable, or nobody with the right certificate answers.
    pub async fn connect(&self, identity: Option<&Identity>) -> Result<Channel, ConnectError> {
        let settings = &self.settings;
        let name = ServerName::try_from(settings.san.clone())
            .map_err(|_| ConnectError::Name(settings.san.clone()))?;
        let tls = TlsConnector::from(Arc::new(self.tls(identity)?));
        let address = (settings.host.clone(), settings.port);
        let host = if settings.host.contains(':') {
            format!("[{}]:{}", settings.host, settings.port)
        } else {
            format!("{}:{}", settings.host, settings.port)
        };
        let uri: Uri =
            format!("http://{host}").parse().map_err(|_| ConnectError::Address(host.clone()))?;
        let connect = tower::service_fn(move |_: Uri| {
            let (tls, name, address) = (tls.clone(), name.clone(), address.clone());
            async move {
                let stream = names::connect(&address.0, address.1).await?;
                stream.set_nodelay(true)?;
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        let channel = Endpoint::from(uri)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector(connect)
            .await?;
        Ok(channel)
    }

    /// The root file is read anew each time; the roots that came with the certificate count as well, so that the
    /// control plane may change its root.
    fn tls(&self, identity: Option<&Identity>) -> Result<ClientConfig, ConnectError> {
        let path = &self.settings.root;
        let pem = std::fs::read(path)
            .map_err(|source| ConnectError::Root { path: path.clone(), source })?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.map_err(|_| ConnectError::NoRoot(path.clone()))?)?;
        }
        if roots.is_empty() {
            return Err(ConnectError::NoRoot(path.clone()));
        }
        roots.add_parsable_certificates(
            identity.iter().flat_map(|identity| identity.roots.iter().cloned()),
        );
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(identity) => {
                builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}
