//! Requests that are handled: the memory of their futures serves one request after another.
//!
//! A request's future is some kilobytes, more than an allocator keeps at hand. A thread keeps as many as were needed at
//! once lately; a connection that is idle has none.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use ::http::{Request, Response, request::Parts};

use super::{Active, Closed, Refused};
use crate::{
    data::connection::Connection,
    http::{
        incoming::{ClientBody, Wire},
        manager::{self, Exchange},
        response::Tracked,
    },
    http2::RecvStream,
};

/// Places that a thread keeps.
const KEPT: usize = 64;

thread_local! {
    static FREE: RefCell<Vec<Box<dyn Place<Asked, Handled>>>> = const { RefCell::new(Vec::new()) };
}

/// What is to be answered.
pub enum Asked {
    /// A request over HTTP/1.
    Http1 {
        connection: Rc<Connection>,
        parts: Parts,
        /// Where its body comes from.
        wire: Rc<RefCell<Wire>>,
        exchange: Exchange,
    },
    /// A request over HTTP/2.
    Http2 {
        connection: Rc<Connection>,
        parts: Parts,
        /// What its body comes by; none without one.
        stream: Option<RecvStream>,
        exchange: Exchange,
    },
    /// What did not become one.
    Refused { connection: Rc<Connection>, refused: Refused, active: Active },
}

type Handled = Result<Response<Tracked>, Closed>;

async fn handle(asked: Asked) -> Handled {
    let (connection, parts, body, exchange) = match asked {
        Asked::Http1 { connection, parts, wire, exchange } => {
            // The body is made now: the wire was borrowed before.
            (connection, parts, ClientBody::http1(&wire), exchange)
        }
        Asked::Http2 { connection, parts, stream, exchange } => {
            (connection, parts, ClientBody::http2(stream), exchange)
        }
        Asked::Refused { connection, refused, active } => {
            return manager::refuse_head(connection, refused, active).await;
        }
    };
    manager::handle(connection, Request::from_parts(parts, body), exchange).await
}

/// Room for a future that has no name.
trait Place<A, T> {
    /// Begins with a future; one that is there is dropped.
    fn begin(&mut self, asked: A);
    /// `None`: there is no future.
    fn poll(&mut self, cx: &mut Context<'_>) -> Option<Poll<T>>;
    fn clear(&mut self);
}

struct Of<M, F> {
    make: M,
    running: Pin<Box<Option<F>>>,
}

impl<A, M: Fn(A) -> F, F: Future> Place<A, F::Output> for Of<M, F> {
    fn begin(&mut self, asked: A) {
        self.running.set(Some((self.make)(asked)));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Option<Poll<F::Output>> {
        self.running.as_mut().as_pin_mut().map(|future| future.poll(cx))
    }

    fn clear(&mut self) {
        self.running.set(None);
    }
}

fn place<A, F: Future + 'static>(make: impl Fn(A) -> F + 'static) -> Box<dyn Place<A, F::Output>> {
    Box::new(Of { make, running: Box::pin(None) })
}

/// A request that is handled. Dropped before its end it is given up.
pub struct Handling(Option<Box<dyn Place<Asked, Handled>>>);

impl Handling {
    /// Begins with one.
    pub fn new(asked: Asked) -> Self {
        let free = FREE.with_borrow_mut(Vec::pop);
        let mut place = free.unwrap_or_else(|| place(handle));
        place.begin(asked);
        Self(Some(place))
    }

    /// The response; not to be polled after it.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Handled> {
        let polled = self.0.as_mut().and_then(|place| place.poll(cx));
        polled.unwrap_or(Poll::Ready(Err(Closed)))
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        let Some(mut place) = self.0.take() else { return };
        // First: what a future holds may come here as well when it is dropped.
        place.clear();
        // A thread that ends has no use for it.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(place);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_place_serves_one_future_after_another_and_holds_nothing_of_the_last() {
        let mut place = place(async |(held, ready): (Rc<()>, bool)| {
            if !ready {
                std::future::pending::<()>().await;
            }
            Rc::strong_count(&held)
        });
        let cx = &mut Context::from_waker(Waker::noop());
        assert_eq!(place.poll(cx), None);
        let held = Rc::new(());
        place.begin((held.clone(), false));
        assert_eq!((place.poll(cx), Rc::strong_count(&held)), (Some(Poll::Pending), 2));
        place.begin((held.clone(), true));
        assert_eq!(place.poll(cx), Some(Poll::Ready(2)));
        place.clear();
        assert_eq!((place.poll(cx), Rc::strong_count(&held)), (None, 1));
    }
}
