//! Reads certificate signing requests: what they prove (possession of a key) and which identities they ask for.
//!
//! Nothing of a request but its public key ever reaches a certificate.

use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject};
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    public_key::PublicKey,
};

/// The largest request that is looked at, in bytes of PEM.
pub const MAX_CSR: usize = 16 << 10;
/// RSA keys below this are refused; also the smallest that rustls verifies.
const MIN_RSA_BITS: usize = 2048;

/// Why a request was refused before anybody's identity came into it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CsrError {
    /// Larger than [`MAX_CSR`].
    #[error("the request is larger than {MAX_CSR} bytes")]
    TooLarge,
    /// Not one PEM block of a request.
    #[error("the request is not PEM")]
    Pem,
    /// Not PKCS #10, or something follows it.
    #[error("the request is not PKCS #10")]
    Der,
    /// The requester does not hold the private key, or uses an algorithm that is not supported.
    #[error("the request's signature is not valid")]
    Signature,
    /// A kind or size of key that peers would not accept.
    #[error("the request's key is not P-256, P-384, Ed25519 or RSA of 2048 bits or more")]
    Key,
}

/// A signing request whose signature was verified.
#[derive(Clone, Debug)]
pub struct SigningRequest {
    /// The key to certify.
    pub public_key: SubjectPublicKeyInfo,
    /// The URI names that it asks for.
    pub uris: Vec<String>,
}

impl SigningRequest {
    /// Reads a request in PEM form and verifies its signature.
    ///
    /// # Errors
    /// See [`CsrError`]; a request with an extension that we do not know is not an error, as none is copied.
    pub fn from_pem(pem: &str) -> Result<Self, CsrError> {
        if pem.len() > MAX_CSR {
            return Err(CsrError::TooLarge);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| CsrError::Pem)?;
        let (rest, csr) = X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Der)?;
        if !rest.is_empty() {
            return Err(CsrError::Der);
        }
        let key = &csr.certification_request_info.subject_pki;
        let strong = match key.parsed().map_err(|_| CsrError::Key)? {
            PublicKey::RSA(rsa) => rsa.key_size() >= MIN_RSA_BITS,
            PublicKey::EC(_) | PublicKey::Unknown(_) => true,
            _ => false,
        };
        let public_key =
            SubjectPublicKeyInfo::from_der(key.raw).ok().filter(|_| strong).ok_or(CsrError::Key)?;
        csr.verify_signature().map_err(|_| CsrError::Signature)?;
        let uris = csr
            .requested_extensions()
            .into_iter()
            .flatten()
            .filter_map(|extension| match extension {
                ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
                _ => None,
            })
            .flatten()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some((*uri).to_owned()),
                _ => None,
            })
            .collect();
        Ok(Self { public_key, uris })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType};

    use super::*;

    fn request(key: &KeyPair, uris: &[&str]) -> String {
        let mut params = CertificateParams::new(vec!["example.com".to_owned()]).unwrap();
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn requests_with_usual_keys_are_read_with_the_uris_that_they_ask_for() {
        for key in [
            KeyPair::generate().unwrap(),
            KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
            KeyPair::generate_for(&PKCS_ED25519).unwrap(),
        ] {
            let request = SigningRequest::from_pem(&request(&key, &["spiffe://a", "b:c"])).unwrap();
            assert_eq!(request.uris, ["spiffe://a", "b:c"]);
            assert_eq!(rcgen::PublicKeyData::der_bytes(&request.public_key), key.public_key_raw());
        }
    }

    #[test]
    fn what_is_no_sound_request_is_refused() {
        let good = request(&KeyPair::generate().unwrap(), &[]);
        let mut lines: Vec<&str> = good.lines().collect();
        let body = lines[1].to_owned();
        let changed = if &body[40..41] == "A" {
            body.replacen('A', "B", 1)
        } else {
            body[..40].to_owned() + "A" + &body[41..]
        };
        lines[1] = &changed;
        let tampered = lines.join("\n");
        for (name, pem, expected) in [
            ("empty", String::new(), vec![CsrError::Pem]),
            ("garbage", "\u{0}\u{ff}".repeat(50), vec![CsrError::Pem]),
            (
                "another kind",
                good.replace("CERTIFICATE REQUEST", "PUBLIC KEY"),
                vec![CsrError::Pem],
            ),
            (
                "not PKCS #10",
                "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"
                    .into(),
                vec![CsrError::Der],
            ),
            // Depending on the bit, what was changed is the structure, the key or only what was signed.
            (
                "tampered",
                tampered,
                vec![CsrError::Signature, CsrError::Der, CsrError::Key, CsrError::Pem],
            ),
            ("oversize", good.clone() + &" ".repeat(MAX_CSR), vec![CsrError::TooLarge]),
        ] {
            let error = SigningRequest::from_pem(&pem).expect_err(name);
            assert!(expected.contains(&error), "{name}: {error}");
        }
    }

    #[test]
    fn a_request_signed_with_another_key_is_refused() {
        let (ours, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let der =
            CertificateSigningRequestDer::from_pem_slice(request(&ours, &[]).as_bytes()).unwrap();
        let position = der.windows(65).position(|window| window == ours.public_key_raw()).unwrap();
        let mut forged = der.to_vec();
        forged[position..position + 65].copy_from_slice(other.public_key_raw());
        let pem = rcgen_pem(&forged);
        assert_eq!(SigningRequest::from_pem(&pem).unwrap_err(), CsrError::Signature);
    }

    fn rcgen_pem(der: &[u8]) -> String {
        use base64::Engine;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> =
            body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            lines.join("\n")
        )
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            changes in proptest::collection::vec((0..400_usize, proptest::num::u8::ANY), 1..8),
            length in 0..400_usize,
        ) {
            let key = KeyPair::generate().unwrap();
            let pem = request(&key, &["spiffe://a/ns/b/sa/c"]);
            let original = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
            let mut der = original.to_vec();
            for (position, byte) in changes {
                let position = position % der.len();
                der[position] = byte;
            }
            der.truncate(length.max(1));
            // A change beside what is signed may pass; what is taken from the request is then what was signed.
            if let Ok(read) = SigningRequest::from_pem(&rcgen_pem(&der)) {
                proptest::prop_assert_eq!(read.uris, ["spiffe://a/ns/b/sa/c"]);
                proptest::prop_assert_eq!(
                    rcgen::PublicKeyData::der_bytes(&read.public_key),
                    key.public_key_raw()
                );
            }
        }
    }
}
