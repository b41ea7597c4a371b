//! The same bootstrap files run weft-proxy and stock Envoy, with the same answers: `samples/front-proxy`.
//!
//! Envoy's part is skipped with a message where it cannot be had from PyPI, unless `WEFT_REQUIRE_ENVOY` is set.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::ensure;
use http::{HeaderMap, Method};
use serde_json::Value;
use tempfile::TempDir;
use weft_e2e::{
    block::Block,
    client::{Client, Reply, request, url},
    envoy,
    process::{Invocation, Process},
    programs::{Programs, sample},
    wait,
};
use weft_samples::answer::Answer;

#[path = "mesh_static/proxy_protocol.rs"]
mod proxy_protocol;

const PORT: u16 = 8000;
const ADMIN: u16 = 9901;

/// What runs the files.
#[derive(Clone, Debug)]
enum Runner {
    Weft,
    Envoy(PathBuf),
}

fn stock_envoy() -> Option<Runner> {
    match envoy::find() {
        Ok(path) => Some(Runner::Envoy(path)),
        Err(error) if std::env::var_os("WEFT_REQUIRE_ENVOY").is_some() => panic!("{error:#}"),
        Err(error) => {
            // Whoever reads the output must see that nothing was compared.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("SKIPPED: stock Envoy: {error:#}");
            }
            None
        }
    }
}

impl Runner {
    fn invocation(&self, name: &str, file: &str) -> Invocation {
        let (program, more): (_, &[&str]) = match self {
            Self::Weft => ("weft-proxy".to_owned(), &[]),
            Self::Envoy(path) => {
                (path.display().to_string(), &["--disable-hot-restart", "--log-level", "warning"])
            }
        };
        let arguments = ["--concurrency", "1", "-c", file];
        Invocation {
            name: name.to_owned(),
            program,
            arguments: arguments
                .iter()
                .chain(more)
                .map(|argument| (*argument).to_owned())
                .collect(),
            environment: Vec::new(),
        }
    }
}

/// The edge, four replicas, and their applications.
struct FrontProxy {
    proxies: Vec<Process>,
    applications: Vec<Process>,
    folder: TempDir,
    // Another test gets the addresses when nobody listens there any more.
    block: Block,
}

/// The replicas' addresses, and the file that each proxy runs by.
const REPLICAS: [(u8, u8, &str); 4] = [
    (101, 1, "service1.yaml"),
    (101, 2, "service1.yaml"),
    (101, 3, "service1.yaml"),
    (102, 1, "service2.yaml"),
];

impl FrontProxy {
    async fn start(runner: &Runner) -> anyhow::Result<Self> {
        let programs = Programs::find()?;
        let mut front = Self {
            block: Block::any()?,
            folder: TempDir::new()?,
            proxies: Vec::new(),
            applications: Vec::new(),
        };
        for (third, fourth, file) in REPLICAS {
            let address = front.block.address(third, fourth);
            let pod = format!("replica-{third}-{fourth}");
            let invocation = Invocation {
                name: pod.clone(),
                program: "weft-sample".into(),
                arguments: ["user-service", "--address", &address.to_string(), "--pod", &pod]
                    .map(str::to_owned)
                    .into(),
                environment: Vec::new(),
            };
            let application = Process::start(&programs, front.folder.path(), &invocation)?;
            front.applications.push(application);
            // One file is written for the first replica; the others differ by their address alone.
            let own = sample(&format!("front-proxy/{file}"))?
                .replace(&format!("127.10.{third}.1,"), &format!("127.10.{third}.{fourth},"));
            front.proxy(&programs, runner, &format!("proxy-{third}-{fourth}"), &own)?;
        }
        front.proxy(&programs, runner, "front", &sample("front-proxy/front.yaml")?)?;
        for (third, fourth, _) in REPLICAS {
            let address = front.block.address(third, fourth);
            front.ready(address).await?;
            wait::until_ok("the application should be there", async || {
                let path = format!("/service/{}", third - 100);
                let reply = Client::direct().get(&url(address, PORT, &path)).await?;
                ensure!(reply.status == 200, "{}", reply.status);
                Ok(())
            })
            .await?;
        }
        front.ready(front.edge()).await?;
        Ok(front)
    }

    fn proxy(
        &mut self,
        programs: &Programs,
        runner: &Runner,
        name: &str,
        yaml: &str,
    ) -> anyhow::Result<()> {
        let file = self.folder.path().join(format!("{name}.yaml"));
        std::fs::write(&file, self.block.relocate(yaml))?;
        let invocation = runner.invocation(name, &file.display().to_string());
        self.proxies.push(Process::start(programs, self.folder.path(), &invocation)?);
        Ok(())
    }

    fn edge(&self) -> Ipv4Addr {
        self.block.address(100, 1)
    }

    async fn ready(&mut self, address: Ipv4Addr) -> anyhow::Result<()> {
        let proxies = &mut self.proxies;
        wait::until_ok("a proxy should be ready", async || {
            for proxy in &mut *proxies {
                proxy.must_run()?;
            }
            let reply = Client::direct().get(&url(address, ADMIN, "/ready")).await?;
            ensure!(reply.status == 200 && reply.text() == "LIVE\n", "{}", reply.text());
            Ok(())
        })
        .await
    }

    async fn ask(&self, method: Method, path: &str, body: &'static str) -> Reply {
        let mut asked = request(method, &url(self.edge(), PORT, path), &[]);
        *asked.body_mut() = body.into();
        Client::direct().send(asked).await.unwrap()
    }

    async fn admin(&self, path: &str) -> String {
        let reply = Client::direct().get(&url(self.edge(), ADMIN, path)).await.unwrap();
        assert_eq!(reply.status, 200, "{path}");
        reply.text()
    }

    /// Waits until a page has these lines: a request is counted when it is over, which is after its client has the answer.
    async fn says(&self, path: &str, lines: &[impl AsRef<str>]) {
        wait::until_ok("the page should have the lines", async || {
            let page = self.admin(path).await;
            for line in lines.iter().map(AsRef::as_ref) {
                ensure!(page.lines().any(|found| found == line), "{line} in\n{page}");
            }
            Ok(())
        })
        .await
        .unwrap();
    }

    /// What a client and the applications see of some requests, without what is never twice the same.
    async fn behaviour(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        for (method, path, body) in [
            (Method::GET, "/service/1", ""),
            (Method::GET, "/service/2/and/more?a=b", ""),
            (Method::POST, "/service/2", "some bytes"),
            (Method::HEAD, "/service/2", ""),
            (Method::GET, "/service/3", ""),
            (Method::GET, "/", ""),
            (Method::GET, "/service/2?fail=503", ""),
        ] {
            let reply = self.ask(method.clone(), path, body).await;
            seen.push(self.seen(format!("{method} {path}"), &reply));
        }
        seen
    }

    fn seen(&self, request: String, reply: &Reply) -> Seen {
        let mut headers = readable(&reply.headers);
        for volatile in ["date", "x-envoy-upstream-service-time", "content-length"] {
            headers.remove(volatile);
        }
        let answer = serde_json::from_str::<Answer>(&reply.text()).ok().map(|mut answer| {
            answer.connection.clear();
            answer.pod = answer.pod.split_inclusive('-').take(2).collect();
            // The two runs have their own addresses.
            let edge = self.edge().to_string();
            for value in answer.headers.values_mut() {
                *value = value.replace(&edge, "EDGE");
            }
            let id = answer.headers.insert("x-request-id".into(), "some".into());
            assert!(id.is_some_and(|id| id.len() == 36), "{:?}", answer.headers);
            answer
        });
        Seen { request, status: reply.status.as_u16(), headers, answer }
    }
}

#[derive(Debug, PartialEq)]
struct Seen {
    request: String,
    status: u16,
    headers: BTreeMap<String, String>,
    answer: Option<Answer>,
}

fn readable(headers: &HeaderMap) -> BTreeMap<String, String> {
    weft_samples::answer::readable(headers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_edge_routes_by_prefix_and_takes_replicas_in_turn() {
    let front = FrontProxy::start(&Runner::Weft).await.unwrap();
    let mut counts = BTreeMap::new();
    for _ in 0..30 {
        let reply = front.ask(Method::GET, "/service/1", "").await;
        let answer: Answer = serde_json::from_str(&reply.text()).unwrap();
        *counts.entry(answer.pod).or_insert(0) += 1;
    }
    let wanted = [1, 2, 3].map(|replica| (format!("replica-101-{replica}"), 10));
    assert_eq!(counts, wanted.into());
    let reply = front.ask(Method::GET, "/service/2", "").await;
    let answer: Answer = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!((&*answer.pod, &*answer.path), ("replica-102-1", "/service/2"));
    assert_eq!(front.ask(Method::GET, "/service/3", "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administration_says_what_everybody_looks_for() {
    let front = FrontProxy::start(&Runner::Weft).await.unwrap();
    for _ in 0..3 {
        assert_eq!(front.ask(Method::GET, "/service/1", "").await.status, 200);
    }
    let info: Value = serde_json::from_str(&front.admin("/server_info").await).unwrap();
    assert_eq!(info["state"], "LIVE");
    assert_eq!(info["node"]["id"], "front-0");
    assert_eq!(info["command_line_options"]["concurrency"], 1);

    let mut lines = vec!["service1::added_via_api::false".to_owned()];
    for replica in 1..=3 {
        let endpoint = front.block.address(101, replica);
        for line in ["rq_success::1", "health_flags::healthy", "cx_total::1"] {
            lines.push(format!("service1::{endpoint}:8000::{line}"));
        }
    }
    front.says("/clusters", &lines).await;
    let lines = [
        "cluster.service1.upstream_rq_total: 3",
        "cluster.service1.membership_total: 3",
        "http.ingress_http.downstream_rq_2xx: 3",
    ];
    front.says("/stats", &lines).await;
    let listeners = front.admin("/listeners").await;
    assert_eq!(listeners, format!("edge::{}:8000\n", front.edge()));
    let dump = front.admin("/config_dump").await;
    assert!(dump.contains("/service/1"), "{dump}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_envoy_gives_the_same_answers_by_the_same_files() {
    let Some(envoy) = stock_envoy() else { return };
    let ours = FrontProxy::start(&Runner::Weft).await.unwrap().behaviour().await;
    let theirs = FrontProxy::start(&envoy).await.unwrap().behaviour().await;
    assert!(ours.iter().filter(|seen| seen.answer.is_some()).count() >= 3, "{ours:#?}");
    assert_eq!(ours, theirs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_is_under_way() {
    let mut front = FrontProxy::start(&Runner::Weft).await.unwrap();
    let edge = front.proxies.pop().unwrap();
    let slow = front.ask(Method::GET, "/service/2?delay=10s", "");
    let stop = async {
        // The request is at the application when the edge counts it as active.
        wait::until_ok("the request should be under way", async || {
            let stats = front.admin("/stats?filter=service2.upstream_rq_active").await;
            ensure!(stats == "cluster.service2.upstream_rq_active: 1\n", "{stats}");
            Ok(())
        })
        .await
        .unwrap();
        edge.signal(rustix::process::Signal::TERM).unwrap();
        edge
    };
    let (reply, mut edge) = tokio::join!(slow, stop);
    assert_eq!(reply.status, 200);
    let status = edge.end(Duration::from_secs(60)).await.unwrap();
    assert!(status.success(), "{status}");
}
