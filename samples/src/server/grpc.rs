//! The gRPC side: every role answers `Charge` and `Watch`.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::{StreamExt, wrappers::TcpListenerStream};
use tonic::{
    Code, Request, Response, Status,
    metadata::{KeyAndValueRef, MetadataMap},
};

use super::App;
use crate::payment::{
    ChargeReply, ChargeRequest, WatchReply, WatchRequest,
    payments_server::{Payments, PaymentsServer},
};

struct Service(Arc<App>);

pub(super) async fn serve(listener: TcpListener, app: Arc<App>, mut stop: watch::Receiver<bool>) {
    // A unary answer is written in two pieces; without this the trailers wait for the client's delayed acknowledgement.
    let incoming = TcpListenerStream::new(listener)
        .map(|stream| stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream)));
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<PaymentsServer<Service>>().await;
    let served = tonic::transport::Server::builder()
        .add_service(health_service)
        .add_service(PaymentsServer::new(Service(app)))
        .serve_with_incoming_shutdown(incoming, async move {
            let _ = stop.wait_for(|stop| *stop).await;
        });
    if let Err(error) = served.await {
        tracing::error!(%error, "gRPC server ended");
    }
}

fn readable(metadata: &MetadataMap) -> HashMap<String, String> {
    let pair = |pair: KeyAndValueRef<'_>| match pair {
        KeyAndValueRef::Ascii(key, value) => {
            (key.to_string(), String::from_utf8_lossy(value.as_encoded_bytes()).into_owned())
        }
        KeyAndValueRef::Binary(key, value) => {
            (key.to_string(), String::from_utf8_lossy(value.as_encoded_bytes()).into_owned())
        }
    };
    metadata.iter().map(pair).collect()
}

#[tonic::async_trait]
impl Payments for Service {
    async fn charge(
        &self,
        request: Request<ChargeRequest>,
    ) -> Result<Response<ChargeReply>, Status> {
        let app = &self.0;
        let _in_flight = app.control.begin("/payments/Charge");
        let metadata = readable(request.metadata());
        let ChargeRequest { fail_code, delay_ms, .. } = request.into_inner();
        tokio::time::sleep(Duration::from_millis(delay_ms.into())).await;
        if fail_code != 0 {
            return Err(Status::new(Code::from_i32(fail_code), "the request asked for it"));
        }
        Ok(Response::new(ChargeReply {
            role: app.settings.role.to_string(),
            version: app.settings.app_version.clone(),
            pod: app.settings.pod_name(),
            metadata,
        }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchReply, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        drop(self.0.control.begin("/payments/Watch"));
        let role = self.0.settings.role.to_string();
        let WatchRequest { count, interval_ms, .. } = request.into_inner();
        let replies = tokio_stream::iter(0..count)
            .map(move |index| Ok(WatchReply { role: role.clone(), index }));
        let stream: Self::WatchStream = match interval_ms {
            0 => Box::pin(replies),
            ms => Box::pin(replies.throttle(Duration::from_millis(ms.into()))),
        };
        Ok(Response::new(stream))
    }
}
