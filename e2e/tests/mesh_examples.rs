//! Every file of `samples/examples`, applied unchanged, does what its table says.
//!
//! Shares of requests are checked against exact binomial bounds that a correct mesh misses once in a million
//! (`weft_e2e::bounds`).
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::{Method, StatusCode};
use weft_e2e::{
    block::Block,
    bounds::binomial,
    checks,
    client::{Client, Reply, request, url},
    load,
    mesh::{Mesh, Options, Workload},
    wait,
};

/// Answers in a row that show that a configuration is in effect everywhere: at a share of one half, chance gives
/// thirty in a row once in a billion.
const IN_A_ROW: usize = 30;

async fn shop() -> Mesh {
    Mesh::shop(Options::default()).await.unwrap()
}

/// Waits until requests get this answer again and again.
async fn in_effect(what: &str, ask: impl AsyncFn() -> anyhow::Result<bool>) {
    let all = wait::until_ok(what, async || {
        for _ in 0..IN_A_ROW {
            ensure!(ask().await?, "not yet");
        }
        Ok(())
    });
    all.await.unwrap();
}

async fn requests_at(workloads: &[&Workload]) -> u64 {
    let mut sum = 0;
    for workload in workloads {
        sum += workload.counters().await.unwrap().requests;
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_sends_beta_users_to_v2_and_a_tenth_of_the_others() {
    let mesh = shop().await;
    let client = mesh.workload("storefront-v1-1").unwrap().client();
    mesh.apply_example("canary.yaml").unwrap();
    in_effect("beta users should reach v2", async || {
        let reply = client.get_with("http://order-service/", &[("user-type", "beta")]).await?;
        Ok(reply.answer()?.version == "v2")
    })
    .await;

    let version = |reply: anyhow::Result<Reply>, _| reply.unwrap().answer().unwrap().version;
    let beta = load::burst(
        &client,
        1_000,
        16,
        |_| request(Method::GET, "http://order-service/", &[("user-type", "beta")]),
        version,
    );
    assert_eq!(beta.await.iter().filter(|version| *version != "v2").count(), 0);

    let count = 10_000;
    let get = |_| request(Method::GET, "http://order-service/", &[("user-type", "regular")]);
    let others = load::burst(&client, count, 16, get, version).await;
    let canaries = others.iter().filter(|version| *version == "v2").count() as u64;
    assert!(others.iter().all(|version| version == "v1" || version == "v2"));
    let expected = binomial(count, 0.1);
    assert!(expected.contains(&canaries), "{canaries} of {count} went to v2, not {expected:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeout_and_retries_bound_a_request() {
    let mut mesh = shop().await;
    mesh.apply_example("timeout-retries.yaml").unwrap();
    let client = mesh.workload("storefront-v1-1").unwrap().client();
    let users = ["user-service-v1-1", "user-service-v1-2"];
    let [first, second] = users.map(|name| mesh.workload(name).unwrap());
    let failing = "http://user-service/failing?fail=503";
    wait::until_eq("a failing request should be tried four times", 4, async || {
        first.reset().await?;
        second.reset().await?;
        client.get(failing).await?;
        Ok(requests_at(&[first, second]).await)
    })
    .await
    .unwrap();

    // One attempt and three more, then the last answer.
    for (path, status) in [("?fail=500", 500), ("?fail=504", 504), ("?fail=reset", 503)] {
        first.reset().await.unwrap();
        second.reset().await.unwrap();
        let reply = client.get(&format!("http://user-service/failing{path}")).await.unwrap();
        assert_eq!((path, reply.status.as_u16()), (path, status));
        assert_eq!(requests_at(&[first, second]).await, 4, "{path}");
    }

    // Failures that pass are not seen.
    for workload in [first, second] {
        workload.reset().await.unwrap();
        workload.plan_failures("status=503&next=1").await.unwrap();
    }
    let reply = client.get("http://user-service/recovers").await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());

    // Each try ends after 1 s, all of them after 3 s: the fourth never starts, nor the third after a stall.
    first.reset().await.unwrap();
    second.reset().await.unwrap();
    let start = Instant::now();
    let reply = client.get("http://user-service/slow?delay=20s").await.unwrap();
    assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT, "{}", reply.text());
    assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
    let tries = requests_at(&[first, second]).await;
    assert!((2..=3).contains(&tries), "{tries}");

    // Connect failures: the proxy of one endpoint is gone without a word.
    let victim = mesh.workload_mut("user-service-v1-2").unwrap().proxy().unwrap();
    victim.signal(rustix::process::Signal::KILL).unwrap();
    victim.end(wait::PATIENCE).await.unwrap();
    let status = |reply: anyhow::Result<Reply>, _| reply.unwrap().status;
    let get = |_| request(Method::GET, "http://user-service/alive", &[]);
    let statuses = load::burst(&client, 200, 8, get, status).await;
    assert_eq!(statuses.iter().filter(|status| **status != StatusCode::OK).count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn circuit_breaker_limits_connections_and_requests() {
    let mesh = shop().await;
    mesh.apply_example("circuit-breaker.yaml").unwrap();
    let storefront = mesh.workload("storefront-v1-1").unwrap();
    let client = storefront.client();
    let users = ["user-service-v1-1", "user-service-v1-2"].map(|name| mesh.workload(name).unwrap());
    let cluster = "cluster.outbound|80||user-service.default.svc.cluster.local";

    // Two requests a connection: fifty requests one after the other need 25 connections.
    wait::until_ok("connections should carry two requests", async || {
        let total = format!("{cluster}.upstream_cx_total");
        let before = storefront.stat(&total).await?;
        for _ in 0..50 {
            let reply = client.get("http://user-service/").await?;
            ensure!(reply.status == StatusCode::OK, "{}", reply.text());
        }
        let opened = storefront.stat(&total).await? - before;
        ensure!((25..=27).contains(&opened), "{opened} connections");
        Ok(())
    })
    .await
    .unwrap();

    // A hundred slow requests take a hundred connections. They come in steps, because a request whose connection
    // is being opened counts as pending.
    for user in users {
        user.reset().await.unwrap();
    }
    let slow = |seconds: u32| {
        let client = client.clone();
        let uri = format!("http://user-service/slow?delay={seconds}s");
        tokio::spawn(async move { client.get(&uri).await })
    };
    let mut waiting = Vec::new();
    for step in 1..=5 {
        // Slower than all that is done here meanwhile.
        waiting.extend((0..20).map(|_| slow(40)));
        wait::until_eq("slow requests should arrive", step * 20, async || {
            let mut arrived = 0;
            for user in users {
                arrived += user.counters().await?.requests;
            }
            Ok(arrived)
        })
        .await
        .unwrap();
    }
    // Fifty more wait for a connection, and any more are refused at once.
    waiting.extend((0..50).map(|_| slow(1)));
    let pending = format!("{cluster}.upstream_rq_pending_active");
    wait::until_eq("fifty requests should wait", 50, async || storefront.stat(&pending).await)
        .await
        .unwrap();
    for _ in 0..20 {
        let reply = client.get("http://user-service/").await.unwrap();
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.text());
        assert_eq!(reply.header("x-envoy-overloaded"), "true");
    }
    let open = format!("{cluster}.upstream_cx_active");
    wait::until_eq("a hundred connections", 100, async || storefront.stat(&open).await)
        .await
        .unwrap();
    for request in waiting {
        assert_eq!(request.await.unwrap().unwrap().status, StatusCode::OK);
    }
    assert_eq!(requests_at(&users).await, 150);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn circuit_breaker_takes_out_a_failing_endpoint_and_lets_it_back() {
    let mesh = shop().await;
    mesh.apply_example("circuit-breaker.yaml").unwrap();
    let client = mesh.workload("storefront-v1-1").unwrap().client();
    let [good, bad] =
        ["user-service-v1-1", "user-service-v1-2"].map(|name| mesh.workload(name).unwrap());
    let breaks = mesh.workload("storefront-v1-1").unwrap();
    let get = "http://user-service/";
    wait::until_ok("the rule should be in effect", async || {
        client.get(get).await?;
        let clusters = breaks.admin("/config_dump").await?;
        ensure!(clusters.contains("outlier_detection"), "no outlier detection");
        Ok(())
    })
    .await
    .unwrap();

    bad.plan_failures("status=503&rate=100").await.unwrap();
    let start = Instant::now();
    let mut errors = 0;
    wait::until_ok("five errors should be seen", async || {
        errors += usize::from(client.get(get).await?.status == StatusCode::SERVICE_UNAVAILABLE);
        ensure!(errors == 5, "{errors}");
        Ok(())
    })
    .await
    .unwrap();
    // Out: everything goes to the other endpoint.
    bad.reset().await.unwrap();
    for _ in 0..200 {
        assert_eq!(client.get(get).await.unwrap().answer().unwrap().pod, good.pod().name);
    }
    // At most half of the endpoints are out at once: the other one stays, failing as it may.
    good.plan_failures("status=503&rate=100").await.unwrap();
    good.plan_failures("status=503&next=40").await.unwrap();
    for _ in 0..40 {
        let reply = client.get(get).await.unwrap();
        assert_eq!(reply.answer().unwrap().pod, good.pod().name);
    }
    assert_eq!(bad.counters().await.unwrap().requests, 0);
    // Back after 30 s, at the next interval of 30 s.
    wait::until_ok_for(Duration::from_secs(120), "the endpoint should come back", async || {
        client.get(get).await?;
        ensure!(bad.counters().await?.requests > 0, "is still out");
        Ok(())
    })
    .await
    .unwrap();
    assert!(start.elapsed() >= Duration::from_secs(30), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_mtls_refuses_plaintext_and_meshed_clients_notice_nothing() {
    let mesh = shop().await;
    let client = mesh.workload("storefront-v1-1").unwrap().client();
    let plain = async |workload: &Workload| {
        // A connection of its own each time: what was accepted before may go on.
        Client::direct().get(&url(workload.address(), 8080, "/plain")).await
    };
    let servers: Vec<_> = mesh.workloads().filter(|workload| !workload.pod().is_client()).collect();
    for server in &servers {
        assert_eq!(plain(server).await.unwrap().status, StatusCode::OK);
    }
    let make = |_| request(Method::GET, "http://order-service/meshed", &[]);
    let change = async {
        mesh.apply_example("mtls-strict.yaml")?;
        for server in &servers {
            let what = format!("{} should refuse plaintext", server.pod().name);
            wait::until_ok(&what, async || match plain(server).await {
                Ok(reply) => anyhow::bail!("{} {}", reply.status, reply.text()),
                Err(_) => Ok(()),
            })
            .await?;
        }
        let reply = client.get("http://order-service/meshed").await?;
        let identity = reply.answer()?.headers.get("x-forwarded-client-cert").cloned();
        let identity = identity.context("no x-forwarded-client-cert")?;
        ensure!(
            identity.contains("URI=spiffe://cluster.local/ns/default/sa/storefront"),
            "{identity}"
        );
        // The whole chain of calls still works.
        let reply = client.get("http://order-service/orders/1").await?;
        ensure!(reply.status == StatusCode::OK, "{}", reply.text());
        Ok(())
    };
    let (report, outcome) = load::run(&client, 200, make, load::success, change).await;
    outcome.unwrap();
    report.assert_no_failure();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorization_lets_only_order_service_post_payments() {
    let mesh = shop().await;
    mesh.apply_example("authorization.yaml").unwrap();
    let client = |name: &str| mesh.workload(name).unwrap().client();
    let (order, user) = (client("order-service-v1-1"), client("user-service-v1-1"));
    let pay = "http://payment-service/payments/7";
    in_effect("user-service should be refused", async || {
        Ok(user.post(pay).await?.status == StatusCode::FORBIDDEN)
    })
    .await;
    let payments = mesh.workload("payment-service-v1-1").unwrap();
    payments.reset().await.unwrap();
    let passed = checks::only_orders_pay(&order, &user).await.unwrap();
    // Without a certificate nobody is order-service.
    let plain = Client::direct().post(&url(payments.address(), 8080, "/payments/7")).await.unwrap();
    assert_eq!(plain.status, StatusCode::FORBIDDEN);
    assert_eq!(payments.counters().await.unwrap().requests, passed);
    // The shop as a whole works on.
    let reply = mesh.workload("load-1").unwrap().client().get("http://storefront/").await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_delay_a_tenth_and_abort_a_twentieth() {
    let mesh = shop().await;
    let storefront = mesh.workload("storefront-v1-1").unwrap();
    let client = storefront.client();
    mesh.apply_example("fault-injection.yaml").unwrap();
    // Not by asking until a request fails: a run of good luck would be taken for a fault that is not there.
    wait::until_ok("the route should have the fault", async || {
        // A proxy knows the hosts that it was asked for.
        client.get("http://user-service/").await?;
        let dump = storefront.admin("/config_dump").await?;
        ensure!(dump.contains("\"fixed_delay\""), "no fault");
        Ok(())
    })
    .await
    .unwrap();

    let count = 2_000;
    let get = |_| request(Method::GET, "http://user-service/", &[]);
    let judge = |reply: anyhow::Result<Reply>, elapsed: Duration| {
        let reply = reply.unwrap();
        let aborted = reply.status == StatusCode::SERVICE_UNAVAILABLE;
        assert!(aborted || reply.status == StatusCode::OK, "{}", reply.status);
        if aborted {
            assert_eq!(reply.text(), "fault filter abort");
        }
        (elapsed >= Duration::from_secs(5), aborted)
    };
    let outcomes = load::burst(&client, count, 100, get, judge).await;
    let delayed = outcomes.iter().filter(|(delayed, _)| *delayed).count() as u64;
    let aborted = outcomes.iter().filter(|(_, aborted)| *aborted).count() as u64;
    let (few, many) = (binomial(count, 0.05), binomial(count, 0.1));
    assert!(many.contains(&delayed), "{delayed} of {count} waited 5 s, not {many:?}");
    assert!(few.contains(&aborted), "{aborted} of {count} got 503, not {few:?}");
}

/// The bucket is filled once a minute. A test that meets that moment sees more than a hundred answers, so it is
/// repeated on another workload: all of them have a bucket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_limit_answers_a_hundred_a_minute() {
    let mesh = shop().await;
    mesh.apply_example("rate-limit-envoyfilter.yaml").unwrap();
    let client = mesh.workload("load-1").unwrap().client();
    let mut seen = Vec::new();
    for service in ["payment-service", "storefront"] {
        let server = mesh.workload(&format!("{service}-v1-1")).unwrap();
        wait::until_ok("the listener should have the filter", async || {
            let dump = server.admin("/config_dump").await?;
            ensure!(dump.contains("envoy.filters.http.local_ratelimit"), "no local rate limit");
            Ok(())
        })
        .await
        .unwrap();
        let mut statuses = Vec::new();
        for _ in 0..150 {
            let reply = client.get(&format!("http://{service}/limited")).await.unwrap();
            if reply.status == StatusCode::TOO_MANY_REQUESTS {
                assert_eq!(reply.text(), "local_rate_limited");
            }
            statuses.push(reply.status.as_u16());
        }
        let expected = [vec![200; 100], vec![429; 50]].concat();
        if statuses == expected {
            return;
        }
        seen.push(statuses);
    }
    panic!("not 100 answers and then 429: {seen:?}");
}

#[test]
fn the_examples_are_in_the_block_of_no_test() {
    // The samples' addresses belong to the demo; tests take others.
    assert_ne!(Block::any().unwrap().operator().octets()[1], weft_e2e::block::SAMPLES);
}
