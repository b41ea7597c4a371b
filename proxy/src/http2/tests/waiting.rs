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

/// A thousand streams whose bodies wait for the connection.
fn a_thousand_waiting(woken: &Arc<Woken>) -> (Core, Vec<u32>, Vec<Bytes>) {
    let mut core = server(Limits { streams: 1024, ..LIMITS }, &[0, 4, 0, 16, 0, 0]);
    let mut bodies = vec![Bytes::from(vec![0; 100_000]); 1000];
    let mut keys = Vec::new();
    for (who, body) in bodies.iter_mut().enumerate() {
        keys.push(begin(&mut core, 2 * who as u32 + 1, flag::END_STREAM));
        respond(&mut core, keys[who], false);
        let bell = woken.bell(who);
        let cx = &mut Context::from_waker(&bell);
        assert!(core.poll_write(keys[who], cx, body, false).is_pending());
    }
    (core, keys, bodies)
}

#[test]
fn a_window_of_few_bytes_calls_few() {
    let woken = Arc::<Woken>::default();
    let (mut core, keys, mut bodies) = a_thousand_waiting(&woken);
    sent(&mut core);
    assert_eq!(woken.len(), 0);
    // Of the window 65,535 were sent. What comes of it goes to those that have waited longest.
    for (more, called) in [(1_u32, 1), (40_000, 3), (60_000, 4)] {
        give(&mut core, kind::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        assert_eq!(woken.len(), called, "{more}");
        let mut used = 0;
        while let Some(who) = woken.take(0) {
            let bell = woken.bell(who);
            let cx = &mut Context::from_waker(&bell);
            let before = bodies[who].len();
            assert!(core.poll_write(keys[who], cx, &mut bodies[who], false).is_pending());
            used += before - bodies[who].len();
        }
        assert_eq!(used, more as usize);
        sent(&mut core);
    }
    assert_eq!(bodies.iter().filter(|body| body.len() < 100_000).count(), 3);
}

#[test]
fn those_who_do_not_come_keep_nobody_waiting() {
    let woken = Arc::<Woken>::default();
    let (mut core, keys, mut bodies) = a_thousand_waiting(&woken);
    let owner = woken.bell(1000);
    core.attend(&owner);
    sent(&mut core);
    core.attend(&owner);
    give(&mut core, kind::WINDOW_UPDATE, 0, 0, &[0, 255, 255, 255]);
    sent(&mut core);
    let mut turns = 0;
    while let Some(who) = woken.take(0) {
        turns += 1;
        assert!(turns < 5_000);
        if who == 1000 {
            core.attend(&owner);
            sent(&mut core);
        } else if who >= 990 {
            let bell = woken.bell(who);
            let cx = &mut Context::from_waker(&bell);
            let _ = core.poll_write(keys[who], cx, &mut bodies[who], false);
        }
    }
    assert!(bodies[990..].iter().all(Bytes::is_empty));
}

/// A server's streams, their owner, and a client, each of which does something now and then.
struct Model {
    core: Core,
    random: fastrand::Rng,
    woken: Arc<Woken>,
    streams: Vec<Answering>,
    /// What the client has not read, and as much as there may be of it.
    wire: VecDeque<u8>,
    capacity: usize,
    /// The owner waits until the client reads.
    blocked: bool,
    /// What the client has said and the owner has not read: kind, stream, payload.
    said: VecDeque<(u8, u32, [u8; 4])>,
    /// What the client has read and not given back, by stream.
    credit: Vec<(u32, u32)>,
    /// Windows that it may open by a little: with more of them it would be sent away.
    patience: usize,
}

/// A stream of the model's.
struct Answering {
    key: u32,
    id: u32,
    head: Option<HeaderMap>,
    data: Bytes,
    left: usize,
    trailers: Option<HeaderMap>,
    /// It goes on only as long as this many polls.
    patience: usize,
    over: bool,
}

/// The connection's owner among those who are woken; streams follow.
const OWNER: usize = 0;

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let kinds = [(1, 30), (700, 20_000), (20_000, 150_000), (1 << 20, 150_000)];
        let (window, most): (u32, usize) = kinds[random.usize(..kinds.len())];
        let settings = [&[0, 4][..], &window.to_be_bytes()].concat();
        let mut core = server(LIMITS, &settings);
        let woken = Arc::<Woken>::default();
        let large = if random.bool() { 0 } else { 30_000 };
        // Of ten, so many leave in the middle and stay where they are.
        let absent = if random.bool() { 1 } else { 7 };
        let streams = (0..random.u32(1..40)).map(|n| {
            let id = 2 * n + 1;
            let key = begin(&mut core, id, flag::END_STREAM);
            let mut head = HeaderMap::new();
            let value = "~".repeat(random.usize(..=large));
            head.insert("x-large", HeaderValue::from_str(&value).unwrap());
            let trailers = random.bool().then(|| head.clone());
            let stays = random.u8(..10) >= absent;
            let patience = if stays { usize::MAX } else { random.usize(..10) };
            let (data, left) = (Bytes::new(), random.usize(..most));
            Answering { key, id, head: Some(head), data, left, trailers, patience, over: false }
        });
        let streams: Vec<_> = streams.collect();
        (0..=streams.len()).for_each(|who| woken.bell(who).wake());
        let mut credit: Vec<_> = streams.iter().map(|stream| (stream.id, 0)).collect();
        credit.push((0, if random.bool() { 0 } else { 1 << 20 }));
        let capacity = 1 << random.u32(8..20);
        let (wire, said) = (VecDeque::new(), VecDeque::new());
        // Some open all of a window at once.
        let patience = if random.bool() { streams.len() } else { 0 };
        let blocked = false;
        Self { core, random, woken, streams, wire, capacity, blocked, said, credit, patience }
    }

    /// The owner reads some, and sends as much as there is room for.
    fn own(&mut self) {
        let bell = self.woken.bell(OWNER);
        self.core.attend(&bell);
        for _ in 0..self.random.usize(..4) {
            let Some((kind, stream, payload)) = self.said.pop_front() else { break };
            give(&mut self.core, kind, 0, stream, &payload);
        }
        if !self.said.is_empty() {
            bell.wake_by_ref();
        }
        let (wire, capacity, blocked) = (&mut self.wire, self.capacity, &mut self.blocked);
        let sent = self.core.poll_send(|bytes| {
            let size = bytes.len().min(capacity - wire.len());
            *blocked = size == 0;
            wire.extend(&bytes[..size]);
            if *blocked { Poll::Pending } else { Poll::Ready(Ok(size)) }
        });
        assert!(sent.is_pending() == *blocked);
    }

    /// A stream goes on as far as it can, or does not come.
    fn answer(&mut self, who: usize) {
        let bell = self.woken.bell(who);
        let cx = &mut Context::from_waker(&bell);
        let stream = &mut self.streams[who - 1];
        if stream.over || stream.patience == 0 {
            return;
        }
        stream.patience -= 1;
        let core = &mut self.core;
        let ended = loop {
            if let Some(head) = &stream.head {
                match core.poll_respond(stream.key, cx, StatusCode::OK, head, false) {
                    Poll::Ready(Ok(())) => stream.head = None,
                    other => break other,
                }
            } else if !stream.data.is_empty() || stream.left > 0 {
                if stream.data.is_empty() {
                    let size = self.random.usize(1..=stream.left.min(70_000));
                    stream.left -= size;
                    stream.data = vec![0; size].into();
                }
                match core.poll_write(stream.key, cx, &mut stream.data, false) {
                    Poll::Ready(Ok(())) => {}
                    other => break other,
                }
            } else if let Some(trailers) = &stream.trailers {
                break core.poll_trailers_out(stream.key, cx, trailers);
            } else {
                break core.poll_write(stream.key, cx, &mut stream.data, true);
            }
        };
        if ended.is_ready() {
            stream.over = true;
            core.let_go(stream.key);
        }
    }

    /// The client reads some, and notes what it may give back.
    fn read(&mut self, inbox: &mut Vec<u8>) {
        let size = self.random.usize(1..=self.wire.len());
        inbox.extend(self.wire.drain(..size));
        if std::mem::take(&mut self.blocked) {
            self.woken.bell(OWNER).wake();
        }
        let mut rest = &inbox[..];
        while let Some((head, more)) = rest.split_first_chunk() {
            let head = Head::parse(head);
            let Some(more) = more.get(head.length..) else { break };
            if head.kind == kind::DATA {
                self.patience += if self.patience == 0 { 0 } else { 15 };
                let credits = self.credit.iter_mut();
                for credit in credits.filter(|(id, _)| *id == 0 || *id == head.stream) {
                    credit.1 += head.length as u32;
                }
            }
            rest = more;
        }
        *inbox = rest.to_vec();
    }

    /// The client opens a window, seldom by much.
    fn open(&mut self, at: usize) {
        let (id, credit) = &mut self.credit[at];
        let sizes = if self.patience == 0 { &[u32::MAX][..] } else { &[1, 50, 5_000, u32::MAX] };
        self.patience = self.patience.saturating_sub(1);
        let size = sizes[self.random.usize(..sizes.len())].min(*credit);
        *credit -= size;
        self.said.push_back((kind::WINDOW_UPDATE, *id, size.to_be_bytes()));
        self.woken.bell(OWNER).wake();
    }

    /// Until nobody has anything to do.
    fn run(mut self, seed: u64) {
        let mut inbox = Vec::new();
        for step in 0.. {
            assert!(step < 10_000_000, "seed {seed}: no end");
            assert!(self.core.failure().is_none());
            assert!(self.core.unsent() < BOUND);
            let open: Vec<usize> =
                (0..self.credit.len()).filter(|at| self.credit[*at].1 > 0).collect();
            match self.random.u8(..8) {
                0..4 if self.woken.len() > 0 => {
                    let at =
                        if self.random.bool() { 0 } else { self.random.usize(..self.woken.len()) };
                    match self.woken.take(at).unwrap() {
                        OWNER => self.own(),
                        who => self.answer(who),
                    }
                }
                4..6 if !self.wire.is_empty() => self.read(&mut inbox),
                6 if !open.is_empty() => {
                    let at = open[self.random.usize(..open.len())];
                    self.open(at);
                }
                7 if step < 1000 && self.random.u8(..20) == 0 => {
                    let at = self.random.usize(..self.streams.len());
                    let (id, cancel) = (self.streams[at].id, 8_u32.to_be_bytes());
                    self.said.push_back((kind::RST_STREAM, id, cancel));
                    self.woken.bell(OWNER).wake();
                }
                // Whoever likes may look without having been woken.
                7 if step < 1000 => {
                    let who = self.random.usize(1..=self.streams.len());
                    self.answer(who);
                }
                _ if self.woken.len() == 0 && self.wire.is_empty() && open.is_empty() => break,
                _ => {}
            }
        }
        for (at, stream) in self.streams.iter().enumerate() {
            let gone = stream.patience == 0;
            assert!(stream.over || gone, "seed {seed}: stream {at} waits, {} left", stream.left);
        }
    }
}

#[test]
fn every_body_ends_whatever_windows_and_other_streams_do() {
    for seed in 0..300 {
        Model::new(seed).run(seed);
    }
}
