//! The sockets of administration: hyper's HTTP/1 server on the control thread.
//!
//! Whoever reaches the pod reaches these ports, and the kubelet's probes come by them too: a newcomer never waits behind
//! connections on which nothing happens. The oldest of those makes room.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use http::{Request, Response};
use http_body_util::{BodyExt, Collected, Full};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{super::agent::Agent, Admin, Answer, Role};

/// Connections at once on one port.
const CONNECTIONS: usize = 64;
/// An answer is made in this time, or its connection may have to make room too.
const PATIENCE: Duration = Duration::from_secs(5);
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection lives so long at most; clients of administration connect anew.
const LIFE: Duration = Duration::from_secs(300);

/// A connection, as far as others are concerned.
#[derive(Debug, Default)]
struct Place {
    /// Since when an answer is made.
    busy: Cell<Option<Instant>>,
    /// Somebody else needs the place.
    leave: Notify,
}

/// The connections of one port, the oldest first.
#[derive(Debug, Default)]
struct Places {
    taken: RefCell<VecDeque<Rc<Place>>>,
    freed: Notify,
}

impl Places {
    /// Takes a place, from another connection if need be.
    async fn take(self: &Rc<Self>) -> Taken {
        while !self.has_room() {
            let _ = timeout(PATIENCE / 10, self.freed.notified()).await;
        }
        let place = Rc::new(Place::default());
        self.taken.borrow_mut().push_back(place.clone());
        Taken { place, of: self.clone() }
    }

    /// Whether there is room, made if need be.
    fn has_room(&self) -> bool {
        let mut taken = self.taken.borrow_mut();
        if taken.len() < CONNECTIONS {
            return true;
        }
        let waits =
            |place: &Rc<Place>| place.busy.get().is_none_or(|since| since.elapsed() >= PATIENCE);
        let Some(oldest) = taken.iter().position(waits) else { return false };
        if let Some(place) = taken.remove(oldest) {
            place.leave.notify_one();
        }
        true
    }
}

/// A place that is given back when it is dropped.
#[derive(Debug)]
struct Taken {
    place: Rc<Place>,
    of: Rc<Places>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.of.taken.borrow_mut().retain(|place| !Rc::ptr_eq(place, &self.place));
        self.of.freed.notify_one();
    }
}

/// Says that an answer is made, until it is dropped.
struct Busy<'a>(&'a Place);

impl<'a> Busy<'a> {
    fn new(place: &'a Place) -> Self {
        place.busy.set(Some(Instant::now()));
        Self(place)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.set(None);
    }
}

/// Accepts and answers, for ever. Must run on a runtime that takes local tasks.
pub async fn serve(listener: TcpListener, role: Role, admin: Rc<Admin>, agent: Rc<Agent>) {
    let places = Rc::new(Places::default());
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "administration cannot accept");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let taken = places.take().await;
        let (admin, agent) = (admin.clone(), agent.clone());
        tokio::task::spawn_local(async move {
            tokio::select! {
                () = connection(stream, peer, role, (&admin, &agent), &taken.place) => {}
                () = taken.place.leave.notified() => {
                    tracing::debug!(%peer, ?role, "administration makes room for others");
                }
            }
        });
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    role: Role,
    (admin, agent): (&Admin, &Agent),
    place: &Place,
) {
    let service = service_fn(|request| async move {
        let _busy = Busy::new(place);
        Ok::<_, Infallible>(answer(role, peer, &request, (admin, agent)).await)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let _ = timeout(LIFE, connection).await;
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

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    /// What is there without waiting.
    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn newcomers_take_the_place_of_the_oldest_that_only_waits() {
        let places = Rc::new(Places::default());
        let mut taken: Vec<Taken> = Vec::new();
        for _ in 0..CONNECTIONS {
            taken.push(now(places.take()).expect("room"));
        }
        let busy = Busy::new(&taken[0].place);
        let newcomer = now(places.take()).expect("room is made");
        assert!(now(taken[0].place.leave.notified()).is_none(), "an answer is made there");
        assert!(now(taken[1].place.leave.notified()).is_some(), "it only waited");
        assert!(now(taken[2].place.leave.notified()).is_none(), "one was enough");
        drop((busy, newcomer));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_are_made_are_waited_for_but_not_for_ever() {
        let places = Rc::new(Places::default());
        let mut taken: Vec<Taken> = Vec::new();
        for _ in 0..CONNECTIONS {
            let place = now(places.take()).expect("room");
            place.place.busy.set(Some(Instant::now()));
            taken.push(place);
        }
        assert!(now(places.take()).is_none(), "all of them are busy");
        drop(taken.pop());
        taken.push(now(places.take()).expect("one has ended"));
        taken[CONNECTIONS - 1].place.busy.set(Some(Instant::now()));
        // Time passes by itself.
        let _newcomer = places.take().await;
        assert!(now(taken[0].place.leave.notified()).is_some(), "it took too long");
    }
}
