//! The fuzzers' targets, with everything that the corpora hold, with edits of it, and with random bytes.
//!
//! The targets are looked for new inputs by `cargo +nightly fuzz run TARGET`; this is their short run, on any toolchain.
// Helpers of tests are tests too, which clippy cannot know. The targets abort where a panic would go by unseen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::{fs, path::Path};

use proptest::{prelude::*, test_runner::RngSeed};

#[path = "../fuzz/targets/bodies.rs"]
mod bodies;
#[path = "../fuzz/targets/bootstrap.rs"]
mod bootstrap;
#[path = "../fuzz/targets/client_hello.rs"]
mod client_hello;
#[path = "../fuzz/targets/frames.rs"]
mod frames;
#[path = "../fuzz/targets/http2.rs"]
mod http2;
#[path = "../fuzz/targets/http2_requests.rs"]
mod http2_requests;
#[path = "../fuzz/targets/http2_responses.rs"]
mod http2_responses;
#[path = "../fuzz/targets/path.rs"]
mod path;
#[path = "../fuzz/targets/peer.rs"]
mod peer;
#[path = "../fuzz/targets/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "../fuzz/targets/xds.rs"]
mod xds;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let inputs: Vec<_> = files.into_iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(!inputs.is_empty(), "{folder:?} is empty");
    inputs
}

/// Feeds the corpus, each input cut off, and each with some bytes changed.
fn feed(target: &str, cuts: usize, run: fn(&[u8])) {
    for input in corpus(target) {
        run(&input);
        for cut in 0..input.len().min(cuts) {
            let at = cut * input.len() / cuts.min(input.len());
            run(&input[..at]);
            let mut changed = input.clone();
            changed[at] ^= 1 << (cut % 8);
            run(&changed);
        }
    }
}

#[test]
fn bootstraps_of_the_corpus() {
    feed("bootstrap", 16, bootstrap::run);
}

#[test]
fn client_hellos_of_the_corpus() {
    feed("client_hello", 1000, client_hello::run);
}

#[test]
fn http_2_of_the_corpus() {
    feed("http2", 8, http2::run);
}

#[test]
fn http_2_requests_of_the_corpora() {
    feed("http2_requests", 64, http2_requests::run);
    feed("http2", 64, http2_requests::run);
}

#[test]
fn http_2_responses_of_the_corpora() {
    feed("http2_responses", 64, http2_responses::run);
    feed("http2", 64, http2_responses::run);
}

#[test]
fn paths_of_the_corpus() {
    feed("path", 100, path::run);
}

#[test]
fn peers_of_the_corpus() {
    feed("peer", 1000, peer::run);
}

#[test]
fn announcements_of_the_corpus() {
    feed("proxy_protocol", 1000, proxy_protocol::run);
}

#[test]
fn resources_of_the_corpus() {
    feed("xds", 64, xds::run);
}

/// An input of the corpus after some edits: bytes replaced, put in, taken out, or taken from another input.
fn edited(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let inputs = corpus(target);
    let edit = (0..5_u8, any::<prop::sample::Index>(), any::<u8>(), 1..40_usize);
    let edits = prop::collection::vec(edit, 1..8);
    let input = || prop::sample::select(inputs.clone());
    (input(), input(), edits).prop_map(|(mut bytes, other, edits)| {
        for (kind, at, value, size) in edits {
            let at = at.index(bytes.len() + 1);
            let end = bytes.len().min(at + size);
            match kind {
                0 => bytes[at..].iter_mut().take(1).for_each(|byte| *byte = value),
                1 => bytes.insert(at, value),
                2 => drop(bytes.drain(at..end)),
                3 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
                _ => {
                    let from = usize::from(value) % (other.len() + 1);
                    let to = other.len().min(from + size);
                    bytes.splice(at..end, other[from..to].to_vec());
                }
            }
        }
        bytes
    })
}

proptest! {
    #[test]
    fn any_text_is_a_bootstrap_or_not(text in "([a-z_]{1,8}|[ \\n\\[\\]{}:,'\"&*!|>%@-]|[0-9]{1,3}){0,60}") {
        bootstrap::run(text.as_bytes());
    }

    #[test]
    fn any_bytes_are_a_resource_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        xds::run(&bytes);
    }

    #[test]
    fn edited_bootstraps_are_survived(bytes in edited("bootstrap")) {
        bootstrap::run(&bytes);
    }

    #[test]
    fn edited_client_hellos_are_survived(bytes in edited("client_hello")) {
        client_hello::run(&bytes);
    }

    #[test]
    fn edited_paths_are_survived(bytes in edited("path")) {
        path::run(&bytes);
    }

    #[test]
    fn edited_peers_are_survived(bytes in edited("peer")) {
        peer::run(&bytes);
    }

    #[test]
    fn edited_announcements_are_survived(bytes in edited("proxy_protocol")) {
        proxy_protocol::run(&bytes);
    }

    #[test]
    fn edited_resources_are_survived(bytes in edited("xds")) {
        xds::run(&bytes);
    }
}

/// Each is a connection through a whole proxy.
fn fewer() -> ProptestConfig {
    let all = ProptestConfig::default();
    ProptestConfig { cases: all.cases / 4, ..all }
}

proptest! {
    #![proptest_config(fewer())]

    #[test]
    fn any_frames_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        http2::run(&bytes);
    }

    #[test]
    fn edited_frames_are_survived(bytes in edited("http2")) {
        http2::run(&bytes);
    }
}

/// Always the same: what is new is the fuzzers' to find.
fn settled() -> ProptestConfig {
    ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(settled())]

    #[test]
    fn edited_requests_are_seen_alike(bytes in edited("http2_requests")) {
        http2_requests::run(&bytes);
    }

    #[test]
    fn edited_responses_are_seen_alike(bytes in edited("http2_responses")) {
        http2_responses::run(&bytes);
    }
}
