//! The scalar-like values that resources share.

mod bytes;
mod duration;
mod percent;
mod string_match;

pub use bytes::Bytes;
pub use duration::{Duration, DurationError};
pub use percent::Percent;
pub use string_match::StringMatch;
