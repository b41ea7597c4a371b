//! What is wrong with a resource, and where in it: the text of a NACK.
//!
//! The path is put together while the error travels outwards, so decoding a good resource builds none.

use std::net::SocketAddr;

/// A resource, or a part of one, that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}{colon}{reason}", colon = if path.is_empty() { "" } else { ": " })]
pub struct Invalid {
    /// Where, e.g. `filter_chains[2].filters[0].route_config`.
    pub path: String,
    /// Why.
    pub reason: Reason,
}

/// Why something cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It must be there.
    #[error("missing")]
    Missing,
    /// Weft does not implement it.
    #[error("not supported")]
    Unsupported,
    /// Weft does not implement this value or extension.
    #[error("{0:?} is not supported")]
    UnsupportedValue(String),
    /// The value is not of the form that it must have.
    #[error("{value:?} is not {expected}")]
    Value {
        /// As it came.
        value: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A regular expression that does not compile, or is too large.
    #[error("not a usable regular expression: {0}")]
    Regex(String),
    /// Bytes that are not the message that they should be.
    #[error("not a {message}: {error}")]
    Protobuf {
        /// The message's name.
        message: &'static str,
        /// What prost says.
        error: String,
    },
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: String,
    },
    /// Nobody knows a field of this name.
    #[error("no such field")]
    Unknown,
    /// Two fields of which one can be set.
    #[error("{first} and {second} exclude each other")]
    OneOf {
        /// As it came first.
        first: String,
        /// The other.
        second: String,
    },
    /// A file that is named cannot be read.
    #[error("cannot read {path:?}: {error}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        error: String,
    },
    /// A name that nothing has.
    #[error("{0} is not defined")]
    Reference(String),
    /// A certificate, a key or a trust bundle that is not good.
    #[error("{0}")]
    Material(String),
    /// Two things claim the same place.
    #[error("{0:?} is given twice")]
    Duplicate(String),
}

impl Invalid {
    /// Something is missing.
    pub fn missing(path: &str) -> Self {
        Self { path: path.to_owned(), reason: Reason::Missing }
    }

    /// Something is not implemented.
    pub fn unsupported(path: &str) -> Self {
        Self { path: path.to_owned(), reason: Reason::Unsupported }
    }

    /// A value or extension is not implemented.
    pub fn unsupported_value(value: impl Into<String>) -> Self {
        Self { path: String::new(), reason: Reason::UnsupportedValue(value.into()) }
    }

    /// A value is of another form.
    pub fn value(value: impl Into<String>, expected: &'static str) -> Self {
        Self { path: String::new(), reason: Reason::Value { value: value.into(), expected } }
    }

    /// A certificate, a key or a trust bundle is not good.
    pub fn material(why: String) -> Self {
        Self { path: String::new(), reason: Reason::Material(why) }
    }

    /// A listener's address cannot be had.
    pub fn bind(address: SocketAddr, error: &impl ToString) -> Self {
        let reason = Reason::Bind { address, error: error.to_string() };
        Self { path: "address".to_owned(), reason }
    }

    /// The place of this place.
    pub fn within(mut self, outer: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{outer}{dot}{}", self.path);
        self
    }
}

/// Says where an error happened.
pub trait At<T> {
    /// In a field.
    fn at(self, field: &str) -> Result<T, Invalid>;
    /// In an element of a list.
    fn at_index(self, field: &str, index: usize) -> Result<T, Invalid>;
    /// In a value of a map.
    fn at_key(self, field: &str, key: &str) -> Result<T, Invalid>;
}

impl<T> At<T> for Result<T, Invalid> {
    fn at(self, field: &str) -> Self {
        self.map_err(|invalid| invalid.within(field))
    }

    fn at_index(self, field: &str, index: usize) -> Self {
        self.map_err(|invalid| invalid.within(&format!("{field}[{index}]")))
    }

    fn at_key(self, field: &str, key: &str) -> Self {
        self.map_err(|invalid| invalid.within(&format!("{field}[{key:?}]")))
    }
}

/// Decodes every element of a list, and says which one is wrong.
pub fn each<S, T>(
    list: &[S],
    field: &str,
    mut decode: impl FnMut(&S) -> Result<T, Invalid>,
) -> Result<Vec<T>, Invalid> {
    list.iter().enumerate().map(|(index, item)| decode(item).at_index(field, index)).collect()
}

/// Refuses a field that Weft does not implement when it is set.
pub fn refuse(set: bool, field: &str) -> Result<(), Invalid> {
    if set { Err(Invalid::unsupported(field)) } else { Ok(()) }
}

/// Refuses every field of a list that is set.
pub fn refuse_all(fields: &[(bool, &str)]) -> Result<(), Invalid> {
    fields.iter().try_for_each(|(set, field)| refuse(*set, field))
}
