//! Resources in, conditions out.
#![allow(clippy::unwrap_used)]

use weft_core::mesh::MeshConfig;
use weft_crds::{FieldError, parse_text};
use weft_index::{Index, Kind, Object};
use weft_status::{ResourceConditions, conditions};

const BASE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web, security.istio.io/tlsMode: istio}}
spec: {containers: []}
status: {podIP: 10.0.0.1}
---
";

/// A pod without a proxy.
const PLAIN: &str = "
apiVersion: v1
kind: Pod
metadata: {name: plain-1, labels: {app: plain}}
spec: {containers: []}
status: {podIP: 10.0.0.2}
---
";
/// Stands for ten pods of the mesh.
const MANY: &str = "MANY";

/// A resource of `default` (or another namespace before a slash), created at a second.
fn resource(kind: &str, name: &str, created: u8, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let group = match kind {
        "PeerAuthentication" | "AuthorizationPolicy" => "security.istio.io/v1",
        "EnvoyFilter" => "networking.istio.io/v1alpha3",
        _ => "networking.istio.io/v1",
    };
    format!(
        "apiVersion: {group}
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '2026-01-01T00:00:{created:02}Z'}}
spec: {spec}
---
"
    )
}

fn apply(index: &mut Index, yaml: &str) {
    for parsed in parse_text(yaml) {
        if let Some(object) = Object::read(parsed.unwrap()).unwrap() {
            index.apply(object);
        }
    }
}

fn judged(index: &mut Index) -> Vec<ResourceConditions> {
    let (snapshot, _) = index.snapshot();
    conditions(&snapshot, index.diagnoses())
}

fn mesh(yaml: &str) -> Index {
    let mut index = Index::new(MeshConfig::default());
    apply(&mut index, BASE);
    apply(&mut index, yaml);
    index
}

/// One condition of a resource as `status reason: message`.
fn shown(all: &[ResourceConditions], name: &str, type_: &str) -> String {
    let found = all.iter().find(|resource| *resource.reference.name == *name).unwrap();
    let condition = found.condition(type_).unwrap();
    format!("{} {}: {}", condition.status, condition.reason, condition.message)
}

/// Applies resources and compares one condition of one of them.
fn check(yaml: &str, name: &str, type_: &str, expected: &str) {
    assert_eq!(shown(&judged(&mut mesh(yaml)), name, type_), expected, "{yaml}");
}

fn virtual_service(name: &str, created: u8, hosts: &str, to: &str) -> String {
    let spec = format!("{{hosts: {hosts}, http: [{{route: [{{destination: {{{to}}}}}]}}]}}");
    resource("VirtualService", name, created, &spec)
}

#[test]
fn virtual_services_say_whether_they_are_in_effect() {
    let own = virtual_service("own", 5, "[web]", "host: web");
    let older = |hosts| virtual_service("older", 1, hosts, "host: web");
    let private = own.replace("spec: {", "spec: {exportTo: [.], ");
    let cases = [
        (own.clone(), "True InEffect: clients of its hosts follow it"),
        (
            virtual_service("own", 1, "[web]", "host: web, subset: v1"),
            "False WaitingForSubset: no DestinationRule defines subset v1 of web.default.svc.cluster.local; \
             until then it is as if it did not exist",
        ),
        (
            own.clone() + &older("[web]"),
            "False Superseded: an older VirtualService has its host: \
             web.default.svc.cluster.local (by default/older)",
        ),
        (
            virtual_service("own", 5, "[web, api]", "host: web") + &older("[web]"),
            "True PartlySuperseded: in effect, but superseded for \
             web.default.svc.cluster.local (by default/older)",
        ),
        (
            own.clone() + &older("['*.cluster.local']"),
            "True InEffect: clients of its hosts follow it",
        ),
        (private.clone() + &older("[web]"), "True InEffect: clients of its hosts follow it"),
        (
            private + &older("[web]").replace("spec: {", "spec: {exportTo: [default], "),
            "False Superseded: an older VirtualService has its host: \
             web.default.svc.cluster.local (by default/older)",
        ),
        (
            own.replace("spec: {", "spec: {gateways: [gw], "),
            "False GatewayNotFound: Gateway default/gw does not exist",
        ),
        (
            resource("VirtualService", "own", 1, "{http: [{route: [{destination: {host: web}}]}]}"),
            "True Delegate: it has effect through those that delegate to it",
        ),
    ];
    for (yaml, expected) in cases {
        check(&yaml, "own", "InEffect", expected);
    }
}

fn gateway(name: &str, created: u8, servers: &str) -> String {
    resource("Gateway", name, created, &format!("{{selector: {{app: web}}, servers: [{servers}]}}"))
}

#[test]
fn virtual_services_of_gateways_say_which_of_them_serve_them() {
    let server =
        "{port: {number: 80, name: http, protocol: HTTP}, hosts: [web.default.svc.cluster.local]}";
    let gw = gateway("gw", 1, server);
    let own = |gateways: &str, hosts: &str| {
        virtual_service("own", 5, hosts, "host: web")
            .replace("spec: {", &format!("spec: {{gateways: {gateways}, "))
    };
    let older = virtual_service("older", 1, "[web]", "host: web");
    let cases = [
        (own("[gw]", "[web]") + &gw, "True InEffect: requests by its gateways follow it"),
        (
            own("[gw]", "[other.org]") + &gw,
            "False NoHostInCommon: no server of Gateway default/gw has a host in common with it",
        ),
        (
            own("[gw, gone]", "[web]") + &gw,
            "True GatewayNotFound: in effect, but not by all of its gateways: Gateway default/gone does not exist",
        ),
        (own("[gw, mesh]", "[web]") + &gw, "True InEffect: clients of its hosts follow it"),
        (
            own("[gw, mesh]", "[web]") + &gw + &older,
            "True Superseded: requests by its gateways follow it; for sidecars: an older VirtualService has its host: \
             web.default.svc.cluster.local (by default/older)",
        ),
        (
            own("[gone, mesh]", "[web]"),
            "True GatewayNotFound: Gateway default/gone does not exist; for sidecars: clients of its hosts follow it",
        ),
    ];
    for (yaml, expected) in cases {
        check(&yaml, "own", "InEffect", expected);
    }
}

#[test]
fn gateways_say_who_serves_them_and_what_is_left_out() {
    let http = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}";
    let tcp = "{port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}";
    let https = |name: &str, secret: &str| {
        format!(
            "{{port: {{number: 443, name: {name}, protocol: HTTPS}}, hosts: [shop.org], tls: {{mode: SIMPLE, credentialName: {secret}}}}}"
        )
    };
    let mutual = "{port: {number: 443, name: m, protocol: HTTPS}, hosts: [shop.org], tls: {mode: ISTIO_MUTUAL}}";
    let cases = [
        (gateway("own", 5, http), "True InEffect: served by default/web-1"),
        (
            gateway("own", 5, http).replace("app: web", "app: nobody"),
            "False NoMatchingWorkload: no pod has the labels that its selector asks for",
        ),
        (
            gateway("own", 5, tcp) + &gateway("older", 1, http),
            "False ProtocolConflict: spec.servers[0]: port 80 is for HTTP without TLS already, by Gateway default/older",
        ),
        (
            gateway("own", 5, &https("https", "shop")),
            "False SecretNotFound: spec.servers[0]: Secret default/shop does not exist",
        ),
        (
            gateway("own", 5, &format!("{http}, {}", https("https", "shop"))),
            "True SecretNotFound: served by default/web-1, but in part only: \
             spec.servers[1]: Secret default/shop does not exist",
        ),
        (
            gateway("own", 5, mutual) + &gateway("older", 1, mutual),
            "False DuplicateHost: spec.servers[0]: host shop.org on port 443 belongs to Gateway default/older, \
             which is older",
        ),
        (
            gateway("own", 5, http).replace("selector: {app: web}, ", ""),
            "True InEffect: it is for every gateway of the mesh, as its selector is empty",
        ),
    ];
    for (yaml, expected) in cases {
        check(&yaml, "own", "InEffect", expected);
    }
    check(
        &gateway("own", 5, &https("https", "shop")),
        "own",
        "ResolvedRefs",
        "False SecretNotFound: spec.servers[0]: Secret default/shop does not exist",
    );
}

#[test]
fn a_secret_that_is_no_good_any_more_is_told_of_while_the_one_before_is_served() {
    let made = rcgen::generate_simple_self_signed(["shop.org".to_owned()]).unwrap();
    let secret = |chain: &str, key: &str| {
        let text = |pem: &str| pem.trim_end().replace('\n', "\n    ");
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: shop}}\nstringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
            text(chain),
            text(key)
        )
    };
    let server = "{port: {number: 443, name: s, protocol: HTTPS}, hosts: [shop.org], tls: {mode: SIMPLE, credentialName: shop}}";
    let mut index = mesh(&gateway("own", 5, server));
    apply(&mut index, &secret(&made.cert.pem(), &made.signing_key.serialize_pem()));
    assert_eq!(
        shown(&judged(&mut index), "own", "ResolvedRefs"),
        "True ResolvedRefs: everything that it names exists"
    );
    apply(&mut index, &secret("nonsense", &made.signing_key.serialize_pem()));
    let all = judged(&mut index);
    assert_eq!(shown(&all, "own", "InEffect"), "True InEffect: served by default/web-1");
    assert_eq!(
        shown(&all, "own", "ResolvedRefs"),
        "False SecretInvalid: spec.servers[0]: Secret default/shop: data[tls.crt]: has no certificate in PEM; the version \
         before stays"
    );
}

#[test]
fn a_version_that_waits_names_the_one_that_stays() {
    let mut index = mesh(&virtual_service("own", 1, "[web]", "host: web"));
    index.snapshot();
    apply(&mut index, &virtual_service("own", 1, "[web]", "host: web, subset: v1"));
    let all = judged(&mut index);
    assert_eq!(
        shown(&all, "own", "InEffect"),
        "False WaitingForSubset: no DestinationRule defines subset v1 of web.default.svc.cluster.local; \
         generation 1 of it stays in effect"
    );
    assert_eq!(all[0].observed_generation, 2);
    assert_eq!(all[0].conditions[0].observed_generation, Some(2));
}

#[test]
fn references_to_what_does_not_exist_are_named() {
    let cases = [
        (
            virtual_service("own", 1, "[web]", "host: web"),
            "True ResolvedRefs: everything that it names exists",
        ),
        (
            virtual_service("own", 1, "[web]", "host: nowhere"),
            "False DestinationNotFound: host nowhere.default.svc.cluster.local is not in the mesh: \
             its requests get 503",
        ),
        (
            virtual_service("own", 1, "[web]", "host: web, port: {number: 81}"),
            "False PortNotFound: host web.default.svc.cluster.local has no port 81",
        ),
        (
            resource("VirtualService", "own", 1, "{hosts: [web], http: [{delegate: {name: d}}]}"),
            "False DelegateNotFound: VirtualService default/d does not exist or may not be delegated to",
        ),
        (
            resource("DestinationRule", "own", 1, "{host: nowhere}"),
            "False HostNotFound: host nowhere.default.svc.cluster.local is not in the mesh",
        ),
        (
            resource("DestinationRule", "own", 1, "{host: '*.default.svc.cluster.local'}"),
            "True ResolvedRefs: everything that it names exists",
        ),
    ];
    for (yaml, expected) in cases {
        check(&yaml, "own", "ResolvedRefs", expected);
    }
}

#[test]
fn destination_rules_say_what_older_ones_take_from_them() {
    let rule = |name, created, rest: &str| {
        resource("DestinationRule", name, created, &format!("{{host: web, {rest}}}"))
    };
    let policy = "trafficPolicy: {tls: {mode: DISABLE}}";
    let cases = [
        (rule("own", 1, policy), "True InEffect: clients of its host follow it"),
        (
            rule("own", 2, "subsets: [{name: v2}]") + &rule("older", 1, "subsets: [{name: v1}]"),
            "True Merged: merged with default/older",
        ),
        (
            rule("own", 2, &format!("subsets: [{{name: v1}}], {policy}"))
                + &rule("older", 1, &format!("subsets: [{{name: v1}}], {policy}")),
            "True PartlySuperseded: merged with default/older, which are older, without its traffic policy \
             (that of default/older counts), its subset v1 (that of default/older counts)",
        ),
        (
            rule("own", 2, policy) + &rule("older", 1, &format!("exportTo: [.], {policy}")),
            "True InEffect: clients of its host follow it",
        ),
    ];
    for (yaml, expected) in cases {
        check(&yaml, "own", "InEffect", expected);
    }
}

#[test]
fn policies_say_whether_a_workload_gets_them() {
    let nobody = "False NoMatchingWorkload: no workload has the labels that its selector asks for";
    let follow = "True InEffect: followed by default/web-1";
    let older = "False Superseded: default/older, which is older, counts in its place";
    let pa = |name, created, spec: &str| resource("PeerAuthentication", name, created, spec);
    let select = |app: &str| format!("{{selector: {{matchLabels: {{app: {app}}}}}}}");
    let cases = [
        (pa("own", 1, "{mtls: {mode: STRICT}}"), follow),
        (pa("own", 1, &select("web")), follow),
        (pa("own", 1, &select("nothing")), nobody),
        (pa("own", 2, "{mtls: {mode: STRICT}}") + &pa("older", 1, "{}"), older),
        (pa("own", 2, &select("web")) + &pa("older", 1, &select("web")), older),
        (
            pa("istio-system/own", 1, &select("web")),
            "False SelectorInRootNamespace: in the root namespace a policy with a selector has no effect",
        ),
        (resource("AuthorizationPolicy", "own", 1, &select("web")), follow),
        (resource("AuthorizationPolicy", "own", 1, &select("nothing")), nobody),
        (resource("AuthorizationPolicy", "istio-system/own", 1, &select("web")), follow),
        (resource("AuthorizationPolicy", "empty/own", 1, &select("web")), nobody),
        (resource("EnvoyFilter", "own", 1, "{workloadSelector: {labels: {app: web}}}"), follow),
        (resource("EnvoyFilter", "own", 1, "{workloadSelector: {labels: {app: nothing}}}"), nobody),
        (
            pa("own", 1, &select("plain")) + PLAIN,
            "False NoProxy: the workloads that it is for have no proxy: default/plain-1",
        ),
        (pa("own", 1, "{}") + PLAIN, follow),
        (pa("empty/own", 1, "{}"), "True InEffect: there is no workload that it is for yet"),
        (
            resource("AuthorizationPolicy", "istio-system/own", 1, "{}") + MANY,
            "True InEffect: followed by a/w0, a/w1, a/w2, a/w3, a/w4, a/w5, a/w6, a/w7, a/w8, a/w9 and 1 more",
        ),
    ];
    let many: String = (0..10)
        .map(|n| PLAIN.replace("{name: plain-1,", &format!("{{name: w{n}, namespace: a,")))
        .map(|pod| pod.replace("app: plain", "security.istio.io/tlsMode: istio"))
        .collect();
    for (yaml, expected) in cases {
        check(&yaml.replace(MANY, &many), "own", "InEffect", expected);
    }
}

#[test]
fn service_entries_say_what_else_defines_their_hosts() {
    let entry = |name, created, hosts: &str| {
        resource(
            "ServiceEntry",
            name,
            created,
            &format!(
                "{{hosts: {hosts}, resolution: DNS, ports: [{{number: 80, name: http, protocol: HTTP}}]}}"
            ),
        )
    };
    let cases = [
        (entry("own", 2, "[a.com]"), "True InEffect: its hosts are services of the mesh"),
        (
            entry("own", 2, "[a.com, web.default.svc.cluster.local]"),
            "True PartlySuperseded: something else of its namespace defines \
             web.default.svc.cluster.local (by Service default/web)",
        ),
        (
            entry("own", 2, "[a.com]") + &entry("older", 1, "[a.com]"),
            "False Superseded: something else of its namespace defines a.com (by ServiceEntry default/older)",
        ),
    ];
    for (yaml, expected) in cases {
        check(&yaml, "own", "InEffect", expected);
    }
}

#[test]
fn what_is_not_accepted_says_why_and_what_stays() {
    let policy = resource("PeerAuthentication", "own", 1, "{mtls: {mode: STRICT}}");
    let kind = Kind::Mesh(weft_crds::Kind::PeerAuthentication);
    let error = || vec![FieldError { path: "spec.mtls".into(), reason: "wrong".into() }];
    let mut index = mesh(&policy);
    assert_eq!(
        shown(&judged(&mut index), "own", "Accepted"),
        "True Accepted: the resource is valid"
    );
    index.report_invalid(kind, "default", "own", error());
    index.report_invalid(kind, "default", "never", error());
    index.report_invalid(Kind::Service, "default", "s", error());
    index.report_invalid(Kind::Service, "default", "web", error());
    let all = judged(&mut index);
    assert_eq!(
        shown(&all, "own", "Accepted"),
        "False Invalid: spec.mtls: wrong; generation 1 of it stays"
    );
    assert_eq!(shown(&all, "own", "InEffect"), "True InEffect: followed by default/web-1");
    assert_eq!(
        shown(&all, "never", "InEffect"),
        "False NotAccepted: no version of it was ever accepted"
    );
    assert_eq!(
        shown(&all, "s", "Accepted"),
        "False Invalid: spec.mtls: wrong; no version of it was ever accepted"
    );
    assert_eq!(
        shown(&all, "web", "Accepted"),
        "False Invalid: spec.mtls: wrong; the version before stays"
    );
    let names: Vec<_> = all.iter().map(|resource| resource.reference.to_string()).collect();
    assert_eq!(
        names,
        [
            "PeerAuthentication default/never",
            "PeerAuthentication default/own",
            "Service default/s",
            "Service default/web"
        ]
    );
}

#[test]
fn warnings_are_conditions_of_their_own() {
    let rule = resource(
        "DestinationRule",
        "own",
        1,
        "{host: web, trafficPolicy: {outlierDetection: {consecutiveErrors: 5}}}",
    );
    let all = judged(&mut mesh(&rule));
    let warnings = shown(&all, "own", "Warnings");
    assert!(
        warnings.starts_with("True Warnings: spec.trafficPolicy.outlierDetection"),
        "{warnings}"
    );
    assert_eq!(shown(&all, "own", "Accepted"), "True Accepted: the resource is valid");
    let quiet = judged(&mut mesh(&resource("DestinationRule", "own", 1, "{host: web}")));
    assert_eq!(quiet[0].condition("Warnings"), None);
}
