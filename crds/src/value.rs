//! The scalar-like values that resources share.

mod bytes;
mod duration;
mod grpc_status;
mod percent;
mod string_match;

pub use bytes::Bytes;
pub use duration::{Duration, DurationError};
pub use grpc_status::grpc_status;
pub use percent::Percent;
pub use string_match::StringMatch;
