//! The identities of a run: an authority, and a certificate each for the client's and the server's sidecar.

use std::path::Path;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, string::Ia5String,
};

/// Who calls.
pub const CLIENT: &str = "spiffe://cluster.local/ns/bench/sa/client";
/// Who is called.
pub const SERVER: &str = "spiffe://cluster.local/ns/bench/sa/server";

/// Writes `ca.pem`, and for both identities certificate (`.pem`), key (`.key`) and both in one file (`.both.pem`).
///
/// # Errors
/// When the folder cannot be written to.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named("weft bench");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = params.self_signed(&key)?;
    let save = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).with_context(|| name.to_owned())
    };
    save("ca.pem", &authority.pem())?;
    let issuer = Issuer::new(params, key);
    for (name, identity) in [("client", CLIENT), ("server", SERVER)] {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // The same text twice: HAProxy 2.6 reads the common name, and no alternative name.
        params.distinguished_name = named(identity);
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity)?)];
        // HAProxy and nginx verify a server by the name of its host.
        params.subject_alt_names.push(SanType::DnsName(format!("{name}.bench").try_into()?));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &issuer)?.pem();
        let key = key.serialize_pem();
        save(&format!("{name}.pem"), &certificate)?;
        save(&format!("{name}.key"), &key)?;
        save(&format!("{name}.both.pem"), &format!("{certificate}{key}"))?;
    }
    Ok(())
}

fn named(name: &str) -> DistinguishedName {
    let mut full = DistinguishedName::new();
    full.push(DnType::CommonName, name);
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_configurations_name_is_written() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        for name in ["client", "server"] {
            let read = |end: &str| {
                std::fs::read_to_string(folder.path().join(format!("{name}{end}"))).unwrap()
            };
            assert_eq!(read(".both.pem"), read(".pem") + &read(".key"));
        }
        assert!(CLIENT.len() <= 64, "a common name has at most 64 characters");
    }
}
