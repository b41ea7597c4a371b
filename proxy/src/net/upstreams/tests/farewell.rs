//! HTTP/2 connections that endpoints do not let end: their tasks and descriptors do, in some time.

use futures_util::StreamExt as _;
use tokio::{
    net::TcpStream,
    time::{pause, sleep},
};

use super::*;
use crate::{
    data::testing::frames::{GOAWAY, SETTINGS, WINDOW_UPDATE, frame},
    net::body::BoxError,
};

/// What an endpoint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// It takes everything and answers nothing.
    Nothing,
    /// The same, and it says that it goes.
    GoesAway,
    /// It opens all windows and reads nothing.
    ReadsNothing,
    /// The same, and then it breaks the protocol.
    Breaks,
}

/// An endpoint that holds its connection open for ever.
async fn serve(does: Does, mut io: TcpStream, breaks: Rc<Notify>) {
    let most = 0x7fff_ffff_u32;
    let mut said = frame(SETTINGS, 0, 0, &[&[0, 4][..], &most.to_be_bytes()].concat());
    said.extend(frame(WINDOW_UPDATE, 0, 0, &(most - 65_535).to_be_bytes()));
    if does == Does::GoesAway {
        said.extend(frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]));
    }
    if does != Does::Nothing {
        io.write_all(&said).await.unwrap();
    }
    if does == Does::Breaks {
        breaks.notified().await;
        io.write_all(&frame(WINDOW_UPDATE, 0, 0, &[0; 4])).await.unwrap();
    }
    if matches!(does, Does::Nothing | Does::GoesAway) {
        let _ = tokio::io::copy(&mut io, &mut tokio::io::sink()).await;
    }
    pending::<()>().await;
}

#[tokio::test(flavor = "local")]
async fn connections_end_whatever_their_endpoints_do() {
    for does in [Does::Nothing, Does::GoesAway, Does::ReadsNothing, Does::Breaks] {
        let breaks = Rc::new(Notify::new());
        let notified = breaks.clone();
        let server = Server::listen(move |io, _| serve(does, io, notified.clone())).await;
        let test = Rc::new(Test::new(&[server.address], speak_http2));
        let state = test.cluster.borrow().state.clone();
        let asking = spawn_local({
            let test = test.clone();
            async move {
                let endless = futures_util::stream::repeat_with(|| {
                    Ok::<_, BoxError>(Frame::data(vec![b'x'; 10_000].into()))
                });
                // As much as whoever reads nothing has room for.
                let endless = endless.take(if does == Does::GoesAway { 1 } else { 10_000 });
                let body = RequestBody::stream(StreamBody::new(endless));
                test.pick().request(request(body)).await.map(drop)
            }
        });
        server.until_open(1).await;
        while state.requests.get() == 0 {
            tokio::task::yield_now().await;
        }
        // From here on the clock moves when nothing else does.
        pause();
        sleep(Duration::from_secs(1)).await;
        assert!(!asking.is_finished(), "{does:?}");
        assert_eq!(state.connections.get(), 1, "{does:?}");
        breaks.notify_one();
        sleep(Duration::from_secs(1)).await;
        asking.abort();
        // Nobody wants the connection any more. Its descriptor is counted until its task has ended.
        test.change(|cluster| cluster.endpoints = endpoints(&[], None));
        let mut waited = 0;
        while state.connections.get() > 0 {
            waited += 1;
            assert!(waited < 60, "{does:?}");
            sleep(Duration::from_secs(1)).await;
        }
        tokio::time::resume();
    }
}
