//! Responses by the codec and by hyper's client: the same bytes are the same response, or ours refuses.
//!
//! Part of the tests, and of the fuzz target `http1_response`.

use std::convert::Infallible;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Collected, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::h1::{
    body::{Decoder, Part, may_trail},
    head::{Limits, Scanner},
    response,
};

const LIMITS: Limits = Limits { bytes: 16 * 1024, fields: 100 };

/// A response as a parser saw it. `body`: `None` when it broke off.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
    body: Option<Bytes>,
    trailers: HeaderMap,
}

/// The first response that is not informational, by our codec; `None` where it refuses, or where there is not all of a head.
fn ours(bytes: &[u8], method: &Method, step: usize) -> Option<Seen> {
    let mut buffer = BytesMut::new();
    let mut pieces = bytes.chunks(step.max(1));
    let head = loop {
        let mut scanner = Scanner::default();
        let end = loop {
            match response::find(&mut scanner, &buffer, LIMITS).ok()? {
                Some(end) => break end,
                None => buffer.extend_from_slice(pieces.next()?),
            }
        };
        let head = response::parse(&buffer.split_to(end).freeze(), method, LIMITS).ok()?;
        if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            break head;
        }
    };
    let mut decoder = Decoder::response(head.framing);
    let (mut body, mut trailers) = (BytesMut::new(), HeaderMap::new());
    let whole = loop {
        match decoder.decode(&mut buffer) {
            Err(_) => break false,
            Ok(Part::Data(data)) => body.extend_from_slice(&data),
            Ok(Part::Trailers(fields)) => {
                trailers = fields;
                break true;
            }
            Ok(Part::End) => break true,
            Ok(Part::More) => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => break decoder.end().is_ok(),
            },
        }
    };
    Some(Seen {
        status: head.status,
        version: head.version,
        headers: head.headers,
        body: whole.then(|| body.freeze()),
        trailers,
    })
}

/// The response, by hyper.
fn theirs(bytes: &[u8], method: &Method) -> Option<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (client, server) = tokio::io::duplex(1024 * 1024);
        let (mut sender, connection) = http1::handshake(TokioIo::new(client)).await.ok()?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method.clone();
        let asking = async {
            let answer = sender.send_request(request).await.ok()?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.ok();
            let trailers = body.as_ref().and_then(Collected::trailers).cloned();
            let mut trailers = trailers.unwrap_or_default();
            let unwanted: Vec<_> =
                trailers.keys().filter(|name| !may_trail(name)).cloned().collect();
            for name in unwanted {
                trailers.remove(name);
            }
            Some(Seen {
                status: parts.status,
                version: parts.version,
                headers: parts.headers,
                body: body.map(Collected::to_bytes),
                trailers,
            })
        };
        let (seen, _, _) = tokio::join!(asking, connection, answer(server, bytes));
        seen
    })
}

/// What is sent before there is a request is not a response.
async fn answer(mut server: DuplexStream, bytes: &[u8]) -> Result<(), Infallible> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match server.read_buf(&mut request).await {
            Ok(1..) => {}
            _ => return Ok(()),
        }
    }
    let _ = server.write_all(bytes).await;
    let _ = server.shutdown().await;
    Ok(())
}

/// Compares both on the same bytes, which come to ours in pieces.
pub fn compare(bytes: &[u8], method: &Method, step: usize) {
    let Some(ours) = ours(bytes, method, step) else { return };
    let shown = bytes.escape_ascii();
    let Some(theirs) = theirs(bytes, method) else {
        panic!("hyper refused what we took: {ours:?} in {method} {shown}");
    };
    // A body may be refused by us alone.
    if ours.body.is_some() {
        assert_eq!(ours, theirs, "{method} {shown}");
    } else {
        let head = |seen: &Seen| (seen.status, seen.version, seen.headers.clone());
        assert_eq!(head(&ours), head(&theirs), "{method} {shown}");
    }
}

/// The same, with what the first byte says of how.
pub fn run(bytes: &[u8]) {
    let Some((mode, bytes)) = bytes.split_first() else { return };
    let method = if mode & 1 == 0 { Method::GET } else { Method::HEAD };
    compare(bytes, &method, usize::from(mode >> 1));
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::{prelude::ProptestConfig, test_runner::RngSeed};

    use super::*;

    #[test]
    fn what_is_right_is_taken() {
        for (text, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", "abc"),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\nA: b\r\n\r\nx", ""),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\nT: v\r\n\r\n",
                "abc",
            ),
            ("HTTP/1.0 200 OK\r\n\r\nto the end", "to the end"),
            ("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\nbytes", ""),
        ] {
            for step in [1, 2, 1_000] {
                let seen = ours(text.as_bytes(), &Method::GET, step).unwrap();
                assert_eq!(seen.body.as_deref(), Some(body.as_bytes()), "{text:?}");
                compare(text.as_bytes(), &Method::GET, step);
                compare(text.as_bytes(), &Method::HEAD, step);
            }
        }
    }

    #[test]
    fn what_the_fuzzer_found_is_seen_alike() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/http1_response");
        let files = fs::read_dir(folder).unwrap();
        let inputs: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
        assert!(!inputs.is_empty());
        for input in inputs {
            run(&input);
            for cut in (0..input.len()).step_by(1 + input.len() / 16) {
                run(&input[..cut]);
            }
        }
    }

    /// Always the same: what is new is the fuzzer's to find.
    fn settled() -> ProptestConfig {
        ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() }
    }

    proptest::proptest! {
        #![proptest_config(settled())]

        #[test]
        fn the_same_bytes_are_the_same_response(
            text in "HTTP/1\\.[012] (200|204|304|100|103|101|999|99|20)( OK|)\r\n\
                     ((Content-Length|content-length ): ?(0|1|3|03|\\+3|3, 3|99|x|)\r\n|\
                     Transfer-Encoding: ?(chunked|Chunked|gzip, chunked|identity|chunked, chunked)\r\n|\
                     (X-Y|Connection|Upgrade): ?(a|close|keep-alive|\"q\"|\t|é|\x00|\r)\r\n|\
                     [ \t]folded\r\n|HTTP/1\\.1 200 OK\r\n|\
                     \r\n|\r\n\r\n|\n|\r|\
                     [0-9a-f]{1,2}(;[a-z=]{0,3}| )?\r\n|abc|0\r\n\r\n|3\r\nabc\r\n|[ -~]{0,4}|:){0,16}",
            head: bool,
            step in 1_usize..40,
        ) {
            let method = if head { Method::HEAD } else { Method::GET };
            compare(text.as_bytes(), &method, step);
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            run(&bytes);
        }
    }
}
