//! Both ends of connections, with each other.

use std::{
    future::poll_fn,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, request};
use tokio::{
    io::{AsyncRead, AsyncWrite, duplex},
    task::{LocalSet, spawn_local},
};

use super::{
    core::{Core, Role},
    frame::{self, Head, flag, kind},
    *,
};
use crate::net::outbound::Outbound;

mod floods;
mod interim;
mod waiting;

const LIMITS: Limits = Limits { streams: 100, head: 16 * 1024 };

/// Runs a connection to its end; as a server, echoes.
async fn run(mut connection: Connection<impl AsyncRead + AsyncWrite + Unpin>) -> Result<(), Error> {
    poll_fn(|cx| {
        let polled = connection.poll(cx);
        while let Some((head, respond, body)) = connection.next_request() {
            spawn_local(echo(head, respond, body));
        }
        if polled.is_pending() {
            let _ = connection.poll_send(cx)?;
        }
        polled
    })
    .await
}

async fn echo(head: request::Parts, mut respond: SendStream, body: Option<RecvStream>) {
    let (mut answer, ()) = Response::new(()).into_parts();
    answer.headers = head.headers;
    let Some(mut body) = body else {
        return begun(&mut respond, StatusCode::OK, &answer.headers, true).await;
    };
    begun(&mut respond, StatusCode::ACCEPTED, &answer.headers, false).await;
    while let Some(data) = poll_fn(|cx| body.poll_data(cx)).await {
        let mut data = data.unwrap();
        body.release(data.len());
        poll_fn(|cx| respond.poll_write(cx, &mut data, false)).await.unwrap();
    }
    match poll_fn(|cx| body.poll_trailers(cx)).await.unwrap() {
        Some(trailers) => poll_fn(|cx| respond.poll_trailers(cx, &trailers)).await.unwrap(),
        None => respond.end().unwrap(),
    }
}

async fn begun(respond: &mut SendStream, status: StatusCode, headers: &HeaderMap, ends: bool) {
    poll_fn(|cx| respond.poll_respond(cx, status, headers, ends)).await.unwrap();
}

fn head(method: Method) -> request::Parts {
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = "http://shop/path?query".parse().unwrap();
    request.headers_mut().insert("x-kept", HeaderValue::from_static("kept"));
    request.into_parts().0
}

async fn read(body: &mut RecvStream) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    while let Some(data) = poll_fn(|cx| body.poll_data(cx)).await {
        let data = data?;
        body.release(data.len());
        all.extend_from_slice(&data);
    }
    Ok(all)
}

#[tokio::test]
async fn messages_come_through_whole_in_whatever_pieces() {
    for size in [1, 7, 1_000, 1_000_000] {
        let work = async {
            let (near, far) = duplex(size);
            let (connection, sender) = Connection::client(near, LIMITS, 100);
            let ended = spawn_local(run(connection));
            let served = spawn_local(run(Connection::server(far, LIMITS)));
            let mut requests = Vec::new();
            for n in 0..4_usize {
                let (outgoing, mut incoming) =
                    sender.request(&Outbound::of(&head(Method::POST)), None, false).unwrap();
                let mut outgoing = outgoing.unwrap();
                let length = if size == 1 { 3_000 } else { 150_000 * n };
                let sent: Vec<u8> = (0..length).map(|at| (at % 251 + n) as u8).collect();
                let mut data = Bytes::from(sent.clone());
                spawn_local(async move {
                    poll_fn(|cx| outgoing.poll_write(cx, &mut data, false)).await.unwrap();
                    let mut trailers = HeaderMap::new();
                    trailers.insert("x-sum", HeaderValue::from(n));
                    poll_fn(|cx| outgoing.poll_trailers(cx, &trailers)).await.unwrap();
                });
                requests.push(spawn_local(async move {
                    let head = poll_fn(|cx| incoming.poll_response(cx)).await.unwrap();
                    assert!(head.status == 202 && head.headers["x-kept"] == "kept");
                    assert!(read(&mut incoming).await.unwrap() == sent, "stream {n}");
                    let trailers = poll_fn(|cx| incoming.poll_trailers(cx)).await.unwrap();
                    assert_eq!(trailers.unwrap()["x-sum"], HeaderValue::from(n));
                    assert!(incoming.is_read());
                }));
            }
            for request in requests {
                request.await.unwrap();
            }
            let (outgoing, mut incoming) =
                sender.request(&Outbound::of(&head(Method::HEAD)), None, true).unwrap();
            let answer = poll_fn(|cx| incoming.poll_response(cx)).await.unwrap();
            assert!(outgoing.is_none() && answer.status == 200 && incoming.is_read());
            // With the last stream and the last one that could begin another the connection ends.
            drop((incoming, sender));
            assert_eq!(ended.await.unwrap(), Ok(()));
            assert_eq!(served.await.unwrap(), Ok(()));
        };
        LocalSet::new().run_until(work).await;
    }
}

/// A frame as it was sent.
type Sent = (u8, u8, u32, Vec<u8>);

/// Takes what is to be sent.
fn sent(core: &mut Core) -> Vec<Sent> {
    let mut bytes = Vec::new();
    let taken = core.poll_send(|part| {
        bytes.extend_from_slice(part);
        Poll::Ready(Ok(part.len()))
    });
    assert!(matches!(taken, Poll::Ready(Ok(()))));
    let mut rest = bytes.strip_prefix(frame::PREFACE).unwrap_or(&bytes);
    let mut frames = Vec::new();
    while let Some((head, more)) = rest.split_first_chunk() {
        let head = Head::parse(head);
        let (payload, more) = more.split_at(head.length);
        frames.push((head.kind, head.flags, head.stream, payload.to_vec()));
        rest = more;
    }
    frames
}

fn give(core: &mut Core, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    core.receive(Head { length: payload.len(), kind, flags, stream }, payload);
}

/// A server whose client has begun, and has said these settings.
fn server(limits: Limits, settings: &[u8]) -> Core {
    let mut core = Core::new(Role::Server, limits);
    give(&mut core, kind::SETTINGS, 0, 0, settings);
    sent(&mut core);
    core
}

const GET: &[u8] = b"\x82\x86\x84\x41\x04shop";

/// Begins a request on a stream of the server's.
fn begin(core: &mut Core, stream: u32, flags: u8) -> u32 {
    give(core, kind::HEADERS, flags | flag::END_HEADERS, stream, GET);
    core.next_request().expect("it has come").1
}

fn respond(core: &mut Core, key: u32, ends: bool) {
    let cx = &mut Context::from_waker(Waker::noop());
    let sent = core.poll_respond(key, cx, StatusCode::OK, &HeaderMap::new(), ends);
    assert_eq!(sent, Poll::Ready(Ok(())));
}

fn put(core: &mut Core, key: u32, data: &mut Bytes) -> Poll<Result<(), Error>> {
    core.poll_write(key, &mut Context::from_waker(Waker::noop()), data, false)
}

#[test]
fn those_that_wait_for_the_connections_window_get_it_in_turn() {
    let mut core = server(LIMITS, &[0, 4, 0, 16, 0, 0]);
    let keys = [1, 3, 5].map(|stream| begin(&mut core, stream, flag::END_STREAM));
    let mut bodies = keys.map(|_| Bytes::from(vec![0; 200_000]));
    for (key, body) in keys.into_iter().zip(&mut bodies) {
        respond(&mut core, key, false);
        assert!(put(&mut core, key, body).is_pending());
    }
    assert_eq!(bodies.each_ref().map(Bytes::len), [134_465, 200_000, 200_000]);
    // Those that are woken first are polled first: here, in the order in which they wait.
    for round in 0..6 {
        sent(&mut core);
        give(&mut core, kind::WINDOW_UPDATE, 0, 0, &10_000_u32.to_be_bytes());
        for at in core.in_turn(&keys) {
            assert!(put(&mut core, keys[at], &mut bodies[at]).is_pending(), "round {round}");
        }
    }
    assert_eq!(bodies.each_ref().map(Bytes::len), [114_465, 180_000, 180_000]);
}

#[test]
fn nothing_more_of_a_body_is_taken_than_there_is_room_for() {
    let mut core = server(LIMITS, &[0, 4, 0, 0, 0, 10]);
    let key = begin(&mut core, 1, flag::END_STREAM);
    respond(&mut core, key, false);
    let mut body = Bytes::from(vec![0; 1_000_000]);
    assert!(put(&mut core, key, &mut body).is_pending() && body.len() == 999_990);
    // The window may become less than nothing (RFC 9113, 6.9.2).
    give(&mut core, kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 4]);
    give(&mut core, kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 6]);
    assert!(put(&mut core, key, &mut body).is_pending() && body.len() == 999_990);
    give(&mut core, kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
    assert!(put(&mut core, key, &mut body).is_pending() && body.len() == 999_989);
    // With all the windows there are, what was written and not sent is the limit.
    give(&mut core, kind::WINDOW_UPDATE, 0, 1, &[0, 32, 0, 0]);
    give(&mut core, kind::WINDOW_UPDATE, 0, 0, &[0, 32, 0, 0]);
    assert!(put(&mut core, key, &mut body).is_pending());
    assert!((900_000..950_000).contains(&body.len()), "{}", body.len());
    sent(&mut core);
    assert!(put(&mut core, key, &mut body).is_pending() && body.len() < 900_000);
}

#[test]
fn nothing_more_is_read_of_a_peer_that_does_not_take_its_answers() {
    let mut core = server(LIMITS, &[]);
    let mut pings = 0;
    while !core.must_send() {
        give(&mut core, kind::PING, 0, 0, &[1; 8]);
        pings += 1;
    }
    assert!(pings < 5_000, "{pings}");
    assert_eq!(sent(&mut core).len(), pings);
    assert!(!core.must_send());
    // Nor of one that takes no responses.
    let mut stream = 1;
    while !core.must_send() {
        let key = begin(&mut core, stream, flag::END_STREAM);
        respond(&mut core, key, true);
        core.let_go(key);
        stream += 2;
    }
    assert!(stream < 100_000, "{stream}");
}

#[test]
fn room_is_given_back_as_bytes_are_read_or_nobody_wants_them() {
    let mut core = server(LIMITS, &[]);
    let cx = &mut Context::from_waker(Waker::noop());
    let keys = [1, 3, 5].map(|stream| begin(&mut core, stream, 0));
    let updates = |core: &mut Core| -> Vec<(u32, u32)> {
        let frames = sent(core).into_iter().filter(|frame| frame.0 == kind::WINDOW_UPDATE);
        frames.map(|(_, _, id, size)| (id, u32::from_be_bytes(size.try_into().unwrap()))).collect()
    };
    for stream in [1, 3, 5] {
        for _ in 0..16 {
            give(&mut core, kind::DATA, 0, stream, &[0; 16_000]);
        }
    }
    assert_eq!(updates(&mut core), []);
    // One is read, one is not wanted, one waits.
    while let Poll::Ready(Some(Ok(data))) = core.poll_data(keys[0], cx) {
        core.release(keys[0], data.len());
    }
    assert_eq!(updates(&mut core), [(1, 144_000)]);
    core.ignore(keys[1]);
    assert_eq!(updates(&mut core), [(0, 512_000)]);
    give(&mut core, kind::DATA, 0, 3, &[0; 6_000]);
    give(&mut core, kind::DATA, 0, 1, &[0; 14_000]);
    while let Poll::Ready(Some(Ok(data))) = core.poll_data(keys[0], cx) {
        core.release(keys[0], data.len());
    }
    assert_eq!(updates(&mut core), []);
    // Padding is nobody's to give back but ours.
    let padded = [&[255][..], &[0; 255]].concat();
    let key = begin(&mut core, 7, 0);
    for _ in 0..512 {
        give(&mut core, kind::DATA, flag::PADDED, 7, &padded);
    }
    assert_eq!(updates(&mut core), [(7, 131_072)]);
    core.let_go(key);
    sent(&mut core);
    // More than there is room for.
    give(&mut core, kind::DATA, 0, 5, &[0; 16_000]);
    let reset = (kind::RST_STREAM, 0, 5, vec![0, 0, 0, 3]);
    assert_eq!(sent(&mut core), [reset]);
    assert!(core.failure().is_none());
}

#[test]
fn a_stream_that_nobody_holds_is_given_up_and_what_was_under_way_is_ignored() {
    let mut core = server(LIMITS, &[]);
    let keys = [1, 3, 5].map(|stream| begin(&mut core, stream, 0));
    respond(&mut core, keys[1], true);
    core.reset(keys[2], Reason::INTERNAL_ERROR);
    sent(&mut core);
    for key in keys {
        core.let_go(key);
    }
    let reset = |stream, code| (kind::RST_STREAM, 0, stream, vec![0, 0, 0, code]);
    assert_eq!(sent(&mut core), [reset(1, 8), reset(3, 0)]);
    for stream in [1, 3, 5] {
        give(&mut core, kind::DATA, 0, stream, &[0; 100]);
        give(&mut core, kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, &[]);
    }
    assert_eq!(sent(&mut core), []);
    // Behind the end of a message it is another matter.
    let key = begin(&mut core, 7, flag::END_STREAM);
    respond(&mut core, key, true);
    core.let_go(key);
    sent(&mut core);
    give(&mut core, kind::DATA, 0, 7, &[0; 100]);
    assert_eq!(sent(&mut core), [reset(7, 5)]);
    give(&mut core, kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 7, &[]);
    assert_eq!(core.failure(), Some(&Error::GoAway(Reason::STREAM_CLOSED, By::Us)));
}

#[test]
fn a_server_that_leaves_takes_what_came_before_the_client_knew() {
    let mut core = server(LIMITS, &[]);
    let first = begin(&mut core, 1, flag::END_STREAM);
    core.leave();
    let said = sent(&mut core);
    assert_eq!(said[0], (kind::GOAWAY, 0, 0, vec![0x7f, 255, 255, 255, 0, 0, 0, 0]));
    let ping = said[1].3.clone();
    let second = begin(&mut core, 3, flag::END_STREAM);
    give(&mut core, kind::PING, flag::ACK, 0, &ping);
    assert_eq!(sent(&mut core), [(kind::GOAWAY, 0, 0, vec![0, 0, 0, 3, 0, 0, 0, 0])]);
    give(&mut core, kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 5, GET);
    give(&mut core, kind::DATA, 0, 5, &[0; 10]);
    assert!(core.next_request().is_none() && !core.ends());
    assert!(sent(&mut core).is_empty());
    for key in [first, second] {
        respond(&mut core, key, true);
        core.let_go(key);
    }
    assert!(core.ends());
}

#[test]
fn a_server_that_has_waited_leaves_whatever_the_client_says() {
    let mut core = server(LIMITS, &[]);
    // Nobody asked.
    give(&mut core, kind::PING, flag::ACK, 0, b"leaving.");
    begin(&mut core, 1, 0);
    core.leave();
    core.leave();
    assert_eq!(sent(&mut core).len(), 2);
    core.leave_now();
    core.leave_now();
    assert_eq!(sent(&mut core), [(kind::GOAWAY, 0, 0, vec![0, 0, 0, 1, 0, 0, 0, 0])]);
    // What was said last is not taken back, whatever comes.
    give(&mut core, kind::HEADERS, flag::END_HEADERS, 7, GET);
    give(&mut core, kind::PING, 0, 0, &[]);
    assert_eq!(sent(&mut core), [(kind::GOAWAY, 0, 0, vec![0, 0, 0, 1, 0, 0, 0, 6])]);
}

#[test]
fn a_client_begins_no_more_than_the_server_takes() {
    let mut core = Core::new(Role::Client, LIMITS);
    core.senders = 1;
    core.assume(100);
    assert_eq!(core.allowed(), 100);
    give(&mut core, kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 2]);
    assert_eq!(core.allowed(), 2);
    let keys = [(); 3].map(|()| core.request(&Outbound::of(&head(Method::GET)), None, true));
    assert!(keys[1].is_some() && keys[2].is_none());
    let [first, second] = [keys[0].unwrap(), keys[1].unwrap()];
    // What it has not begun it never will; what it has, it answers.
    give(&mut core, kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    assert!(!core.is_open());
    let cx = &mut Context::from_waker(Waker::noop());
    let gone = Error::GoAway(Reason::NO_ERROR, By::Peer);
    assert_eq!(core.poll_reset(second, cx), Poll::Ready(gone));
    give(&mut core, kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &[0x88]);
    assert!(matches!(core.poll_response(first, cx), Poll::Ready(Ok(head)) if head.status == 200));
    core.let_go(first);
    core.let_go(second);
    assert!(core.ends());
}

#[test]
fn a_request_is_written_from_where_it_stands() {
    let request = Request::post("https://shop:8443/a?b").header("x", "1").header("host", "other");
    let request = request.header("connection", "x").header("y", "2").body(()).unwrap();
    let parts = request.into_parts().0;
    let instead = [
        (HeaderName::from_static("x"), HeaderValue::from_static("3")),
        (header::ACCEPT, HeaderValue::from_static("*/*")),
    ];
    let outbound = Outbound { instead: &instead, ..Outbound::of(&parts) };
    let mut client = Core::new(Role::Client, LIMITS);
    give(&mut client, kind::SETTINGS, 0, 0, &[]);
    client.request(&outbound, Some(7), false).unwrap();
    let mut frames = sent(&mut client);
    let (_, flags, _, block) = frames.pop().unwrap();
    let mut server = server(LIMITS, &[]);
    give(&mut server, kind::HEADERS, flags, 1, &block);
    let (head, _) = server.next_request().unwrap();
    assert_eq!((&head.method, &head.uri), (&Method::POST, &parts.uri));
    let fields: Vec<_> = head.headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let fields: Vec<_> = fields.into_iter().map(|(n, v)| (n, v.to_str().unwrap())).collect();
    assert_eq!(fields, [("y", "2"), ("x", "3"), ("accept", "*/*"), ("content-length", "7")]);
    for (text, fits) in [("shop:80", true), ("[::1]:80", true), ("", false), ("a b", false)] {
        assert_eq!(is_authority(text), fits, "{text}");
    }
    assert!(!is_authority("a\r\nb") && !is_authority("user@shop") && !is_authority("a/b"));
}

#[test]
fn a_head_of_more_fields_than_a_map_holds_is_refused() {
    let mut core = server(Limits { streams: 10, head: usize::MAX }, &[]);
    give(&mut core, kind::HEADERS, flag::END_STREAM, 1, &[GET, b"\x40\x01a\x01b"].concat());
    for _ in 0..3 {
        give(&mut core, kind::CONTINUATION, 0, 1, &[0xbe; 16_000]);
    }
    give(&mut core, kind::CONTINUATION, flag::END_HEADERS, 1, &[]);
    assert_eq!(sent(&mut core), [(kind::RST_STREAM, 0, 1, vec![0, 0, 0, 1])]);
    assert!(core.next_request().is_none() && core.failure().is_none());
}

#[test]
fn a_message_that_is_reset_is_not_whole_whatever_the_reason() {
    let cx = &mut Context::from_waker(Waker::noop());
    for ends in [false, true] {
        let mut core = Core::new(Role::Client, LIMITS);
        core.senders = 1;
        give(&mut core, kind::SETTINGS, 0, 0, &[]);
        let key = core.request(&Outbound::of(&head(Method::POST)), None, false).unwrap();
        give(&mut core, kind::HEADERS, flag::END_HEADERS, 1, &[0x88]);
        give(&mut core, kind::DATA, if ends { flag::END_STREAM } else { 0 }, 1, b"data");
        give(&mut core, kind::RST_STREAM, 0, 1, &[0; 4]);
        assert!(matches!(core.poll_response(key, cx), Poll::Ready(Ok(_))));
        let data = core.poll_data(key, cx);
        assert!(matches!(data, Poll::Ready(Some(Ok(data))) if data == "data"));
        let reset = Error::Reset(Reason::NO_ERROR, By::Peer);
        let rest = (!ends).then(|| Err(reset.clone()));
        assert_eq!(core.poll_data(key, cx), Poll::Ready(rest));
        let trailers = if ends { Ok(None) } else { Err(reset) };
        assert_eq!(core.poll_trailers(key, cx), Poll::Ready(trailers));
    }
}

#[test]
fn those_who_take_back_many_requests_at_once_may_go_on() {
    let mut core = server(LIMITS, &[]);
    for stream in (1..4_000).step_by(2) {
        give(&mut core, kind::HEADERS, flag::END_HEADERS, stream, GET);
        give(&mut core, kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    }
    // No more are held than may be, beside some; those who hold them hear of it.
    assert!(core.failure().is_none() && core.is_crowded());
    let mut held = 0;
    while let Some((_, key)) = core.next_request() {
        assert!(core.is_broken(key));
        core.let_go(key);
        held += 1;
    }
    assert_eq!(held, 700);
    core.attend(Waker::noop());
    assert!(!core.is_crowded());
    begin(&mut core, 4_001, flag::END_STREAM);
}

#[test]
fn what_comes_late_for_streams_long_over_is_nobodys_fault() {
    let mut core = server(LIMITS, &[]);
    for stream in (1..4_000).step_by(2) {
        let key = begin(&mut core, stream, 0);
        core.reset(key, Reason::CANCEL);
        core.let_go(key);
    }
    sent(&mut core);
    for stream in (1..4_000).step_by(2) {
        give(&mut core, kind::DATA, 0, stream, b"late");
        give(&mut core, kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, &[]);
    }
    assert!(sent(&mut core).is_empty() && core.failure().is_none());
    // What was never begun is another matter.
    begin(&mut core, 5_001, flag::END_STREAM);
    give(&mut core, kind::HEADERS, flag::END_HEADERS, 4_999, GET);
    assert_eq!(core.failure(), Some(&Error::GoAway(Reason::PROTOCOL_ERROR, By::Us)));
}

#[test]
fn those_that_read_nothing_keep_the_connections_room_from_nobody() {
    let mut core = server(LIMITS, &[]);
    let cx = &mut Context::from_waker(Waker::noop());
    for stream in [1, 3, 5] {
        begin(&mut core, stream, 0);
        for _ in 0..16 {
            give(&mut core, kind::DATA, 0, stream, &[0; 16_384]);
        }
    }
    let key = begin(&mut core, 7, 0);
    for round in 0..100 {
        give(&mut core, kind::DATA, 0, 7, &[0; 16_000]);
        while let Poll::Ready(Some(Ok(data))) = core.poll_data(key, cx) {
            core.release(key, data.len());
        }
        assert!(core.failure().is_none(), "round {round}");
    }
    let given = sent(&mut core).into_iter().filter(|frame| frame.0 == kind::WINDOW_UPDATE);
    let all = given.filter(|frame| frame.2 == 0);
    let all: u32 = all.map(|frame| u32::from_be_bytes(frame.3.try_into().unwrap())).sum();
    assert!(all > 1_300_000, "{all}");
}

#[test]
fn malformed_requests_among_many_others_do_not_end_the_connection() {
    let mut core = server(LIMITS, &[]);
    for n in 0..3_000 {
        give(&mut core, kind::HEADERS, flag::END_HEADERS, 6 * n + 1, &GET[..2]);
        for stream in [6 * n + 3, 6 * n + 5] {
            let key = begin(&mut core, stream, flag::END_STREAM);
            respond(&mut core, key, true);
            core.let_go(key);
        }
        sent(&mut core);
    }
    assert!(core.failure().is_none());
}

#[test]
fn responses_that_are_none_reset_their_stream() {
    let (end, whole) = (flag::END_STREAM, flag::END_HEADERS);
    for (what, flags, block) in [
        ("no status", whole | end, &b"\x00\x01a\x01b"[..]),
        ("two", whole | end, b"\x88\x89"),
        ("of a request", whole | end, b"\x88\x84"),
        ("switching", whole, b"\x08\x03101"),
        ("an end before the response", whole | end, b"\x08\x03103"),
        ("less than it says", whole | end, b"\x88\x0f\x0d\x012"),
        ("of no length", whole, b"\x88\x0f\x0d\x02-2"),
    ] {
        let mut core = Core::new(Role::Client, LIMITS);
        core.senders = 1;
        give(&mut core, kind::SETTINGS, 0, 0, &[]);
        let key = core.request(&Outbound::of(&head(Method::GET)), None, true).unwrap();
        sent(&mut core);
        give(&mut core, kind::HEADERS, flags, 1, block);
        let cx = &mut Context::from_waker(Waker::noop());
        let wrong = Error::Reset(Reason::PROTOCOL_ERROR, By::Us);
        assert_eq!(core.poll_reset(key, cx), Poll::Ready(wrong), "{what}");
        assert_eq!(sent(&mut core), [(kind::RST_STREAM, 0, 1, vec![0, 0, 0, 1])], "{what}");
    }
}
