//! The hosts of a Gateway's server, and what they have in common with those of a VirtualService.

use crate::host;

/// A host of a server: `[namespace/]host`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerHost {
    /// The namespace whose VirtualServices may route it; `None` is any.
    pub namespace: Option<String>,
    /// The name, wildcards allowed, lower-cased.
    pub name: String,
}

impl ServerHost {
    /// Reads a host of a Gateway of this namespace.
    pub fn parse(text: &str, own: &str) -> Self {
        let (namespace, name) = text.split_once('/').unwrap_or(("*", text));
        let namespace = match namespace {
            "*" => None,
            "." => Some(own.to_owned()),
            other => Some(other.to_owned()),
        };
        Self { namespace, name: name.to_ascii_lowercase() }
    }

    /// What it has in common with a host of a VirtualService of a namespace: the more specific of both names
    /// (`istio-behaviours`, item 10).
    pub fn intersection<'a>(&'a self, namespace: &str, name: &'a str) -> Option<&'a str> {
        if self.namespace.as_ref().is_some_and(|wanted| wanted != namespace) {
            return None;
        }
        if host::covers(&self.name, name) {
            Some(name)
        } else if host::covers(name, &self.name) {
            Some(&self.name)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_virtual_service_have_the_more_specific_name_in_common() {
        let cases = [
            ("*", "a", "shop.example.com", Some("shop.example.com")),
            ("*.example.com", "a", "*", Some("*.example.com")),
            ("shop.example.com", "a", "*.example.com", Some("shop.example.com")),
            ("*.example.com", "a", "shop.example.com", Some("shop.example.com")),
            ("Shop.example.com", "a", "shop.example.com", Some("shop.example.com")),
            ("shop.example.com", "a", "other.example.com", None),
            ("*.example.com", "a", "example.com", None),
            ("./*", "own", "x.com", Some("x.com")),
            ("./*", "other", "x.com", None),
            ("b/x.com", "b", "x.com", Some("x.com")),
            ("b/x.com", "a", "x.com", None),
            ("*/x.com", "a", "x.com", Some("x.com")),
        ];
        for (server, namespace, name, expected) in cases {
            let host = ServerHost::parse(server, "own");
            assert_eq!(host.intersection(namespace, name), expected, "{server} {namespace} {name}");
        }
    }
}
