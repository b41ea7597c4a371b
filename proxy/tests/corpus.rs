//! The fuzzers' targets, with everything that the corpora hold, with pieces of it, and with random bytes.
//!
//! The targets are looked for new inputs by `cargo +nightly fuzz run TARGET`; this is their short run, on any toolchain.
// Helpers of tests are tests too, which clippy cannot know. The targets abort where a panic would go by unseen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::{fs, path::Path};

use proptest::prelude::*;

#[path = "../fuzz/targets/bootstrap.rs"]
mod bootstrap;
#[path = "../fuzz/targets/client_hello.rs"]
mod client_hello;
#[path = "../fuzz/targets/http2.rs"]
mod http2;
#[path = "../fuzz/targets/path.rs"]
mod path;
#[path = "../fuzz/targets/peer.rs"]
mod peer;
#[path = "../fuzz/targets/xds.rs"]
mod xds;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let inputs: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
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
fn paths_of_the_corpus() {
    feed("path", 100, path::run);
}

#[test]
fn peers_of_the_corpus() {
    feed("peer", 1000, peer::run);
}

#[test]
fn resources_of_the_corpus() {
    feed("xds", 64, xds::run);
}

fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..200)
}

proptest! {
    #[test]
    fn any_text_is_a_bootstrap_or_not(text in "([a-z_]{1,8}|[ \\n\\[\\]{}:,'\"&*!|>%@-]|[0-9]{1,3}){0,60}") {
        bootstrap::run(text.as_bytes());
    }

    #[test]
    fn any_bytes_are_a_client_hello_or_not(bytes in some_bytes()) {
        client_hello::run(&bytes);
    }

    #[test]
    fn any_target_is_normalised_or_not(mode in any::<u8>(), text in "/[/.%a-f0-9A-F\\\\;?#-]{0,60}") {
        path::run(&[&[mode], text.as_bytes()].concat());
    }

    #[test]
    fn any_bytes_are_a_peer_or_not(bytes in some_bytes()) {
        peer::run(&bytes);
    }

    #[test]
    fn any_bytes_are_a_resource_or_not(bytes in some_bytes()) {
        xds::run(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_frames_are_survived(bytes in some_bytes()) {
        http2::run(&bytes);
    }
}
