//! Whole data threads: sockets that follow the configuration, several threads on one address, draining.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::testing::{
    Client, backend, chain, cluster, config_of, free_address, host, listener, manager, route,
    routes, text, to_cluster,
};
use crate::{
    config::{ProxyConfig, listener::Terminal, route::RouteAction},
    settings::Settings,
    shared::{ControlSide, Lifecycle, NamedService, Shared},
};

fn config(generation: u64, binds: &[SocketAddr], application: SocketAddr) -> ProxyConfig {
    let forwarding = || {
        let all = vec![route("/", RouteAction::Forward(Box::new(to_cluster("c"))))];
        chain(Terminal::Http(Arc::new(manager(routes(host(all))))))
    };
    let mut proxy = listener("http_proxy", vec![forwarding()]);
    proxy.binds = binds.to_vec();
    let named = listener("order_8080", vec![forwarding()]);
    ProxyConfig { generation, ..config_of(vec![proxy, named], vec![cluster("c", &[application])]) }
}

struct Process {
    shared: Arc<Shared>,
    control: ControlSide,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Process {
    fn start(threads: usize, named: Vec<NamedService>) -> Self {
        let settings =
            Settings { concurrency: threads, named_services: named.into(), ..Settings::test() };
        let (shared, control) = Shared::new(settings);
        let shared = Arc::new(shared);
        let threads = (0..threads)
            .map(|index| {
                let shared = shared.clone();
                std::thread::spawn(move || super::run(index, shared).unwrap())
            })
            .collect();
        Self { shared, control, threads }
    }

    /// Puts a configuration in effect and waits until every thread has its sockets.
    async fn apply(&self, config: ProxyConfig) {
        let generation = config.generation;
        self.shared.config.store(Arc::new(config));
        self.control.config_changed.send(generation).unwrap();
        let applied =
            || self.shared.applied.iter().all(|a| a.load(Ordering::Acquire) >= generation);
        super::testing::until(applied).await;
    }

    fn finish(self, lifecycle: Lifecycle) {
        self.control.lifecycle.send(lifecycle).unwrap();
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// Waits until nobody accepts connections there.
async fn until_refused(address: SocketAddr) {
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn sockets_follow_the_configuration_on_every_thread_and_drain() {
    super::testing::run(async {
        let application = backend(|_| async { text(200, "ok") }).await;
        let (first, second, named) = (free_address(), free_address(), free_address());
        let service = NamedService { bind: named, host: "order".into(), port: 8_080 };
        let process = Process::start(2, vec![service]);
        process.apply(config(1, &[first], application)).await;
        let mut kept = Client::new(first).await;
        assert_eq!(kept.get("/", &[]).await.status, 200);
        assert_eq!(Client::new(named).await.get("/", &[]).await.status, 200);
        process.apply(config(2, &[second], application)).await;
        until_refused(first).await;
        // A connection outlives the socket that accepted it.
        assert_eq!(kept.get("/", &[]).await.status, 200);
        for _ in 0..20 {
            assert_eq!(Client::new(second).await.get("/", &[]).await.status, 200);
        }
        process.finish(Lifecycle::Draining);
        kept.closed().await;
        until_refused(second).await;
    });
}

#[test]
fn an_address_that_is_taken_is_tried_again_and_stopping_ends_at_once() {
    super::testing::run(async {
        let application = backend(|_| async { text(200, "ok") }).await;
        let taken = StdListener::bind(free_address()).unwrap();
        let address = taken.local_addr().unwrap();
        let process = Process::start(1, Vec::new());
        process.shared.config.store(Arc::new(config(1, &[address], application)));
        process.control.config_changed.send(1).unwrap();
        drop(taken);
        process.apply(config(1, &[address], application)).await;
        let mut open = Client::new(address).await;
        assert_eq!(open.get("/", &[]).await.status, 200);
        process.finish(Lifecycle::Stopping);
        open.closed().await;
    });
}

/// A listener of a gateway that answers with this text.
fn edge(name: &str, binds: &[SocketAddr], answer: &str) -> crate::config::listener::Listener {
    let action =
        RouteAction::Direct { status: ::http::StatusCode::OK, body: answer.to_owned().into() };
    let mut manager = manager(routes(host(vec![route("/", action)])));
    // Connections look around four times in that time.
    manager.request_headers_timeout = Some(Duration::from_secs(8));
    let terminal = Terminal::Http(Arc::new(manager));
    let mut listener = listener(name, vec![chain(terminal)]);
    listener.binds = binds.to_vec();
    listener
}

#[test]
fn listeners_of_a_gateway_change_in_place_and_drain_when_they_are_gone() {
    super::testing::run(async {
        let (first, second) = (free_address(), free_address());
        let process = Process::start(2, Vec::new());
        let config =
            |generation, listeners| ProxyConfig { generation, ..config_of(listeners, Vec::new()) };
        let one = || edge("one", &[first], "one");
        process.apply(config(1, vec![one(), edge("two", &[second], "two")])).await;
        let (mut kept, mut leaving) = (Client::new(first).await, Client::new(second).await);
        assert_eq!(kept.get("/", &[]).await.body, "one");
        assert_eq!(leaving.get("/", &[]).await.body, "two");
        process.apply(config(2, vec![edge("one", &[first], "changed")])).await;
        until_refused(second).await;
        leaving.closed().await;
        assert_eq!(kept.get("/", &[]).await.body, "changed");
        // Another listener takes the address over.
        process.apply(config(3, vec![edge("other", &[first], "other")])).await;
        for _ in 0..20 {
            assert_eq!(Client::new(first).await.get("/", &[]).await.body, "other");
        }
        kept.closed().await;
        process.finish(Lifecycle::Stopping);
    });
}

#[test]
fn what_cannot_be_bound_is_told_and_the_rest_is_served() {
    super::testing::run(async {
        let taken = StdListener::bind(free_address()).unwrap();
        let (busy, free) = (taken.local_addr().unwrap(), free_address());
        let process = Process::start(1, Vec::new());
        let listeners =
            vec![edge("a", &[free], "a"), edge("b", &[busy], "b"), edge("c", &[free], "c")];
        process.shared.config.store(Arc::new(config_of(listeners, Vec::new())));
        process.control.config_changed.send(1).unwrap();
        let failures = || process.shared.bind_failures[0].load_full();
        super::testing::until(|| !failures().is_empty()).await;
        let told: Vec<_> = failures()
            .iter()
            .map(|failure| (failure.listener.to_string(), failure.address))
            .collect();
        assert_eq!(told, [("b".to_owned(), busy), ("c".to_owned(), free)]);
        assert_eq!(&*failures()[1].reason, "listener a has it");
        assert_eq!(Client::new(free).await.get("/", &[]).await.body, "a");
        drop(taken);
        super::testing::until(|| failures().len() == 1).await;
        assert_eq!(Client::new(busy).await.get("/", &[]).await.body, "b");
        process.finish(Lifecycle::Stopping);
    });
}
