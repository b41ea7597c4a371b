//! The PROXY protocol: the same announcements to weft-proxy and to stock Envoy, and Envoy's own to weft-proxy.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use weft_e2e::{
    block::Block,
    client::{Client, url},
    process::Process,
    programs::Programs,
    wait,
};

use super::{ADMIN, PORT, Runner, stock_envoy};

/// Whoever keeps a connection open for so long neither answers nor refuses.
const STUCK: Duration = Duration::from_secs(60);

/// Processes of one block.
struct Receiver {
    processes: Vec<Process>,
    folder: TempDir,
    // Another test gets the addresses when nobody listens there any more.
    block: Block,
}

impl Receiver {
    async fn start(runner: &Runner) -> anyhow::Result<Self> {
        let mut receiver =
            Self { block: Block::any()?, folder: TempDir::new()?, processes: Vec::new() };
        receiver.run(runner, "announced", 100).await?;
        Ok(receiver)
    }

    async fn run(&mut self, runner: &Runner, name: &str, third: u8) -> anyhow::Result<()> {
        let source = format!("{}/tests/mesh_static/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        let yaml = std::fs::read_to_string(&source).with_context(|| source)?;
        let folder = self.folder.path().display().to_string();
        let file = self.folder.path().join(format!("{name}.yaml"));
        std::fs::write(&file, self.block.relocate(&yaml).replace("FOLDER", &folder))?;
        let mut invocation = runner.invocation(name, &file.display().to_string());
        if matches!(runner, Runner::Envoy(_)) {
            invocation.arguments.extend(["--file-flush-interval-msec", "50"].map(str::to_owned));
        }
        let mut process = Process::start(&Programs::find()?, self.folder.path(), &invocation)?;
        let ready = url(self.block.address(third, 1), ADMIN, "/ready");
        wait::until_ok("a proxy should be ready", async || {
            process.must_run()?;
            let reply = Client::direct().get(&ready).await?;
            ensure!(reply.status == 200, "{}", reply.text());
            Ok(())
        })
        .await?;
        self.processes.push(process);
        Ok(())
    }

    fn address(&self, third: u8, port: u16) -> SocketAddr {
        (self.block.address(third, 1), port).into()
    }

    /// The log by paths, when it has as many lines; without the paths, and with names for the addresses that differ by run.
    async fn log(&self, lines: usize, socket: SocketAddr) -> BTreeMap<String, String> {
        let path = self.folder.path().join("access.log");
        let log = wait::until_ok("the log should be complete", async || {
            let log = std::fs::read_to_string(&path)?;
            ensure!(log.lines().count() == lines, "{log}");
            Ok(log)
        })
        .await
        .unwrap();
        let fields = |line: &str| {
            let (path, rest) = line.split_once(' ').unwrap();
            let mut words: Vec<_> = rest.split(' ').map(str::to_owned).collect();
            let socket = socket.to_string();
            for word in &mut words {
                if word.starts_with("127.0.0.1:") {
                    "SENDER".clone_into(word);
                } else if *word == socket {
                    "SOCKET".clone_into(word);
                }
            }
            // Envoy forwards another address of its own for clients of the same machine.
            if words.get(1).is_some_and(|remote| remote == "SENDER") {
                words.pop();
            }
            (path.to_owned(), words.join(" "))
        };
        log.lines().map(fields).collect()
    }
}

/// The status of what comes back for an announcement and a request; `None`: the connection was closed without an answer.
async fn ask(address: SocketAddr, announced: &[u8], path: &str) -> Option<(String, SocketAddr)> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let own = stream.local_addr().unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    // What is refused may be refused early.
    let _ = stream.write_all(&[announced, request.as_bytes()].concat()).await;
    let mut answer = Vec::new();
    let _ = timeout(STUCK, stream.read_to_end(&mut answer)).await.expect("an answer or an end");
    let line = String::from_utf8(answer).unwrap().lines().next()?.to_owned();
    Some((line, own))
}

/// Version 2, with what stands after the fixed part.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, body].concat()
}

const FOUR: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 3, 232, 1, 187];

/// Announcements, and what the log says of the request behind them; `None`: the connection is closed.
fn announcements() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let six = [[0x20, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]; 2].concat();
    let four = Some("200 192.0.2.1:1000 198.51.100.2:443 SENDER 192.0.2.1");
    let unknown = Some("200 SENDER SOCKET SENDER");
    let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
    vec![
        (line("TCP4 192.0.2.1 198.51.100.2 1000 443"), four),
        (v2(0x21, 0x11, FOUR), four),
        (v2(0x21, 0x11, &[FOUR, b"\x01\x00\x02h2\x04\x00\x00"].concat()), four),
        (
            line("TCP6 2001:db8::1 2001:db8::2 1000 443"),
            Some("200 [2001:db8::1]:1000 [2001:db8::2]:443 SENDER 2001:db8::1"),
        ),
        (
            v2(0x21, 0x21, &[&six[..], &[3, 232, 1, 187]].concat()),
            Some("200 [2001:db8::1]:1000 [2001:db8::1]:443 SENDER 2001:db8::1"),
        ),
        (
            line("TCP4 203.0.113.9 198.51.100.2 1000 443"),
            Some("403 203.0.113.9:1000 198.51.100.2:443 SENDER 203.0.113.9"),
        ),
        (line("UNKNOWN"), unknown),
        (v2(0x20, 0, b""), unknown),
        (b"".to_vec(), None),
        (line("TCP4 192.0.2.1"), None),
        (line("TCP4 ::1 ::2 1000 443"), None),
        (line("TCP4 192.0.2.256 198.51.100.2 1000 443"), None),
        (line("TCP4 192.0.2.1 198.51.100.2 65536 443"), None),
        (line("TCP5 192.0.2.1 198.51.100.2 1000 443"), None),
        (line(&format!("TCP4 {}", "x".repeat(200))), None),
        (v2(0x31, 0x11, FOUR), None),
        (v2(0x22, 0x11, FOUR), None),
        (v2(0x21, 0x11, &FOUR[..8]), None),
    ]
}

async fn behaves(runner: &Runner) {
    let receiver = Receiver::start(runner).await.unwrap();
    let address = receiver.address(100, PORT);
    let mut wanted = BTreeMap::new();
    for (index, (bytes, logged)) in announcements().into_iter().enumerate() {
        let path = format!("/{index}");
        let answer = ask(address, &bytes, &path).await;
        let shown = format!("{runner:?}: {}: {answer:?}", bytes.escape_ascii());
        assert_eq!(answer.is_some(), logged.is_some(), "{shown}");
        if let Some(logged) = logged {
            wanted.insert(path, logged.to_owned());
        }
    }
    assert_eq!(receiver.log(wanted.len(), address).await, wanted, "{runner:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announced_clients_are_the_clients() {
    behaves(&Runner::Weft).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_envoy_takes_the_same_announcements() {
    let Some(envoy) = stock_envoy() else { return };
    behaves(&envoy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stock_envoy_announces_is_understood() {
    let Some(envoy) = stock_envoy() else { return };
    let mut receiver = Receiver::start(&Runner::Weft).await.unwrap();
    receiver.run(&envoy, "announcing", 101).await.unwrap();
    let mut clients = BTreeMap::new();
    for port in [8001, 8002] {
        let path = format!("/{port}");
        let (line, own) = ask(receiver.address(101, port), b"", &path).await.unwrap();
        assert_eq!(line, "HTTP/1.1 200 OK");
        clients.insert(path, own);
    }
    let path = receiver.folder.path().join("access.log");
    wait::until_ok("both should be in the log", async || {
        let log = std::fs::read_to_string(&path)?;
        for (path, client) in &clients {
            let port = path.trim_start_matches('/').parse()?;
            let start = format!("{path} 200 {client} {} ", receiver.address(101, port));
            ensure!(log.lines().any(|line| line.starts_with(&start)), "{start} in\n{log}");
        }
        Ok(())
    })
    .await
    .unwrap();
}
