//! Label selectors of Kubernetes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Selects by labels: every label of `match_labels` and every one of `match_expressions` must hold. An empty selector
/// selects nothing, as Istio's injector has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Selector {
    /// Labels with the values that they must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Further demands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

/// A demand on one label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// What it is compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// It is there with one of the values.
    In,
    /// It is not there with any of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl Selector {
    /// Whether labels are selected.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let named = self.match_labels.len() + self.match_expressions.len() > 0;
        named
            && self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_mean_what_kubernetes_says() {
        let labels = BTreeMap::from([("app".to_owned(), "shop".to_owned())]);
        for (selector, selected) in [
            ("{}", false),
            ("matchLabels: {app: shop}", true),
            ("matchLabels: {app: other}", false),
            ("matchExpressions: [{key: app, operator: In, values: [a, shop]}]", true),
            ("matchExpressions: [{key: app, operator: NotIn, values: [a]}]", true),
            ("matchExpressions: [{key: app, operator: NotIn, values: [shop]}]", false),
            ("matchExpressions: [{key: tier, operator: NotIn, values: [a]}]", true),
            ("matchExpressions: [{key: app, operator: Exists}]", true),
            ("matchExpressions: [{key: tier, operator: Exists}]", false),
            ("matchExpressions: [{key: tier, operator: DoesNotExist}]", true),
            (
                "{matchLabels: {app: shop}, matchExpressions: [{key: tier, operator: Exists}]}",
                false,
            ),
        ] {
            let selector: Selector = serde_saphyr::from_str(selector).unwrap();
            assert_eq!(selector.selects(&labels), selected, "{selector:?}");
        }
    }
}
