//! What a proxy holds follows what its workload calls, not the size of the mesh.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use anyhow::ensure;
use http::Method;
use weft_e2e::{
    client::request,
    load, memory,
    mesh::{Mesh, Options},
    wait,
};

const CALLED: [&str; 3] = ["storefront", "order-service", "user-service"];

/// Services besides those of the shop, each with three endpoints that nobody calls.
fn services(count: usize) -> String {
    let mut yaml = String::new();
    for index in 0..count {
        let (high, low) = (index / 250, index % 250 + 1);
        yaml.push_str(&format!(
            "apiVersion: v1
kind: Service
metadata: {{name: extra-{index}, namespace: default}}
spec:
  clusterIP: 10.97.{high}.{low}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: extra-{index}-1, namespace: default, labels: {{kubernetes.io/service-name: extra-{index}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080, protocol: TCP}}]
endpoints:
- {{addresses: [10.1.{high}.{low}], conditions: {{ready: true}}}}
- {{addresses: [10.2.{high}.{low}], conditions: {{ready: true}}}}
- {{addresses: [10.3.{high}.{low}], conditions: {{ready: true}}}}
---
"
        ));
    }
    yaml
}

/// A mesh of so many services, of which `load-1` has called three.
async fn mesh_of(count: usize) -> Mesh {
    let mesh = Mesh::shop(Options::default()).await.unwrap();
    // The shop has four services.
    mesh.apply("extra.yaml", &services(count - 4)).unwrap();
    wait::until_ok("the operator should know all services", async || {
        let known = mesh.operator_json("/debug/registryz").await?;
        let known = known.as_array().map_or(0, Vec::len);
        ensure!(known >= count, "{known} of {count}");
        Ok(())
    })
    .await
    .unwrap();
    let client = mesh.workload("load-1").unwrap().client();
    let make = |index| {
        let service = CALLED[index as usize % CALLED.len()];
        request(Method::GET, &format!("http://{service}/scale"), &[])
    };
    let outcomes = load::burst(&client, 6_000, 16, make, |reply, _| reply.unwrap().status).await;
    assert!(outcomes.iter().all(http::StatusCode::is_success));
    mesh
}

/// The hosts of the outbound clusters in a configuration dump.
fn outbound_hosts(dump: &str) -> BTreeSet<String> {
    let names = dump.split('"').filter(|text| text.starts_with("outbound|"));
    names.filter_map(|name| name.rsplit('|').next()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_holds_what_its_workload_calls() {
    let small = mesh_of(10).await;
    let large = mesh_of(1_000).await;
    let expected = CALLED.map(|service| format!("{service}.default.svc.cluster.local")).into();
    let mut figures = Vec::new();
    for mesh in [&small, &large] {
        let proxy = mesh.workload("load-1").unwrap();
        let dump = proxy.admin("/config_dump").await.unwrap();
        assert_eq!(outbound_hosts(&dump), expected);
        assert!(!dump.contains("extra-"), "{dump}");
        figures.push(memory::of(proxy.proxy_id().unwrap()).unwrap());
    }
    let difference = figures[1].private.abs_diff(figures[0].private);
    assert!(difference < 1_024, "10 and 1,000 services: {figures:?} KiB");
    // The figures are for whoever reads the output.
    #[allow(clippy::print_stdout)]
    {
        println!("memory of a proxy, KiB, in a mesh of 10 and of 1,000 services: {figures:?}");
    }
}
