//! `kubectl port-forward`: a port here for a port of a pod's loopback address.

use std::{net::SocketAddr, time::Duration};

use ::kube::Api;
use k8s_openapi::api::core::v1;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A forwarded port, until it is dropped.
#[derive(Debug)]
pub struct Forward {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Forward {
    /// Forwards a port of a pod.
    ///
    /// # Errors
    /// When no port can be bound here. Whether the pod's port answers is seen by who connects.
    pub async fn open(pods: Api<v1::Pod>, pod: &str, port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let pod = pod.to_owned();
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let (pods, pod) = (pods.clone(), pod.clone());
                tokio::spawn(async move {
                    // A connection that fails is closed, as the pod would close it.
                    let _ = carry(&pods, &pod, port, stream).await;
                });
            }
        });
        Ok(Self { address, task })
    }

    /// Where the port is here.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    pods: &Api<v1::Pod>,
    pod: &str,
    port: u16,
    mut stream: TcpStream,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut forwarder = pods.portforward(pod, &[port]).await?;
    if let Some(mut upstream) = forwarder.take_stream(port) {
        copy_bidirectional(&mut stream, &mut upstream).await?;
    }
    forwarder.abort();
    Ok(())
}
