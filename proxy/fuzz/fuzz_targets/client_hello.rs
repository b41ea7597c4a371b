//! Any first bytes of a connection.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = weft_proxy::data::client_hello::parse(bytes);
});
