//! Every file of `samples/examples`, applied unchanged to the shop in namespace `default`, does what its table says.
//!
//! One shop, one example after the other: they are written for one namespace. Shares of requests are checked against
//! exact binomial bounds that a correct mesh misses once in a million (`weft_e2e::bounds`).
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::StatusCode;
use weft_e2e::{
    bounds::binomial,
    checks,
    kube::{Cluster, Injection, Namespace, Pod, until, until_for},
    load::{Burst, Outcome},
    programs::sample,
};

/// Answers in a row that show that a configuration is in effect everywhere: at a share of one half, chance gives
/// thirty in a row once in a billion.
const IN_A_ROW: usize = 30;

/// The shop, and who calls it.
struct Shop {
    namespace: Namespace,
    storefront: Pod,
    orders: Vec<Pod>,
    users: Vec<Pod>,
    payments: Pod,
    load: Pod,
}

impl Shop {
    async fn open(cluster: &Cluster) -> anyhow::Result<Self> {
        let namespace = cluster.default_namespace(Injection::Istio).await?;
        namespace
            .deploy(&["storefront", "order-service", "user-service", "payment-service", "load"])
            .await?;
        let shop = Self {
            storefront: namespace.pod("app=storefront").await?,
            orders: namespace.pods("app=order-service").await?,
            users: namespace.pods("app=user-service").await?,
            payments: namespace.pod("app=payment-service").await?,
            load: namespace.pod("app=load").await?,
            namespace,
        };
        for pod in shop.pods() {
            ensure!(pod.is_meshed(), "{} has no proxy", pod.name());
        }
        Ok(shop)
    }

    fn pods(&self) -> impl Iterator<Item = &Pod> {
        let single = [&self.storefront, &self.payments, &self.load];
        single.into_iter().chain(&self.orders).chain(&self.users)
    }

    async fn apply(&self, example: &str) -> anyhow::Result<()> {
        self.namespace
            .apply(&sample(&format!("examples/{example}"))?)
            .await
            .context(example.to_owned())
    }

    async fn delete(&self, example: &str) -> anyhow::Result<()> {
        self.namespace.delete(&sample(&format!("examples/{example}"))?).await
    }

    /// Requests that arrived at the user service since they were last forgotten.
    async fn user_requests(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for user in &self.users {
            sum += user.counters().await?.requests;
        }
        Ok(sum)
    }

    async fn reset_users(&self) -> anyhow::Result<()> {
        for user in &self.users {
            user.reset().await?;
        }
        Ok(())
    }
}

/// Waits until requests get this answer again and again.
async fn in_effect(what: &str, ask: impl AsyncFn() -> anyhow::Result<bool>) {
    let all = until(what, async || {
        for _ in 0..IN_A_ROW {
            ensure!(ask().await?, "not yet");
        }
        Ok(())
    });
    all.await.unwrap();
}

fn versions(outcomes: &[Outcome], version: &str) -> u64 {
    outcomes.iter().filter(|outcome| outcome.version == version).count() as u64
}

fn statuses(outcomes: &[Outcome], status: StatusCode) -> u64 {
    outcomes.iter().filter(|outcome| outcome.status == status.as_u16()).count() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_does_what_its_table_says() {
    let cluster = Cluster::with_mesh().await.unwrap();
    let shop = Shop::open(&cluster).await.unwrap();
    works(&shop).await;
    canary(&shop).await;
    timeout_and_retries(&shop).await;
    circuit_breaker_limits(&shop).await;
    circuit_breaker_ejects(&shop).await;
    faults(&shop).await;
    strict_mtls(&cluster, &shop).await;
    authorization(&shop).await;
    rate_limit(&shop).await;
}

/// An order goes through all services, over HTTP and gRPC, each call by who it says it is.
async fn works(shop: &Shop) {
    let client = shop.load.client().await.unwrap();
    let reply = until("an order should go through", async || {
        let reply = client.get("http://storefront/orders/42").await?;
        ensure!(reply.status == StatusCode::OK, "{} {}", reply.status, reply.text());
        reply.answer()
    });
    let answer = reply.await.unwrap();
    let order = &answer.upstreams[0].body;
    let user = &order["upstreams"][0]["body"];
    for (callee, caller) in [(order, "storefront"), (user, "order-service")] {
        let identity = callee["headers"]["x-forwarded-client-cert"].as_str().unwrap_or_default();
        let expected = format!("URI=spiffe://cluster.local/ns/default/sa/{caller}");
        assert!(identity.contains(&expected), "{identity}");
    }
}

async fn canary(shop: &Shop) {
    shop.apply("canary.yaml").await.unwrap();
    let client = shop.storefront.client().await.unwrap();
    in_effect("beta users should reach v2", async || {
        let reply = client.get_with("http://order-service/", &[("user-type", "beta")]).await?;
        Ok(reply.answer()?.version == "v2")
    })
    .await;
    let burst = |user: &str, count| {
        Burst::get("http://order-service/").header("user-type", user).count(count).at_once(8)
    };
    let beta = shop.storefront.burst(&burst("beta", 500)).await.unwrap();
    assert_eq!(versions(&beta, "v2"), 500);
    let count = 5_000;
    let others = shop.storefront.burst(&burst("regular", count)).await.unwrap();
    let canaries = versions(&others, "v2");
    assert_eq!(versions(&others, "v1") + canaries, count);
    let expected = binomial(count, 0.1);
    assert!(expected.contains(&canaries), "{canaries} of {count} went to v2, not {expected:?}");
    shop.delete("canary.yaml").await.unwrap();
}

async fn timeout_and_retries(shop: &Shop) {
    shop.apply("timeout-retries.yaml").await.unwrap();
    let client = shop.storefront.client().await.unwrap();
    until("a failing request should be tried four times", async || {
        shop.reset_users().await?;
        client.get("http://user-service/failing?fail=503").await?;
        let attempts = shop.user_requests().await?;
        ensure!(attempts == 4, "{attempts} attempts");
        Ok(())
    })
    .await
    .unwrap();

    // One attempt and three more, then the last answer.
    for (path, status) in [("?fail=500", 500), ("?fail=504", 504)] {
        shop.reset_users().await.unwrap();
        let reply = client.get(&format!("http://user-service/failing{path}")).await.unwrap();
        assert_eq!((path, reply.status.as_u16()), (path, status));
        assert_eq!(shop.user_requests().await.unwrap(), 4, "{path}");
    }
    // Failures that pass are not seen.
    shop.reset_users().await.unwrap();
    for user in &shop.users {
        user.plan_failures("status=503&next=1").await.unwrap();
    }
    let reply = client.get("http://user-service/recovers").await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    // Each try ends after 1 s, all of them after 3 s: the fourth never starts.
    shop.reset_users().await.unwrap();
    let start = Instant::now();
    let reply = client.get("http://user-service/slow?delay=20s").await.unwrap();
    assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT, "{}", reply.text());
    assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
    let attempts = shop.user_requests().await.unwrap();
    assert!((1..=3).contains(&attempts), "{attempts} attempts");
    shop.delete("timeout-retries.yaml").await.unwrap();
}

const USERS: &str = "cluster.outbound|80||user-service.default.svc.cluster.local";

async fn circuit_breaker_limits(shop: &Shop) {
    shop.apply("circuit-breaker.yaml").await.unwrap();
    let storefront = &shop.storefront;
    // Two requests a connection: fifty requests one after the other need 25 connections.
    let fifty = Burst::get("http://user-service/").count(50).at_once(1);
    until("connections should carry two requests", async || {
        let total = format!("{USERS}.upstream_cx_total");
        let before = storefront.stat(&total).await?;
        let outcomes = storefront.burst(&fifty).await?;
        ensure!(statuses(&outcomes, StatusCode::OK) == 50, "{outcomes:?}");
        let opened = storefront.stat(&total).await? - before;
        ensure!((25..=30).contains(&opened), "{opened} connections");
        Ok(())
    })
    .await
    .unwrap();

    // A hundred slow requests take a hundred connections. They come in steps, because a request whose connection
    // is being opened counts as pending.
    shop.reset_users().await.unwrap();
    let slow = |count: usize, seconds: u32| {
        let uri = format!("http://user-service/slow?delay={seconds}s");
        Burst::get(&uri).count(count as u64).at_once(count)
    };
    let mut waiting = Vec::new();
    for step in 1..=5 {
        waiting.push(storefront.spawn_burst(&slow(20, 60)).await.unwrap());
        until("slow requests should arrive", async || {
            let arrived = shop.user_requests().await?;
            ensure!(arrived == step * 20, "{arrived}");
            Ok(())
        })
        .await
        .unwrap();
    }
    // Fifty more wait for a connection, and any more are refused at once.
    waiting.push(storefront.spawn_burst(&slow(50, 1)).await.unwrap());
    let pending = format!("{USERS}.upstream_rq_pending_active");
    until("fifty requests should wait", async || {
        let waiting = storefront.stat(&pending).await?;
        ensure!(waiting == 50, "{waiting}");
        Ok(())
    })
    .await
    .unwrap();
    let client = storefront.client().await.unwrap();
    for _ in 0..20 {
        let reply = client.get("http://user-service/").await.unwrap();
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.text());
        assert_eq!(reply.header("x-envoy-overloaded"), "true");
    }
    let open = format!("{USERS}.upstream_cx_active");
    until("a hundred connections should be open", async || {
        let connections = storefront.stat(&open).await?;
        ensure!(connections == 100, "{connections}");
        Ok(())
    })
    .await
    .unwrap();
    for burst in waiting {
        let outcomes = burst.await.unwrap().unwrap();
        assert_eq!(statuses(&outcomes, StatusCode::OK), outcomes.len() as u64, "{outcomes:?}");
    }
    assert_eq!(shop.user_requests().await.unwrap(), 150);
}

async fn circuit_breaker_ejects(shop: &Shop) {
    let client = shop.storefront.client().await.unwrap();
    let (good, bad) = (&shop.users[0], &shop.users[1]);
    let get = "http://user-service/";
    bad.plan_failures("status=503&rate=100").await.unwrap();
    let start = Instant::now();
    let mut errors = 0;
    until("five errors should be seen", async || {
        errors += usize::from(client.get(get).await?.status == StatusCode::SERVICE_UNAVAILABLE);
        ensure!(errors == 5, "{errors}");
        Ok(())
    })
    .await
    .unwrap();
    // Out: everything goes to the other endpoint.
    bad.reset().await.unwrap();
    let outcomes = shop.storefront.burst(&Burst::get(get).count(100)).await.unwrap();
    assert!(outcomes.iter().all(|outcome| outcome.pod == good.name()), "{outcomes:?}");
    // At most half of the endpoints are out at once: the other one stays, failing as it may.
    good.plan_failures("status=503&next=40").await.unwrap();
    let outcomes = shop.storefront.burst(&Burst::get(get).count(40)).await.unwrap();
    assert!(outcomes.iter().all(|outcome| outcome.pod == good.name()), "{outcomes:?}");
    assert_eq!(bad.counters().await.unwrap().requests, 0);
    // Back after 30 s, at the next interval of 30 s.
    until_for(Duration::from_secs(180), "the endpoint should come back", async || {
        client.get(get).await?;
        ensure!(bad.counters().await?.requests > 0, "is still out");
        Ok(())
    })
    .await
    .unwrap();
    assert!(start.elapsed() >= Duration::from_secs(30), "{:?}", start.elapsed());
    shop.reset_users().await.unwrap();
    shop.delete("circuit-breaker.yaml").await.unwrap();
}

async fn faults(shop: &Shop) {
    shop.apply("fault-injection.yaml").await.unwrap();
    let client = shop.storefront.client().await.unwrap();
    // Not by asking until a request fails: a run of good luck would be taken for a fault that is not there.
    until("the route should have the fault", async || {
        // A proxy knows the hosts that it was asked for.
        client.get("http://user-service/").await?;
        let dump = shop.storefront.admin("/config_dump").await?;
        ensure!(dump.contains("\"fixed_delay\""), "no fault");
        Ok(())
    })
    .await
    .unwrap();
    let count = 1_000;
    let burst = Burst::get("http://user-service/").count(count).at_once(100);
    let outcomes = shop.storefront.burst(&burst).await.unwrap();
    let delayed = outcomes.iter().filter(|outcome| outcome.milliseconds >= 5_000).count() as u64;
    let aborted = outcomes.iter().filter(|outcome| outcome.text == "fault filter abort").count();
    let aborted = aborted as u64;
    assert_eq!(statuses(&outcomes, StatusCode::SERVICE_UNAVAILABLE), aborted);
    assert_eq!(statuses(&outcomes, StatusCode::OK), count - aborted);
    let (few, many) = (binomial(count, 0.05), binomial(count, 0.1));
    assert!(many.contains(&delayed), "{delayed} of {count} waited 5 s, not {many:?}");
    assert!(few.contains(&aborted), "{aborted} of {count} got 503, not {few:?}");
    shop.delete("fault-injection.yaml").await.unwrap();
}

async fn strict_mtls(cluster: &Cluster, shop: &Shop) {
    let outside = cluster.namespace("examples", Injection::Off).await.unwrap();
    outside.deploy(&["load"]).await.unwrap();
    let outsider = outside.pod("app=load").await.unwrap();
    let services = ["storefront", "order-service", "user-service", "payment-service"];
    // Every request on a connection of its own: what was accepted before may go on.
    let plain = async |service: &str| -> anyhow::Result<Outcome> {
        let burst = Burst::get(&format!("http://{service}.default/plain"));
        Ok(outsider.burst(&burst).await?.remove(0))
    };
    for service in services {
        until(&format!("{service} should take plaintext"), async || {
            let outcome = plain(service).await?;
            ensure!(outcome.status == 200, "{outcome:?}");
            Ok(())
        })
        .await
        .unwrap();
    }
    shop.load.start_load("http://order-service/meshed", 50).await.unwrap();
    shop.apply("mtls-strict.yaml").await.unwrap();
    for service in services {
        until(&format!("{service} should refuse plaintext"), async || {
            let outcome = plain(service).await?;
            ensure!(outcome.status == 0 && !outcome.text.is_empty(), "{outcome:?}");
            Ok(())
        })
        .await
        .unwrap();
    }
    works(shop).await;
    shop.load.end_load().await.unwrap().assert_no_failure();
    shop.delete("mtls-strict.yaml").await.unwrap();
}

async fn authorization(shop: &Shop) {
    shop.apply("authorization.yaml").await.unwrap();
    let order = shop.orders[0].client().await.unwrap();
    let user = shop.users[0].client().await.unwrap();
    let pay = "http://payment-service/payments/7";
    in_effect("user-service should be refused", async || {
        Ok(user.post(pay).await?.status == StatusCode::FORBIDDEN)
    })
    .await;
    shop.payments.reset().await.unwrap();
    let passed = checks::only_orders_pay(&order, &user).await.unwrap();
    assert_eq!(shop.payments.counters().await.unwrap().requests, passed);
    shop.delete("authorization.yaml").await.unwrap();
    in_effect("user-service should be let in again", async || {
        Ok(user.post(pay).await?.status == StatusCode::OK)
    })
    .await;
}

/// The bucket is filled once a minute. Who meets that moment sees more than a hundred answers, so it is repeated on
/// another workload: all of them have a bucket.
async fn rate_limit(shop: &Shop) {
    shop.apply("rate-limit-envoyfilter.yaml").await.unwrap();
    let mut seen = Vec::new();
    for (service, server) in [("payment-service", &shop.payments), ("storefront", &shop.storefront)]
    {
        until("the listener should have the filter", async || {
            let dump = server.admin("/config_dump").await?;
            ensure!(dump.contains("envoy.filters.http.local_ratelimit"), "no local rate limit");
            Ok(())
        })
        .await
        .unwrap();
        let burst = Burst::get(&format!("http://{service}/limited")).count(150);
        let outcomes = shop.load.burst(&burst).await.unwrap();
        let statuses: Vec<u16> = outcomes.iter().map(|outcome| outcome.status).collect();
        let mut sorted = statuses.clone();
        sorted.sort_unstable();
        if sorted == [vec![200; 100], vec![429; 50]].concat() {
            let limited = outcomes.iter().filter(|outcome| outcome.status == 429);
            assert!(limited.clone().all(|outcome| outcome.text == "local_rate_limited"));
            shop.delete("rate-limit-envoyfilter.yaml").await.unwrap();
            return;
        }
        seen.push(statuses);
    }
    panic!("not 100 answers and then 429: {seen:?}");
}
