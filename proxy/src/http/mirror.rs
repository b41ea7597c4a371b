//! Copies of requests: sent to another cluster once the request has come in whole, their answers thrown away.
//!
//! What is larger than the replay buffer is not copied. Copies hold nobody up and are bounded in number and time.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use ::http::{Request, Uri, uri};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::{head::Head, replay::Replay};
use crate::{
    config::route::{Forward, Mirror},
    data::thread::Thread,
    net::{body::RequestBody, upstreams::PickContext},
};

/// Copies under way per thread.
const MOST: usize = 1_024;
/// Time for a copy, from the beginning of the request.
const LIMIT: Duration = Duration::from_secs(60);

thread_local! {
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
}

struct Place;

impl Place {
    fn take() -> Option<Self> {
        let taken = UNDER_WAY.get();
        (taken < MOST).then(|| {
            UNDER_WAY.set(taken + 1);
            Self
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        UNDER_WAY.set(UNDER_WAY.get().saturating_sub(1));
    }
}

/// Begins the copies that the route wants of a request. The body must be kept.
pub fn send(thread: &Rc<Thread>, forward: &Forward, head: &Head, body: &Replay) {
    for mirror in &forward.mirrors {
        if !mirror.fraction.hit() {
            continue;
        }
        let Some(place) = Place::take() else { return };
        let Some(request) = request(mirror, head) else { continue };
        let (thread, cluster, body) = (thread.clone(), mirror.cluster.clone(), body.clone());
        tokio::task::spawn_local(async move {
            let copied = timeout(LIMIT, copy(&thread, &cluster, request, &body)).await;
            if copied.is_err() {
                tracing::debug!(cluster = &*cluster, "the copy of a request took too long");
            }
            drop(place);
        });
    }
}

fn request(mirror: &Mirror, head: &Head) -> Option<Request<()>> {
    let authority = head.authority();
    // The suffix goes before a port: `shop-shadow:80`.
    let authority = if mirror.keep_host {
        authority.to_owned()
    } else {
        let host = super::matching::without_port(authority);
        format!("{host}-shadow{}", &authority[host.len()..])
    };
    let scheme = if head.https { uri::Scheme::HTTPS } else { uri::Scheme::HTTP };
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(head.target.clone())
        .build()
        .ok()?;
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = head.headers.clone();
    Some(request)
}

async fn copy(thread: &Rc<Thread>, cluster: &Arc<str>, request: Request<()>, body: &Replay) {
    body.ended().await;
    let Some(bytes) = body.copy() else { return };
    let Some(runtime) = thread.upstreams.get(&thread.config(), cluster) else { return };
    let Ok(picked) = runtime.pick(&PickContext::default()) else { return };
    let body = if bytes.is_empty() { RequestBody::Empty } else { RequestBody::Full(bytes) };
    match picked.request(request.map(|()| body)).await {
        // Read to its end, so that the connection can be used again.
        Ok(mut response) => while let Some(Ok(_)) = response.frame().await {},
        Err(error) => tracing::debug!(cluster = &**cluster, %error, "a copy of a request failed"),
    }
}
