//! Mutual TLS between pods: identities arrive, the wire carries no plaintext, PERMISSIVE takes both, STRICT refuses
//! those without a certificate, and the authority signs for nobody who is somebody else.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use anyhow::{bail, ensure};
use http::StatusCode;
use weft_e2e::{
    kube::{Cluster, Injection, Namespace, Pod, until},
    programs::sample,
};
use weft_samples::wiretap::Seen;

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
";

/// A pod outside the mesh that can call others.
async fn outsider(cluster: &Cluster) -> (Namespace, Pod) {
    let outside = cluster.namespace("outside", Injection::Off).await.unwrap();
    outside.deploy(&["load"]).await.unwrap();
    let pod = outside.pod("app=load").await.unwrap();
    assert!(!pod.is_meshed());
    (outside, pod)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissive_takes_both_and_strict_refuses_plaintext() {
    let cluster = Cluster::with_mesh().await.unwrap();
    let namespace = cluster.namespace("strict", Injection::Weft).await.unwrap();
    let (_outside, outsider) = outsider(&cluster).await;
    namespace.deploy(&["payment-service", "load"]).await.unwrap();
    let load = namespace.pod("app=load").await.unwrap();
    assert!(load.is_meshed());
    let uri = format!("http://payment-service.{}/", namespace.name());
    let meshed = load.client().await.unwrap();
    let identity = async || {
        let reply = meshed.get(&uri).await?;
        ensure!(reply.status == StatusCode::OK, "{} {}", reply.status, reply.text());
        Ok(reply.answer()?.headers.get("x-forwarded-client-cert").cloned().unwrap_or_default())
    };
    let expected = format!("URI=spiffe://cluster.local/ns/{}/sa/load", namespace.name());
    let mutual = async || {
        let identity = identity().await?;
        ensure!(identity.contains(&expected), "identity {identity:?}");
        Ok(())
    };
    until("meshed pods should talk mutual TLS", mutual).await.unwrap();
    // Every request on a connection of its own: what was accepted before may go on.
    let plain = async || -> anyhow::Result<StatusCode> {
        let burst = weft_e2e::load::Burst::get(&uri);
        let outcome = outsider.burst(&burst).await?.remove(0);
        ensure!(outcome.status != 0, "{}", outcome.text);
        Ok(StatusCode::from_u16(outcome.status)?)
    };
    until("PERMISSIVE should take plaintext", async || {
        let status = plain().await?;
        ensure!(status == StatusCode::OK, "{status}");
        Ok(())
    })
    .await
    .unwrap();

    load.start_load(&uri, 50).await.unwrap();
    namespace.apply(STRICT).await.unwrap();
    until("STRICT should refuse plaintext", async || {
        // Both ways of asking: a refusal is not what a tunnel that broke looks like.
        match plain().await {
            Ok(status) => bail!("{status}"),
            Err(error) if format!("{error:#}").contains("http://") => Ok(()),
            Err(error) => Err(error),
        }
    })
    .await
    .unwrap();
    mutual().await.unwrap();
    load.end_load().await.unwrap().assert_no_failure();
}

/// The packets of the server's pod, seen from inside of it.
async fn wiretapped(namespace: &Namespace, secret: &str) -> Pod {
    let yaml = sample("kubernetes/payment-service.yaml").unwrap();
    let yaml = yaml.replace(
        "        env:\n",
        &format!("        env:\n        - name: SAMPLE_WIRETAP\n          value: {secret}\n"),
    );
    let yaml = yaml.replace(
        "          runAsNonRoot: true\n          runAsUser: 1000\n",
        "          runAsUser: 0\n",
    );
    let yaml = yaml.replace("            drop: [ALL]\n", "            add: [NET_RAW]\n");
    namespace.apply(&yaml).await.unwrap();
    namespace.deploy(&["load"]).await.unwrap();
    namespace.pod("app=payment-service").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wire_between_meshed_pods_carries_no_plaintext() {
    let cluster = Cluster::with_mesh().await.unwrap();
    let namespace = cluster.namespace("wire", Injection::Istio).await.unwrap();
    let (_outside, outsider) = outsider(&cluster).await;
    let secret = "attack-at-dawn-7f3a";
    let server = wiretapped(&namespace, secret).await;
    let load = namespace.pod("app=load").await.unwrap();
    let seen = async || -> anyhow::Result<Seen> {
        Ok(serde_json::from_str(&server.get(8080, "/_sample/wiretap").await?)?)
    };
    // The answer repeats the header, so the text goes both ways.
    let uri = format!("http://payment-service.{}/", namespace.name());
    let ask = async |pod: &Pod| {
        let client = pod.client().await?;
        let reply = client.get_with(&uri, &[("x-secret", secret)]).await?;
        ensure!(reply.status == StatusCode::OK, "{} {}", reply.status, reply.text());
        ensure!(reply.answer()?.headers["x-secret"] == secret, "not repeated");
        reply.answer()
    };

    until("the meshed client should be answered", async || ask(&load).await).await.unwrap();
    for _ in 0..20 {
        let answer = ask(&load).await.unwrap();
        assert!(answer.headers.contains_key("x-forwarded-client-cert"));
    }
    // Two packets a request at least; they are looked at when they have passed.
    let meshed = until("the packets should be seen", async || {
        let meshed = seen().await?;
        ensure!(meshed.packets >= 40, "{meshed:?}");
        Ok(meshed)
    });
    let meshed = meshed.await.unwrap();
    assert_eq!(meshed.marked, 0, "{meshed:?}");

    // Whoever talks plaintext is seen to: the wiretap works.
    until("the other client should be answered", async || ask(&outsider).await).await.unwrap();
    until("plaintext should be seen", async || {
        let plain = seen().await?;
        ensure!(plain.marked >= 2, "{plain:?}");
        Ok(())
    })
    .await
    .unwrap();
}
