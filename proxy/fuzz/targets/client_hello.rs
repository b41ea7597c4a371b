//! Any first bytes of a connection: looking for a server's name ends, and does not panic.

use weft_proxy::data::client_hello;

pub fn run(bytes: &[u8]) {
    let _ = client_hello::parse(bytes);
}
