//! A pod's two processes and how to talk to them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use anyhow::Context;
use rustix::process::Signal;
use serde_json::Value;
use weft_samples::control::Counters;

use super::Pod;
use crate::{
    client::{Client, Reply, url},
    metrics::{Sample, parse},
    process::{Invocation, Process},
    programs::Programs,
    wait,
};

/// The sample application's HTTP port.
pub const APP_PORT: u16 = 8080;

/// The proxy's ports.
pub const PROXY_PORTS: ProxyPorts =
    ProxyPorts { admin: 15000, http_proxy: 15007, health: 15021, metrics: 15090 };

/// The ports of a proxy that the harness uses.
#[derive(Clone, Copy, Debug)]
pub struct ProxyPorts {
    /// Administration.
    pub admin: u16,
    /// The explicit proxy on the application's address.
    pub http_proxy: u16,
    /// Readiness.
    pub health: u16,
    /// Metrics.
    pub metrics: u16,
}

/// What a workload consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// An application and its proxy.
    Both,
    /// A proxy; the test is the application.
    Proxy,
    /// An application; the test brings the proxy.
    App,
}

/// A pod that runs.
#[derive(Debug)]
pub struct Workload {
    pod: Pod,
    parts: Parts,
    app: Option<Process>,
    proxy: Option<Process>,
}

impl Workload {
    pub(super) fn new(pod: Pod, parts: Parts) -> Self {
        Self { pod, parts, app: None, proxy: None }
    }

    /// Its description.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Starts the application.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_app(&mut self, programs: &Programs, folder: &Path) -> anyhow::Result<()> {
        let pod = &self.pod;
        let arguments = [
            pod.app(),
            "--address",
            &pod.app_address().to_string(),
            "--app-version",
            pod.label("version"),
            "--pod",
            &pod.name,
        ];
        let invocation = Invocation {
            name: format!("{}.app", pod.name),
            program: "weft-sample".into(),
            arguments: arguments.map(str::to_owned).to_vec(),
            environment: vec![("http_proxy".into(), format!("http://{}", self.http_proxy()))],
        };
        self.app = Some(Process::start(programs, folder, &invocation)?);
        Ok(())
    }

    /// Starts the proxy.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_proxy(
        &mut self,
        programs: &Programs,
        folder: &Path,
        arguments: Vec<String>,
    ) -> anyhow::Result<()> {
        let invocation = Invocation {
            name: format!("{}.proxy", self.pod.name),
            program: "weft-proxy".into(),
            arguments,
            environment: Vec::new(),
        };
        self.proxy = Some(Process::start(programs, folder, &invocation)?);
        Ok(())
    }

    /// The application's process.
    ///
    /// # Errors
    /// When there is none.
    pub fn app(&mut self) -> anyhow::Result<&mut Process> {
        self.app.as_mut().with_context(|| format!("{} has no application", self.pod.name))
    }

    /// The proxy's process.
    ///
    /// # Errors
    /// When it was stopped.
    pub fn proxy(&mut self) -> anyhow::Result<&mut Process> {
        self.proxy.as_mut().with_context(|| format!("{} has no proxy", self.pod.name))
    }

    /// The proxy's process id.
    ///
    /// # Errors
    /// When it was stopped.
    pub fn proxy_id(&self) -> anyhow::Result<u32> {
        let proxy =
            self.proxy.as_ref().with_context(|| format!("{} has no proxy", self.pod.name))?;
        Ok(proxy.id())
    }

    /// What the proxy wrote to its log.
    pub fn proxy_log(&self) -> String {
        self.proxy.as_ref().map(Process::log).unwrap_or_default()
    }

    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.proxy.iter().chain(&self.app)
    }

    pub(super) fn must_run(&mut self) -> anyhow::Result<()> {
        self.proxy.iter_mut().chain(&mut self.app).try_for_each(Process::must_run)
    }

    pub(super) fn ask_to_end(&self) {
        for process in self.processes() {
            let _ = process.signal(Signal::TERM);
        }
    }

    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        for process in self.proxy.iter_mut().chain(&mut self.app) {
            process.end(wait::PATIENCE).await?;
        }
        (self.proxy, self.app) = (None, None);
        Ok(())
    }

    /// Waits until the proxy says that it is ready and the application answers.
    ///
    /// # Errors
    /// When it takes too long or a process ends, with the end of the proxy's log.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let what = format!("{} should be ready", self.pod.name);
        let client = Client::direct();
        let ready = url(self.pod.address, PROXY_PORTS.health, "/healthz/ready");
        let answers = url(self.pod.app_address(), APP_PORT, "/_sample/counters");
        let outcome = wait::until_ok(&what, async || {
            self.must_run()?;
            if self.parts != Parts::App {
                let reply = client.get(&ready).await?;
                anyhow::ensure!(reply.status.is_success(), "{} {}", reply.status, reply.text());
            }
            if self.parts != Parts::Proxy {
                client.get(&answers).await?;
            }
            Ok(())
        });
        let outcome = outcome.await;
        outcome.with_context(|| self.proxy.as_ref().map(Process::log_tail).unwrap_or_default())
    }

    /// The explicit proxy that its application uses.
    pub fn http_proxy(&self) -> SocketAddr {
        SocketAddr::from((self.pod.app_address(), PROXY_PORTS.http_proxy))
    }

    /// A client that goes through its proxy, as its application does.
    pub fn client(&self) -> Client {
        Client::through(self.http_proxy())
    }

    /// The pod's address.
    pub fn address(&self) -> Ipv4Addr {
        self.pod.address
    }

    /// Asks the proxy's administration port.
    ///
    /// # Errors
    /// When it does not answer with success.
    pub async fn admin(&self, path: &str) -> anyhow::Result<String> {
        let reply = Client::direct().get(&url(self.pod.address, PROXY_PORTS.admin, path)).await?;
        anyhow::ensure!(reply.status.is_success(), "{path}: {} {}", reply.status, reply.text());
        Ok(reply.text())
    }

    /// Asks the proxy's administration port for JSON.
    ///
    /// # Errors
    /// When it does not answer with success, or with something else.
    pub async fn admin_json(&self, path: &str) -> anyhow::Result<Value> {
        let text = self.admin(path).await?;
        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))
    }

    /// One of the proxy's statistics, 0 when it has none of that name.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn stat(&self, name: &str) -> anyhow::Result<u64> {
        let text = self.admin("/stats").await?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(value.and_then(|value| value.trim().parse().ok()).unwrap_or(0))
    }

    /// The proxy's metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> anyhow::Result<Vec<Sample>> {
        let uri = url(self.pod.address, PROXY_PORTS.metrics, "/stats/prometheus");
        Ok(parse(&Client::direct().get(&uri).await?.text()))
    }

    /// What arrived at the application.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn counters(&self) -> anyhow::Result<Counters> {
        let reply = self.app_call("/_sample/counters").await?;
        serde_json::from_slice(&reply.body).context("counters")
    }

    /// Makes the application fail: `status=503&next=5` or `status=reset&rate=100`.
    ///
    /// # Errors
    /// When it does not accept that.
    pub async fn plan_failures(&self, query: &str) -> anyhow::Result<()> {
        let path = format!("/_sample/fail?{query}");
        let reply = Client::direct().post(&url(self.pod.app_address(), APP_PORT, &path)).await?;
        anyhow::ensure!(reply.status.is_success(), "{query}: {} {}", reply.status, reply.text());
        Ok(())
    }

    /// Forgets what arrived at the application, and its planned failures.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn reset(&self) -> anyhow::Result<()> {
        let uri = url(self.pod.app_address(), APP_PORT, "/_sample/reset");
        Client::direct().post(&uri).await.map(drop)
    }

    /// Asks the application itself, past the mesh.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn app_call(&self, path: &str) -> anyhow::Result<Reply> {
        Client::direct().get(&url(self.pod.app_address(), APP_PORT, path)).await
    }
}
