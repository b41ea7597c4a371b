//! Names of TLS 1.2's cipher suites, as Envoy's configuration has them (OpenSSL's names, BoringSSL's groups).

use rustls::CipherSuite;

use super::invalid::{At, Invalid};

/// Suites that are spoken here, by both of their names.
const SPOKEN: [(&str, &str, CipherSuite); 6] = [
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Suites that Envoy takes and that are not good enough here: without forward secrecy, or with CBC. They are not offered.
const WEAK: [&str; 9] = [
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

/// Those of the list that are spoken.
///
/// # Errors
/// A name that nobody knows.
pub fn parse(names: &[String]) -> Result<Vec<CipherSuite>, Invalid> {
    let mut suites = Vec::new();
    for (index, entry) in names.iter().enumerate() {
        let group = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        for name in group.unwrap_or(entry).split('|') {
            let found = SPOKEN.iter().find(|(openssl, iana, _)| name == *openssl || name == *iana);
            match found {
                Some((_, _, suite)) if !suites.contains(suite) => suites.push(*suite),
                Some(_) => {}
                None if WEAK.contains(&name) => {}
                None => {
                    return Err(Invalid::value(name, "a cipher suite"))
                        .at_index("cipher_suites", index);
                }
            }
        }
    }
    Ok(suites)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_groups_are_read() {
        let parse = |names: &[&str]| {
            parse(&names.iter().map(ToString::to_string).collect::<Vec<_>>())
                .map_err(|invalid| invalid.to_string())
        };
        assert_eq!(
            parse(&[
                "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]",
                "AES256-GCM-SHA384",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                "ECDHE-RSA-AES128-GCM-SHA256",
            ]),
            Ok(vec![
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
                CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            ])
        );
        assert_eq!(parse(&["AES128-SHA"]), Ok(vec![]));
        let unknown = parse(&["AES128-SHA", "RC4"]).unwrap_err();
        assert_eq!(unknown, "cipher_suites[1]: \"RC4\" is not a cipher suite");
    }
}
