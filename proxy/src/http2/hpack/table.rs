//! Fields, and those that everybody knows (RFC 7541, appendix A).

use std::sync::LazyLock;

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::Secrecy;

/// A field's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Status,
    Header(HeaderName),
    /// No message may have it. So long it was.
    Malformed(usize),
}

impl Name {
    /// What the bytes name.
    pub fn new(bytes: &[u8]) -> Self {
        match bytes {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b":status" => Self::Status,
            _ => {
                HeaderName::from_lowercase(bytes).map_or(Self::Malformed(bytes.len()), Self::Header)
            }
        }
    }
}

/// A field that was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    Method(Method),
    Scheme(Scheme),
    Authority(Authority),
    Path(PathAndQuery),
    Status(StatusCode),
    Header(HeaderName, HeaderValue),
    /// It is not what its name says, and keeps the name for those that refer to it.
    Malformed(Name),
}

impl Field {
    /// Parses a value.
    pub fn new(name: Name, value: Bytes) -> Self {
        let parsed = match &name {
            Name::Method => Method::from_bytes(&value).ok().map(Self::Method),
            Name::Scheme => Scheme::try_from(&*value).ok().map(Self::Scheme),
            Name::Authority => Authority::from_maybe_shared(value).ok().map(Self::Authority),
            // A fragment would be taken off, and leave nothing.
            Name::Path if matches!(value.first(), None | Some(b'#')) => None,
            Name::Path => PathAndQuery::from_maybe_shared(value).ok().map(Self::Path),
            Name::Status => StatusCode::from_bytes(&value).ok().map(Self::Status),
            // It would mean another thing elsewhere (RFC 9113, 8.2.1).
            Name::Header(_) if is_blank(value.first()) || is_blank(value.last()) => None,
            Name::Header(name) => HeaderValue::from_maybe_shared(value)
                .ok()
                .map(|value| Self::Header(name.clone(), value)),
            Name::Malformed(_) => None,
        };
        parsed.unwrap_or(Self::Malformed(name))
    }

    /// The same, kept out of tables if need be.
    pub fn with(mut self, secrecy: Secrecy) -> Self {
        if let Self::Header(_, value) = &mut self {
            value.set_sensitive(secrecy == Secrecy::Secret);
        }
        self
    }

    /// What it is called.
    pub fn name(&self) -> Name {
        match self {
            Self::Method(_) => Name::Method,
            Self::Scheme(_) => Name::Scheme,
            Self::Authority(_) => Name::Authority,
            Self::Path(_) => Name::Path,
            Self::Status(_) => Name::Status,
            Self::Header(name, _) => Name::Header(name.clone()),
            Self::Malformed(name) => name.clone(),
        }
    }
}

fn is_blank(byte: Option<&u8>) -> bool {
    matches!(byte, Some(b' ' | b'\t'))
}

/// The table, from index 1 on: names, and the values that some have.
pub const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The same, parsed, each with what it counts.
pub static PARSED: LazyLock<Vec<(Field, usize)>> = LazyLock::new(|| {
    let parsed = |&(name, value): &(&'static str, &'static str)| {
        let field = Field::new(Name::new(name.as_bytes()), Bytes::from_static(value.as_bytes()));
        (field, name.len() + value.len() + super::OVERHEAD)
    };
    STATIC.iter().map(parsed).collect()
});

/// The first index of a name that is in the table.
pub fn index_of(name: &str) -> Option<u8> {
    // By length first: most names are compared with one or two others.
    let of_that_length: &[(&str, u8)] = match name.len() {
        3 => &[("age", 21), ("via", 60)],
        4 => &[("date", 33), ("etag", 34), ("from", 37), ("host", 38), ("link", 45), ("vary", 59)],
        5 => &[(":path", 4), ("allow", 22), ("range", 50)],
        6 => &[("accept", 19), ("cookie", 32), ("expect", 35), ("server", 54)],
        7 => &[
            (":status", 8),
            (":method", 2),
            (":scheme", 6),
            ("expires", 36),
            ("referer", 51),
            ("refresh", 52),
        ],
        8 => &[("if-match", 39), ("if-range", 42), ("location", 46)],
        10 => &[(":authority", 1), ("user-agent", 58), ("set-cookie", 55)],
        11 => &[("retry-after", 53)],
        12 => &[("content-type", 31), ("max-forwards", 47)],
        13 => &[
            ("authorization", 23),
            ("accept-ranges", 18),
            ("cache-control", 24),
            ("content-range", 30),
            ("if-none-match", 41),
            ("last-modified", 44),
        ],
        14 => &[("content-length", 28), ("accept-charset", 15)],
        15 => &[("accept-encoding", 16), ("accept-language", 17)],
        16 => &[
            ("content-encoding", 26),
            ("content-language", 27),
            ("content-location", 29),
            ("www-authenticate", 61),
        ],
        17 => &[("if-modified-since", 40), ("transfer-encoding", 57)],
        18 => &[("proxy-authenticate", 48)],
        19 => {
            &[("content-disposition", 25), ("if-unmodified-since", 43), ("proxy-authorization", 49)]
        }
        25 => &[("strict-transport-security", 56)],
        27 => &[("access-control-allow-origin", 20)],
        _ => &[],
    };
    of_that_length.iter().find(|(known, _)| *known == name).map(|(_, index)| *index)
}
