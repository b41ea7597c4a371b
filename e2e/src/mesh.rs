//! A mesh on this machine: a folder of YAML, an operator, and a proxy and an application for every pod.
//!
//! Everything that it starts ends with it; its folder is kept when a test panics, so that logs can be read.

mod pod;
mod workload;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    block::Block,
    client::{Client, url},
    metrics::{Sample, parse},
    process::{Invocation, Process},
    programs::{Programs, sample},
    wait,
};

pub use pod::Pod;
pub use workload::{APP_PORT, PROXY_PORTS, Parts, Workload};

/// The operator's port for configuration and certificates.
pub const CONTROL_PORT: u16 = 15012;
/// The operator's administration port.
pub const OPERATOR_ADMIN_PORT: u16 = 15014;

/// The YAML of the shop, one file per service.
const SHOP: [&str; 6] = [
    "namespace.yaml",
    "load.yaml",
    "storefront.yaml",
    "order-service.yaml",
    "user-service.yaml",
    "payment-service.yaml",
];

/// How a mesh is to be.
#[derive(Debug, Default)]
pub struct Options {
    /// More arguments for every proxy.
    pub proxy_arguments: Vec<String>,
    /// More arguments for the operator.
    pub operator_arguments: Vec<String>,
    /// Services that every workload names, `HOST:PORT`, for connections to an address of its own range.
    pub named: Vec<String>,
    /// The addresses; any free block when absent.
    pub block: Option<Block>,
    /// Where the programs are; beside the running executable when absent.
    pub programs: Option<Programs>,
}

/// A running mesh.
#[derive(Debug)]
pub struct Mesh {
    programs: Programs,
    options: Options,
    operator: Option<Process>,
    workloads: BTreeMap<String, Workload>,
    // Last, so that the folder goes after the processes that write to it, and another mesh gets the addresses when
    // nobody listens there any more.
    home: Option<TempDir>,
    block: Block,
}

impl Mesh {
    /// Starts an operator on an empty folder, and no workload.
    ///
    /// # Errors
    /// When a program is missing or does not become ready; the message has the end of its log.
    pub async fn empty(mut options: Options) -> anyhow::Result<Self> {
        let programs = options.programs.take().map_or_else(Programs::find, Ok)?;
        let block = options.block.take().map_or_else(Block::any, Ok)?;
        let home = tempfile::Builder::new().prefix("weft-mesh-").tempdir()?;
        for folder in ["config", "state", "run"] {
            std::fs::create_dir(home.path().join(folder))?;
        }
        let workloads = BTreeMap::new();
        let mut mesh =
            Self { block, programs, options, operator: None, workloads, home: Some(home) };
        mesh.start_operator().await?;
        Ok(mesh)
    }

    /// Starts the shop of `samples/`, ready to serve.
    ///
    /// # Errors
    /// When something does not become ready; the message has the end of its log.
    pub async fn shop(options: Options) -> anyhow::Result<Self> {
        let parts = |pod: &Pod| if pod.is_client() { Parts::Proxy } else { Parts::Both };
        Self::shop_with(options, parts).await
    }

    /// Starts the shop of `samples/`, of each pod the parts that the function says.
    ///
    /// # Errors
    /// As [`Mesh::shop`].
    pub async fn shop_with(
        options: Options,
        parts: impl Fn(&Pod) -> Parts,
    ) -> anyhow::Result<Self> {
        let mut mesh = Self::empty(options).await?;
        let mut pods = Vec::new();
        for file in SHOP {
            let yaml = mesh.block.relocate(&sample(&format!("mesh/{file}"))?);
            pods.extend(Pod::in_yaml(&yaml)?);
            mesh.apply(file, &yaml)?;
        }
        for pod in pods {
            let parts = parts(&pod);
            mesh.launch(pod, parts).await?;
        }
        mesh.ready().await?;
        Ok(mesh)
    }

    fn home(&self) -> &Path {
        self.home.as_ref().map_or(Path::new("/nonexistent"), TempDir::path)
    }

    /// The folder that the operator reads.
    pub fn config_folder(&self) -> PathBuf {
        self.home().join("config")
    }

    /// The operator's state folder.
    pub fn state_folder(&self) -> PathBuf {
        self.home().join("state")
    }

    /// Logs, tokens and the like.
    pub fn run_folder(&self) -> PathBuf {
        self.home().join("run")
    }

    /// The addresses of this mesh.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// The programs that it runs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The operator's address for configuration and certificates.
    pub fn control_plane(&self) -> SocketAddr {
        SocketAddr::from((self.block.operator(), CONTROL_PORT))
    }

    /// Writes a file into the configuration folder at once, as editors and tools do that care.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn apply(&self, file: &str, yaml: &str) -> anyhow::Result<()> {
        // Beside the folder, so that the operator never sees the half-written file.
        let draft = self.run_folder().join("draft");
        std::fs::write(&draft, yaml)?;
        std::fs::rename(&draft, self.config_folder().join(file)).context("rename")
    }

    /// Writes a file of `samples/examples` into the configuration folder, unchanged.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn apply_example(&self, file: &str) -> anyhow::Result<()> {
        self.apply(file, &sample(&format!("examples/{file}"))?)
    }

    /// Removes a file from the configuration folder.
    ///
    /// # Errors
    /// When it is not there.
    pub fn delete(&self, file: &str) -> anyhow::Result<()> {
        std::fs::remove_file(self.config_folder().join(file)).context(file.to_owned())
    }

    /// Starts the operator, on the state that an earlier one left.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_operator(&mut self) -> anyhow::Result<()> {
        let address = self.block.operator();
        let mut arguments = vec![
            "--source".to_owned(),
            format!("dir:{}", self.config_folder().display()),
            "--state-dir".to_owned(),
            self.state_folder().display().to_string(),
            "--listen".to_owned(),
            format!("{address}:{CONTROL_PORT}"),
            "--admin".to_owned(),
            format!("{address}:{OPERATOR_ADMIN_PORT}"),
        ];
        arguments.extend(self.options.operator_arguments.iter().cloned());
        let invocation = Invocation {
            name: "operator".into(),
            program: "weft-operator".into(),
            arguments,
            environment: Vec::new(),
        };
        let mut operator = Process::start(&self.programs, &self.run_folder(), &invocation)?;
        let client = Client::direct();
        let ready = url(address, OPERATOR_ADMIN_PORT, "/ready");
        let outcome = wait::until_ok("the operator should be ready", async || {
            operator.must_run()?;
            let reply = client.get(&ready).await?;
            anyhow::ensure!(reply.status.is_success(), "{} {}", reply.status, reply.text());
            Ok(())
        });
        let outcome = outcome.await;
        outcome.with_context(|| operator.log_tail())?;
        self.operator = Some(operator);
        Ok(())
    }

    /// The operator's process.
    ///
    /// # Errors
    /// When it was stopped.
    pub fn operator(&mut self) -> anyhow::Result<&mut Process> {
        self.operator.as_mut().context("the operator was stopped")
    }

    /// SIGTERM to the operator, and waits for its end.
    ///
    /// # Errors
    /// When it does not end, or not with success.
    pub async fn stop_operator(&mut self) -> anyhow::Result<()> {
        let mut operator = self.operator.take().context("the operator was stopped")?;
        let status = operator.terminate(wait::PATIENCE).await?;
        if !status.success() {
            bail!("the operator ended with {status}:\n{}", operator.log_tail());
        }
        Ok(())
    }

    /// Asks the operator's administration port for text.
    ///
    /// # Errors
    /// When it does not answer with success.
    pub async fn operator_text(&self, path: &str) -> anyhow::Result<String> {
        let reply =
            Client::direct().get(&url(self.block.operator(), OPERATOR_ADMIN_PORT, path)).await?;
        anyhow::ensure!(reply.status.is_success(), "{path}: {} {}", reply.status, reply.text());
        Ok(reply.text())
    }

    /// Asks the operator's administration port for JSON.
    ///
    /// # Errors
    /// When it does not answer with success, or with something else.
    pub async fn operator_json(&self, path: &str) -> anyhow::Result<Value> {
        let text = self.operator_text(path).await?;
        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))
    }

    /// The operator's metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn operator_metrics(&self) -> anyhow::Result<Vec<Sample>> {
        Ok(parse(&self.operator_text("/metrics").await?))
    }

    /// Makes a token as a user does, and returns its file.
    ///
    /// # Errors
    /// When `weft token` fails; the message has what it said.
    pub fn token(&self, namespace: &str, account: &str, more: &[&str]) -> anyhow::Result<PathBuf> {
        let file = self.run_folder().join(format!("{namespace}.{account}.token"));
        let mut command = std::process::Command::new(self.programs.path("weft"));
        command.arg("token").arg("--state-dir").arg(self.state_folder());
        command.args(["--namespace", namespace, "--service-account", account]).args(more);
        let output = command.arg("-o").arg(&file).output().context("weft token")?;
        if !output.status.success() {
            bail!("weft token: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(file)
    }

    /// Starts a pod's application and proxy, without waiting for them.
    ///
    /// # Errors
    /// When a program cannot be started.
    pub async fn launch(&mut self, pod: Pod, parts: Parts) -> anyhow::Result<()> {
        let token = self.token(&pod.namespace, &pod.service_account, &[])?;
        let mut workload = Workload::new(pod, parts);
        if parts != Parts::Proxy {
            workload.start_app(&self.programs, &self.run_folder())?;
        }
        if parts != Parts::App {
            let arguments = self.proxy_arguments(workload.pod(), &token);
            workload.start_proxy(&self.programs, &self.run_folder(), arguments)?;
        }
        self.workloads.insert(workload.pod().name.clone(), workload);
        Ok(())
    }

    /// The command line of a pod's proxy.
    pub fn proxy_arguments(&self, pod: &Pod, token: &Path) -> Vec<String> {
        let mode = if pod.is_gateway() { "router" } else { "sidecar" };
        let mut arguments = vec![mode.to_owned()];
        let mut flag = |name: &str, value: String| {
            arguments.extend([format!("--{name}"), value]);
        };
        flag("pod-name", pod.name.clone());
        flag("namespace", pod.namespace.clone());
        flag("service-account", pod.service_account.clone());
        flag("workload-name", pod.workload());
        for (key, value) in &pod.labels {
            flag("label", format!("{key}={value}"));
        }
        flag("pod-address", pod.address.to_string());
        if !pod.is_gateway() {
            flag("app-address", pod.app_address().to_string());
        }
        if !self.options.named.is_empty() && !pod.is_gateway() {
            flag("outbound-range", pod.outbound_range());
            flag("hosts-file", self.hosts_file(pod).display().to_string());
        }
        for named in self.options.named.iter().filter(|_| !pod.is_gateway()) {
            flag("outbound", named.clone());
        }
        flag("control-plane", self.control_plane().to_string());
        flag("control-plane-root", self.state_folder().join("root-cert.pem").display().to_string());
        flag("control-plane-san", "localhost".to_owned());
        flag("token-file", token.display().to_string());
        arguments.extend(self.options.proxy_arguments.iter().cloned());
        arguments
    }

    fn hosts_file(&self, pod: &Pod) -> PathBuf {
        self.run_folder().join(format!("{}.hosts", pod.name))
    }

    /// The address that stands for a named service in a pod.
    ///
    /// # Errors
    /// When the pod's hosts file does not have it.
    pub fn named_address(&self, pod: &str, host: &str) -> anyhow::Result<std::net::IpAddr> {
        let path = self.hosts_file(self.workload(pod)?.pod());
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let line =
            text.lines().find(|line| line.split_whitespace().skip(1).any(|name| name == host));
        let address = line.and_then(|line| line.split_whitespace().next());
        Ok(address.with_context(|| format!("{host} is not in {text:?}"))?.parse()?)
    }

    /// Waits until every workload is ready to serve.
    ///
    /// # Errors
    /// When one does not become ready, with the end of its log.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        for workload in self.workloads.values_mut() {
            workload.ready().await?;
        }
        Ok(())
    }

    /// A workload by the name of its pod.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn workload(&self, pod: &str) -> anyhow::Result<&Workload> {
        self.workloads.get(pod).with_context(|| format!("no pod {pod}"))
    }

    /// As [`Mesh::workload`], to start and stop its parts.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn workload_mut(&mut self, pod: &str) -> anyhow::Result<&mut Workload> {
        self.workloads.get_mut(pod).with_context(|| format!("no pod {pod}"))
    }

    /// Starts a pod's proxy again after it was stopped, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn restart_proxy(&mut self, pod: &str) -> anyhow::Result<()> {
        self.launch_proxy(pod)?;
        self.workload_mut(pod)?.ready().await
    }

    /// Starts a pod's proxy again after it was stopped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_proxy(&mut self, pod: &str) -> anyhow::Result<()> {
        let description = self.workload(pod)?.pod().clone();
        let token = self.token(&description.namespace, &description.service_account, &[])?;
        let arguments = self.proxy_arguments(&description, &token);
        let (programs, run) = (self.programs.clone(), self.run_folder());
        self.workload_mut(pod)?.start_proxy(&programs, &run, arguments)
    }

    /// All workloads.
    pub fn workloads(&self) -> impl Iterator<Item = &Workload> {
        self.workloads.values()
    }

    /// Fails when a process that should run has ended.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn must_run(&mut self) -> anyhow::Result<()> {
        if let Some(operator) = &mut self.operator {
            operator.must_run()?;
        }
        self.workloads.values_mut().try_for_each(Workload::must_run)
    }

    /// Stops everything in order: proxies and applications drain, then the operator ends.
    ///
    /// # Errors
    /// When a process does not end in time.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        for workload in self.workloads.values() {
            workload.ask_to_end();
        }
        for workload in self.workloads.values_mut() {
            workload.end().await?;
        }
        if self.operator.is_some() {
            self.stop_operator().await?;
        }
        Ok(())
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Some(home) = self.home.take() else { return };
        // The test's own output is where the logs help.
        #[allow(clippy::print_stderr)]
        {
            for process in
                self.operator.iter().chain(self.workloads.values().flat_map(Workload::processes))
            {
                eprintln!("--- {} (end of its log)\n{}", process.name(), process.log_tail());
            }
            eprintln!("--- the mesh's folder is kept: {}", home.keep().display());
        }
    }
}
