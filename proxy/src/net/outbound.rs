//! A request on its way upstream, as its caller has it: each connection makes of it what its protocol wants.
//!
//! Nothing of it is copied before the connection is known, and on HTTP/1 nothing after that either: it is written from
//! where it stands. So it can be sent as often as it takes.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, request, uri};

/// A request without its body. Hop-by-hop headers are the caller's to remove.
#[derive(Clone, Copy, Debug)]
pub struct Outbound<'a> {
    /// The method.
    pub method: &'a Method,
    /// Whether the scheme is `https`.
    pub https: bool,
    /// `Host` or `:authority`.
    pub authority: &'a str,
    /// Path and query; `None` stands for `/`.
    pub target: Option<&'a uri::PathAndQuery>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// Fields that take the place of those of the same name.
    pub instead: &'a [(HeaderName, HeaderValue)],
}

impl<'a> Outbound<'a> {
    /// A request with an absolute URI.
    pub fn of(parts: &'a request::Parts) -> Self {
        Self {
            method: &parts.method,
            https: parts.uri.scheme() == Some(&uri::Scheme::HTTPS),
            authority: parts.uri.authority().map_or("", uri::Authority::as_str),
            target: parts.uri.path_and_query(),
            headers: &parts.headers,
            instead: &[],
        }
    }

    /// The same as a request of its own.
    ///
    /// # Errors
    /// The authority is none.
    pub fn to_request<B>(self, body: B) -> Result<Request<B>, http::Error> {
        let scheme = if self.https { uri::Scheme::HTTPS } else { uri::Scheme::HTTP };
        let target = self.target.cloned();
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(self.authority)
            .path_and_query(target.unwrap_or_else(|| uri::PathAndQuery::from_static("/")))
            .build()?;
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        *headers = self.headers.clone();
        for (name, value) in self.instead {
            headers.insert(name.clone(), value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    #[test]
    fn a_request_can_be_had_back() {
        let request = Request::get("https://shop:8443/a?b").header("x", "1").header("y", "2");
        let (parts, body) = request.body("body").unwrap().into_parts();
        let instead = [
            (HeaderName::from_static("x"), HeaderValue::from_static("3")),
            (header::ACCEPT, HeaderValue::from_static("*/*")),
        ];
        let outbound = Outbound { instead: &instead, ..Outbound::of(&parts) };
        let made = outbound.to_request(body).unwrap();
        assert_eq!((made.uri(), made.method()), (&parts.uri, &Method::GET));
        let fields = ["x", "y", "accept"].map(|name| made.headers()[name].to_str().unwrap());
        assert_eq!((fields, made.headers().len()), (["3", "2", "*/*"], 3));
        let nameless = Outbound { authority: "a b", ..outbound };
        assert!(nameless.to_request(()).is_err());
    }
}
