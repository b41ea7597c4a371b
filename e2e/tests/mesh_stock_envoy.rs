//! Stock Envoy, driven by the operator, accepts every resource and behaves as our proxy does.
//!
//! Skipped with a message where Envoy cannot be had from PyPI, unless `WEFT_REQUIRE_ENVOY` is set.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use anyhow::ensure;
use http::{Method, StatusCode};
use weft_e2e::{
    bounds::binomial,
    client::{Client, Reply, request, url},
    envoy::{self, Envoy},
    load,
    mesh::{Mesh, Options, Parts, Pod},
    wait,
};

fn binary() -> Option<PathBuf> {
    match envoy::find() {
        Ok(path) => Some(path),
        Err(error) if std::env::var_os("WEFT_REQUIRE_ENVOY").is_some() => panic!("{error:#}"),
        Err(error) => {
            // Whoever reads the output must see that nothing was tested.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("SKIPPED: stock Envoy: {error:#}");
            }
            None
        }
    }
}

/// The shop with Envoy as the proxy of one pod.
async fn shop_with_envoy(binary: &std::path::Path, name: &str) -> (Mesh, Envoy) {
    let parts = |pod: &Pod| match (pod.name == name, pod.is_client()) {
        (true, _) => Parts::App,
        (false, true) => Parts::Proxy,
        (false, false) => Parts::Both,
    };
    let mesh = Mesh::shop_with(Options::default(), parts).await.unwrap();
    let pod = mesh.workload(name).unwrap().pod().clone();
    let envoy = Envoy::start(binary, &mesh, &pod).await.unwrap();
    (mesh, envoy)
}

/// Neither side has seen a resource refused.
async fn accepted(mesh: &Mesh, envoy: &Envoy) {
    assert_eq!(envoy.stats_ending(".update_rejected").await.unwrap(), 0, "{}", envoy.log());
    let dump = envoy.admin("/config_dump").await.unwrap();
    assert!(!dump.contains("error_state"), "{dump}");
    let metrics = mesh.operator_metrics().await.unwrap();
    let rejects = metrics.iter().filter(|s| s.name.starts_with("pilot_total_xds_rejects"));
    assert_eq!(rejects.map(|sample| sample.value).sum::<f64>(), 0.0);
}

/// Waits until Envoy's configuration has this text.
async fn has(envoy: &Envoy, text: &str) {
    wait::until_ok(&format!("Envoy should have {text}"), async || {
        let dump = envoy.admin("/config_dump?include_eds").await?;
        ensure!(dump.contains(text), "it has not");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_splits_the_canary_as_our_proxy_does() {
    let Some(binary) = binary() else { return };
    let (mesh, envoy) = shop_with_envoy(&binary, "storefront-v1-1").await;
    mesh.apply_example("canary.yaml").unwrap();
    let clients = [envoy.client(), mesh.workload("load-1").unwrap().client()];
    let count = 5_000;
    for client in clients {
        wait::until_ok("beta users should reach v2", async || {
            for _ in 0..30 {
                let reply =
                    client.get_with("http://order-service/", &[("user-type", "beta")]).await?;
                ensure!(reply.answer()?.version == "v2", "not yet");
            }
            Ok(())
        })
        .await
        .unwrap();
        let version = |reply: anyhow::Result<Reply>, _| reply.unwrap().answer().unwrap().version;
        let beta = |_| request(Method::GET, "http://order-service/", &[("user-type", "beta")]);
        let versions = load::burst(&client, 500, 16, beta, version).await;
        assert!(versions.iter().all(|version| version == "v2"));
        let get = |_| request(Method::GET, "http://order-service/", &[]);
        let versions = load::burst(&client, count, 16, get, version).await;
        let canaries = versions.iter().filter(|version| *version == "v2").count() as u64;
        assert!(binomial(count, 0.1).contains(&canaries), "{canaries} of {count}");
    }
    accepted(&mesh, &envoy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_is_a_mesh_peer_on_both_sides() {
    let Some(binary) = binary() else { return };
    let (mesh, envoy) = shop_with_envoy(&binary, "payment-service-v1-1").await;
    let [order, user] = ["order-service-v1-1", "user-service-v1-1"]
        .map(|name| mesh.workload(name).unwrap().client());
    // Our proxy calls Envoy under mutual TLS, and Envoy calls our proxy.
    for (client, uri, caller) in [
        (&order, "http://payment-service/payments/1", "order-service"),
        (&envoy.client(), "http://user-service/users/1", "payment-service"),
    ] {
        let reply = wait::until_ok("the call should succeed", async || {
            let reply = client.post(uri).await?;
            ensure!(reply.status == StatusCode::OK, "{} {}", reply.status, reply.text());
            reply.answer()
        });
        let answer = reply.await.unwrap();
        let identity = &answer.headers["x-forwarded-client-cert"];
        let expected = format!("URI=spiffe://cluster.local/ns/default/sa/{caller}");
        assert!(identity.contains(&expected), "{identity}");
    }
    let plain = async || Client::direct().post(&url(envoy.address(), 8080, "/payments/1")).await;
    assert_eq!(plain().await.unwrap().status, StatusCode::OK);

    mesh.apply_example("authorization.yaml").unwrap();
    wait::until_eq("user-service should be refused", 403, async || {
        Ok(user.post("http://payment-service/payments/1").await?.status.as_u16())
    })
    .await
    .unwrap();
    for (client, method, path, status) in [
        (&order, Method::POST, "/payments/7", 200),
        (&order, Method::GET, "/payments/7", 403),
        (&order, Method::POST, "/refunds/7", 403),
        (&user, Method::POST, "/payments/7", 403),
    ] {
        let uri = format!("http://payment-service{path}");
        // Connections that were there before the policy go on under the old rules until Envoy has drained them.
        wait::until_eq(&format!("{method} {path}"), status, async || {
            Ok(client.send(request(method.clone(), &uri, &[])).await?.status.as_u16())
        })
        .await
        .unwrap();
    }

    mesh.apply_example("mtls-strict.yaml").unwrap();
    wait::until_ok("Envoy should refuse plaintext", async || match plain().await {
        Ok(reply) => anyhow::bail!("{}", reply.status),
        Err(_) => Ok(()),
    })
    .await
    .unwrap();
    // Envoy ends the connections of before the policy when it has drained them, amid a request if it must.
    wait::until_ok("order-service should still be served", async || {
        let paid = order.post("http://payment-service/payments/1").await?;
        ensure!(paid.status == StatusCode::OK, "{} {}", paid.status, paid.text());
        Ok(())
    })
    .await
    .unwrap();
    accepted(&mesh, &envoy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_accepts_every_resource() {
    let Some(binary) = binary() else { return };
    let (mesh, envoy) = shop_with_envoy(&binary, "user-service-v1-1").await;
    for file in [
        "canary.yaml",
        "timeout-retries.yaml",
        "circuit-breaker.yaml",
        "mtls-strict.yaml",
        "authorization.yaml",
        "rate-limit-envoyfilter.yaml",
    ] {
        mesh.apply_example(file).unwrap();
    }
    mesh.apply("more.yaml", include_str!("every_feature.yaml")).unwrap();
    for text in [
        "outbound|80|v2|order-service.default.svc.cluster.local",
        "ring_hash",
        "x-every-feature",
        "envoy.filters.http.local_ratelimit",
        "every-deny",
    ] {
        has(&envoy, text).await;
    }
    accepted(&mesh, &envoy).await;
    // And takes them back.
    mesh.delete("more.yaml").unwrap();
    wait::until_ok("the rules should be gone", async || {
        let dump = envoy.admin("/config_dump").await?;
        ensure!(!dump.contains("x-every-feature"), "they are there");
        Ok(())
    })
    .await
    .unwrap();
    mesh.apply_example("fault-injection.yaml").unwrap();
    accepted(&mesh, &envoy).await;
}
