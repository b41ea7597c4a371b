//! Reads `/config_dump` in Envoy's shape, of our proxy or of a stock Envoy.

use serde_json::Value;
use weft_api::names::ClusterName;

use super::Kind;

/// The resources of a kind: what the dump wraps in versions and states.
pub fn resources(kind: Kind, dump: &Value) -> Vec<Value> {
    let (lists, inner): (&[&str], &[&str]) = match kind {
        Kind::Listeners => {
            (&["static_listeners", "dynamic_listeners"], &["active_state", "listener"])
        }
        Kind::Routes => (&["static_route_configs", "dynamic_route_configs"], &["route_config"]),
        Kind::Clusters => (&["static_clusters", "dynamic_active_clusters"], &["cluster"]),
        Kind::Endpoints => {
            (&["static_endpoint_configs", "dynamic_endpoint_configs"], &["endpoint_config"])
        }
    };
    let sections = dump["configs"].as_array().into_iter().flatten();
    let entries = sections.flat_map(|section| lists.iter().flat_map(|list| items(&section[*list])));
    entries
        .filter_map(|entry| {
            // A static listener stands without a state around it.
            let steps = inner.iter().filter(|step| !entry[**step].is_null() || inner.len() == 1);
            let found = steps.fold(entry, |value, step| &value[*step]);
            let found = if found["listener"].is_object() { &found["listener"] } else { found };
            (!found.is_null()).then(|| found.clone())
        })
        .collect()
}

/// The resources of a kind as a table.
pub fn table(kind: Kind, dump: &Value) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let resources = resources(kind, dump);
    match kind {
        Kind::Listeners => (
            vec!["NAME", "ADDRESS", "MATCH", "DESTINATION"],
            resources.iter().flat_map(listener).collect(),
        ),
        Kind::Routes => (
            vec!["NAME", "VHOST", "DOMAINS", "MATCH", "DESTINATION", "VIRTUAL SERVICE"],
            resources.iter().flat_map(route_config).collect(),
        ),
        Kind::Clusters => {
            let mut rows: Vec<_> = resources.iter().map(cluster).collect();
            rows.sort();
            (vec!["SERVICE", "PORT", "SUBSET", "DIRECTION", "TYPE"], rows)
        }
        Kind::Endpoints => (
            vec!["ENDPOINT", "STATUS", "WEIGHT", "CLUSTER"],
            resources.iter().flat_map(endpoints).collect(),
        ),
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn socket(address: &Value) -> String {
    let socket = &address["socket_address"];
    match (socket["address"].as_str(), &socket["port_value"]) {
        (Some(host), port) => format!("{host}:{}", text(port)),
        (None, _) => text(&address["pipe"]["path"]),
    }
}

fn listener(listener: &Value) -> Vec<Vec<String>> {
    let address =
        if listener["address"].is_null() { "-".into() } else { socket(&listener["address"]) };
    let chains = items(&listener["filter_chains"])
        .chain(Some(&listener["default_filter_chain"]).filter(|chain| chain.is_object()));
    let mut rows: Vec<Vec<String>> = chains
        .map(|chain| {
            vec![
                text(&listener["name"]),
                address.clone(),
                chain_match(&chain["filter_chain_match"]),
                chain_destination(chain),
            ]
        })
        .collect();
    if rows.is_empty() {
        rows.push(vec![text(&listener["name"]), address, "-".into(), "-".into()]);
    }
    rows
}

fn chain_match(matches: &Value) -> String {
    let mut parts = Vec::new();
    if !matches["destination_port"].is_null() {
        parts.push(format!("port {}", text(&matches["destination_port"])));
    }
    if let Some(transport) = matches["transport_protocol"].as_str() {
        parts.push(transport.to_owned());
    }
    for (key, label) in [("application_protocols", "alpn"), ("server_names", "sni")] {
        let values: Vec<String> = items(&matches[key]).map(text).collect();
        if !values.is_empty() {
            parts.push(format!("{label} {}", values.join(",")));
        }
    }
    if parts.is_empty() { "ALL".into() } else { parts.join("; ") }
}

fn chain_destination(chain: &Value) -> String {
    for filter in items(&chain["filters"]) {
        let config = &filter["typed_config"];
        if let Some(name) = config["rds"]["route_config_name"].as_str() {
            return format!("Route: {name}");
        }
        if let Some(name) = config["route_config"]["name"].as_str() {
            return format!("Inline Route: {name}");
        }
        if let Some(cluster) = config["cluster"].as_str() {
            return format!("Cluster: {cluster}");
        }
        let weighted = weighted(&config["weighted_clusters"]);
        if !weighted.is_empty() {
            return format!("Clusters: {weighted}");
        }
    }
    "-".into()
}

fn weighted(clusters: &Value) -> String {
    let clusters: Vec<String> = items(&clusters["clusters"])
        .map(|cluster| format!("{} ({})", text(&cluster["name"]), text(&cluster["weight"])))
        .collect();
    clusters.join(", ")
}

fn route_config(config: &Value) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for host in items(&config["virtual_hosts"]) {
        let domains: Vec<String> = items(&host["domains"]).map(text).collect();
        for route in items(&host["routes"]) {
            let source = &route["metadata"]["filter_metadata"]["istio"]["config"];
            rows.push(vec![
                text(&config["name"]),
                text(&host["name"]),
                shortened(&domains),
                route_match(&route["match"]),
                destination(route),
                source.as_str().map_or_else(|| "-".into(), virtual_service),
            ]);
        }
    }
    if rows.is_empty() {
        rows.push(vec![text(&config["name"]), "-".into()]);
    }
    rows
}

/// A service has many names; the first says enough.
fn shortened(domains: &[String]) -> String {
    match domains {
        [] => "-".into(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} +{}", rest.len()),
    }
}

fn route_match(matches: &Value) -> String {
    let path = ["path", "prefix", "path_separated_prefix"]
        .iter()
        .find_map(|key| {
            let star = if *key == "path" { "" } else { "*" };
            matches[*key].as_str().map(|path| format!("{path}{star}"))
        })
        .or_else(|| matches["safe_regex"]["regex"].as_str().map(|regex| format!("~{regex}")));
    let mut parts = vec![path.unwrap_or_else(|| "-".into())];
    for key in ["headers", "query_parameters"] {
        parts.extend(items(&matches[key]).map(|header| text(&header["name"])));
    }
    parts.join(" ")
}

fn destination(route: &Value) -> String {
    let action = &route["route"];
    let weighted = weighted(&action["weighted_clusters"]);
    if !weighted.is_empty() {
        return weighted;
    }
    if let Some(cluster) = action["cluster"].as_str() {
        return cluster.to_owned();
    }
    if route["direct_response"].is_object() {
        return format!("answers {}", text(&route["direct_response"]["status"]));
    }
    if route["redirect"].is_object() { "redirects".into() } else { "-".into() }
}

/// `/apis/networking.istio.io/v1/namespaces/NS/virtual-service/NAME` as `NAME.NS`.
fn virtual_service(config: &str) -> String {
    let mut parts = config.rsplit('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some("virtual-service"), Some(namespace)) => format!("{name}.{namespace}"),
        _ => config.to_owned(),
    }
}

fn cluster(cluster: &Value) -> Vec<String> {
    let name = text(&cluster["name"]);
    let kind = cluster["type"].as_str().or(cluster["cluster_type"]["name"].as_str());
    let kind = kind.unwrap_or("STATIC").to_owned();
    match name.parse::<ClusterName>() {
        Ok(parsed) => {
            let or_dash = |text: String| if text.is_empty() { "-".into() } else { text };
            vec![
                or_dash(parsed.host),
                parsed.port.to_string(),
                or_dash(parsed.subset),
                parsed.direction.to_string(),
                kind,
            ]
        }
        Err(_) => vec![name, "-".into(), "-".into(), "-".into(), kind],
    }
}

fn endpoints(assignment: &Value) -> Vec<Vec<String>> {
    let cluster = text(&assignment["cluster_name"]);
    items(&assignment["endpoints"])
        .flat_map(|locality| items(&locality["lb_endpoints"]))
        .map(|endpoint| {
            let weight = &endpoint["load_balancing_weight"];
            vec![
                socket(&endpoint["endpoint"]["address"]),
                endpoint["health_status"].as_str().unwrap_or("HEALTHY").to_owned(),
                if weight.is_null() { "1".into() } else { text(weight) },
                cluster.clone(),
            ]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dump() -> Value {
        let socket = |address: &str, port: u16| json!({"socket_address": {"address": address, "port_value": port}});
        json!({"configs": [
            {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
             "static_clusters": [{"cluster": {"name": "xds", "type": "STRICT_DNS"}}],
             "dynamic_active_clusters": [
                {"cluster": {"name": "outbound|80|v1|a.b", "type": "EDS"}},
                {"cluster": {"name": "inbound|8080||"}}]},
            {"dynamic_endpoint_configs": [{"endpoint_config": {
                "cluster_name": "outbound|80|v1|a.b",
                "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": socket("127.0.0.1", 8080)}, "load_balancing_weight": 3},
                    {"endpoint": {"address": socket("127.0.0.2", 8080)}, "health_status": "DRAINING"}]}]}}]},
            {"static_listeners": [{"listener": {"name": "stats", "address": socket("0.0.0.0", 15090)}}],
             "dynamic_listeners": [{"name": "virtualInbound", "active_state": {"listener": {
                "name": "virtualInbound", "address": socket("127.0.0.1", 15006),
                "filter_chains": [
                    {"filter_chain_match": {"destination_port": 8080, "transport_protocol": "tls",
                                            "application_protocols": ["istio", "istio-h2"]},
                     "filters": [{"typed_config": {"route_config": {"name": "inbound|8080||"}}}]},
                    {"filters": [{"typed_config": {"cluster": "InboundPassthroughCluster"}}]}]}}}]},
            {"dynamic_route_configs": [{"route_config": {"name": "http_proxy", "virtual_hosts": [
                {"name": "a.b:80", "domains": ["a", "a.b"], "routes": [
                    {"match": {"prefix": "/", "headers": [{"name": "user-type"}]},
                     "route": {"cluster": "outbound|80|v1|a.b"},
                     "metadata": {"filter_metadata": {"istio": {"config":
                        "/apis/networking.istio.io/v1/namespaces/default/virtual-service/canary"}}}},
                    {"match": {"path": "/x"}, "route": {"weighted_clusters": {"clusters": [
                        {"name": "c1", "weight": 90}, {"name": "c2", "weight": 10}]}}},
                    {"match": {"safe_regex": {"regex": "/y.*"}}, "direct_response": {"status": 502}}]}]}}]},
        ]})
    }

    fn rows(kind: Kind) -> Vec<String> {
        table(kind, &dump()).1.iter().map(|row| row.join(" | ")).collect()
    }

    #[test]
    fn each_kind_has_its_table() {
        assert_eq!(
            rows(Kind::Clusters),
            [
                "- | 8080 | - | inbound | STATIC",
                "a.b | 80 | v1 | outbound | EDS",
                "xds | - | - | - | STRICT_DNS"
            ]
        );
        assert_eq!(
            rows(Kind::Endpoints),
            [
                "127.0.0.1:8080 | HEALTHY | 3 | outbound|80|v1|a.b",
                "127.0.0.2:8080 | DRAINING | 1 | outbound|80|v1|a.b"
            ]
        );
        assert_eq!(
            rows(Kind::Listeners),
            [
                "stats | 0.0.0.0:15090 | - | -",
                "virtualInbound | 127.0.0.1:15006 | port 8080; tls; alpn istio,istio-h2 | Inline Route: inbound|8080||",
                "virtualInbound | 127.0.0.1:15006 | ALL | Cluster: InboundPassthroughCluster"
            ]
        );
        assert_eq!(
            rows(Kind::Routes),
            [
                "http_proxy | a.b:80 | a +1 | /* user-type | outbound|80|v1|a.b | canary.default",
                "http_proxy | a.b:80 | a +1 | /x | c1 (90), c2 (10) | -",
                "http_proxy | a.b:80 | a +1 | ~/y.* | answers 502 | -"
            ]
        );
    }

    #[test]
    fn a_dump_of_another_shape_gives_empty_tables() {
        for dump in [
            json!(null),
            json!([]),
            json!({"configs": 5}),
            json!({"configs": [{"dynamic_listeners": 1}]}),
        ] {
            for kind in [Kind::Clusters, Kind::Endpoints, Kind::Listeners, Kind::Routes] {
                assert_eq!(table(kind, &dump).1, Vec::<Vec<String>>::new());
            }
        }
    }
}
