use super::*;

/// What comes out of bytes that come in pieces: data, trailers, and what is left over.
fn read(
    decoder: Decoder,
    bytes: &[u8],
    step: usize,
) -> Result<(String, Option<HeaderMap>, String), BodyError> {
    let (mut decoder, mut buffer, mut data) = (decoder, BytesMut::new(), Vec::new());
    let mut pieces = bytes.chunks(step);
    loop {
        match decoder.decode(&mut buffer)? {
            Part::Data(part) => data.extend_from_slice(&part),
            Part::More => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => {
                    decoder.end()?;
                    return Ok((String::from_utf8(data).unwrap(), None, String::new()));
                }
            },
            part => {
                pieces.for_each(|piece| buffer.extend_from_slice(piece));
                let trailers = match part {
                    Part::Trailers(trailers) => Some(trailers),
                    _ => None,
                };
                let left = String::from_utf8(buffer.to_vec()).unwrap();
                return Ok((String::from_utf8(data).unwrap(), trailers, left));
            }
        }
    }
}

#[test]
fn bodies_are_taken_however_they_are_cut() {
    use BodyError as No;
    use Framing::{Chunked, Close, Length, None as Nothing};
    let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(LINE));
    let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(TRAILERS / 6 + 1));
    let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(TRAILER_FIELDS + 1));
    for (framing, bytes, expected) in [
        (Nothing, "rest", Ok(("", "rest"))),
        (Length(3), "abcrest", Ok(("abc", "rest"))),
        (Length(3), "ab", Err(No::Ended)),
        (Close, "everything", Ok(("everything", ""))),
        (Close, "", Ok(("", ""))),
        (Chunked, "0\r\n\r\nrest", Ok(("", "rest"))),
        (Chunked, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nrest", Ok(("abcde", "rest"))),
        (Chunked, "003\r\nabc\r\n000\r\n\r\n", Ok(("abc", ""))),
        (Chunked, "A\r\n0123456789\r\n0\r\n\r\n", Ok(("0123456789", ""))),
        (Chunked, "3;a=b;c=\"d\"\r\nabc\r\n0;x\r\n\r\n", Ok(("abc", ""))),
        (Chunked, "3\r\nabc\r\n0\r\nA: b\r\nC: d\r\n\r\nrest", Ok(("abc", "rest"))),
        (Chunked, "3\r\nabc\r\n0\r\n", Err(No::Ended)),
        (Chunked, "3\r\nab", Err(No::Ended)),
        (Chunked, "", Err(No::Ended)),
        (Chunked, "3\r\nabcd\r\n0\r\n\r\n", Err(No::ChunkEnd)),
        (Chunked, "3\r\nabc\n0\r\n\r\n", Err(No::ChunkEnd)),
        (Chunked, "3\r\nabc\rx", Err(No::ChunkEnd)),
        (Chunked, "3\nabc\r\n0\r\n\r\n", Err(No::ChunkSize)),
        (Chunked, "3 \r\nabc\r\n0\r\n\r\n", Err(No::ChunkSize)),
        (Chunked, " 3\r\nabc\r\n0\r\n\r\n", Err(No::ChunkSize)),
        (Chunked, "+3\r\nabc\r\n0\r\n\r\n", Err(No::ChunkSize)),
        (Chunked, "0x3\r\nabc\r\n0\r\n\r\n", Err(No::ChunkSize)),
        (Chunked, "-3\r\nabc\r\n0\r\n\r\n", Err(No::ChunkSize)),
        (Chunked, "\r\n\r\n", Err(No::ChunkSize)),
        (Chunked, ";a\r\n\r\n", Err(No::ChunkSize)),
        (Chunked, "g\r\n", Err(No::ChunkSize)),
        (Chunked, "3;a\0\r\nabc\r\n0\r\n\r\n", Err(No::ChunkSize)),
        (Chunked, "3;a\rb\r\nabc\r\n0\r\n\r\n", Err(No::ChunkSize)),
        (Chunked, "10000000000000000\r\n", Err(No::ChunkSize)),
        (Chunked, "0\r\nA: b\n\r\n", Err(No::Trailers)),
        (Chunked, "0\r\n\n", Err(No::Trailers)),
        (Chunked, "0\r\nnothing\r\n\r\n", Err(No::Trailers)),
        (Chunked, "0\r\nA : b\r\n\r\n", Err(No::Trailers)),
        (Chunked, "0\r\nA: b\r\n c\r\n\r\n", Err(No::Trailers)),
        (Chunked, "0\r\nA: \0\r\n\r\n", Err(No::Trailers)),
        (Chunked, &long, Err(No::Extensions)),
        (Chunked, &trailers, Err(No::TrailersTooLarge)),
        (Chunked, &many, Err(No::TrailersTooLarge)),
    ] {
        for step in [1, 2, 3, 7, bytes.len().max(1)] {
            let found = read(Decoder::request(framing), bytes.as_bytes(), step);
            let found = found.map(|(data, _, left)| (data, left));
            let expected = expected.map(|(data, left)| (data.to_owned(), left.to_owned()));
            let shown: String = bytes.chars().take(60).collect();
            assert_eq!(found, expected, "{framing:?} {shown:?} by {step}");
        }
    }
}

#[test]
fn trailers_say_nothing_of_the_message_itself() {
    let bytes = b"0\r\nA: b\r\nContent-Length: 3\r\nhost: c\r\nD: e\r\n\r\n";
    let (_, trailers, _) = read(Decoder::request(Framing::Chunked), bytes, 5).unwrap();
    let trailers = trailers.unwrap();
    assert_eq!(
        (trailers.len(), &trailers["a"], &trailers["d"]),
        (2, &"b".parse().unwrap(), &"e".parse().unwrap())
    );
    let bytes = b"0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(read(Decoder::request(Framing::Chunked), bytes, 5).unwrap().1, None);
}

#[test]
fn servers_may_pad_the_sizes_of_chunks() {
    for bytes in ["3 \r\nabc\r\n0  \r\n\r\n", "3\t;x\r\nabc\r\n0\r\n\r\n"] {
        for step in [1, 100] {
            let found = read(Decoder::response(Framing::Chunked), bytes.as_bytes(), step).unwrap();
            assert_eq!(found.0, "abc");
        }
    }
    for bytes in ["3 x\r\nabc", "3\r ;x\r\nabc", "3 \r\r\nabc", "3\x0c\r\nabc", "3 \x0b;\r\nabc"] {
        let bytes = format!("{bytes}\r\n0\r\n\r\n");
        let other = read(Decoder::response(Framing::Chunked), bytes.as_bytes(), 1_000);
        assert_eq!(other, Err(BodyError::ChunkSize), "{bytes:?}");
    }
}

#[test]
fn extensions_are_bounded_over_the_whole_body() {
    let chunk = format!("1;{}\r\na\r\n", "x".repeat(200));
    let body = chunk.repeat(EXTENSIONS / 200 + 1);
    let found = read(Decoder::request(Framing::Chunked), body.as_bytes(), 1_000);
    assert_eq!(found, Err(BodyError::Extensions));
}

#[test]
fn what_is_left_is_known_where_it_was_said() {
    let mut decoder = Decoder::request(Framing::Length(5));
    assert_eq!((decoder.left(), decoder.is_done()), (Some(5), false));
    decoder.decode(&mut BytesMut::from("abc")).unwrap();
    assert_eq!(decoder.left(), Some(2));
    assert_eq!(Decoder::request(Framing::Chunked).left(), None);
    assert!(Decoder::request(Framing::None).is_done());
}
