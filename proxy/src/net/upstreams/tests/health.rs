//! What attempts come to is noted: endpoints that fail are left out.

use super::*;

const OUTLIER: OutlierDetection = OutlierDetection {
    consecutive_5xx: 3,
    consecutive_gateway_failure: 0,
    consecutive_local_origin_failure: 0,
    split_external_local_origin_errors: false,
    interval: Duration::from_secs(10),
    base_ejection_time: Duration::from_secs(30),
    max_ejection_time: Duration::from_secs(300),
    max_ejection_percent: 50,
};

#[tokio::test(flavor = "local")]
async fn an_endpoint_that_keeps_failing_is_left_out() {
    let (bad, good) = (
        Server::start(Speaks::Http1, async |_| reply(503, "bad")).await,
        Server::start(Speaks::Http1, async |_| reply(200, "good")).await,
    );
    let test = Test::new(&[bad.address, good.address], |cluster| cluster.outlier = Some(OUTLIER));
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(test.get().await.unwrap().0);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 3);
    assert!(statuses[6..].iter().all(|status| *status == 200), "{statuses:?}");
}

#[tokio::test(flavor = "local")]
async fn an_endpoint_that_is_not_there_is_left_out() {
    let test = Test::new(&[nobody()], |cluster| cluster.outlier = Some(OUTLIER));
    for _ in 0..3 {
        assert_eq!(test.send().await.unwrap_err().kind, ErrorKind::Connect);
    }
    let none = test.runtime().pick(&PickContext::default()).map(|_| ());
    assert_eq!(none, Err(PickError::NoHealthyUpstream));
}

#[tokio::test(flavor = "local")]
async fn grpc_is_judged_by_its_own_status() {
    let server = Server::start(Speaks::Http2 { streams: 10 }, async |_| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "14".parse().unwrap());
        let frames = [Ok(Frame::data(Bytes::from_static(b"12345"))), Ok(Frame::trailers(trailers))];
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        let mut reply = Response::new(body);
        reply.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        reply
    })
    .await;
    let test = Test::new(&[server.address], |cluster| {
        speak_http2(cluster);
        cluster.outlier = Some(OUTLIER);
    });
    for _ in 0..3 {
        let response = test.send().await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "14");
    }
    assert!(test.runtime().pick(&PickContext::default()).is_err());
}
