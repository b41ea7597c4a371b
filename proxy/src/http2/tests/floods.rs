//! Peers that make work for nothing, and those that only seem to.

use super::*;

const CALM: Option<&Error> = Some(&Error::GoAway(Reason::ENHANCE_YOUR_CALM, By::Us));

#[test]
fn who_makes_work_for_nothing_is_sent_away() {
    let most = Limits { streams: 10, head: 1000 };
    // Streams that have to be reset.
    let mut core = server(most, &[]);
    for stream in (1..3_000).step_by(2) {
        give(&mut core, kind::HEADERS, flag::END_HEADERS, stream, &GET[..2]);
    }
    assert_eq!(core.failure(), CALM);
    // Frames that say nothing.
    let mut core = server(most, &[]);
    begin(&mut core, 1, 0);
    (0..2_000).for_each(|_| give(&mut core, kind::DATA, 0, 1, &[]));
    assert_eq!(core.failure(), CALM);
    // A head without an end.
    let mut core = server(most, &[]);
    give(&mut core, kind::HEADERS, 0, 1, &[]);
    (0..100).for_each(|_| give(&mut core, kind::CONTINUATION, 0, 1, &[]));
    assert_eq!(core.failure(), CALM);
}

/// Frames that ask for nothing: `PRIORITY`, one of an unknown kind, a window's opening, and the end of a stream that is over.
const IDLE: [(u8, &[u8]); 4] = [
    (kind::PRIORITY, &[0, 0, 0, 0, 1]),
    (0xbb, b"what"),
    (kind::WINDOW_UPDATE, &[0, 0, 0, 1]),
    (kind::RST_STREAM, &[0, 0, 0, 8]),
];

#[test]
fn frames_that_ask_for_nothing_are_as_many_as_streams_and_data_allow() {
    for (kind, payload) in IDLE {
        for streams in [1, 100] {
            let mut core = server(LIMITS, &[]);
            for n in 0..streams {
                let key = begin(&mut core, 2 * n + 1, flag::END_STREAM);
                respond(&mut core, key, true);
                core.let_go(key);
            }
            sent(&mut core);
            let mut frames = 0;
            while core.failure().is_none() && frames < 100_000 {
                give(&mut core, kind, 0, 1, payload);
                frames += 1;
            }
            assert_eq!(core.failure(), CALM, "{kind}");
            let most = match kind {
                kind::WINDOW_UPDATE => 5 + 2 * streams,
                kind::RST_STREAM => 100 + 10 * streams,
                _ => 100 * (1 + streams),
            };
            assert_eq!(frames, most + 1, "{kind}");
            let code = Reason::ENHANCE_YOUR_CALM.0.to_be_bytes();
            assert!(
                sent(&mut core).iter().any(|frame| frame.0 == kind::GOAWAY && frame.3[4..] == code)
            );
        }
    }
}

#[test]
fn who_opens_windows_a_little_at_a_time_is_served() {
    // A byte at a time while nothing else is left of the window, and some for each part of a body.
    let mut core = server(LIMITS, &[0, 4, 0, 0, 0, 0]);
    let key = begin(&mut core, 1, flag::END_STREAM);
    respond(&mut core, key, false);
    let mut body = Bytes::from(vec![0; 200_000]);
    for _ in 0..10_000 {
        assert!(put(&mut core, key, &mut body).is_pending());
        give(&mut core, kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
        give(&mut core, kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
        sent(&mut core);
    }
    assert!(core.failure().is_none() && body.len() == 190_001);
    // Frames of the largest size count as often as those of the usual one would.
    let mut core = server(LIMITS, &[0, 4, 0, 32, 0, 0, 0, 5, 0, 1, 0, 0]);
    give(&mut core, kind::WINDOW_UPDATE, 0, 0, &[0, 32, 0, 0]);
    let key = begin(&mut core, 1, flag::END_STREAM);
    respond(&mut core, key, false);
    let mut body = Bytes::from(vec![0; 2_000_000]);
    while !body.is_empty() {
        let before = body.len();
        let _ = put(&mut core, key, &mut body);
        sent(&mut core);
        for _ in 0..(before - body.len()) / 1024 {
            give(&mut core, kind::WINDOW_UPDATE, 0, 0, &[0, 0, 4, 0]);
        }
        assert!(core.failure().is_none());
    }
}
