//! The cipher suites of TLS 1.2 that gateways offer, by the names that resources have for them.

/// OpenSSL's name, and that of the standard.
const OFFERED: [(&str, &str); 6] = [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ("ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ("ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
];

/// The short name of a cipher suite that gateways offer; `None` for one that they do not.
pub fn offered(name: &str) -> Option<&'static str> {
    OFFERED
        .into_iter()
        .find(|(openssl, standard)| name == *openssl || name == *standard)
        .map(|(openssl, _)| openssl)
}

/// The suites that are offered, by their short names.
pub fn all() -> impl Iterator<Item = &'static str> {
    OFFERED.into_iter().map(|(openssl, _)| openssl)
}
