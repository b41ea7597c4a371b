//! The sockets of administration: hyper's HTTP/1 server on the control thread.

use std::{convert::Infallible, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body_util::{BodyExt, Collected, Full};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

use super::{super::agent::Agent, Admin, Answer, Role};

/// Connections at once on one port; others wait in the accept queue.
const CONNECTIONS: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection lives so long at most; clients of administration connect anew.
const LIFE: Duration = Duration::from_secs(300);

/// Accepts and answers, for ever. Must run on a runtime that takes local tasks.
pub async fn serve(listener: TcpListener, role: Role, admin: Rc<Admin>, agent: Rc<Agent>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "administration cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (admin, agent) = (admin.clone(), agent.clone());
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| {
                let (admin, agent) = (admin.clone(), agent.clone());
                async move { Ok::<_, Infallible>(answer(role, peer, &request, (&admin, &agent)).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(LIFE, connection).await;
            drop(place);
        });
    }
}

/// The agent's port answers for the pod first, and then for the proxy.
async fn answer<B>(
    role: Role,
    peer: SocketAddr,
    request: &Request<B>,
    (admin, agent): (&Admin, &Agent),
) -> Answer {
    if role != Role::Status {
        return admin.answer(role, request);
    }
    if let Some(answer) = agent.answer(peer, request).await {
        return answer;
    }
    let answer = admin.answer(role, request);
    if request.uri().path() != "/stats/prometheus" {
        return answer;
    }
    let more = agent.application_metrics().await;
    let (head, body) = answer.into_parts();
    // A body that is there already cannot fail.
    let own = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    Response::from_parts(head, Full::new([own, more].concat().into()))
}
