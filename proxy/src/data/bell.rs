//! What tells a thread's connections that the process leaves, drains or stops.
//!
//! There may be tens of thousands of connections that wait for it: each has a place here, one task of the thread waits for all.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

use tokio::sync::watch;

use crate::shared::Lifecycle;

/// A thread's view of the lifecycle, and who is woken when it changes.
#[derive(Debug)]
pub struct Bell {
    now: Cell<Lifecycle>,
    places: RefCell<Places>,
}

#[derive(Debug, Default)]
struct Places {
    wakers: Vec<Option<Waker>>,
    free: Vec<u32>,
}

/// A connection's place. Whoever drops it is not woken any more.
#[derive(Debug)]
pub struct Place {
    bell: Rc<Bell>,
    at: u32,
}

impl Default for Bell {
    fn default() -> Self {
        Self { now: Cell::new(Lifecycle::Running), places: RefCell::default() }
    }
}

impl Bell {
    /// Rings at every change, until there is nobody left to change it.
    pub async fn follow(self: Rc<Self>, mut lifecycle: watch::Receiver<Lifecycle>) {
        loop {
            let now = *lifecycle.borrow_and_update();
            if now != self.now.replace(now) {
                self.ring();
            }
            if lifecycle.changed().await.is_err() {
                return;
            }
        }
    }

    /// The lifecycle as this thread knows it.
    pub fn now(&self) -> Lifecycle {
        self.now.get()
    }

    /// A place for whoever is to be woken.
    pub fn place(self: &Rc<Self>) -> Place {
        let mut places = self.places.borrow_mut();
        let at = places.free.pop().unwrap_or_else(|| {
            places.wakers.push(None);
            // No process has so many connections.
            u32::try_from(places.wakers.len() - 1).unwrap_or(u32::MAX)
        });
        Place { bell: self.clone(), at }
    }

    fn ring(&self) {
        // Nothing is woken while the places are borrowed: a waker may run anything.
        let mut wakers = Vec::new();
        wakers.extend(self.places.borrow_mut().wakers.iter_mut().filter_map(Option::take));
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Place {
    /// The lifecycle; its next change wakes the task.
    pub fn listen(&self, cx: &Context<'_>) -> Lifecycle {
        if let Some(waker) = self.bell.places.borrow_mut().wakers.get_mut(self.at as usize)
            && waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        self.bell.now()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.bell.places.borrow_mut();
        let waker = places.wakers.get_mut(self.at as usize).and_then(Option::take);
        places.free.push(self.at);
        if places.free.len() == places.wakers.len() {
            *places = Places::default();
        }
        drop(places);
        // It may be the last that holds its task.
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use super::*;

    #[tokio::test(flavor = "local")]
    async fn who_has_a_place_is_woken_by_every_change() {
        let (sender, receiver) = watch::channel(Lifecycle::Running);
        let bell = Rc::new(Bell::default());
        tokio::task::spawn_local(bell.clone().follow(receiver));
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let place = bell.place();
                tokio::task::spawn_local(async move {
                    for wanted in [Lifecycle::Leaving, Lifecycle::Draining] {
                        poll_fn(|cx| match place.listen(cx) {
                            now if now >= wanted => Poll::Ready(()),
                            _ => Poll::Pending,
                        })
                        .await;
                    }
                })
            })
            .collect();
        let abandoned = bell.place();
        abandoned.listen(&Context::from_waker(Waker::noop()));
        drop(abandoned);
        tokio::task::yield_now().await;
        sender.send(Lifecycle::Leaving).unwrap();
        tokio::task::yield_now().await;
        sender.send(Lifecycle::Draining).unwrap();
        for one in waiting {
            one.await.unwrap();
        }
        assert_eq!(bell.now(), Lifecycle::Draining);
        assert_eq!(bell.places.borrow().wakers.capacity(), 0, "nobody has a place");
    }
}
