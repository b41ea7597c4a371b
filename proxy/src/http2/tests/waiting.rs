//! Streams that wait for what they share: nobody is forgotten, whatever the peer and the other streams do.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    task::Wake,
};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// As much as may wait to be sent when nobody takes it: heads until there are 256 KiB, the last of them, and answers.
const BOUND: usize = (256 + 64 + 32) * 1024;

/// Who is to be polled, in the order of their wake-ups.
#[derive(Default)]
struct Woken(Mutex<VecDeque<usize>>);

struct Bell {
    woken: Arc<Woken>,
    who: usize,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let mut woken = self.woken.0.lock().unwrap();
        if !woken.contains(&self.who) {
            woken.push_back(self.who);
        }
    }
}

impl Woken {
    fn bell(self: &Arc<Self>, who: usize) -> Waker {
        Arc::new(Bell { woken: self.clone(), who }).into()
    }

    fn take(&self, at: usize) -> Option<usize> {
        self.0.lock().unwrap().remove(at)
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

fn large_head() -> HeaderMap {
    [(HeaderName::from_static("x-large"), HeaderValue::from_str(&"~".repeat(40_000)).unwrap())]
        .into_iter()
        .collect()
}

#[test]
fn heads_wait_for_room_and_leave_in_turn() {
    let mut core = server(Limits { streams: 1024, ..LIMITS }, &[]);
    let woken = Arc::<Woken>::default();
    let keys: Vec<u32> = (0..1000).map(|n| begin(&mut core, 2 * n + 1, flag::END_STREAM)).collect();
    let head = large_head();
    let (mut polls, mut seen) = (0, Vec::new());
    (0..keys.len()).for_each(|who| woken.bell(who).wake());
    while seen.len() < keys.len() {
        assert!(woken.len() > 0, "{} of 1000", seen.len());
        while let Some(who) = woken.take(0) {
            let bell = woken.bell(who);
            let cx = &mut Context::from_waker(&bell);
            let _ = core.poll_respond(keys[who], cx, StatusCode::OK, &head, true);
            polls += 1;
            assert!(core.unsent() < BOUND, "{}", core.unsent());
        }
        let heads = sent(&mut core).into_iter().filter(|frame| frame.0 == kind::HEADERS);
        seen.extend(heads.map(|frame| frame.2));
    }
    assert!(seen.is_sorted());
    assert!(polls < 20_000, "{polls}");
}

#[tokio::test]
async fn a_client_that_reads_nothing_finds_everything_later() {
    const REQUESTS: usize = 1000;
    let work = async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut bytes = frame::PREFACE.to_vec();
        frame::settings(&mut bytes, &[]);
        for n in 0..REQUESTS as u32 {
            frame::headers(&mut bytes, 2 * n + 1, true, 16_384, |out| out.extend_from_slice(GET));
        }
        client.write_all(&bytes).await.unwrap();
        let mut connection = Connection::server(stream, Limits { streams: 1024, ..LIMITS });
        let head = large_head();
        let mut waiting = Vec::new();
        let (mut begun, mut unsent) = (0, 0);
        // Until all have come, and the client's not reading is felt.
        poll_fn(|cx| {
            let _ = connection.poll(cx).map(|ended| ended.unwrap());
            while let Some((_, respond, _)) = connection.next_request() {
                begun += 1;
                waiting.push(respond);
            }
            let sent = connection.poll_send(cx);
            waiting.retain_mut(|respond| {
                respond.poll_respond(cx, StatusCode::OK, &head, true).is_pending()
            });
            unsent = unsent.max(connection.unsent());
            let stuck = begun == REQUESTS && sent.is_pending();
            if stuck {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        assert!(!waiting.is_empty() && unsent < BOUND, "{unsent}");
        // Then it reads.
        let reading = async {
            let (mut heads, mut head) = (0, [0; frame::HEAD]);
            while heads < REQUESTS {
                client.read_exact(&mut head).await.unwrap();
                let head = Head::parse(&head);
                client.read_exact(&mut vec![0; head.length]).await.unwrap();
                heads += usize::from(head.kind == kind::HEADERS);
            }
            drop(client);
        };
        let serving = poll_fn(|cx| {
            let polled = connection.poll(cx);
            waiting.retain_mut(|respond| {
                respond.poll_respond(cx, StatusCode::OK, &head, true).is_pending()
            });
            let _ = connection.poll_send(cx);
            polled.map(drop)
        });
        tokio::join!(reading, serving);
        assert!(waiting.is_empty());
    };
    LocalSet::new().run_until(work).await;
}
