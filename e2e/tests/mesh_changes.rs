//! Under 2,000 requests a second nothing that an operator of the mesh does fails a request: rewriting rules in any
//! order, scaling, restarting the control plane, renewing certificates.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use anyhow::ensure;
use http::Method;
use tokio::sync::Mutex;
use weft_e2e::{
    client::{Client, request},
    load::{self, Report},
    mesh::{Mesh, Options, Parts, Pod},
    programs::sample,
    wait,
};

const RATE: u32 = 2_000;

/// One load at a time: they measure the mesh, not each other.
static LOAD: Mutex<()> = Mutex::const_new(());

/// Loads order-service until `change` is done; fails when a request or the change failed.
async fn under_load(client: &Client, change: impl Future<Output = anyhow::Result<()>>) -> Report {
    let make = |_| request(Method::GET, "http://order-service/load", &[]);
    // The first request of all asks the control plane; it is not part of the load.
    wait::until_ok("order-service should answer", async || {
        let reply = client.get("http://order-service/load").await?;
        ensure!(reply.status.is_success(), "{}", reply.text());
        Ok(())
    })
    .await
    .unwrap();
    let (report, outcome) = load::run(client, RATE, make, load::success, change).await;
    outcome.unwrap();
    report.assert_no_failure();
    report
}

fn virtual_services(round: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: order-service, namespace: default}}
spec:
  hosts: [order-service]
  http:
  - headers: {{request: {{set: {{x-round: \"{round}\"}}}}}}
    route:
    - {{destination: {{host: order-service, subset: first-{round}}}, weight: 50}}
    - {{destination: {{host: order-service, subset: second-{round}}}, weight: 50}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: user-service, namespace: default}}
spec:
  hosts: [user-service]
  http:
  - headers: {{request: {{set: {{x-round: \"{round}\"}}}}}}
    route:
    - {{destination: {{host: user-service}}}}
"
    )
}

fn destination_rules(round: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: order-service, namespace: default}}
spec:
  host: order-service
  subsets:
  - {{name: first-{round}, labels: {{version: v1}}}}
  - {{name: second-{round}, labels: {{version: v2}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: payment-service, namespace: default}}
spec:
  host: payment-service
  trafficPolicy: {{connectionPool: {{http: {{maxRequestsPerConnection: {}}}}}}}
",
        1_000 + round
    )
}

/// Waits until a service's requests carry the round's mark.
async fn round_of(client: &Client, service: &str, round: u32) -> anyhow::Result<()> {
    wait::until_eq(&format!("{service} in round {round}"), Some(round.to_string()), async || {
        let reply = client.get(&format!("http://{service}/mark")).await?;
        ensure!(reply.status.is_success(), "{}", reply.text());
        Ok(reply.answer()?.headers.get("x-round").cloned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_rewritten_in_either_order_fail_no_request() {
    let _alone = LOAD.lock().await;
    let mesh = Mesh::shop(Options::default()).await.unwrap();
    let client = mesh.workload("load-1").unwrap().client();
    let change = async {
        for round in 0..20 {
            // The subsets of this round have names that the other file does not know yet.
            if round % 2 == 0 {
                mesh.apply("routes.yaml", &virtual_services(round))?;
                // The file is in effect as far as it can be: its other service shows it.
                round_of(&client, "user-service", round).await?;
                mesh.apply("rules.yaml", &destination_rules(round))?;
            } else {
                mesh.apply("rules.yaml", &destination_rules(round))?;
                let dump = format!("\"max_requests_per_connection\":{}", 1_000 + round);
                let seen = async || {
                    client.get("http://payment-service/mark").await?;
                    let text = mesh.workload("load-1")?.admin("/config_dump").await?;
                    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
                    ensure!(text.contains(&dump), "{dump} is not there");
                    Ok(())
                };
                wait::until_ok("the rules should arrive", seen).await?;
                mesh.apply("routes.yaml", &virtual_services(round))?;
            }
            round_of(&client, "order-service", round).await?;
        }
        // Both at once, and both gone.
        mesh.delete("rules.yaml")?;
        mesh.delete("routes.yaml")?;
        wait::until_eq("the route should be gone", None, async || {
            let reply = client.get("http://order-service/mark").await?;
            Ok(reply.answer()?.headers.get("x-round").cloned())
        })
        .await
    };
    under_load(&client, change).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_up_and_down_fails_no_request() {
    let _alone = LOAD.lock().await;
    let mut mesh = Mesh::shop(Options::default()).await.unwrap();
    let client = mesh.workload("load-1").unwrap().client();
    let before = mesh.block().relocate(&sample("mesh/order-service.yaml").unwrap());
    let asker = client.clone();
    let change = async {
        for round in 0..4_u8 {
            let name = format!("order-service-v2-{}", 10 + round);
            let address = mesh.block().address(100 + round, 1).to_string();
            let pod = Pod::in_yaml(&before)?.into_iter().find(|pod| pod.name.contains("v2"));
            let mut pod = pod.expect("the samples have v2");
            let scaled = scaled(&before, &pod, &name, &address);
            (pod.name, pod.address) = (name.clone(), address.parse()?);
            // The Pod exists before its processes do, and is an endpoint once it is ready.
            mesh.launch(pod, Parts::Both).await?;
            mesh.workload_mut(&name)?.ready().await?;
            mesh.apply("order-service.yaml", &scaled)?;
            wait::until_ok("the new endpoint should get requests", async || {
                ensure!(mesh.workload(&name)?.counters().await?.requests > 100, "not enough");
                Ok(())
            })
            .await?;
            // Scaled down as in Kubernetes: the endpoint goes and the signal comes at the same time.
            mesh.apply("order-service.yaml", &before)?;
            let workload = mesh.workload_mut(&name)?;
            let status = workload.proxy()?.terminate(Duration::from_secs(60)).await?;
            ensure!(status.success(), "the proxy ended with {status}");
            workload.app()?.terminate(wait::PATIENCE).await?;
            wait::until_ok("requests should go on", async || {
                let reply = asker.get("http://order-service/load").await?;
                ensure!(reply.status.is_success(), "{}", reply.text());
                Ok(())
            })
            .await?;
        }
        Ok(())
    };
    under_load(&client, change).await;
}

/// The service's YAML with one pod more, a copy of `pod`.
fn scaled(yaml: &str, pod: &Pod, name: &str, address: &str) -> String {
    let endpoint = format!(
        "endpoints:\n- addresses: [{address}]\n  conditions: {{ready: true}}\n  \
         targetRef: {{kind: Pod, name: {name}, namespace: default}}\n"
    );
    let object = yaml.split("---\n").find(|part| part.contains(&format!("name: {}\n", pod.name)));
    let object = object.expect("the pod's own document");
    let object = object.replace(&pod.name, name).replace(&pod.address.to_string(), address);
    format!("{}---\n{object}", yaml.replace("endpoints:\n", &endpoint))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarting_the_operator_fails_no_request() {
    let _alone = LOAD.lock().await;
    let mut mesh = Mesh::shop(Options::default()).await.unwrap();
    let client = mesh.workload("load-1").unwrap().client();
    let asker = client.clone();
    let change = async {
        for round in 0..4 {
            mesh.stop_operator().await?;
            // What changes while nobody reads it is in effect after the start.
            mesh.apply("rules.yaml", &destination_rules(round))?;
            mesh.apply("routes.yaml", &virtual_services(round))?;
            mesh.start_operator().await?;
            round_of(&asker, "order-service", round).await?;
        }
        // Without warning, too.
        mesh.operator()?.signal(rustix::process::Signal::KILL)?;
        mesh.operator()?.end(wait::PATIENCE).await?;
        mesh.start_operator().await?;
        mesh.apply("rules.yaml", &destination_rules(9))?;
        mesh.apply("routes.yaml", &virtual_services(9))?;
        round_of(&asker, "order-service", 9).await
    };
    under_load(&client, change).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewing_certificates_every_few_seconds_fails_no_request() {
    let _alone = LOAD.lock().await;
    let proxy_arguments = vec!["--cert-ttl".to_owned(), "15s".to_owned()];
    let mesh = Mesh::shop(Options { proxy_arguments, ..Options::default() }).await.unwrap();
    // Connections come and go, so that new certificates are really used.
    mesh.apply(
        "rules.yaml",
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: order-service, namespace: default}
spec:
  host: order-service
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 50}}}
",
    )
    .unwrap();
    let client = mesh.workload("load-1").unwrap().client();
    let servers = ["load-1", "order-service-v1-1", "order-service-v2-1"];
    let change = async {
        for _ in 0..4 {
            let mut before = Vec::new();
            for name in servers {
                before.push(mesh.workload(name)?.admin("/certs").await?);
            }
            for (name, before) in servers.iter().zip(before) {
                wait::until_ok(&format!("{name} should renew"), async || {
                    ensure!(mesh.workload(name)?.admin("/certs").await? != before, "the same");
                    Ok(())
                })
                .await?;
            }
        }
        Ok(())
    };
    under_load(&client, change).await;
}
