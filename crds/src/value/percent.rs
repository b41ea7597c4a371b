//! A share of something.

use crate::message::message;

message! {
    /// A share in percent.
    #[derive(Copy)]
    pub struct Percent {
        /// From 0 to 100, fractions allowed.
        pub value: f64,
    }
}

impl Percent {
    /// A share of `value` per cent.
    pub const fn new(value: f64) -> Self {
        Self { value }
    }
}
