//! The certificates of a cluster: one authority for everything, new with every `up`.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use super::folder::Folder;

/// Names that the API server is called by; the addresses are those of the node and of the Service `kubernetes`.
const API_SERVER_NAMES: [&str; 11] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
    "127.0.0.1",
    "10.96.0.1",
    "fd00:96::1",
    "172.30.0.2",
    "fd00:30::2",
    "::1",
];

/// Client certificates: file, common name, organisation. The API server takes them as user and group.
const CLIENTS: [(&str, &str, &str); 6] = [
    ("admin", "admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("kube-proxy", "system:kube-proxy", ""),
    ("kubelet", "system:node:node", "system:nodes"),
    ("apiserver-to-kubelet", "apiserver-to-kubelet", "system:masters"),
];

/// Paths of a certificate and of its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// PEM of the certificate.
    pub certificate: PathBuf,
    /// PEM of the key.
    pub key: PathBuf,
}

/// The pair with this name in a cluster's folder.
pub fn pair(folder: &Folder, name: &str) -> Pair {
    Pair {
        certificate: folder.file(&format!("pki/{name}.crt")),
        key: folder.file(&format!("pki/{name}.key")),
    }
}

struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(folder: &Folder, name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("weft-cluster {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        write(folder, name, &certificate.pem(), &key)?;
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    fn issue(
        &self,
        folder: &Folder,
        name: &str,
        mut params: CertificateParams,
        usages: &[ExtendedKeyUsagePurpose],
    ) -> anyhow::Result<()> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        write(folder, name, &certificate.pem(), &key)
    }
}

fn write(folder: &Folder, name: &str, certificate: &str, key: &KeyPair) -> anyhow::Result<()> {
    folder.write(&format!("pki/{name}.crt"), certificate.as_bytes())?;
    folder.write(&format!("pki/{name}.key"), key.serialize_pem().as_bytes())
}

fn subject(
    common_name: &str,
    organisation: &str,
    names: &[&str],
) -> anyhow::Result<CertificateParams> {
    let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    if !organisation.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, organisation);
    }
    Ok(params)
}

/// Makes them all; returns the authority's certificate (PEM).
///
/// # Errors
/// When a file cannot be written.
pub fn make(folder: &Folder) -> anyhow::Result<String> {
    let authority = Authority::new(folder, "ca")?;
    let server = [ExtendedKeyUsagePurpose::ServerAuth];
    let client = [ExtendedKeyUsagePurpose::ClientAuth];
    let api_server = subject("kube-apiserver", "", &API_SERVER_NAMES)?;
    authority.issue(folder, "apiserver", api_server, &server)?;
    let kubelet =
        subject("system:node:node", "system:nodes", &["node", "172.30.0.2", "fd00:30::2"])?;
    authority.issue(folder, "kubelet-server", kubelet, &server)?;
    for (name, common_name, organisation) in CLIENTS {
        authority.issue(folder, name, subject(common_name, organisation, &[])?, &client)?;
    }
    // The aggregation layer trusts whoever this one signed to name any user.
    let front = Authority::new(folder, "front-proxy-ca")?;
    front.issue(folder, "front-proxy", subject("front-proxy-client", "", &[])?, &client)?;
    let accounts = KeyPair::generate()?;
    folder.write("pki/service-accounts.key", accounts.serialize_pem().as_bytes())?;
    folder.write("pki/service-accounts.pub", accounts.public_key_pem().as_bytes())?;
    Ok(authority.certificate.pem())
}
