//! `static_resources.secrets`: certificates and trust that TLS contexts name.
//!
//! The store takes secrets with their contents, as a control plane sends them; what is in files is read once, as Envoy does.

use std::path::PathBuf;

use weft_api::xds::envoy::{
    config::core::v3::{DataSource, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{
        Secret as PbSecret, TlsCertificate, secret::Type as SecretType,
    },
};

use super::super::decode::{
    Invalid,
    invalid::{At, Reason, refuse_all},
};

/// A secret that holds everything itself.
///
/// # Errors
/// A file cannot be read, or the secret is of a kind that nothing uses.
pub fn with_contents(mut secret: PbSecret) -> Result<PbSecret, Invalid> {
    match &mut secret.r#type {
        Some(SecretType::TlsCertificate(certificate)) => {
            let TlsCertificate { certificate_chain, private_key, .. } = certificate;
            read(certificate_chain.as_mut()).at("tls_certificate.certificate_chain")?;
            read(private_key.as_mut()).at("tls_certificate.private_key")?;
        }
        Some(SecretType::ValidationContext(context)) => {
            read(context.trusted_ca.as_mut()).at("validation_context.trusted_ca")?;
        }
        other => refuse_all(&[
            (matches!(other, Some(SecretType::SessionTicketKeys(_))), "session_ticket_keys"),
            (matches!(other, Some(SecretType::GenericSecret(_))), "generic_secret"),
        ])?,
    }
    Ok(secret)
}

fn read(source: Option<&mut DataSource>) -> Result<(), Invalid> {
    let Some(source) = source else { return Ok(()) };
    if let Some(Specifier::Filename(name)) = &source.specifier {
        let path = PathBuf::from(name);
        let bytes = std::fs::read(&path).map_err(|error| {
            let reason = Reason::File { path, error: error.to_string() };
            Invalid { path: "filename".into(), reason }
        })?;
        source.specifier = Some(Specifier::InlineBytes(bytes));
    }
    Ok(())
}
