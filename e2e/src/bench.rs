//! What the proxy costs on this machine: figures for people, asserted by nobody.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::Context;
use http::Method;

use crate::{
    client::{Client, request, url},
    load,
    memory::{self, Memory},
    mesh::{Mesh, Options, PROXY_PORTS},
    programs::Programs,
    wait,
};

/// Starts of the proxy that are timed.
const STARTS: usize = 15;

/// Idle connections that are held open.
const CONNECTIONS: usize = 1_000;

/// The pod whose proxy is measured: it calls, and nobody calls it.
const POD: &str = "load-1";

/// Measures and prints a table.
///
/// # Errors
/// When the mesh does not run, or a request fails.
pub async fn run(programs: Programs, rate: u32, seconds: u64) -> anyhow::Result<()> {
    let binary = programs.path("weft-proxy");
    let size = std::fs::metadata(&binary).context("weft-proxy")?.len();
    row("figure", "value")?;
    row("---", "---")?;
    row("binary", &format!("{:.1} MiB", size as f64 / (1024.0 * 1024.0)))?;

    let mut mesh = Mesh::shop(Options { programs: Some(programs), ..Options::default() }).await?;
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(start(&mut mesh).await?);
    }
    starts.sort_unstable();
    let [least, median, most] = [starts[0], starts[STARTS / 2], starts[STARTS - 1]];
    row("exec to ready, median (least, most)", &format!("{median:.1?} ({least:.1?}, {most:.1?})"))?;

    let proxy = mesh.workload(POD)?.proxy_id()?;
    row("memory idle", &shown(memory::of(proxy)?))?;
    let client = mesh.workload(POD)?.client();
    for service in ["storefront", "order-service", "user-service"] {
        let reply = client.get(&format!("http://{service}/bench")).await?;
        anyhow::ensure!(reply.status.is_success(), "{}", reply.text());
    }
    row("memory after calling 3 services", &shown(memory::of(proxy)?))?;

    let before = memory::cpu_ms(proxy)?;
    let make = |_| request(Method::GET, "http://order-service/bench", &[]);
    let most = async {
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut most = Memory::default();
        while Instant::now() < end {
            let now = memory::of(proxy)?;
            most = Memory {
                resident: most.resident.max(now.resident),
                private: most.private.max(now.private),
            };
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::Ok(most)
    };
    let (report, most) = load::run(&client, rate, make, load::success, most).await;
    let cpu = memory::cpu_ms(proxy)? - before;
    row(&format!("memory at {rate} requests/s, most"), &shown(most?))?;
    row(
        "CPU per 1,000 requests (client side)",
        &format!("{:.0} ms", 1e3 * cpu as f64 / report.sent.max(1) as f64),
    )?;
    row("requests, failed", &format!("{}, {}", report.sent, report.failed()))?;
    let [half, tail] = [0.5, 0.99].map(|quantile| report.quantile_ms(quantile));
    row("latency through two proxies, p50 and p99", &format!("{half:.2} ms, {tail:.2} ms"))?;

    let before = memory::of(proxy)?.private;
    let held = hold(&mesh).await?;
    let after = memory::of(proxy)?.private;
    let each = after.saturating_sub(before) as f64 / held.len() as f64;
    row(&format!("memory for each of {CONNECTIONS} idle connections"), &format!("{each:.1} KiB"))?;
    drop(held);
    mesh.stop().await
}

fn row(name: &str, value: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "| {name:<45} | {value:<40} |")?;
    output.flush().context("stdout")
}

fn shown(memory: Memory) -> String {
    let mebi = |kibi: u64| kibi as f64 / 1024.0;
    format!("{:.1} MiB resident, {:.1} MiB private", mebi(memory.resident), mebi(memory.private))
}

/// Ends the proxy and starts it again; the time until it is ready.
async fn start(mesh: &mut Mesh) -> anyhow::Result<Duration> {
    mesh.workload_mut(POD)?.proxy()?.terminate(wait::PATIENCE).await?;
    let address = mesh.workload(POD)?.address();
    let ready = url(address, PROXY_PORTS.health, "/healthz/ready");
    let client = Client::direct();
    let begin = Instant::now();
    mesh.launch_proxy(POD)?;
    loop {
        match client.get(&ready).await {
            Ok(reply) if reply.status.is_success() => return Ok(begin.elapsed()),
            _ if begin.elapsed() > wait::PATIENCE => anyhow::bail!("the proxy is not ready"),
            _ => tokio::time::sleep(Duration::from_micros(500)).await,
        }
    }
}

/// Connections that sent one request and stay open.
async fn hold(mesh: &Mesh) -> anyhow::Result<Vec<Client>> {
    let workload = mesh.workload(POD)?;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = workload.client();
        let reply = client.get("http://order-service/bench").await?;
        anyhow::ensure!(reply.status.is_success(), "{}", reply.text());
        clients.push(client);
    }
    Ok(clients)
}
