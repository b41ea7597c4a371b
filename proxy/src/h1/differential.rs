//! The codec against hyper's: the same bytes are the same requests, or both refuse. Ours may refuse more; then it says why.
//!
//! Part of the tests, and of the fuzz target of the same name.

use std::{cell::RefCell, convert::Infallible, rc::Rc};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::h1::{
    body::{Decoder, Part, may_trail},
    head::{Limits, Scanner, skip_empty_lines},
    request,
};

const LIMITS: Limits = Limits { bytes: 16 * 1024, fields: 100 };

/// A request as a parser saw it. `body`: `None` when it broke off.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    line: String,
    headers: HeaderMap,
    body: Option<Bytes>,
    trailers: HeaderMap,
}

/// All requests in the bytes, by our codec; and whether it refused what follows.
fn ours(bytes: &[u8], step: usize) -> (Vec<Seen>, bool) {
    let mut seen = Vec::new();
    let mut buffer = BytesMut::new();
    let mut pieces = bytes.chunks(step.max(1));
    loop {
        let mut scanner = Scanner::default();
        let head = loop {
            skip_empty_lines(&mut buffer);
            match request::find(&mut scanner, &buffer, LIMITS) {
                Err(_) => return (seen, true),
                Ok(Some(end)) => break buffer.split_to(end).freeze(),
                Ok(None) => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return (seen, false),
                },
            }
        };
        let Ok(head) = request::parse(&head, LIMITS) else { return (seen, true) };
        let parts = head.parts;
        let line = format!("{} {} {:?}", parts.method, parts.uri, parts.version);
        // hyper's service agrees to it: what follows is no request.
        let last = parts.method == Method::CONNECT || !head.persists;
        let mut next =
            Seen { line, headers: parts.headers, body: None, trailers: HeaderMap::new() };
        let (mut decoder, mut body) = (Decoder::request(head.framing), BytesMut::new());
        let refused = loop {
            match decoder.decode(&mut buffer) {
                Err(_) => break true,
                Ok(Part::Data(data)) => body.extend_from_slice(&data),
                Ok(Part::Trailers(trailers)) => {
                    next.trailers = trailers;
                    next.body = Some(body.freeze());
                    break false;
                }
                Ok(Part::End) => {
                    next.body = Some(body.freeze());
                    break false;
                }
                Ok(Part::More) => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => break true,
                },
            }
        };
        seen.push(next);
        if refused || last {
            return (seen, refused);
        }
    }
}

/// All requests in the bytes, by hyper.
fn theirs(bytes: &[u8]) -> Vec<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let seen: Rc<RefCell<Vec<Seen>>> = Rc::default();
    let noted = seen.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let seen = noted.clone();
        async move {
            let (parts, body) = request.into_parts();
            let line = format!("{} {} {:?}", parts.method, parts.uri, parts.version);
            let body = body.collect().await.ok();
            let trailers = body.as_ref().and_then(|body| body.trailers().cloned());
            let mut trailers = trailers.unwrap_or_default();
            let unwanted: Vec<_> =
                trailers.keys().filter(|name| !may_trail(name)).cloned().collect();
            for name in unwanted {
                trailers.remove(name);
            }
            let body = body.map(http_body_util::Collected::to_bytes);
            seen.borrow_mut().push(Seen { line, headers: parts.headers, body, trailers });
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    runtime.block_on(async {
        let (client, server) = tokio::io::duplex(1024 * 1024);
        let (mut answers, mut requests) = tokio::io::split(client);
        requests.write_all(bytes).await.unwrap();
        requests.shutdown().await.unwrap();
        let mut builder = http1::Builder::new();
        builder.half_close(true).max_header_size(LIMITS.bytes).max_buf_size(64 * 1024);
        let served = builder.serve_connection(TokioIo::new(server), service);
        let mut sink = Vec::new();
        let (_, _) = tokio::join!(served, answers.read_to_end(&mut sink));
    });

    seen.borrow().clone()
}

/// Compares both on the same bytes, which come to ours in pieces.
pub fn compare(bytes: &[u8], step: usize) {
    let (ours, refused) = ours(bytes, step);
    let theirs = theirs(bytes);
    let shown = bytes.escape_ascii();
    for (at, ours) in ours.iter().enumerate() {
        let Some(theirs) = theirs.get(at) else {
            panic!("hyper refused what we took: {ours:?} in {shown}");
        };
        // A body may be refused by us alone.
        if ours.body.is_some() {
            assert_eq!(ours, theirs, "{shown}");
        } else {
            assert_eq!((&ours.line, &ours.headers), (&theirs.line, &theirs.headers), "{shown}");
        }
    }
    assert!(refused || theirs.len() <= ours.len(), "we missed {:?} in {shown}", theirs.last());
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::h1::head::HeadError;

    #[test]
    fn what_the_fuzzer_found_is_seen_alike() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/http1");
        let files = fs::read_dir(folder).unwrap();
        let inputs: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
        assert!(!inputs.is_empty());
        for input in inputs {
            let Some((step, bytes)) = input.split_first() else { continue };
            for step in [usize::from(*step), 1, bytes.len()] {
                compare(bytes, step);
            }
            for cut in (0..bytes.len()).step_by(1 + bytes.len() / 16) {
                compare(&bytes[..cut], usize::from(*step));
            }
        }
    }

    #[test]
    fn what_we_refuse_beyond_hyper_is_known() {
        for (bytes, error) in [
            ("GET / HTTP/1.1\nHost: a\n\n", HeadError::BareLineFeed),
            ("\nGET / HTTP/1.1\r\n\r\n", HeadError::BareLineFeed),
            (
                "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                HeadError::Length,
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                HeadError::LengthAndChunked,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                HeadError::TransferEncoding,
            ),
            ("CONNECT a:1 HTTP/1.1\r\nContent-Length: 1\r\n\r\n", HeadError::BodyNotAllowed),
        ] {
            let mut scanner = Scanner::default();
            let found = request::find(&mut scanner, bytes.as_bytes(), LIMITS).and_then(|end| {
                let head = Bytes::copy_from_slice(&bytes.as_bytes()[..end.unwrap()]);
                request::parse(&head, LIMITS).map(drop)
            });
            assert_eq!(found, Err(error), "{bytes:?}");
            compare(bytes.as_bytes(), 1_000);
        }
    }

    proptest::proptest! {
        #[test]
        fn the_same_bytes_are_the_same_requests(
            text in "((GET|POST|HEAD|CONNECT) (/|/a\\?b|\\*|http://h/p|h:1|/\\x01) HTTP/1\\.[012]\r?\n|\
                     (Content-Length|content-length ): ?(0|1|3|03|\\+3|3, 3|99|x|)\r\n|\
                     Transfer-Encoding: ?(chunked|Chunked|gzip, chunked|identity|chunked, chunked)\r\n|\
                     (Host|X-Y|Connection|Expect): ?(a|close|keep-alive|100-continue|\"q\"|\t|é|\x00|\r)\r\n|\
                     [ \t]folded\r\n|\
                     \r\n|\r\n\r\n|\n|\r|\
                     [0-9a-f]{1,2}(;[a-z=]{0,3}| )?\r\n|abc|0\r\n\r\n|3\r\nabc\r\n|[ -~]{0,4}|:){0,16}",
            step in 1_usize..40,
        ) {
            compare(text.as_bytes(), step);
        }

        #[test]
        fn requests_that_are_right_are_seen_alike(
            requests in proptest::collection::vec(
                "(GET|POST|PUT|X-Y) /[a-z?&=%0-9]{0,8} HTTP/1\\.1\r\n(Host|[A-Z][a-z-]{0,6}[a-z]): ?[ -~]{0,9}\r\n\
                 (\r\n|Content-Length: 3\r\n\r\nabc|Content-Length: 0\r\n\r\n|\
                 Transfer-Encoding: chunked\r\n\r\n(3\r\nabc\r\n|a;x=\"y\"\r\n0123456789\r\n){0,3}0\r\n(T: v\r\n)?\r\n)",
                0..4,
            ),
            step in 1_usize..40,
        ) {
            compare(requests.concat().as_bytes(), step);
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, step in 1_usize..40) {
            compare(&bytes, step);
        }
    }
}
