//! Validation of PeerAuthentications.

use super::{Validation, text};
use crate::{path::Path, security::PeerAuthenticationSpec};

pub(super) fn validate(spec: &PeerAuthenticationSpec, report: &mut Validation) {
    let path = Path::root("spec");
    text::selector(spec.selector.as_ref(), &path.field("selector"), report);
    let selects = spec.selector.as_ref().is_some_and(|s| !s.match_labels.is_empty());
    let ports = path.field("portLevelMtls");
    if !spec.port_level_mtls.is_empty() && !selects {
        report.error(&ports, "needs a selector with matchLabels");
    }
    for port in spec.port_level_mtls.keys() {
        report.check(&ports.key(&port.to_string()), text::port(*port));
    }
}
