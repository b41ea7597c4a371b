//! What the operator sent a proxy, from its `/debug/config_dump`.

use serde_json::Value;

use super::Kind;

fn types(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Listeners => &["lds"],
        Kind::Routes => &["rds", "vhds"],
        Kind::Clusters => &["cds"],
        Kind::Endpoints => &["eds"],
    }
}

fn each(kind: Kind, dump: &Value) -> impl Iterator<Item = &Value> {
    types(kind).iter().flat_map(|name| dump["types"][*name]["resources"].as_array()).flatten()
}

/// The resources as the operator shows them.
pub fn resources(kind: Kind, dump: &Value) -> Vec<Value> {
    each(kind, dump).cloned().collect()
}

/// Names and versions.
pub fn table(kind: Kind, dump: &Value) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let rows = each(kind, dump).map(|resource| {
        let text = |key: &str| resource[key].as_str().unwrap_or("-").to_owned();
        vec![text("name"), text("sent"), text("acked")]
    });
    (vec!["NAME", "SENT", "ACKNOWLEDGED"], rows.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn routes_are_those_of_both_types() {
        let dump = json!({"types": {
            "rds": {"resources": [{"name": "http_proxy", "sent": "1", "acked": "1"}]},
            "vhds": {"resources": [{"name": "http_proxy/a", "sent": null, "acked": null}]},
        }});
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        assert_eq!(
            table(Kind::Routes, &dump).1,
            [row(["http_proxy", "1", "1"]), row(["http_proxy/a", "-", "-"])]
        );
        assert_eq!(resources(Kind::Clusters, &dump), Vec::<Value>::new());
    }
}
