//! Secrets that Gateways name: read, checked, and kept at their last good version.
//!
//! Of every Secret only what may be a certificate, a key or authorities is kept, and only what some Gateway names gets
//! into snapshots. A version that cannot be used leaves the one before in effect and is reported to the Gateway's status.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Secret;
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use weft_core::{
    change::Change,
    credential::{Confidential, Credential, CredentialState, KeyPair, named_by},
    resource::ResourceRef,
    snapshot::Snapshot,
};
use weft_crds::FieldError;

use crate::object::ObjectKey;

/// Secrets by what they are for. Of two names for the same thing the first counts (`istio-behaviours`, item 31).
const CHAIN: [&str; 2] = ["tls.crt", "cert"];
const KEY: [&str; 2] = ["tls.key", "key"];
const AUTHORITIES: [&str; 2] = ["ca.crt", "cacert"];
/// What a Secret's name may end with that only has authorities.
const BESIDE: &str = "-cacert";

/// The part of a Secret that may be a credential.
type Parts = BTreeMap<&'static str, Confidential>;

/// Secrets that may be named, and which of them are to be read anew.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    known: BTreeMap<ObjectKey, Parts>,
    /// The names that Gateways have for secrets.
    named: BTreeSet<String>,
    stale: BTreeSet<ObjectKey>,
    stale_names: bool,
}

impl Secrets {
    /// A Secret is there, or gone; says whether that matters to anybody.
    pub fn set(&mut self, reference: &ResourceRef, secret: Option<&Secret>) -> bool {
        let key: ObjectKey = (reference.namespace.clone(), reference.name.clone());
        let parts = secret.map(parts).filter(|parts| !parts.is_empty());
        // One that has nothing of use is told from one that does not exist where it is named.
        let named = self.named.contains(&*key.1);
        let parts = parts.or_else(|| secret.filter(|_| named).map(|_| Parts::new()));
        if self.known.get(&key) == parts.as_ref() {
            return false;
        }
        match parts {
            Some(parts) => _ = self.known.insert(key.clone(), parts),
            None => _ = self.known.remove(&key),
        }
        if named {
            self.stale.insert(key);
        }
        named
    }

    /// A Gateway changed, if `changed`: other Secrets may be named.
    pub fn touch_names(&mut self, changed: bool) {
        self.stale_names |= changed;
    }

    /// Brings the snapshot's credentials up to date.
    pub fn refresh(&mut self, next: &mut Snapshot, change: &mut Change) {
        if std::mem::take(&mut self.stale_names) {
            let named = next.gateways.iter().flat_map(|gateway| named_by(&gateway.spec)).collect();
            let before = std::mem::replace(&mut self.named, named);
            let differs = |name: &str| before.contains(name) != self.named.contains(name);
            self.stale.extend(self.known.keys().filter(|(_, name)| differs(name)).cloned());
        }
        for (namespace, name) in std::mem::take(&mut self.stale) {
            let key = (namespace.clone(), name.clone());
            let parts = self.known.get(&key).filter(|_| self.named.contains(&*name));
            let before = next.credentials.state(&namespace, &name).cloned();
            let state = parts.map(|parts| match read(&name, parts) {
                Ok(credential) => {
                    CredentialState { good: Some(Arc::new(credential)), errors: Vec::new() }
                }
                Err(errors) => {
                    CredentialState { good: before.and_then(|state| state.good.clone()), errors }
                }
            });
            change.gateways |= next.credentials.set(&namespace, &name, state);
        }
    }
}

/// What of a Secret may be a credential.
fn parts(secret: &Secret) -> Parts {
    let mut found = Parts::new();
    for name in CHAIN.into_iter().chain(KEY).chain(AUTHORITIES) {
        let text = secret.string_data.as_ref().and_then(|data| data.get(name));
        let bytes = secret.data.as_ref().and_then(|data| data.get(name));
        let value = text.map(|text| text.clone().into_bytes());
        // What is written as text comes over the rest, as the API server has it.
        if let Some(value) = value.or_else(|| bytes.map(|bytes| bytes.0.clone()))
            && !value.is_empty()
        {
            found.insert(name, value.into());
        }
    }
    found
}

fn error(field: &str, reason: impl Into<String>) -> FieldError {
    FieldError { path: format!("data[{field}]"), reason: reason.into() }
}

/// A Secret as a credential.
fn read(name: &str, parts: &Parts) -> Result<Credential, Vec<FieldError>> {
    let first = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| Some((name, parts.get(name)?)))
    };
    let mut errors = Vec::new();
    let mut credential = Credential::default();
    match (first(CHAIN), first(KEY)) {
        (Some(chain), Some(key)) => match pair(chain, key) {
            Ok(pair) => credential.pair = Some(pair),
            Err(found) => errors.push(found),
        },
        (Some((chain, _)), None) => {
            errors.push(error(KEY[0], format!("is required beside {chain}")));
        }
        (None, Some((key, _))) => errors.push(error(CHAIN[0], format!("is required beside {key}"))),
        (None, None) => {}
    }
    if let Some((field, authorities)) = first(AUTHORITIES) {
        match check_authorities(authorities.expose()) {
            Ok(()) => credential.authorities = Some(authorities.expose().into()),
            Err(reason) => errors.push(error(field, reason)),
        }
    }
    if errors.is_empty() && credential == Credential::default() {
        let field = if name.ends_with(BESIDE) { AUTHORITIES[0] } else { CHAIN[0] };
        errors.push(error(field, "is required"));
    }
    if errors.is_empty() { Ok(credential) } else { Err(errors) }
}

/// A certificate and its key, which must belong together.
fn pair(
    (chain_field, chain): (&str, &Confidential),
    (key_field, key): (&str, &Confidential),
) -> Result<KeyPair, FieldError> {
    let certificates = certificates(chain.expose()).map_err(|reason| error(chain_field, reason))?;
    let parsed = PrivateKeyDer::from_pem_slice(key.expose())
        .map_err(|cause| error(key_field, format!("is not a private key in PEM: {cause}")))?;
    CertifiedKey::from_der(certificates, parsed, &aws_lc_rs::default_provider())
        .map_err(|cause| error(key_field, format!("does not go with {chain_field}: {cause}")))?;
    Ok(KeyPair { chain: chain.expose().into(), key: key.clone() })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|cause| format!("is not PEM: {cause}"))?;
    if found.is_empty() { Err("has no certificate in PEM".into()) } else { Ok(found) }
}

fn check_authorities(pem: &[u8]) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|cause| format!("is not an authority: {cause}"))?;
    }
    Ok(())
}
