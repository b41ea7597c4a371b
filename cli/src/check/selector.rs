//! Label selectors, as the API server reads them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Whether the selector takes an object with these labels. No selector takes every object.
pub fn matches(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = selector else { return true };
    let exact = selector.match_labels.iter().flatten().all(|(key, v)| labels.get(key) == Some(v));
    exact && selector.match_expressions.iter().flatten().all(|each| meets(each, labels))
}

fn meets(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let listed = |value: &String| requirement.values.iter().flatten().any(|other| other == value);
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

/// Whether the selector asks for one of the keys at all.
pub fn mentions(selector: Option<&LabelSelector>, keys: &[&str]) -> bool {
    let Some(selector) = selector else { return false };
    let expressions = selector.match_expressions.iter().flatten().map(|each| each.key.as_str());
    let mut asked =
        selector.match_labels.iter().flatten().map(|(key, _)| key.as_str()).chain(expressions);
    asked.any(|key| keys.contains(&key))
}
