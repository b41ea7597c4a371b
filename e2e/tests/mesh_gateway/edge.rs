//! A mesh with a gateway, and requests to it from outside.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use weft_e2e::{
    envoy::Envoy,
    mesh::{Mesh, Options, Parts, Pod},
    programs::sample,
    wait,
};
use weft_samples::answer::Answer;

use crate::tls::{Authority, Tls};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whose gateway it is.
pub enum Kind {
    Weft,
    Envoy(PathBuf),
}

/// A mesh with `user-service` and a gateway for it.
pub struct Edge {
    pub mesh: Mesh,
    envoy: Option<Envoy>,
}

/// A mesh with these files of the samples and these resources, without a running pod.
pub async fn mesh(samples: &[&str], resources: &[&str]) -> Mesh {
    let mesh = Mesh::empty(Options::default()).await.unwrap();
    for file in samples {
        let yaml = mesh.block().relocate(&sample(&format!("mesh/{file}")).unwrap());
        mesh.apply(file, &yaml).unwrap();
    }
    for (index, yaml) in resources.iter().enumerate() {
        mesh.apply(&format!("resources-{index}.yaml"), &mesh.block().relocate(yaml)).unwrap();
    }
    mesh
}

/// A pod of the mesh's files.
pub fn pod(mesh: &Mesh, name: &str) -> Pod {
    let files = std::fs::read_dir(mesh.config_folder()).unwrap();
    let pods = files.flat_map(|file| {
        let yaml = std::fs::read_to_string(file.unwrap().path()).unwrap();
        Pod::in_yaml(&yaml).unwrap()
    });
    pods.into_iter().find(|pod| pod.name == name).unwrap()
}

/// A Secret of the gateway's namespace.
fn secret(name: &str, data: &[(&str, &str)]) -> String {
    let lines = data.iter().map(|(key, value)| {
        format!("  {key}: |\n    {}\n", value.trim_end().replace('\n', "\n    "))
    });
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: edge}}\nstringData:\n{}",
        lines.collect::<String>()
    )
}

impl Edge {
    pub async fn start(kind: Kind, servers: &Authority, clients: &Authority) -> Self {
        let mut mesh = mesh(&["user-service.yaml"], &[include_str!("edge.yaml")]).await;
        let mutual = servers.issue("mutual.example.com");
        let mutual = [
            ("tls.crt", mutual.0.as_str()),
            ("tls.key", mutual.1.as_str()),
            ("ca.crt", clients.pem()),
        ];
        mesh.apply("mutual-secret.yaml", &secret("mutual", &mutual)).unwrap();
        let (chain, key) = servers.issue("users.example.com");
        let users = secret("users", &[("tls.crt", &chain), ("tls.key", &key)]);
        mesh.apply("users-secret.yaml", &users).unwrap();
        for name in ["user-service-v1-1", "user-service-v1-2"] {
            mesh.launch(pod(&mesh, name), Parts::Both).await.unwrap();
        }
        let own = pod(&mesh, "edge-1");
        let envoy = match kind {
            Kind::Weft => {
                mesh.launch(own, Parts::Proxy).await.unwrap();
                None
            }
            Kind::Envoy(binary) => Some(Envoy::start(&binary, &mesh, &own).await.unwrap()),
        };
        mesh.ready().await.unwrap();
        Self { mesh, envoy }
    }

    /// Writes a Secret with certificate and key.
    pub fn apply_pair(&self, name: &str, (chain, key): &(String, String)) {
        let yaml = secret(name, &[("tls.crt", chain), ("tls.key", key)]);
        self.mesh.apply(&format!("{name}-secret.yaml"), &yaml).unwrap();
    }

    /// The gateway's address and a port of it.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.mesh.block().address(60, 1), port))
    }

    /// The address of servers outside the mesh.
    pub fn outside(&self) -> Ipv4Addr {
        self.mesh.block().address(62, 1)
    }

    /// Asks until the sample application answers.
    pub async fn until_answered(
        &self,
        at: SocketAddr,
        host: &str,
        path: &str,
        tls: Option<&Tls>,
    ) -> Answer {
        let what = format!("{host}{path} should answer");
        let outcome = wait::until_ok(&what, async || {
            let reply = ask(at, host, path, tls).await?;
            ensure!(reply.starts_with("HTTP/1.1 200"), "{reply}");
            let (_, body) = reply.split_once("\r\n\r\n").context("no body")?;
            // The body may come in chunks; the answer is the object in it.
            let (from, to) =
                (body.find('{').context("no object")?, body.rfind('}').context("cut")?);
            serde_json::from_str(&body[from..=to]).context("not an answer")
        });
        outcome.await.unwrap()
    }

    /// Nobody has refused a resource.
    pub async fn accepted(&self) {
        let metrics = self.mesh.operator_metrics().await.unwrap();
        let rejects = metrics.iter().filter(|s| s.name.starts_with("pilot_total_xds_rejects"));
        assert_eq!(rejects.map(|sample| sample.value).sum::<f64>(), 0.0);
        if let Some(envoy) = &self.envoy {
            assert_eq!(envoy.stats_ending(".update_rejected").await.unwrap(), 0, "{}", envoy.log());
        }
    }
}

/// One request on a connection of its own; the whole answer as text.
pub async fn ask(
    at: SocketAddr,
    host: &str,
    path: &str,
    tls: Option<&Tls>,
) -> anyhow::Result<String> {
    let exchange = async {
        let stream = TcpStream::connect(at).await?;
        match tls {
            None => exchange(stream, host, path).await,
            Some(tls) => exchange(tls.connect(host, stream).await?, host, path).await,
        }
    };
    tokio::time::timeout(PATIENCE, exchange).await.context("no answer in time")?
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
) -> anyhow::Result<String> {
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nx-forwarded-client-cert: By=spoofed\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut reply = Vec::new();
    let end = stream.read_to_end(&mut reply).await;
    // Whoever closes TLS without saying so has still answered.
    if reply.is_empty() {
        end?;
        anyhow::bail!("closed without an answer");
    }
    Ok(text(&reply))
}

/// Bytes of a peer for people.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The connection was closed, rather than a request answered or left waiting.
pub fn failed(outcome: anyhow::Result<String>) {
    let error = format!("{:#}", outcome.expect_err("it was answered"));
    assert!(!error.contains("in time"), "{error}");
}
