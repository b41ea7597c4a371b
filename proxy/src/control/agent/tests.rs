//! The agent against an application on loopback: a few lines of HTTP, a port that only accepts, a health check.

use std::{cell::RefCell, net::Ipv4Addr};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{body::Frame, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, sync::watch, task::spawn_local};

use super::*;
use crate::{
    data::testing::nobody,
    settings::Pod,
    shared::{ControlSide, Shared},
};

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

struct Test {
    agent: Agent,
    lifecycle: Rc<LifecycleControl>,
    _control: ControlSide,
}

impl Test {
    fn new(probers: &str, scrape: &str) -> Result<Self, AgentError> {
        let pod = Pod {
            name: "a-0".into(),
            namespace: "default".into(),
            service_account: "a".into(),
            address: LOCAL.into(),
            control_plane: "localhost:15012".into(),
            workload_name: None,
            cluster_id: None,
            interception: weft_api::node::Interception::Redirect,
            labels: Default::default(),
            concurrency: None,
            drain_duration: None,
            termination_drain: Duration::ZERO,
            exit_on_zero_connections: false,
            probers: Some(probers.into()),
            scrape: Some(scrape.into()),
        };
        let settings = Settings {
            interception: pod.interception,
            pod_address: LOCAL.into(),
            pod: Some(pod.into()),
            ..Settings::test()
        };
        let (shared, control) = Shared::new(settings);
        let (state, _) = watch::channel(Lifecycle::Running);
        let lifecycle = Rc::new(LifecycleControl::new(shared.clone(), state));
        let agent = Agent::new(&shared.settings, lifecycle.clone())?;
        Ok(Self { agent, lifecycle, _control: control })
    }

    async fn ask(&self, method: &str, path: &str, peer: &str) -> Option<(u16, String)> {
        let request = Request::builder().method(method).uri(path).header("user-agent", "kubelet");
        let request = request.body(()).unwrap();
        let answer = self.agent.answer(peer.parse().unwrap(), &request).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        Some((status, String::from_utf8(body.to_vec()).unwrap()))
    }

    async fn probe(&self, path: &str) -> u16 {
        self.ask("GET", path, "10.0.0.1:4000").await.unwrap().0
    }
}

/// An application by HTTP/1.1; notes what it was asked.
async fn application(status: u16, body: &'static str) -> (u16, Rc<RefCell<Vec<String>>>) {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Rc::new(RefCell::new(Vec::new()));
    let notes = asked.clone();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let notes = notes.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let header = |name: &str| {
                    let value = request.headers().get(name);
                    value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
                };
                notes.borrow_mut().push(format!(
                    "{} {} {} {}",
                    request.uri(),
                    header("host"),
                    header("x-probe"),
                    header("user-agent")
                ));
                let mut answer = Response::new(Full::new(Bytes::from(body)));
                *answer.status_mut() = StatusCode::from_u16(status).unwrap();
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            spawn_local(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (port, asked)
}

/// A gRPC server whose health check says this.
async fn health(status: u8) -> u16 {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request: Request<hyper::body::Incoming>| async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(&body[..], b"\0\0\0\0\x06\n\x04shop");
                let message = Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]));
                let trailers = [("grpc-status", "0")].map(|(name, value)| {
                    (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
                });
                let frames = [message, Frame::trailers(trailers.into_iter().collect())];
                let body =
                    futures_util::stream::iter(frames.map(Ok::<_, std::convert::Infallible>));
                Ok::<_, std::convert::Infallible>(Response::new(StreamBody::new(body)))
            });
            spawn_local(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    port
}

/// A port that nobody listens on.
fn closed() -> u16 {
    nobody().port()
}

#[tokio::test(flavor = "local")]
async fn probes_ask_the_application_and_answer_as_it_does() {
    let (good, asked) = application(204, "").await;
    let (bad, _) = application(503, "").await;
    let (serving, sick, nobody) = (health(1).await, health(2).await, closed());
    let probers = format!(
        r#"{{"/app-health/a/livez": {{"httpGet": {{"path": "/live?x=1", "port": {good},
              "httpHeaders": [{{"name": "X-Probe", "value": "yes"}}, {{"name": "Host", "value": "shop"}}]}}, "timeoutSeconds": 20}},
            "/app-health/a/readyz": {{"httpGet": {{"port": {bad}, "scheme": "HTTP"}}, "timeoutSeconds": 20}},
            "/app-health/a/startupz": {{"httpGet": {{"path": "x", "port": {nobody}}}, "timeoutSeconds": 20}},
            "/app-health/b/livez": {{"tcpSocket": {{"port": {good}}}, "timeoutSeconds": 20}},
            "/app-health/b/readyz": {{"tcpSocket": {{"port": {nobody}}}, "timeoutSeconds": 20}},
            "/app-health/c/livez": {{"grpc": {{"port": {serving}, "service": "shop"}}, "timeoutSeconds": 20}},
            "/app-health/c/readyz": {{"grpc": {{"port": {sick}, "service": "shop"}}, "timeoutSeconds": 20}},
            "/app-health/c/startupz": {{"grpc": {{"port": {nobody}}}, "timeoutSeconds": 20}},
            "/app-lifecycle/a/prestopz": {{"httpGet": {{"path": "/bye", "port": {good}}}, "timeoutSeconds": 20}}}}"#
    );
    let test = Test::new(&probers, "{}").unwrap();
    for (path, status) in [
        ("/app-health/a/livez", 204),
        ("/app-health/a/readyz", 503),
        ("/app-health/a/startupz", 500),
        ("/app-health/b/livez", 200),
        ("/app-health/b/readyz", 500),
        ("/app-health/c/livez", 200),
        ("/app-health/c/readyz", 500),
        ("/app-health/c/startupz", 500),
        ("/app-lifecycle/a/prestopz", 204),
        ("/app-health/d/livez", 404),
    ] {
        assert_eq!(test.probe(path).await, status, "{path}");
    }
    let own = format!("/bye 127.0.0.1:{good}  kubelet");
    assert_eq!(*asked.borrow(), ["/live?x=1 shop yes kubelet", &own]);
}

#[tokio::test(flavor = "local")]
async fn probes_follow_the_application_within_the_pod() {
    let (good, asked) = application(204, "").await;
    let away = async |location: String| {
        let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let location = location.replace("{port}", &port.to_string());
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let location = location.clone();
                let service = service_fn(move |_: Request<hyper::body::Incoming>| {
                    let answer = Response::builder().status(302).header("location", &location);
                    let answer = answer.body(Full::<Bytes>::default()).unwrap();
                    async move { Ok::<_, std::convert::Infallible>(answer) }
                });
                spawn_local(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        port
    };
    let near = away(format!("http://127.0.0.1:{good}/live")).await;
    let far = away(format!("http://shop.example:{good}/live")).await;
    let circle = away("http://127.0.0.1:{port}/".to_owned()).await;
    let probers = format!(
        r#"{{"/app-health/a/livez": {{"httpGet": {{"port": {near},
              "httpHeaders": [{{"name": "X-Probe", "value": "yes"}}, {{"name": "Host", "value": "shop"}}]}}, "timeoutSeconds": 20}},
            "/app-health/b/livez": {{"httpGet": {{"port": {far}}}, "timeoutSeconds": 20}},
            "/app-health/c/livez": {{"httpGet": {{"port": {circle}}}, "timeoutSeconds": 20}}}}"#
    );
    let test = Test::new(&probers, "{}").unwrap();
    assert_eq!(test.probe("/app-health/a/livez").await, 204);
    assert_eq!(*asked.borrow(), [format!("/live 127.0.0.1:{good} yes kubelet")]);
    assert_eq!(test.probe("/app-health/b/livez").await, 302, "another host is the answer");
    let (status, text) = test.ask("GET", "/app-health/c/livez", "10.0.0.1:4000").await.unwrap();
    assert_eq!((status, text.as_str()), (500, "stopped after 10 redirections\n"));
}

#[test]
fn what_the_injector_wrote_wrongly_is_named() {
    for probers in ["[]", r#"{"/p": {"tcpSocket": {"port": 70000}}}"#] {
        let error = Test::new(probers, "{}").err().expect("an error");
        let text = super::super::certificates::with_causes(&error);
        assert!(text.contains("ISTIO_KUBE_APP_PROBERS: is not an object of probes"), "{text}");
    }
}

/// What the pod's author wrote wrongly costs the one thing that it is about.
#[tokio::test(flavor = "local")]
async fn mistakes_of_the_pods_do_not_keep_the_proxy_from_running() {
    let (good, asked) = application(200, "a 1\n").await;
    let probers = format!(
        r#"{{"/app-health/a/livez": {{}},
            "/app-health/a/readyz": {{"httpGet": {{"port": {good}, "httpHeaders": [{{"name": "x", "value": "a\nb"}}]}}}},
            "/app-health/b/livez": {{"httpGet": {{"path": "/is it <ä>?x={{y}}", "port": {good}}}, "timeoutSeconds": 20}}}}"#
    );
    for scrape in
        [r#"{"scrape": "true", "port": "http"}"#, r#"{"scrape": "true", "port": "1,2"}"#, "no"]
    {
        let test = Test::new(&probers, scrape).unwrap();
        assert_eq!(test.agent.application_metrics().await, "");
        for (path, reason) in [
            ("/app-health/a/livez", "it has none of httpGet, tcpSocket and grpc"),
            ("/app-health/a/readyz", "it cannot send \"a\\nb\" as x"),
        ] {
            let (status, text) = test.ask("GET", path, "10.0.0.1:4000").await.unwrap();
            assert_eq!(status, 500, "{path}");
            assert!(text.contains(reason), "{text}");
        }
        assert_eq!(test.probe("/app-health/b/livez").await, 200);
        let path = "/is%20it%20%3C%C3%A4%3E?x=%7By%7D";
        assert!(asked.borrow().last().unwrap().starts_with(path), "{asked:?}");
    }
}

#[tokio::test(flavor = "local")]
async fn only_the_pod_itself_may_end_it() {
    let test = Test::new("{}", "{}").unwrap();
    for path in ["/drain", "/quitquitquit"] {
        assert_eq!(test.ask("POST", path, "10.0.0.1:4000").await.unwrap().0, 403, "{path}");
        assert_eq!(test.ask("GET", path, "127.0.0.1:4000").await.unwrap().0, 405, "{path}");
    }
    assert_eq!(test.lifecycle.state(), Lifecycle::Running);
    assert_eq!(test.ask("POST", "/drain", "[::ffff:127.0.0.1]:4000").await.unwrap().0, 200);
    assert_eq!(test.lifecycle.state(), Lifecycle::Leaving);
    assert_eq!(test.ask("POST", "/quitquitquit", "[::1]:4000").await.unwrap().0, 200);
    test.lifecycle.wait_for_quit().await;
    assert_eq!(test.ask("GET", "/healthz/ready", "[::1]:4000").await, None, "the proxy's own");
}

#[tokio::test(flavor = "local")]
async fn the_applications_metrics_come_with_the_proxys() {
    let (port, asked) = application(200, "a 1").await;
    let scrape = |port: u16| format!(r#"{{"scrape": "true", "path": "m", "port": "{port}"}}"#);
    let metrics =
        async |scrape: &str| Test::new("{}", scrape).unwrap().agent.application_metrics().await;
    assert_eq!(metrics(&scrape(port)).await, "a 1\n");
    assert_eq!(*asked.borrow(), [format!("/m 127.0.0.1:{port}  ")]);
    assert_eq!(metrics(&scrape(closed())).await, "");
    let (broken, _) = application(500, "oh").await;
    assert_eq!(metrics(&scrape(broken)).await, "");
    assert_eq!(metrics(r#"{"scrape": "false"}"#).await, "");
}
