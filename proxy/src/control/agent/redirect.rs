//! Where a probe goes on when the application sends it elsewhere: within the same host, as the kubelet does. What would
//! lead to another host is the answer itself.

use http::{HeaderMap, StatusCode, Uri, header::LOCATION, uri::Authority};

/// One request of a probe, as far as redirections change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The port.
    pub port: u16,
    /// By TLS.
    pub tls: bool,
    /// Path and query.
    pub path: Uri,
    /// The authority that the redirection named, in place of the probe's own.
    pub authority: Option<Authority>,
}

impl Step {
    /// The step after this one, when the answer is a redirection that `is_same` host serves.
    pub fn next(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        is_same: impl Fn(&str) -> bool,
    ) -> Option<Self> {
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        let location = headers.get(LOCATION)?.to_str().ok()?;
        let location = location.split('#').next().filter(|location| !location.is_empty())?;
        let (tls, rest) = match location.split_once(':') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, _)) if is_scheme(scheme) => return None,
            _ => (self.tls, location),
        };
        let Some(named) = rest.strip_prefix("//") else {
            return Some(Self { path: self.relative(rest)?, tls, ..self.clone() });
        };
        let end = named.find(['/', '?']).unwrap_or(named.len());
        let (authority, path) = named.split_at(end);
        let authority: Authority = authority.parse().ok()?;
        if !is_same(authority.host().trim_matches(['[', ']'])) {
            return None;
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Some(Self {
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            path: format!("{slash}{path}").parse().ok()?,
            authority: Some(authority),
        })
    }

    /// A reference without an authority, from here.
    fn relative(&self, reference: &str) -> Option<Uri> {
        let here = self.path.path();
        let path = if reference.starts_with('/') {
            reference.to_owned()
        } else if reference.starts_with('?') {
            format!("{here}{reference}")
        } else {
            let folder = &here[..here.rfind('/').map_or(0, |slash| slash + 1)];
            format!("{folder}{reference}")
        };
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path.as_str(), None),
        };
        let mut resolved = without_dots(path);
        if let Some(query) = query {
            resolved.push('?');
            resolved.push_str(query);
        }
        resolved.parse().ok()
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// RFC 3986, 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if segments.peek().is_none() {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(
        status: u16,
        location: Option<&'static str>,
    ) -> Option<(u16, bool, String, Option<String>)> {
        let here =
            Step { port: 8080, tls: false, path: "/a/b?x=1".parse().unwrap(), authority: None };
        let mut headers = HeaderMap::new();
        if let Some(location) = location {
            headers.insert(LOCATION, http::HeaderValue::from_static(location));
        }
        let status = StatusCode::from_u16(status).unwrap();
        let step = here.next(status, &headers, |host| ["10.0.0.1", "fd00::1"].contains(&host))?;
        let authority = step.authority.map(|authority| authority.to_string());
        Some((step.port, step.tls, step.path.to_string(), authority))
    }

    #[test]
    fn redirections_are_followed_within_the_host() {
        let named = |name: &str| Some(name.to_owned());
        for (location, port, tls, path, authority) in [
            ("/c?y=2#top", 8080, false, "/c?y=2", None),
            ("c", 8080, false, "/a/c", None),
            ("../c/./d/..", 8080, false, "/c/", None),
            ("?z=3", 8080, false, "/a/b?z=3", None),
            ("http://10.0.0.1:9090/c", 9090, false, "/c", named("10.0.0.1:9090")),
            ("HTTPS://10.0.0.1", 443, true, "/", named("10.0.0.1")),
            ("//10.0.0.1?q", 80, false, "/?q", named("10.0.0.1")),
            ("https://[fd00::1]:8443/c", 8443, true, "/c", named("[fd00::1]:8443")),
            ("/c:d", 8080, false, "/c:d", None),
        ] {
            for status in [301, 302, 303, 307, 308] {
                let expected = Some((port, tls, path.to_owned(), authority.clone()));
                assert_eq!(next(status, Some(location)), expected, "{status} {location}");
            }
        }
    }

    #[test]
    fn everything_else_is_the_answer_itself() {
        for (status, location) in [
            (200, Some("/c")),
            (300, Some("/c")),
            (304, Some("/c")),
            (302, None),
            (302, Some("")),
            (302, Some("#top")),
            (302, Some("http://10.0.0.2/c")),
            (302, Some("//shop.example/c")),
            (302, Some("http://user@shop.example:x/")),
            (302, Some("ftp://10.0.0.1/c")),
            (302, Some("http:///c")),
        ] {
            assert_eq!(next(status, location), None, "{status} {location:?}");
        }
    }
}
