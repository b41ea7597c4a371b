//! Gateway: what the proxies at the mesh's edge accept (`istio-behaviours` 1.3, 2.3).

use std::collections::BTreeMap;

use kube::CustomResource;

use crate::{
    ResourceStatus,
    message::{enumeration, message},
};

message! {
    /// What the proxies at the mesh's edge accept: ports, protocols, hosts and certificates.
    #[derive(Eq, CustomResource)]
    #[kube(
        group = "networking.istio.io",
        version = "v1",
        kind = "Gateway",
        plural = "gateways",
        shortname = "gw",
        namespaced,
        status = "ResourceStatus",
        schema = "disabled",
        derive = "PartialEq",
        derive = "Default",
        doc = "Says what proxies at the edge of the mesh accept: ports, protocols, hosts and certificates."
    )]
    pub struct GatewaySpec {
        /// Labels of the gateway's pods, in any namespace.
        pub selector: BTreeMap<String, String>,
        /// What they accept.
        pub servers: Vec<Server>,
    }
}

message! {
    /// One port of a gateway, for some hosts.
    #[derive(Eq)]
    #[schemars(extend("required" = ["port", "hosts"]))]
    pub struct Server {
        /// The port.
        pub port: Option<Port>,
        /// The address to listen on: an IP address or `unix://` with a path. Empty is all.
        pub bind: String,
        /// The hosts: domain names, wildcards allowed, optionally after `namespace/`, where `.` is this resource's namespace
        /// and `*` any.
        #[schemars(length(min = 1))]
        pub hosts: Vec<String>,
        /// TLS with clients.
        pub tls: Option<ServerTlsSettings>,
        /// Not implemented, here or elsewhere.
        pub default_endpoint: String,
        /// A name for statistics.
        pub name: String,
    }
}

message! {
    /// A port of a gateway.
    #[derive(Eq)]
    #[schemars(extend("required" = ["number", "protocol", "name"]))]
    pub struct Port {
        /// The service's port; the pod's own where the service has another target.
        pub number: u16,
        /// HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP or TLS.
        #[schemars(length(min = 1))]
        pub protocol: String,
        /// A name.
        #[schemars(length(min = 1))]
        pub name: String,
        /// Not implemented, here or elsewhere.
        pub target_port: u16,
    }
}

message! {
    /// TLS with clients of a gateway.
    #[derive(Eq)]
    #[schemars(extend("x-weft-one-of" = [["credentialName", "credentialNames", "tlsCertificates"]]))]
    pub struct ServerTlsSettings {
        /// Answers plain HTTP with a redirect to HTTPS.
        pub https_redirect: bool,
        /// The kind of TLS.
        pub mode: ServerTlsMode,
        /// File with the server's certificate.
        pub server_certificate: String,
        /// File with the server's key.
        pub private_key: String,
        /// File with the authorities that clients' certificates must come from.
        pub ca_certificates: String,
        /// File with revoked certificates.
        pub ca_crl: String,
        /// Secret with certificate and key, in the gateway pods' namespace.
        pub credential_name: String,
        /// Several such secrets, for different kinds of key.
        #[schemars(length(max = 2))]
        pub credential_names: Vec<String>,
        /// Secret or ConfigMap with the authorities that clients' certificates must come from.
        pub ca_cert_credential_name: String,
        /// Several pairs of files, for different kinds of key.
        #[schemars(length(max = 2))]
        pub tls_certificates: Vec<TlsCertificate>,
        /// Names of which a client's certificate must have one.
        pub subject_alt_names: Vec<String>,
        /// SHA-256 of public keys (base64) of which a client's certificate must have one.
        pub verify_certificate_spki: Vec<String>,
        /// SHA-256 of certificates (hexadecimal) of which a client's must be one.
        pub verify_certificate_hash: Vec<String>,
        /// The least version of TLS. TLS_AUTO is 1.2.
        pub min_protocol_version: TlsProtocol,
        /// The greatest version of TLS. TLS_AUTO is 1.3.
        pub max_protocol_version: TlsProtocol,
        /// Cipher suites for TLS 1.2. None means the default list.
        pub cipher_suites: Vec<String>,
        /// Accepts any certificate of clients.
        pub insecure_skip_verify: Option<bool>,
    }
}

enumeration! {
    /// The kind of TLS with clients of a gateway.
    pub enum ServerTlsMode {
        /// Not terminated: routed by server name.
        Passthrough = "PASSTHROUGH",
        /// TLS that asks for no certificate.
        Simple = "SIMPLE",
        /// TLS that demands a certificate.
        Mutual = "MUTUAL",
        /// Not terminated: the server name says the destination in the mesh.
        AutoPassthrough = "AUTO_PASSTHROUGH",
        /// TLS of the mesh, with the gateway's own identity.
        IstioMutual = "ISTIO_MUTUAL",
        /// TLS that asks for a certificate and does without.
        OptionalMutual = "OPTIONAL_MUTUAL",
    }
}

enumeration! {
    /// A version of TLS.
    pub enum TlsProtocol {
        /// The default.
        Auto = "TLS_AUTO",
        /// TLS 1.0; not offered.
        V1_0 = "TLSV1_0",
        /// TLS 1.1; not offered.
        V1_1 = "TLSV1_1",
        /// TLS 1.2.
        V1_2 = "TLSV1_2",
        /// TLS 1.3.
        V1_3 = "TLSV1_3",
    }
}

message! {
    /// Files with a certificate and its key.
    #[derive(Eq)]
    pub struct TlsCertificate {
        /// File with the server's certificate.
        pub server_certificate: String,
        /// File with the server's key.
        pub private_key: String,
        /// File with the authorities that clients' certificates must come from.
        pub ca_certificates: String,
    }
}
