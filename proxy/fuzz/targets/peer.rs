//! Any bytes as a peer's metadata, in a header and in the exchange before TCP.

use weft_proxy::net::peer;

pub fn run(bytes: &[u8]) {
    let _ = peer::decode_header(bytes);
    let _ = peer::decode_exchange(bytes);
    if let Some(head) = bytes.first_chunk() {
        let _ = peer::decode_length(*head);
    }
}
