//! The demo: a mesh, traffic through it, and a table of what the proxies measured.
//!
//! The table comes from the proxies' own metrics, as a monitoring system would see them.

mod screen;
mod table;

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use http::Method;
use tokio::signal::unix::{SignalKind, signal};
use weft_samples::control::parse_duration;

use crate::{
    block::Block,
    client::{Client, Reply, request},
    load::{self, Report},
    mesh::{Mesh, OPERATOR_ADMIN_PORT, Options},
    metrics::Sample,
};
use screen::Screen;
use table::Window;

/// Failures that the user's own YAML asked for start with this.
const ASKED_FOR: &str = "asked for by a resource: ";

/// What answers look like that a resource asked for: an injected fault, a rate limit, a denial.
const WANTED: [&str; 3] = ["fault filter abort", "local_rate_limited", "RBAC: access denied"];

/// Run the mesh on this machine: an operator, a proxy and an application for every pod of the sample shop.
///
/// Shows what flows between the services, live. Ctrl-C stops everything that was started.
#[derive(Clone, Debug, Parser)]
#[command(name = "weft-demo", version)]
pub struct Settings {
    /// End after this time (30s, 5m) with a summary; exit with 1 when a request failed that no resource asked to fail.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub limit: Option<Duration>,
    /// Requests a second from customers to the storefront.
    #[arg(long, default_value_t = 40, value_name = "N")]
    pub rate: u32,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is not a duration such as 30s or 5m"))
}

/// Runs the demo to its end.
///
/// # Errors
/// When the mesh cannot be started or a part of it ends by itself.
pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let screen = Screen::new();
    let options = Options { block: Some(Block::of_samples()?), ..Options::default() };
    let start = async {
        let mesh = Mesh::shop(options).await?;
        mesh.apply_example("canary.yaml")?;
        anyhow::Ok(mesh)
    };
    let mut mesh = tokio::select! {
        mesh = screen.during("starting the mesh: an operator, 7 proxies, 6 applications", start) => mesh?,
        _ = interrupt.recv() => return Ok(ExitCode::from(130)),
        _ = terminate.recv() => return Ok(ExitCode::from(143)),
    };
    let client = mesh.workload("load-1")?.client();
    let stop = async {
        let limit = async {
            match settings.limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = limit => Ok(()),
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            broken = watch(&mut mesh, &screen) => broken,
        }
    };
    let (report, outcome) = traffic(&client, settings.rate, stop).await;
    let stopped = screen.during("stopping everything", mesh.stop()).await;
    screen.show(&summary(&report))?;
    outcome.and(stopped)?;
    let unexpected = report.failures.keys().any(|failure| !failure.starts_with(ASKED_FOR));
    let idle = settings.limit.is_some() && report.sent == 0;
    Ok(if unexpected || idle { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Customers: every tenth is a beta user.
async fn traffic<T>(client: &Client, rate: u32, until: impl Future<Output = T>) -> (Report, T) {
    let make = |index: u64| {
        let uri = format!("http://storefront/orders/{}", index % 1_000);
        let beta = [("user-type", "beta")];
        request(Method::GET, &uri, if index.is_multiple_of(10) { &beta } else { &[] })
    };
    load::run(client, rate, make, judge, until).await
}

fn judge(reply: &Reply) -> Result<(), String> {
    load::success(reply).map_err(|failure| {
        let text = reply.text();
        match WANTED.iter().find(|wanted| text.contains(**wanted)) {
            Some(wanted) => format!("{ASKED_FOR}{} {wanted}", reply.status),
            None => failure,
        }
    })
}

/// Redraws the table until something breaks.
async fn watch(mesh: &mut Mesh, screen: &Screen) -> anyhow::Result<()> {
    let hints = hints(mesh);
    let mut window = Window::default();
    let mut ticks = tokio::time::interval(screen.every());
    screen.show(&hints)?;
    loop {
        ticks.tick().await;
        mesh.must_run()?;
        let mut samples: Vec<Sample> = Vec::new();
        for workload in mesh.workloads() {
            samples.extend(workload.metrics().await?);
        }
        let table = window.push(&samples);
        screen.redraw(&table, &hints)?;
    }
}

fn hints(mesh: &Mesh) -> String {
    let config = mesh.config_folder();
    let config = config.display();
    let operator = mesh.block().operator();
    let proxy = mesh.workload("storefront-v1-1").map(super::mesh::Workload::http_proxy);
    let proxy = proxy.map_or_else(|_| String::new(), |proxy| proxy.to_string());
    let weft = shown(&mesh.programs().path("weft"));
    format!(
        "Configuration: {config}\n\
         Edit a file there and watch the traffic follow. Try in another terminal:\n\
         \x20 sed -i 's/weight: 90/weight: 50/; s/weight: 10$/weight: 50/' {config}/canary.yaml\n\
         \x20 cp samples/examples/mtls-strict.yaml {config}/        # plaintext is refused from now on\n\
         \x20 cp samples/examples/fault-injection.yaml {config}/    # 5 % of calls to user-service fail\n\
         \x20 curl -x {proxy} http://order-service/orders/1\n\
         \x20 {weft} proxy-status --admin http://{operator}:{OPERATOR_ADMIN_PORT}\n\
         \x20 {weft} proxy-config routes {}\n\
         Ctrl-C stops everything.\n",
        mesh.workload("storefront-v1-1").map_or_else(|_| operator, super::mesh::Workload::address),
    )
}

/// A path as the user would type it here.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

fn summary(report: &Report) -> String {
    let share = |part: u64| 100.0 * part as f64 / report.sent.max(1) as f64;
    let mut text = format!(
        "{} requests in {:.0} s: {:.2} % succeeded, p50 {:.1} ms, p99 {:.1} ms\n",
        report.sent,
        report.elapsed.as_secs_f64(),
        share(report.succeeded),
        report.quantile_ms(0.5),
        report.quantile_ms(0.99),
    );
    for (failure, count) in &report.failures {
        text.push_str(&format!("  {count} failed: {failure}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;

    #[test]
    fn failures_that_a_resource_asked_for_are_told_apart() {
        let reply = |body: &'static str| Reply {
            status: StatusCode::BAD_GATEWAY,
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        };
        let asked = judge(&reply("{\"body\":\"fault filter abort\"}"));
        assert_eq!(asked, Err(format!("{ASKED_FOR}502 Bad Gateway fault filter abort")));
        assert_eq!(
            judge(&reply("no healthy upstream")),
            Err("502 Bad Gateway no healthy upstream".into())
        );
    }
}
