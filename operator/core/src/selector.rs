//! Labels, and what selects by them.

use std::collections::BTreeMap;

/// Labels of a workload, or those that a selector asks for.
pub type Labels = BTreeMap<String, String>;

/// Whether labels have everything that a selector asks for. An empty selector selects everything: whoever means
/// "nothing" by it (a Kubernetes Service) checks that first.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_asks_for_all_of_its_labels() {
        let labels = |text: &str| -> Labels {
            text.split_terminator(',')
                .filter_map(|pair| pair.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect()
        };
        for (selector, workload, expected) in [
            ("", "", true),
            ("", "app=a", true),
            ("app=a", "app=a,version=v1", true),
            ("app=a,version=v2", "app=a,version=v1", false),
            ("app=a", "", false),
        ] {
            assert_eq!(selects(&labels(selector), &labels(workload)), expected, "{selector}");
        }
    }
}
