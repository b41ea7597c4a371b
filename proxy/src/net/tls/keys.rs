//! Public keys that were parsed before.
//!
//! A peer proves in every handshake that it has the key of its certificate. In a mesh the same peers come again and again,
//! and their keys are on P-256: reading one, and checking that it is a point of the curve, is done once for its bytes.

use std::cell::RefCell;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use rustls::SignatureScheme;
use rustls_pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};

use super::seen::Recent;

/// Longer keys are not kept; a point of P-256 has 65 bytes.
const LONGEST: usize = 128;

/// Algorithms by scheme, as rustls has them.
type Mapping = &'static [(SignatureScheme, Algorithms)];
type Algorithms = &'static [&'static dyn SignatureVerificationAlgorithm];

/// The same algorithms; for keys on P-256 the one that remembers keys. Made once for a process, whose it stays.
pub fn remembering(known: Mapping) -> Mapping {
    let replaced = |algorithm: &&'static dyn SignatureVerificationAlgorithm| {
        let same = algorithm.public_key_alg_id() == P256.public_key_alg_id()
            && algorithm.signature_alg_id() == P256.signature_alg_id();
        if same { &P256 } else { *algorithm }
    };
    let all = known.iter().map(|(scheme, algorithms)| {
        let algorithms: Vec<_> = algorithms.iter().map(replaced).collect();
        (*scheme, &*algorithms.leak())
    });
    all.collect::<Vec<_>>().leak()
}

static P256: Remembering = Remembering;

/// ECDSA with keys on P-256 and SHA-256.
#[derive(Debug)]
struct Remembering;

impl SignatureVerificationAlgorithm for Remembering {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        type Parsed = (Box<[u8]>, ParsedPublicKey);
        thread_local! {
            static KEYS: RefCell<Recent<Parsed>> = const { RefCell::new(Recent::new()) };
        }
        KEYS.with_borrow_mut(|keys| {
            if let Some((_, key)) = keys.find(|(seen, _)| **seen == *public_key) {
                return key.verify_sig(message, signature).map_err(|_| InvalidSignature);
            }
            let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key)
                .map_err(|_| InvalidSignature)?;
            let verified = key.verify_sig(message, signature).map_err(|_| InvalidSignature);
            // Who cannot use a key makes nobody forget others.
            if verified.is_ok() && public_key.len() <= LONGEST {
                keys.keep((public_key.into(), key));
            }
            verified
        })
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
    };
    use rustls::crypto::aws_lc_rs::default_provider;

    use super::*;

    fn key() -> EcdsaKeyPair {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()
    }

    #[test]
    fn a_key_that_is_remembered_verifies_what_it_signed_and_nothing_else() {
        let (mine, other) = (key(), key());
        let sign = |key: &EcdsaKeyPair| key.sign(&SystemRandom::new(), b"message").unwrap();
        let (signed, by_other) = (sign(&mine), sign(&other));
        let (mine, other) = (mine.public_key().as_ref(), other.public_key().as_ref());
        let mut off = mine.to_vec();
        off[64] ^= 1;
        // All twice: the first time the key is read, then it is remembered.
        for turn in 1..=2 {
            for (case, key, message, signature, holds) in [
                ("forged", mine, &b"message"[..], by_other.as_ref(), false),
                ("its own", mine, b"message", signed.as_ref(), true),
                ("another message", mine, b"massage", signed.as_ref(), false),
                ("the other's", other, b"message", by_other.as_ref(), true),
                ("cut short", mine, b"message", &signed.as_ref()[1..], false),
                ("no point of the curve", &off, b"message", signed.as_ref(), false),
                ("no key", &[], b"message", signed.as_ref(), false),
            ] {
                let verified = P256.verify_signature(key, message, signature);
                assert_eq!(verified.is_ok(), holds, "{case}, turn {turn}");
            }
        }
    }

    #[test]
    fn all_schemes_stay_and_only_keys_on_p256_with_sha_256_are_remembered() {
        let known = default_provider().signature_verification_algorithms.mapping;
        let made = remembering(known);
        let ids = |mapping: Mapping| -> Vec<_> {
            let id = |algorithm: &&dyn SignatureVerificationAlgorithm| {
                (algorithm.public_key_alg_id(), algorithm.signature_alg_id())
            };
            let of = |(scheme, all): &(SignatureScheme, Algorithms)| {
                (*scheme, all.iter().map(id).collect::<Vec<_>>())
            };
            mapping.iter().map(of).collect()
        };
        assert_eq!(ids(made), ids(known));
        let remembers = |mapping: Mapping| {
            let all = mapping.iter().flat_map(|(_, all)| all.iter());
            all.filter(|algorithm| format!("{algorithm:?}") == "Remembering").count()
        };
        assert_eq!(remembers(known), 0);
        assert!(remembers(made) > 0);
    }
}
