//! Who gets a certificate on a real Kubernetes: a pod, for its own service account, with the token that the kubelet
//! gives it for this purpose. Nobody else does, and nobody after the pod is gone.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use anyhow::{Context, ensure};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, ServiceAccount},
};
use kube::{Api, ResourceExt, api::PostParams};
use tonic::{Code, Status, transport::Channel};
use weft_e2e::{
    authority::{channel, sign, signing_request},
    kube::{Cluster, Injection, Namespace, Pod, until},
};

const AUDIENCE: &str = "istio-ca";

/// The API server gives a token of a service account, as it gives it to the kubelet for a pod.
async fn token(
    namespace: &Namespace,
    account: &str,
    audience: Option<&str>,
    pod: Option<&Pod>,
) -> anyhow::Result<String> {
    let bound = pod.map(|pod| BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(pod.name()),
        uid: pod.object().uid(),
    });
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: audience.map(|audience| vec![audience.to_owned()]),
            bound_object_ref: bound,
            expiration_seconds: Some(600),
        }),
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = namespace.cluster().api(namespace.name());
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    answer.status.and_then(|status| status.token).context("no token")
}

/// The operator's authority, as a workload that has nothing but the root reaches it.
async fn authority(namespace: &Namespace, operator: &Pod, folder: &Path) -> Channel {
    let maps: Api<ConfigMap> = namespace.cluster().api(namespace.name());
    let root = maps.get("istio-ca-root-cert").await.unwrap().data.unwrap();
    std::fs::write(folder.join("root-cert.pem"), &root["root-cert.pem"]).unwrap();
    channel(operator.forward(15012).await.unwrap(), folder, None).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_pod_gets_a_certificate_and_only_its_own() {
    let cluster = Cluster::with_mesh().await.unwrap();
    let namespace = cluster.namespace("identity", Injection::Istio).await.unwrap();
    namespace.deploy(&["payment-service", "load"]).await.unwrap();
    let load = namespace.pod("app=load").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let operator = cluster.operator().await.unwrap();
    let authority = authority(&namespace, &operator, folder.path()).await;
    let name =
        |account: &str| format!("spiffe://cluster.local/ns/{}/sa/{account}", namespace.name());
    let ask = async |token: &str, account: &str| -> Result<Vec<String>, Status> {
        let (request, _) = signing_request(&[&name(account)]).unwrap();
        sign(authority.clone(), token, request, 3600).await
    };

    // What a proxy does.
    let right = token(&namespace, "load", Some(AUDIENCE), Some(&load)).await.unwrap();
    let chain = ask(&right, "load").await.unwrap();
    assert!(chain.len() >= 2, "{}", chain.len());

    let refused = async |what: &str, token: &str, account: &str, code: Code, told: &str| {
        let status = ask(token, account).await.expect_err(what);
        assert_eq!(status.code(), code, "{what}: {status:?}");
        assert!(status.message().contains(told), "{what}: {told:?} is not in {status:?}");
    };
    // Somebody else's name.
    let code = Code::PermissionDenied;
    refused("another account", &right, "payment-service", code, "payment-service").await;
    // Tokens for other purposes: what the application's own calls of the API server carry, and another service's.
    let code = Code::Unauthenticated;
    let api = token(&namespace, "load", None, Some(&load)).await.unwrap();
    refused("the API server's audience", &api, "load", code, "").await;
    let other = token(&namespace, "load", Some("vault"), Some(&load)).await.unwrap();
    refused("another audience", &other, "load", code, "").await;
    // A token that is nobody's in particular could be carried anywhere.
    let unbound = token(&namespace, "load", Some(AUDIENCE), None).await.unwrap();
    refused("no pod", &unbound, "load", code, "not bound to a pod").await;
    refused("half a token", &right[..right.len() - 20], "load", code, "").await;
    refused("no token at all", "", "load", code, "").await;

    // A pod cannot have a token of an account that is not its own.
    let stolen = token(&namespace, "payment-service", Some(AUDIENCE), Some(&load)).await;
    assert!(stolen.is_err());

    // The token ends with its pod, whatever its own date says.
    load.kill().await.unwrap();
    until("the token should end with its pod", async || {
        let status = ask(&right, "load").await.err().context("still signed")?;
        ensure!(status.code() == code, "{status:?}");
        Ok(())
    })
    .await
    .unwrap();
}
