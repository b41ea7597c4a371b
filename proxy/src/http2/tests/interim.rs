//! Responses before the final one (RFC 9110, 15.2).

use super::*;

fn ask(core: &mut Core, key: u32) -> Poll<Option<Result<Bytes, Error>>> {
    core.poll_data(key, &mut Context::from_waker(Waker::noop()))
}

/// Streams that were told something, and whether that was the end.
fn told(core: &mut Core) -> Vec<(u32, bool)> {
    let heads = sent(core).into_iter().filter(|frame| frame.0 == kind::HEADERS);
    heads.map(|frame| (frame.2, frame.1 & flag::END_STREAM != 0)).collect()
}

#[test]
fn who_expects_it_is_told_to_go_on_once_when_the_body_is_asked_for() {
    let expecting = [GET, b"\x40\x06expect\x0c100-Continue"].concat();
    let other = [GET, b"\x40\x06expect\x05other"].concat();
    let mut core = server(LIMITS, &[]);
    let begin = |core: &mut Core, stream, block: &[u8]| {
        give(core, kind::HEADERS, flag::END_HEADERS, stream, block);
        core.next_request().unwrap().1
    };
    let key = begin(&mut core, 1, &expecting);
    assert_eq!(told(&mut core), []);
    for expected in [&[(1, false)][..], &[]] {
        assert!(ask(&mut core, key).is_pending());
        assert_eq!(told(&mut core), expected);
    }
    give(&mut core, kind::DATA, flag::END_STREAM, 1, b"body");
    assert_eq!(ask(&mut core, key), Poll::Ready(Some(Ok("body".into()))));
    // Not when it comes anyway.
    let key = begin(&mut core, 3, &expecting);
    give(&mut core, kind::DATA, 0, 3, b"body");
    assert!(ask(&mut core, key).is_ready() && ask(&mut core, key).is_pending());
    // Nor when nobody asks before there is an answer.
    let key = begin(&mut core, 5, &expecting);
    respond(&mut core, key, false);
    assert!(ask(&mut core, key).is_pending());
    assert_eq!(told(&mut core), [(5, false)]);
    let key = begin(&mut core, 7, &other);
    assert!(ask(&mut core, key).is_pending());
    let key = begin(&mut core, 9, GET);
    assert!(ask(&mut core, key).is_pending());
    assert_eq!(told(&mut core), []);
}

#[test]
fn there_is_an_end_to_what_comes_before_the_response() {
    let early = b"\x08\x03103";
    for (count, taken) in [(0, true), (100, true), (101, false)] {
        let mut core = Core::new(Role::Client, LIMITS);
        core.senders = 1;
        give(&mut core, kind::SETTINGS, 0, 0, &[]);
        let key = core.request(&Outbound::of(&head(Method::GET)), None, true).unwrap();
        for _ in 0..count {
            give(&mut core, kind::HEADERS, flag::END_HEADERS, 1, early);
        }
        give(&mut core, kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &[0x88]);
        let cx = &mut Context::from_waker(Waker::noop());
        let head = core.poll_response(key, cx);
        let Poll::Ready(head) = head else { panic!("{count}: nothing") };
        match head {
            Ok(head) => assert!(taken && head.status == 200, "{count}"),
            Err(error) => {
                assert!(!taken, "{count}");
                assert_eq!(error, Error::Reset(Reason::PROTOCOL_ERROR, By::Us));
            }
        }
        assert!(core.failure().is_none());
    }
}
