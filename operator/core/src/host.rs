//! Hostnames: short names, wildcards and which of them is more specific (`istio-behaviours` 2.1, items 1, 3 and 4).

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use crate::store::Store;

/// A name as the mesh keeps it: a name without a dot becomes `<name>.<namespace>.svc.<domain>`; anything with a dot,
/// wildcards and IP addresses stay as they are. Lower-cased.
pub fn resolve(name: &str, namespace: &str, domain: &str) -> String {
    let name = name.to_ascii_lowercase();
    if name.is_empty() || name.contains(['.', '*', ':']) {
        return name;
    }
    format!("{name}.{namespace}.svc.{domain}")
}

/// Whether a name stands for many: `*` or `*.example.com`.
pub fn is_wildcard(name: &str) -> bool {
    name.starts_with('*')
}

/// Whether everything that `name` stands for is also meant by `pattern`. Wildcards match by suffix: `*.foo.com` covers
/// `a.b.foo.com`, not `foo.com`. `name` may itself be a wildcard.
pub fn covers(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), name.strip_prefix('*')) {
        (Some(pattern), Some(name)) => name.ends_with(pattern),
        (Some(pattern), None) => name.ends_with(pattern),
        (None, Some(_)) => false,
        (None, None) => pattern == name,
    }
}

/// Whether some name is meant by both.
pub fn overlaps(a: &str, b: &str) -> bool {
    covers(a, b) || covers(b, a)
}

/// Orders names by precedence: exact names before wildcards, longer wildcards before shorter ones, then alphabetically.
pub fn most_specific_first(a: &str, b: &str) -> Ordering {
    match (is_wildcard(a), is_wildcard(b)) {
        (false, true) => Ordering::Less,
        (true, false) => Ordering::Greater,
        (true, true) => b.len().cmp(&a.len()).then_with(|| a.cmp(b)),
        (false, false) => a.cmp(b),
    }
}

/// Values by hostname, where a name may be a wildcard. Copies share what they have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct HostMap<V> {
    exact: Store<Arc<str>, V>,
    /// By what follows the `*`.
    wildcards: Arc<BTreeMap<Arc<str>, V>>,
}

impl<V> Default for HostMap<V> {
    fn default() -> Self {
        Self { exact: Store::default(), wildcards: Arc::default() }
    }
}

impl<V> HostMap<V> {
    /// The value that is kept under this very name, wildcard or not.
    pub fn get(&self, name: &str) -> Option<&V> {
        match name.strip_prefix('*') {
            Some(suffix) => self.wildcards.get(suffix),
            None => self.exact.get(name),
        }
    }

    /// The values of all names that cover this one, the most specific first.
    pub fn matching<'a, 'b>(
        &'a self,
        name: &'b str,
    ) -> impl Iterator<Item = &'a V> + use<'a, 'b, V> {
        let exact = (!is_wildcard(name)).then(|| self.exact.get(name)).flatten();
        let rest = if self.wildcards.is_empty() { "" } else { name.trim_start_matches('*') };
        let suffixes = rest.char_indices().map(|(at, _)| &rest[at..]).chain([""]);
        exact.into_iter().chain(suffixes.filter_map(|suffix| self.wildcards.get(suffix)))
    }

    /// Every value, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.exact.values().chain(self.wildcards.values())
    }

    /// Every name and value, in no order. Wildcards have their `*`.
    pub fn iter(&self) -> impl Iterator<Item = (Arc<str>, &V)> {
        let exact = self.exact.iter().map(|(name, value)| (name.clone(), value));
        exact.chain(
            self.wildcards.iter().map(|(suffix, value)| (format!("*{suffix}").into(), value)),
        )
    }
}

impl<V: Clone + Default + PartialEq> HostMap<V> {
    /// Edits the value kept under a name, starting from the default; a default value is not kept.
    pub fn edit(&mut self, name: &Arc<str>, edit: impl FnOnce(&mut V)) {
        let Some(suffix) = name.strip_prefix('*') else {
            return self.exact.edit(name, edit);
        };
        let wildcards = Arc::make_mut(&mut self.wildcards);
        let value = wildcards.entry(suffix.into()).or_default();
        edit(value);
        if *value == V::default() {
            wildcards.remove(suffix);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_those_without_a_dot() {
        let cases = [
            ("reviews", "reviews.prod.svc.cluster.local"),
            ("Reviews", "reviews.prod.svc.cluster.local"),
            ("reviews.test", "reviews.test"),
            ("*", "*"),
            ("*.foo.com", "*.foo.com"),
            ("10.0.0.1", "10.0.0.1"),
            ("::1", "::1"),
            ("", ""),
        ];
        for (name, expected) in cases {
            assert_eq!(resolve(name, "prod", "cluster.local"), expected, "{name}");
        }
    }

    #[test]
    fn wildcards_cover_by_suffix() {
        let cases = [
            ("*.foo.com", "a.foo.com", true),
            ("*.foo.com", "a.b.foo.com", true),
            ("*.foo.com", "foo.com", false),
            ("*", "foo.com", true),
            ("*", "*.foo.com", true),
            ("*.com", "*.foo.com", true),
            ("*.foo.com", "*.com", false),
            ("*.foo.com", "*.foo.com", true),
            ("a.foo.com", "*.foo.com", false),
            ("a.foo.com", "a.foo.com", true),
            ("*-x.com", "a-x.com", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(covers(pattern, name), expected, "{pattern} covers {name}");
        }
    }

    #[test]
    fn exact_names_come_first_then_longer_wildcards_then_the_alphabet() {
        let mut names = ["*", "*.com", "b.com", "*.foo.com", "a.com", "*.bar.com"];
        names.sort_by(|a, b| most_specific_first(a, b));
        assert_eq!(names, ["a.com", "b.com", "*.bar.com", "*.foo.com", "*.com", "*"]);
    }

    #[test]
    fn a_host_map_answers_the_most_specific_first() {
        let mut map: HostMap<Vec<u8>> = HostMap::default();
        for (value, name) in
            ["*", "*.com", "*.foo.com", "a.foo.com", "*.bar.com"].iter().enumerate()
        {
            map.edit(&(*name).into(), |values| values.push(value as u8));
        }
        let matching = |name| map.matching(name).flatten().copied().collect::<Vec<_>>();
        assert_eq!(matching("a.foo.com"), [3, 2, 1, 0]);
        assert_eq!(matching("*.foo.com"), [2, 1, 0]);
        assert_eq!(matching("foo.com"), [1, 0]);
        assert_eq!(matching("*"), [0]);
        assert_eq!(map.get("*.com"), Some(&vec![1]));
        map.edit(&"*.com".into(), Vec::clear);
        assert_eq!(map.get("*.com"), None);
        assert_eq!(map.iter().count(), 4);
    }

    #[test]
    fn any_bytes_of_a_name_are_looked_up_without_a_panic() {
        let mut map: HostMap<Vec<u8>> = HostMap::default();
        map.edit(&"*é.com".into(), |values| values.push(1));
        assert_eq!(map.matching("caffé.com").count(), 1);
        assert_eq!(map.matching("").count(), 0);
    }
}
