//! Identities, and TLS between proxies.

use super::*;

/// A mesh's authority.
pub struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self(rcgen::CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// A workload's certificate.
    pub fn identity(&self, service_account: &str, generation: u64) -> Identity {
        let id = SpiffeId::new("cluster.local", "default", service_account);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(id.to_string().try_into().unwrap())];
        let certificate = params.signed_by(&key, &*self.0).unwrap();
        let now = std::time::SystemTime::now();
        Identity {
            generation,
            id,
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            roots: vec![CertificateDer::from(self.0.der().to_vec())],
            serial: "1".into(),
            not_before: now,
            not_after: now + Duration::from_secs(3_600),
        }
    }
}

fn protocols(list: &[&str]) -> Vec<Box<[u8]>> {
    list.iter().map(|protocol| protocol.as_bytes().into()).collect()
}

/// What a server in the mesh asks of its clients.
pub fn downstream_tls(alpn: &[&str]) -> Arc<DownstreamTls> {
    Arc::new(DownstreamTls {
        certificates: vec![TlsSource::Mesh],
        trust: Some(TlsSource::Mesh),
        require_client_certificate: true,
        subject_alt_names: Vec::new(),
        alpn: protocols(alpn),
        versions: TlsVersions::Tls13,
        cipher_suites: Vec::new(),
        resumption: true,
    })
}

/// A cluster whose endpoints are spoken to in the mesh's TLS, and must be this service account.
pub fn meshed(mut cluster: Cluster, service_account: &str, alpn: &[&str]) -> Cluster {
    let expected = SpiffeId::new("cluster.local", "default", service_account).to_string();
    cluster.transports = vec![TransportSocket {
        name: "tlsMode-istio".into(),
        matches: Vec::new(),
        tls: Some(Arc::new(UpstreamTls {
            identity: Some(TlsSource::Mesh),
            trust: Some(TlsSource::Mesh),
            subject_alt_names: vec![StringMatcher::Exact {
                value: expected.into(),
                ignore_case: false,
            }],
            sni: "outbound_.80_._.order.default.svc.cluster.local".into(),
            auto_sni: false,
            alpn: protocols(alpn),
            versions: TlsVersions::Tls13,
        })),
    }];
    let endpoint = |old: &Arc<Endpoint>| {
        Arc::new(Endpoint {
            address: old.address,
            hostname: None,
            priority: 0,
            weight: 1,
            healthy: true,
            transport: Some(0),
            locality: Default::default(),
            workload: None,
            state: old.state.clone(),
        })
    };
    cluster.endpoints =
        Arc::new(Endpoints { all: cluster.endpoints.all.iter().map(endpoint).collect() });
    cluster
}

/// The chain of a port that takes what the mesh's clients send over TLS.
pub fn mutual_tls(mut chain: FilterChain, alpn: &[&str]) -> FilterChain {
    let offered = ["istio-http/1.0", "istio-http/1.1", "istio-h2", "istio", "istio-peer-exchange"];
    chain.matches.transport = Some(TransportMatch::Tls);
    chain.matches.application_protocols = protocols(&offered);
    chain.tls = Some(downstream_tls(alpn));
    chain
}
