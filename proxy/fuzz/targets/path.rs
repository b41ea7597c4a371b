//! Any request target: normalising ends, does not panic, and what it gives is a target again.

use http::uri::PathAndQuery;
use weft_proxy::{
    config::http::{EscapedSlashes, PathNormalization},
    http::path,
};

pub fn run(bytes: &[u8]) {
    let Some((mode, bytes)) = bytes.split_first() else { return };
    let Ok(target) = PathAndQuery::try_from(bytes) else { return };
    let settings = PathNormalization {
        normalize: mode & 1 != 0,
        merge_slashes: mode & 2 != 0,
        escaped_slashes: match mode >> 6 {
            0 => EscapedSlashes::Keep,
            1 => EscapedSlashes::Reject,
            2 => EscapedSlashes::UnescapeAndRedirect,
            _ => EscapedSlashes::UnescapeAndForward,
        },
    };
    let _ = path::normalize(&settings, &target);
}
