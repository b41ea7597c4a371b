//! `/certs`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::Identity;

/// The certificate and its roots, as Envoy shows them.
pub fn certs(identity: Option<&Identity>) -> Value {
    let Some(identity) = identity else {
        return json!({"certificates": []});
    };
    let roots: Vec<Value> = identity
        .roots
        .iter()
        .filter_map(|der| {
            let (_, root) = X509Certificate::from_der(der).ok()?;
            let serial: String =
                root.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
            let time = |timestamp: i64| {
                UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or_default())
            };
            let validity = root.validity();
            Some(certificate(
                &serial,
                &[],
                time(validity.not_before.timestamp()),
                time(validity.not_after.timestamp()),
            ))
        })
        .collect();
    let names = [json!({"uri": identity.id.to_string()})];
    let chain = certificate(&identity.serial, &names, identity.not_before, identity.not_after);
    json!({"certificates": [{"ca_cert": roots, "cert_chain": [chain]}]})
}

fn certificate(
    serial: &str,
    names: &[Value],
    not_before: SystemTime,
    not_after: SystemTime,
) -> Value {
    let left = not_after.duration_since(SystemTime::now()).unwrap_or_default();
    json!({
        "path": "<inline>",
        "serial_number": serial,
        "subject_alt_names": names,
        "days_until_expiration": (left.as_secs() / 86_400).to_string(),
        "valid_from": rfc3339(not_before),
        "expiration_time": rfc3339(not_after),
    })
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}
