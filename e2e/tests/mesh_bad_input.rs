//! Mistakes in the configuration are reported, and the last good configuration stays in effect.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use anyhow::ensure;
use http::{Method, StatusCode};
use weft_e2e::{
    client::{Client, request},
    load,
    mesh::{Mesh, Options},
    programs::sample,
    wait,
};

/// Waits until the operator's report of resources and files holds all these texts.
async fn reported(mesh: &Mesh, texts: &[&str]) -> anyhow::Result<()> {
    wait::until_ok(&format!("the operator should report {texts:?}"), async || {
        let report = mesh.operator_text("/debug/status").await?;
        for text in texts {
            ensure!(report.contains(text), "{text:?} is not in {report}");
        }
        Ok(())
    })
    .await
}

/// Whether the canary's routes are in effect: beta users reach v2 and nobody else.
async fn canary(client: &Client) -> anyhow::Result<()> {
    for _ in 0..30 {
        let reply = client.get_with("http://order-service/", &[("user-type", "beta")]).await?;
        ensure!(reply.answer()?.version == "v2", "a beta user reached v1");
    }
    Ok(())
}

/// Files that replace the canary's, and what the report must say of each.
fn mistakes(good: &str) -> Vec<(&'static str, String, Vec<&'static str>)> {
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    };
    vec![
        ("an unknown field", with("  - match:", "  - mach:"), vec!["canary.yaml", "mach"]),
        ("a wrong type", with("weight: 90", "weight: most"), vec!["canary.yaml", "weight"]),
        (
            "an unknown match",
            with("exact: \"beta\"", "exakt: \"beta\""),
            vec!["canary.yaml", "exakt"],
        ),
        (
            "an unknown enum value",
            with(
                "  subsets:\n",
                "  trafficPolicy: {loadBalancer: {simple: FASTEST}}\n  subsets:\n",
            ),
            vec!["canary.yaml", "FASTEST"],
        ),
        (
            "a total weight of zero",
            good.replace("weight: 90", "weight: 0").replace("weight: 10\n", "weight: 0\n"),
            vec!["order-service", "weight"],
        ),
        ("no YAML", "{{{ : - [".to_owned(), vec!["canary.yaml"]),
        ("half a file", good[..good.find("\"beta\"").unwrap() + 3].to_owned(), vec!["canary.yaml"]),
        (
            "a subset that no rule defines",
            good.replace("subset: v2", "subset: v3").replace("subset: v1", "subset: v4"),
            vec!["order-service", "v3"],
        ),
        ("binary", "\u{0}\u{1}\u{2}".to_owned(), vec!["canary.yaml"]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_reported_and_the_last_good_configuration_stays() {
    let mesh = Mesh::shop(Options::default()).await.unwrap();
    let client = mesh.workload("load-1").unwrap().client();
    let good = sample("examples/canary.yaml").unwrap();
    mesh.apply("canary.yaml", &good).unwrap();
    wait::until_ok("the canary should be in effect", async || canary(&client).await).await.unwrap();
    let make = |_| request(Method::GET, "http://order-service/steady", &[("user-type", "beta")]);
    let judge = |reply: &weft_e2e::client::Reply| {
        load::success(reply)?;
        let version = reply.answer().map_err(|error| format!("{error:#}"))?.version;
        if version == "v2" { Ok(()) } else { Err(format!("a beta user reached {version}")) }
    };
    let change = async {
        for (what, bad, report) in mistakes(&good) {
            mesh.apply("canary.yaml", &bad)?;
            reported(&mesh, &report).await.map_err(|error| error.context(what))?;
            canary(&client).await.map_err(|error| error.context(what))?;
            mesh.apply("canary.yaml", &good)?;
            wait::until_ok("the report should be clean again", async || {
                let text = mesh.operator_text("/debug/status").await?;
                ensure!(
                    report.iter().any(|part| !text.contains(part)) || !text.contains("canary.yaml"),
                    "{text}"
                );
                Ok(())
            })
            .await?;
            canary(&client).await?;
        }
        anyhow::Ok(())
    };
    let (report, outcome) = load::run(&client, 200, make, judge, change).await;
    outcome.unwrap();
    report.assert_no_failure();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_virtual_services_for_a_host_the_older_wins_and_the_other_says_so() {
    let mesh = Mesh::shop(Options::default()).await.unwrap();
    let client = mesh.workload("load-1").unwrap().client();
    let rule = |name: &str| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: default}}
spec:
  hosts: [user-service]
  http:
  - headers: {{request: {{set: {{x-rule: {name}}}}}}}
    route: [{{destination: {{host: user-service}}}}]
"
        )
    };
    let mark = async || {
        let reply = client.get("http://user-service/mark").await?;
        ensure!(reply.status == StatusCode::OK, "{}", reply.text());
        Ok(reply.answer()?.headers.get("x-rule").cloned())
    };
    mesh.apply("b.yaml", &rule("first")).unwrap();
    wait::until_eq("the first rule", Some("first".into()), mark).await.unwrap();
    mesh.apply("a.yaml", &rule("another")).unwrap();
    reported(&mesh, &["another", "first"]).await.unwrap();
    for _ in 0..30 {
        assert_eq!(mark().await.unwrap(), Some("first".into()));
    }
    // The file of the older one disappears: now the other is in effect.
    mesh.delete("b.yaml").unwrap();
    wait::until_eq("the other rule", Some("another".into()), mark).await.unwrap();
    mesh.delete("a.yaml").unwrap();
    wait::until_eq("no rule", None, mark).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_do_not_exist_fail_alone() {
    let mesh = Mesh::shop(Options::default()).await.unwrap();
    let client = mesh.workload("load-1").unwrap().client();
    mesh.apply(
        "nowhere.yaml",
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: user-service, namespace: default}
spec:
  hosts: [user-service]
  http:
  - match: [{uri: {prefix: /lost}}]
    route: [{destination: {host: nowhere}}]
  - route: [{destination: {host: user-service}}]
",
    )
    .unwrap();
    reported(&mesh, &["user-service", "nowhere"]).await.unwrap();
    wait::until_eq("the lost route", 503, async || {
        Ok(client.get("http://user-service/lost").await?.status.as_u16())
    })
    .await
    .unwrap();
    let found = client.get("http://user-service/found").await.unwrap();
    assert_eq!(found.status, StatusCode::OK, "{}", found.text());
    // A name that nobody knows at all.
    let unknown = client.get("http://no-such-service/").await.unwrap();
    assert_eq!(unknown.status, StatusCode::BAD_GATEWAY, "{}", unknown.text());
}
