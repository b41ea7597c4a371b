//! What consistent hashing goes by: headers, cookies (made where they are missing), the client's address, query
//! parameters. Source: Envoy's `HashPolicyImpl`.

use std::{net::SocketAddr, time::Duration};

use ::http::{HeaderMap, HeaderValue, header};

use crate::{
    config::route::HashPolicy,
    http::{
        head::{Head, joined},
        matching::query_value,
    },
    net::cluster::hash,
};

/// A request's hash, and the cookies that make the client's next requests hash alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// `None`: nothing to go by.
    pub hash: Option<u64>,
    /// For the response.
    pub cookies: Vec<HeaderValue>,
}

impl Affinity {
    /// By the route's policies, in order, up to the first terminal one that finds something.
    pub fn new(policies: &[HashPolicy], head: &Head, remote: SocketAddr) -> Self {
        let mut affinity = Self::default();
        for policy in policies {
            let (found, terminal) = affinity.find(policy, head, remote);
            if let Some(found) = found {
                affinity.hash = Some(hash::combine(affinity.hash, found));
                if terminal {
                    break;
                }
            }
        }
        affinity
    }

    fn find(
        &mut self,
        policy: &HashPolicy,
        head: &Head,
        remote: SocketAddr,
    ) -> (Option<u64>, bool) {
        let of = |text: &str| hash::xxh64(text.as_bytes(), 0);
        match policy {
            HashPolicy::Header { name, terminal } => {
                (joined(&head.headers, name.as_str()).map(|value| of(&value)), *terminal)
            }
            HashPolicy::Cookie { name, path, ttl, terminal } => {
                let value = match (cookie(&head.headers, name), ttl) {
                    (Some(value), _) => Some(of(value)),
                    // Without a lifetime the cookie is the application's to set.
                    (None, None) => None,
                    (None, Some(ttl)) => {
                        let made = format!("{:016x}", fastrand::u64(..));
                        self.cookies.extend(set_cookie(name, &made, path, *ttl));
                        Some(of(&made))
                    }
                };
                (value, *terminal)
            }
            HashPolicy::SourceIp { terminal } => (Some(of(&remote.ip().to_string())), *terminal),
            HashPolicy::Query { name, terminal } => {
                let query = head.target.query().unwrap_or_default();
                (query_value(query, name).map(|value| of(&value)), *terminal)
            }
        }
    }
}

/// A lifetime of nothing is that of the client's session.
fn set_cookie(name: &str, value: &str, path: &str, ttl: Duration) -> Option<HeaderValue> {
    let age = if ttl.is_zero() { String::new() } else { format!("; Max-Age={}", ttl.as_secs()) };
    let path = if path.is_empty() { String::new() } else { format!("; Path={path}") };
    HeaderValue::try_from(format!("{name}=\"{value}\"{age}{path}; HttpOnly")).ok()
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::tests::head;

    fn affinity(policies: &[HashPolicy], headers: &[(&str, &str)]) -> Affinity {
        let request = head("GET", "a", "/?user=7", headers);
        Affinity::new(policies, &request, "10.0.0.1:5000".parse().unwrap())
    }

    fn cookie_policy(ttl: Option<u64>) -> HashPolicy {
        HashPolicy::Cookie {
            name: "session".into(),
            path: "/shop".into(),
            ttl: ttl.map(Duration::from_secs),
            terminal: false,
        }
    }

    #[test]
    fn equal_inputs_hash_alike_and_the_first_terminal_policy_ends_the_search() {
        let name = ::http::HeaderName::from_static;
        let user = HashPolicy::Header { name: name("x-user"), terminal: true };
        let source = HashPolicy::SourceIp { terminal: false };
        let query = HashPolicy::Query { name: "user".into(), terminal: false };
        let by = |policies: &[&HashPolicy], user: &str| {
            let policies: Vec<_> = policies.iter().map(|policy| (*policy).clone()).collect();
            affinity(&policies, &[("x-user", user)]).hash
        };
        let nothing = |policies: &[&HashPolicy]| {
            let policies: Vec<_> = policies.iter().map(|policy| (*policy).clone()).collect();
            affinity(&policies, &[]).hash
        };
        assert_eq!(by(&[&user], "1"), by(&[&user, &source], "1"));
        assert_ne!(by(&[&user], "1"), by(&[&user], "2"));
        assert_ne!(by(&[&source], "1"), by(&[&source, &query], "1"));
        assert_eq!(nothing(&[&user]), None);
        assert_eq!(nothing(&[&user, &query]), nothing(&[&query]));
    }

    #[test]
    fn cookies_are_read_and_made_where_they_have_a_lifetime() {
        let given = [("cookie", "a=b; session=\"x\"")];
        assert_eq!(
            affinity(&[cookie_policy(Some(5))], &given),
            affinity(&[cookie_policy(None)], &given)
        );
        assert_eq!(affinity(&[cookie_policy(None)], &[]), Affinity::default());
        for (ttl, tail) in [(5, "; Max-Age=5; Path=/shop; HttpOnly"), (0, "; Path=/shop; HttpOnly")]
        {
            let made = affinity(&[cookie_policy(Some(ttl))], &[]);
            let [cookie] = &*made.cookies else { panic!("{made:?}") };
            let pair = cookie.to_str().unwrap().strip_suffix(tail).unwrap().to_owned();
            let again = affinity(&[cookie_policy(Some(ttl))], &[("cookie", &pair)]);
            assert_eq!(again, Affinity { hash: made.hash, cookies: Vec::new() });
        }
    }
}
