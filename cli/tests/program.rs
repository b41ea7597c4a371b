//! The program as people run it.
#![allow(clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
    thread,
};

fn weft(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weft")).args(arguments).env_clear().output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

const ROUTE: &str = "apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: orders, namespace: shop}
spec:
  hosts: [orders]
  http:
  - route:
    - destination: {host: orders}
      weight: 100
";

#[test]
fn a_token_is_for_its_owner_alone_and_each_run_uses_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (state, file) = (path("state"), path("orders.token"));
    let base =
        ["token", "--state-dir", &state, "--namespace", "shop", "--service-account", "orders"];
    let first = weft(&base);
    assert!(first.status.success(), "{}", stderr(&first));
    assert_eq!(stdout(&first).trim().split('.').count(), 3);
    let second = weft(&[&base[..], &["--ttl", "1h", "-o", &file]].concat());
    assert!(second.status.success(), "{}", stderr(&second));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let state = weft_ca::state::StateDir::open(state).unwrap();
    let key = weft_ca::token::TokenKey::load_or_create(&state).unwrap();
    let verifier = weft_ca::token::LocalVerifier::new(&key, "cluster.local");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for token in [stdout(&first), std::fs::read_to_string(&file).unwrap()] {
        let verified = weft_ca::token::TokenVerifier::verify(&verifier, token.trim());
        let identity = runtime.block_on(verified).unwrap();
        assert_eq!(identity.to_string(), "spiffe://cluster.local/ns/shop/sa/orders");
    }
}

#[test]
fn mistakes_on_the_command_line_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().display().to_string();
    for (arguments, expected) in [
        (
            vec!["token", "--state-dir", &state, "-s", "a/b"],
            "not a namespace and a service account",
        ),
        (vec!["token", "--state-dir", &state, "-s", "a", "--ttl", "0s"], "at least 1s"),
        (vec!["token", "--state-dir", &state, "-s", "a", "--ttl", "soon"], "soon"),
        (vec!["token", "--state-dir", "/proc/none", "-s", "a"], "--state-dir /proc/none"),
        (vec!["validate", "/nonexistent.yaml"], "/nonexistent.yaml"),
        (vec!["proxy-status", "--admin", "https://a:1"], "only http://"),
        (vec!["proxy-status", "--admin", "http://127.0.0.1:1"], "cannot connect to 127.0.0.1:1"),
        (vec!["proxy-config", "routes"], "NODE"),
    ] {
        let output = weft(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn findings_name_file_resource_field_and_reason() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        std::fs::write(dir.path().join(name), text).unwrap();
    };
    write("good.yaml", ROUTE);
    write("deep/er/field.yaml", &ROUTE.replace("  http:", "  htp:"));
    write("deep/type.yml", &ROUTE.replace("weight: 100", "weight: most"));
    write("half.yaml", &ROUTE[..ROUTE.find("orders}").unwrap() + 3]);
    write("ignored.txt", "{{{");
    let output = weft(&["validate", &dir.path().display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output).replace(&format!("{}/", dir.path().display()), "");
    for expected in [
        "deep/er/field.yaml: VirtualService shop/orders: spec.htp: unknown field",
        "deep/type.yml: VirtualService shop/orders: spec.http[0].route[0].weight: ",
        "half.yaml: not valid YAML",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    assert!(!text.contains("good.yaml"), "{text}");
}

#[test]
fn what_is_given_is_checked_together() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let subset = ROUTE.replace("{host: orders}", "{host: orders, subset: v2}");
    write("a.yaml", &subset);
    let path = dir.path().display().to_string();
    let check = || {
        let output = weft(&["validate", &path]);
        assert_eq!(output.status.code(), Some(0));
        stdout(&output).replace(&format!("{path}/"), "")
    };
    // Its rule and its service may be elsewhere.
    assert_eq!(check(), "1 file, 1 resource: 0 errors, 0 warnings\n");
    let rule = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: orders, namespace: shop}
spec: {host: orders, subsets: [{name: v1, labels: {version: v1}}]}
";
    write("b.yaml", rule);
    let text = check();
    assert!(text.starts_with("a.yaml: warning: VirtualService shop/orders: "), "{text}");
    assert!(text.contains("v2"), "{text}");
    write("a.yaml", ROUTE);
    write("b.yaml", &ROUTE.replace("name: orders,", "name: other,"));
    let service = "apiVersion: v1
kind: Service
metadata: {name: users, namespace: shop}
spec: {ports: [{port: 80}]}
";
    write("c.yaml", service);
    write("d.yaml", service);
    let text = check();
    for expected in [
        "a.yaml: warning: VirtualService shop/orders: ",
        "b.yaml: warning: VirtualService shop/other: ",
        "d.yaml: warning: Service shop/users: already defined in c.yaml; the first file counts",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}

#[test]
fn standard_input_is_read_and_warnings_fail_only_when_asked() {
    let deprecated = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: orders}
spec: {host: orders, trafficPolicy: {outlierDetection: {consecutiveErrors: 5}}}
";
    for (arguments, code) in [(vec!["validate", "-"], 0), (vec!["validate", "--strict", "-"], 1)] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_weft"))
            .args(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(deprecated.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        let text = stdout(&output);
        assert!(text.starts_with("-: warning: DestinationRule default/orders: spec."), "{text}");
        assert!(text.ends_with("1 file, 1 resource: 0 errors, 1 warning\n"), "{text}");
    }
}

/// Answers each path with a body, as an administration port does.
fn answering(answers: Vec<(&'static str, String)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 1024];
            while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                let read = stream.read(&mut buffer).unwrap();
                if read == 0 {
                    break;
                }
                request.extend(&buffer[..read]);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let answer = match answers.iter().find(|(known, _)| *known == path) {
                Some((_, body)) => {
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                }
                None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
            };
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    format!("http://{address}")
}

const CLUSTERS: &str = r#"{"configs": [{"dynamic_active_clusters": [
    {"cluster": {"name": "outbound|80|v1|orders.shop.svc.cluster.local", "type": "EDS"}}]}]}"#;

#[test]
fn a_proxy_is_asked_by_address_and_found_by_name() {
    let proxy = answering(vec![("/config_dump", CLUSTERS.to_owned())]);
    let output = weft(&["proxy-config", "clusters", "--proxy-admin", &proxy]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "SERVICE                         PORT   SUBSET   DIRECTION   TYPE\n\
         orders.shop.svc.cluster.local   80     v1       outbound    EDS\n"
    );
    let output = weft(&["proxy-config", "clusters", "--proxy-admin", &proxy, "-o", "json"]);
    assert!(stdout(&output).contains("\"name\": \"outbound|80|v1|orders"));

    let syncz = r#"[{"proxy": "orders-1.shop", "node": "sidecar~not-an-address~orders-1.shop~x",
        "proxy_version": "weft-proxy/0.1.0", "types": {"cds": {"state": "SYNCED", "lastNack": null}}}]"#;
    let sent = r#"{"types": {"cds": {"resources": [{"name": "outbound|80||a", "sent": "1", "acked": "1"}]}}}"#;
    let operator = answering(vec![
        ("/debug/syncz", syncz.to_owned()),
        ("/debug/config_dump?proxyID=orders-1.shop", sent.to_owned()),
    ]);
    let output = weft(&["proxy-status", "--admin", &operator]);
    assert!(stdout(&output).contains("orders-1.shop   SYNCED   NOT SENT"), "{}", stdout(&output));
    let output = weft(&["proxy-config", "clusters", "orders-1", "--admin", &operator]);
    assert!(stdout(&output).contains("outbound|80||a   1      1"), "{}", stdout(&output));
    assert!(stderr(&output).contains("what the operator sent"), "{}", stderr(&output));
    let output = weft(&["proxy-config", "clusters", "nobody", "--admin", &operator]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no proxy \"nobody\" is connected"), "{}", stderr(&output));
}

#[test]
fn proxies_are_added_to_manifests_and_the_rest_passes_to_the_letter() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.yaml").display().to_string();
    let service =
        "# The service.\napiVersion: v1\nkind: Service\nmetadata: {name: web}   # as it is\n";
    let workload = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: app, image: web:1}]
      volumes: [{name: keys, secret: {secretName: keys, defaultMode: 0400}}]
";
    std::fs::write(&path, format!("{service}---\n{workload}")).unwrap();
    let output = weft(&["inject", "-f", &path, "-n", "shop", "--set", "image=proxy:9"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.starts_with(&format!("{service}---\napiVersion: apps/v1\n")), "{text}");
    for expected in [
        "- name: istio-init",
        "- name: istio-proxy",
        "image: \"proxy:9\"",
        "namespaces/shop/deployments/web",
        "defaultMode: 256",
    ] {
        let unquoted = text.replace("image: proxy:9", "image: \"proxy:9\"");
        assert!(unquoted.contains(expected), "{expected} is not in {text}");
    }
    // Once more changes nothing.
    std::fs::write(&path, &text).unwrap();
    let again = weft(&["inject", "-f", &path, "-n", "shop", "--set", "image=proxy:9"]);
    assert_eq!(stdout(&again), text);
}

#[test]
fn nothing_is_written_when_a_workload_cannot_have_what_it_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pods.yaml").display().to_string();
    let pod = |name: &str, annotation: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, annotations: {{{annotation}}}}}\n\
             spec: {{containers: [{{name: app, image: app}}]}}\n---\n"
        )
    };
    let text = pod("good", "") + &pod("bad", "sidecar.istio.io/proxyCPU: fast");
    std::fs::write(&path, text).unwrap();
    let output = weft(&["inject", "-f", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let expected = format!(
        "error: {path}: Pod default/bad: annotation sidecar.istio.io/proxyCPU: \"fast\" is not a \
         quantity such as 100m, 1.5 or 128Mi\n"
    );
    assert_eq!(stderr(&output), expected);
    let output = weft(&["inject", "-f", &path, "--set", "imagee=a"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("unknown field `imagee`"), "{}", stderr(&output));
}
