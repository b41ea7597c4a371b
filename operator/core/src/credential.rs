//! Certificates and authorities from Secrets, for the servers of Gateways (`istio-behaviours`, item 31).
//!
//! Fed by the index with the Secrets that some Gateway names and with nothing else. Private keys never show in `Debug`.

use std::{collections::BTreeSet, fmt, sync::Arc};

use weft_crds::{
    FieldError,
    networking::{GatewaySpec, Server, ServerTlsMode, ServerTlsSettings},
};

use crate::store::Store;

/// What is appended to a credential's name for its authorities' Secret.
const AUTHORITIES: &str = "-cacert";
/// How a credential's name may begin.
const SCHEME: &str = "kubernetes://";

/// Bytes that nobody is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Confidential(Arc<[u8]>);

impl Confidential {
    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Confidential {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Confidential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[confidential]")
    }
}

/// A certificate with its chain and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// The certificate, then those that signed it.
    pub chain: Arc<[u8]>,
    /// Its key.
    pub key: Confidential,
}

/// What a Secret holds: a pair, authorities, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credential {
    /// Certificate and key.
    pub pair: Option<KeyPair>,
    /// Authorities that clients' certificates must come from, in PEM.
    pub authorities: Option<Arc<[u8]>>,
}

/// A Secret that some Gateway names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialState {
    /// Its last version that was good.
    pub good: Option<Arc<Credential>>,
    /// What is wrong with its latest version.
    pub errors: Vec<FieldError>,
}

/// The namespaces whose Secrets are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretNamespaces {
    /// All of them.
    All,
    /// These.
    Named(BTreeSet<String>),
    /// Nobody says what there is: every secret that is named may exist.
    Unknown,
}

impl SecretNamespaces {
    /// Whether Secrets of this namespace are read.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(namespace),
            Self::Unknown => false,
        }
    }
}

/// Secrets by namespace and name.
#[derive(Clone, Debug, PartialEq)]
pub struct CredentialTable {
    /// Whose Secrets are read.
    pub namespaces: SecretNamespaces,
    states: Store<Arc<str>, Arc<CredentialState>>,
}

impl Default for CredentialTable {
    fn default() -> Self {
        Self { namespaces: SecretNamespaces::All, states: Store::default() }
    }
}

/// Why a credential cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CredentialFault {
    /// Secrets of the proxy's namespace are not read.
    NotRead {
        /// The namespace.
        namespace: String,
        /// The Secret.
        name: String,
    },
    /// The name is of a Secret that a proxy of this namespace may not have, or of none at all.
    Foreign {
        /// The proxy's namespace.
        namespace: String,
        /// What is named.
        name: String,
    },
    /// There is no such Secret.
    Missing {
        /// The namespace.
        namespace: String,
        /// The Secret.
        name: String,
    },
    /// The Secret was never of use.
    Invalid {
        /// The namespace.
        namespace: String,
        /// The Secret.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl CredentialFault {
    /// The reason as conditions have it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotRead { .. } => "SecretNotRead",
            Self::Foreign { .. } => "SecretNotAllowed",
            Self::Missing { .. } => "SecretNotFound",
            Self::Invalid { .. } => "SecretInvalid",
        }
    }
}

impl fmt::Display for CredentialFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRead { namespace, name } => write!(
                f,
                "Secret {namespace}/{name} is not read: the operator's --secret-namespaces does not name {namespace}"
            ),
            Self::Foreign { namespace, name } => write!(
                f,
                "credential {name:?} is not a Secret of namespace {namespace}, where the gateway's pods are"
            ),
            Self::Missing { namespace, name } => {
                write!(f, "Secret {namespace}/{name} does not exist")
            }
            Self::Invalid { namespace, name, reason } => {
                write!(f, "Secret {namespace}/{name} cannot be used: {reason}")
            }
        }
    }
}

/// The Secret that a credential's name means to a proxy of a namespace.
pub fn secret_name<'a>(namespace: &str, name: &'a str) -> Result<&'a str, CredentialFault> {
    let plain = name.strip_prefix(SCHEME).unwrap_or(name);
    let found = match plain.split_once('/') {
        Some((other, secret)) if other == namespace => secret,
        Some(_) => "",
        None => plain,
    };
    if found.is_empty() || found.contains('/') || found.contains(':') {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        return Err(CredentialFault::Foreign { namespace, name });
    }
    Ok(found)
}

/// The Secrets that a Gateway may mean, by name: their namespace is that of its pods.
pub fn named_by(spec: &GatewaySpec) -> BTreeSet<String> {
    spec.servers.iter().flat_map(named_by_server).collect()
}

/// The Secrets that a server may mean, by name.
pub fn named_by_server(server: &Server) -> BTreeSet<String> {
    let names = server.tls.iter().flat_map(|tls: &ServerTlsSettings| {
        [&tls.credential_name, &tls.ca_cert_credential_name]
            .into_iter()
            .chain(&tls.credential_names)
            .filter(|name| !name.is_empty())
    });
    names
        .map(|name| name.rsplit('/').next().unwrap_or(name))
        .flat_map(|name| [name.to_owned(), format!("{name}{AUTHORITIES}")])
        .collect()
}

/// The credential whose authorities clients' certificates must come from, where they are not in a file.
pub fn authorities_of(tls: &ServerTlsSettings) -> Option<&str> {
    if !matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual) {
        return None;
    }
    let named = [&tls.ca_cert_credential_name, &tls.credential_name];
    let first = named.into_iter().chain(tls.credential_names.first());
    first.map(String::as_str).find(|name| !name.is_empty())
}

impl CredentialTable {
    /// A Secret that some Gateway names.
    pub fn state(&self, namespace: &str, name: &str) -> Option<&Arc<CredentialState>> {
        self.states.get(&*key(namespace, name))
    }

    /// Sets what is known of a Secret; says whether that changed anything.
    pub fn set(&mut self, namespace: &str, name: &str, state: Option<CredentialState>) -> bool {
        let key: Arc<str> = key(namespace, name).into();
        match state {
            Some(state) => self.states.set(key, Arc::new(state)),
            None => self.states.remove(&key).is_some(),
        }
    }

    /// Certificate and key that a credential's name means to proxies of a namespace.
    ///
    /// # Errors
    /// Why there is none.
    pub fn key_pair(&self, namespace: &str, name: &str) -> Result<KeyPair, CredentialFault> {
        let name = secret_name(namespace, name)?;
        let credential = self.good(namespace, name)?;
        credential.pair.clone().ok_or_else(|| {
            invalid(namespace, name, "it has no certificate with key (tls.crt and tls.key)")
        })
    }

    /// The authorities that a credential's name means: those of the Secret itself, else of the one named with `-cacert`.
    ///
    /// # Errors
    /// Why there are none.
    pub fn authorities(&self, namespace: &str, name: &str) -> Result<Arc<[u8]>, CredentialFault> {
        let name = secret_name(namespace, name)?;
        let own = self.good(namespace, name);
        if let Ok(credential) = &own
            && let Some(authorities) = &credential.authorities
        {
            return Ok(authorities.clone());
        }
        let beside = format!("{name}{AUTHORITIES}");
        let found = self.good(namespace, &beside);
        match found.map(|credential| credential.authorities.clone()) {
            Ok(Some(authorities)) => Ok(authorities),
            Ok(None) => Err(invalid(namespace, &beside, "it has no authorities (ca.crt)")),
            Err(CredentialFault::Missing { .. }) => Err(own.err().unwrap_or_else(|| {
                let reason = format!("it has no authorities (ca.crt), and there is no {beside}");
                invalid(namespace, name, &reason)
            })),
            Err(other) => Err(other),
        }
    }

    fn good(&self, namespace: &str, name: &str) -> Result<&Arc<Credential>, CredentialFault> {
        let fault = || (namespace.to_owned(), name.to_owned());
        if !self.namespaces.includes(namespace) {
            let (namespace, name) = fault();
            return Err(CredentialFault::NotRead { namespace, name });
        }
        let Some(state) = self.state(namespace, name) else {
            let (namespace, name) = fault();
            return Err(CredentialFault::Missing { namespace, name });
        };
        state.good.as_ref().ok_or_else(|| {
            let reasons: Vec<String> = state.errors.iter().map(ToString::to_string).collect();
            invalid(namespace, name, &reasons.join("; "))
        })
    }
}

fn invalid(namespace: &str, name: &str, reason: &str) -> CredentialFault {
    CredentialFault::Invalid {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        reason: reason.to_owned(),
    }
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_a_secret_of_the_proxys_namespace() {
        for (name, expected) in [
            ("shop", Some("shop")),
            ("kubernetes://shop", Some("shop")),
            ("kubernetes://edge/shop", Some("shop")),
            ("edge/shop", Some("shop")),
            ("kubernetes://other/shop", None),
            ("other/shop", None),
            ("file://shop", None),
            ("kubernetes://", None),
        ] {
            assert_eq!(secret_name("edge", name).ok(), expected, "{name}");
        }
    }

    #[test]
    fn authorities_are_in_the_secret_or_beside_it() {
        let with = |authorities: Option<&[u8]>| CredentialState {
            good: Some(Arc::new(Credential {
                authorities: authorities.map(Into::into),
                ..Credential::default()
            })),
            errors: Vec::new(),
        };
        let mut table = CredentialTable::default();
        let fault = |table: &CredentialTable| {
            table.authorities("ns", "shop").map_err(|fault| fault.to_string())
        };
        assert_eq!(fault(&table), Err("Secret ns/shop does not exist".into()));
        table.set("ns", "shop", Some(with(None)));
        assert_eq!(
            fault(&table),
            Err("Secret ns/shop cannot be used: it has no authorities (ca.crt), and there is no shop-cacert".into())
        );
        table.set("ns", "shop-cacert", Some(with(Some(b"beside"))));
        assert_eq!(fault(&table).unwrap().as_ref(), b"beside");
        table.set("ns", "shop", Some(with(Some(b"own"))));
        assert_eq!(fault(&table).unwrap().as_ref(), b"own");
        table.namespaces = SecretNamespaces::Named(BTreeSet::new());
        assert!(fault(&table).unwrap_err().contains("--secret-namespaces"));
    }

    #[test]
    fn keys_do_not_show() {
        let pair = KeyPair { chain: (*b"c").into(), key: b"key".to_vec().into() };
        assert!(format!("{pair:?}").contains("key: [confidential]"));
    }
}
