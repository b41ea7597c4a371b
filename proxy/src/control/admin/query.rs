//! The query of an administration URL.

/// A query, not decoded yet.
pub struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// Of the text after `?`.
    pub fn new(query: &'a str) -> Self {
        Self(query)
    }

    /// The first value of a parameter, decoded; empty when it has none.
    pub fn get(&self, name: &str) -> Option<String> {
        self.0.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key) == name).then(|| decode(value))
        })
    }
}

/// Percent-decodes; what is not a proper escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        let escape = bytes.get(index + 1..index + 3).filter(|_| byte == b'%');
        let escaped = escape
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(value) => {
                decoded.push(value);
                index += 3;
            }
            None => {
                decoded.push(if byte == b'+' { b' ' } else { byte });
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_and_decoded() {
        let query = Query::new("format=json&level=warn%2Cweft_proxy%3Ddebug&usedonly&x=%zz%4");
        assert_eq!(query.get("format").as_deref(), Some("json"));
        assert_eq!(query.get("level").as_deref(), Some("warn,weft_proxy=debug"));
        assert_eq!(query.get("usedonly").as_deref(), Some(""));
        assert_eq!(query.get("x").as_deref(), Some("%zz%4"));
        assert_eq!(query.get("filter"), None);
    }
}
