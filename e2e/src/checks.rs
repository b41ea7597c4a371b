//! What holds of the samples wherever the mesh runs: asked by the tests of processes and of Kubernetes alike.

use anyhow::ensure;
use http::{Method, StatusCode};
use tonic::{Code, transport::Channel};
use weft_samples::payment::{ChargeRequest, WatchRequest, payments_client::PaymentsClient};

use crate::{
    client::{Client, request},
    kube::PATIENCE,
    wait::until_ok_for,
};

/// A call, calls that fail with a code of their own, and a stream of 50 messages. The server must be `role`, and must
/// have seen a client whose certificate's element has `identity`.
///
/// # Errors
/// What does not hold.
pub async fn grpc(channel: Channel, role: &str, identity: &str) -> anyhow::Result<()> {
    let mut client = PaymentsClient::new(channel);
    let charge = |fail_code| ChargeRequest { order: "7".into(), fail_code, ..Default::default() };
    let reply = until_ok_for(PATIENCE, "the call should succeed", async || {
        Ok(client.clone().charge(charge(0)).await?.into_inner())
    });
    let reply = reply.await?;
    ensure!(reply.role == role, "{} answered, not {role}", reply.role);
    let seen = reply.metadata.get("x-forwarded-client-cert").map_or("", String::as_str);
    ensure!(seen.contains(identity), "the server saw {seen:?}, not {identity}");

    for code in [Code::NotFound, Code::PermissionDenied, Code::Internal] {
        let Err(status) = client.charge(charge(code as i32)).await else {
            anyhow::bail!("the call should fail with {code:?}");
        };
        ensure!(
            (status.code(), status.message()) == (code, "the request asked for it"),
            "{status}"
        );
    }

    let watch = WatchRequest { order: "7".into(), count: 50, interval_ms: 5 };
    let mut stream = client.watch(watch).await?.into_inner();
    let mut seen = Vec::new();
    while let Some(reply) = stream.message().await? {
        seen.push(reply.index);
    }
    ensure!(seen == (0..50).collect::<Vec<_>>(), "{seen:?}");
    Ok(())
}

/// What `authorization.yaml` allows: order-service posts payments, and nobody does anything else. Says how many
/// requests went through.
///
/// # Errors
/// The first answer that is not as it should be.
pub async fn only_orders_pay(order: &Client, user: &Client) -> anyhow::Result<u64> {
    let cases = [
        (order, Method::POST, "/payments/7", 200),
        (order, Method::POST, "/payments/", 200),
        (order, Method::GET, "/payments/7", 403),
        (order, Method::POST, "/payments", 403),
        (order, Method::POST, "/refunds/7", 403),
        (order, Method::POST, "/refunds/../payments/7", 200),
        (order, Method::POST, "/payments/../refunds/7", 403),
        (user, Method::POST, "/payments/7", 403),
        (user, Method::GET, "/payments/7", 403),
    ];
    let mut passed = 0;
    for (client, method, path, expected) in cases {
        let uri = format!("http://payment-service{path}");
        let reply = client.send(request(method.clone(), &uri, &[])).await?;
        let status = reply.status.as_u16();
        ensure!(status == expected, "{method} {path}: {status}, not {expected}");
        if reply.status == StatusCode::FORBIDDEN {
            ensure!(reply.text() == "RBAC: access denied", "{method} {path}: {}", reply.text());
        } else {
            passed += 1;
        }
    }
    Ok(passed)
}
