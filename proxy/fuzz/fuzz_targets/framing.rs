//! Any bytes of an HTTP/1 connection: however they are cut, the same is seen of them.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use weft_proxy::http::framing::{Watch, Watched};

fuzz_target!(|bytes: &[u8]| {
    let Some((step, bytes)) = bytes.split_first() else { return };
    let seen = |step: usize| {
        let watched = Arc::<Watched>::default();
        let mut watch = Watch::new(watched.clone());
        for piece in bytes.chunks(step.max(1)) {
            watch.feed(piece);
        }
        let heads = watched.heads();
        let ambiguous = (1..=heads + 1).find(|request| watched.is_ambiguous(*request));
        (heads, ambiguous, watched.in_head_for().is_some())
    };
    assert_eq!(seen(usize::from(*step)), seen(bytes.len()));
});
