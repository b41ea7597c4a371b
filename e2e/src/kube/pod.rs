//! One pod: requests from it and to it, its proxy, its logs, programs in it.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use ::kube::{
    Api, ResourceExt,
    api::{AttachParams, DeleteParams, ListParams, LogParams},
};
use anyhow::{Context, bail, ensure};
use http::{Method, StatusCode};
use k8s_openapi::api::core::v1;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinHandle,
};
use weft_samples::{
    control::Counters,
    load::{Burst, Outcome, Report},
};

use super::{Cluster, Forward};
use crate::{
    client::{Client, Reply, request, url},
    mesh::{APP_PORT, PROXY_PORTS},
    metrics::{Sample, parse},
};

/// Where the sample application lends its client.
pub const TUNNEL_PORT: u16 = 9010;

/// The proxy's container.
pub const PROXY: &str = "istio-proxy";

/// A pod as it was when it was asked for, and the ports of it that are forwarded.
pub struct Pod {
    cluster: Cluster,
    object: v1::Pod,
    forwards: Mutex<HashMap<u16, Forward>>,
}

impl Cluster {
    /// The pods of a namespace that match a selector and are not ending.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn pods(&self, namespace: &str, selector: &str) -> anyhow::Result<Vec<Pod>> {
        let api: Api<v1::Pod> = self.api(namespace);
        let pods = api.list(&ListParams::default().labels(selector)).await?;
        let alive = pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(alive.map(|pod| Pod::new(self.clone(), pod)).collect())
    }

    /// A pod by name.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn pod(&self, namespace: &str, name: &str) -> anyhow::Result<Pod> {
        let object = self.api::<v1::Pod>(namespace).get(name).await?;
        Ok(Pod::new(self.clone(), object))
    }
}

impl Pod {
    fn new(cluster: Cluster, object: v1::Pod) -> Self {
        Self { cluster, object, forwards: Mutex::default() }
    }

    /// Its description.
    pub fn object(&self) -> &v1::Pod {
        &self.object
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.object.name_any()
    }

    /// Its namespace.
    pub fn namespace(&self) -> String {
        self.object.namespace().unwrap_or_default()
    }

    fn api(&self) -> Api<v1::Pod> {
        self.cluster.api(&self.namespace())
    }

    /// Its addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let status = self.object.status.as_ref();
        let ips = status.and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
        ips.iter().filter_map(|ip| ip.ip.parse().ok()).collect()
    }

    /// Its address.
    ///
    /// # Errors
    /// When it has none.
    pub fn address(&self) -> anyhow::Result<IpAddr> {
        self.addresses().first().copied().with_context(|| format!("{} has no address", self.name()))
    }

    /// Whether it carries a proxy.
    pub fn is_meshed(&self) -> bool {
        let spec = self.object.spec.as_ref();
        let containers =
            spec.map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        containers.into_iter().flatten().any(|container| container.name == PROXY)
    }

    /// Where a port of its loopback address is here.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn forward(&self, port: u16) -> anyhow::Result<SocketAddr> {
        let known = |forwards: &HashMap<u16, Forward>| forwards.get(&port).map(Forward::address);
        if let Some(address) = known(&self.forwards.lock().unwrap_or_else(PoisonError::into_inner))
        {
            return Ok(address);
        }
        let forward = Forward::open(self.api(), &self.name(), port).await?;
        let mut forwards = self.forwards.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(forwards.entry(port).or_insert(forward).address())
    }

    /// A client whose requests the pod's application sends.
    ///
    /// # Errors
    /// As [`Pod::forward`].
    pub async fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::through(self.forward(TUNNEL_PORT).await?))
    }

    /// A TCP connection that the pod's application opens.
    ///
    /// # Errors
    /// When it cannot open it.
    pub async fn connect(&self, target: &str) -> anyhow::Result<BufReader<TcpStream>> {
        let tunnel = self.forward(TUNNEL_PORT).await?;
        let mut stream = BufReader::new(TcpStream::connect(tunnel).await?);
        let head = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut status = String::new();
        stream.read_line(&mut status).await?;
        ensure!(status.starts_with("HTTP/1.1 200"), "CONNECT {target}: {status:?}");
        let mut line = status;
        while line != "\r\n" {
            line.clear();
            ensure!(stream.read_line(&mut line).await? > 0, "half an answer");
        }
        Ok(stream)
    }

    async fn ask(&self, port: u16, method: Method, path: &str) -> anyhow::Result<Reply> {
        let address = self.forward(port).await?;
        let request = request(method, &url(address.ip(), address.port(), path), &[]);
        let reply = Client::direct().send(request).await?;
        ensure!(
            reply.status.is_success(),
            "{}:{port}{path}: {} {}",
            self.name(),
            reply.status,
            reply.text()
        );
        Ok(reply)
    }

    /// GET of a port of its loopback address, which must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub async fn get(&self, port: u16, path: &str) -> anyhow::Result<String> {
        Ok(self.ask(port, Method::GET, path).await?.text())
    }

    /// What arrived at the application.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn counters(&self) -> anyhow::Result<Counters> {
        Ok(serde_json::from_str(&self.get(APP_PORT, "/_sample/counters").await?)?)
    }

    /// Forgets what arrived at the application, and its planned failures.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn reset(&self) -> anyhow::Result<()> {
        self.ask(APP_PORT, Method::POST, "/_sample/reset").await.map(drop)
    }

    /// Makes the application fail: `status=503&next=5` or `status=reset&rate=100`.
    ///
    /// # Errors
    /// When it does not accept that.
    pub async fn plan_failures(&self, query: &str) -> anyhow::Result<()> {
        self.ask(APP_PORT, Method::POST, &format!("/_sample/fail?{query}")).await.map(drop)
    }

    /// Asks the proxy's administration port.
    ///
    /// # Errors
    /// When it does not answer with success.
    pub async fn admin(&self, path: &str) -> anyhow::Result<String> {
        self.get(PROXY_PORTS.admin, path).await
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

    /// The metrics at a port and path.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self, port: u16, path: &str) -> anyhow::Result<Vec<Sample>> {
        Ok(parse(&self.get(port, path).await?))
    }

    /// Has the pod's application call something so many times a second until [`Pod::end_load`]. It goes on whatever
    /// becomes of the way from here to the pod.
    ///
    /// # Errors
    /// When the application does not begin.
    pub async fn start_load(&self, uri: &str, rate: u32) -> anyhow::Result<()> {
        let address = self.forward(TUNNEL_PORT).await?;
        let mut start = request(Method::POST, &url(address.ip(), address.port(), "/load"), &[]);
        *start.body_mut() = serde_json::json!({"uri": uri, "rate": rate}).to_string().into();
        let reply = Client::direct().send(start).await?;
        ensure!(reply.status == StatusCode::ACCEPTED, "{} {}", reply.status, reply.text());
        Ok(())
    }

    /// Ends the load and waits for what is under way.
    ///
    /// # Errors
    /// When the application does not answer.
    pub async fn end_load(&self) -> anyhow::Result<Report> {
        let reply = self.ask(TUNNEL_PORT, Method::DELETE, "/load").await?;
        serde_json::from_slice(&reply.body).context("the load's report")
    }

    /// Has the pod's application send many requests, and waits for what became of each.
    ///
    /// # Errors
    /// When the application does not answer.
    pub async fn burst(&self, burst: &Burst) -> anyhow::Result<Vec<Outcome>> {
        self.spawn_burst(burst).await?.await?
    }

    /// As [`Pod::burst`], without waiting for the end.
    ///
    /// # Errors
    /// As [`Pod::forward`].
    pub async fn spawn_burst(
        &self,
        burst: &Burst,
    ) -> anyhow::Result<JoinHandle<anyhow::Result<Vec<Outcome>>>> {
        let address = self.forward(TUNNEL_PORT).await?;
        let mut order = request(Method::POST, &url(address.ip(), address.port(), "/burst"), &[]);
        *order.body_mut() = serde_json::to_string(burst)?.into();
        Ok(tokio::spawn(async move {
            let reply = Client::direct().send(order).await?;
            ensure!(reply.status.is_success(), "burst: {} {}", reply.status, reply.text());
            serde_json::from_slice(&reply.body).context("the burst's outcomes")
        }))
    }

    /// Runs a program in a container and returns what it wrote.
    ///
    /// # Errors
    /// When it cannot be run, or fails; the message has what it wrote.
    pub async fn exec(&self, container: &str, command: &[&str]) -> anyhow::Result<String> {
        let params = AttachParams::default().container(container).stderr(true);
        let mut process = self.api().exec(&self.name(), command.to_vec(), &params).await?;
        let (mut out, mut err) = (String::new(), String::new());
        let stdout = process.stdout().context("no standard output")?;
        let stderr = process.stderr().context("no standard error")?;
        let status = process.take_status();
        let (mut stdout, mut stderr) = (BufReader::new(stdout), BufReader::new(stderr));
        let (a, b) = tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err));
        a?;
        b?;
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        let status = status.with_context(|| format!("{command:?} ended without a status"))?;
        if status.status.as_deref() != Some("Success") {
            bail!("{command:?}: {}\n{out}{err}", status.message.unwrap_or_default());
        }
        Ok(out)
    }

    /// What a container wrote.
    ///
    /// # Errors
    /// When there are no logs.
    pub async fn logs(&self, container: &str) -> anyhow::Result<String> {
        let params = LogParams { container: Some(container.into()), ..LogParams::default() };
        Ok(self.api().logs(&self.name(), &params).await?)
    }

    /// Deletes it with its grace period.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn delete(&self) -> anyhow::Result<()> {
        self.api().delete(&self.name(), &DeleteParams::default()).await?;
        Ok(())
    }

    /// `kubectl delete --grace-period=0 --force`.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn kill(&self) -> anyhow::Result<()> {
        let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.api().delete(&self.name(), &params).await?;
        Ok(())
    }
}
