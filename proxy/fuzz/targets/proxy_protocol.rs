//! Any first bytes of an announced connection: a header is found once all of its bytes are there, and never sooner or otherwise.

use weft_proxy::{
    config::listener::ProxyProtocol,
    data::proxy_protocol::{Parsed, parse},
};

pub fn run(bytes: &[u8]) {
    let Some((mode, bytes)) = bytes.split_first() else { return };
    let settings = ProxyProtocol { optional: false, v1: mode & 1 == 0, v2: mode & 2 == 0 };
    let whole = parse(settings, bytes);
    let decided = match whole {
        Parsed::Header(header) => {
            assert!(header.length <= bytes.len(), "longer than what there is");
            header.length
        }
        // A line of text as long as can be, and all of a binary header.
        Parsed::Absent | Parsed::Malformed(..) => bytes.len(),
        Parsed::Partial => {
            assert!(bytes.len() < 4096, "it must end");
            return;
        }
    };
    for cut in 0..decided {
        let part = parse(settings, &bytes[..cut]);
        assert!(part == Parsed::Partial || part == whole, "{part:?}, then {whole:?}");
        let is_header = matches!(whole, Parsed::Header(_));
        assert!(!is_header || part == Parsed::Partial, "found before its end");
    }
}
