//! Fault injection: whether this request is delayed or aborted.

use std::time::Duration;

use super::{head::Head, matching::headers_match};
use crate::config::filter::{Abort, Fault};

/// What was drawn for a request. The delay comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injected {
    /// Wait so long.
    pub delay: Option<Duration>,
    /// Then answer with this.
    pub abort: Option<Abort>,
}

/// Draws delay and abort, independently of each other.
pub fn draw(fault: &Fault, head: &Head) -> Injected {
    if !headers_match(&fault.headers, head) {
        return Injected { delay: None, abort: None };
    }
    Injected {
        delay: fault.delay.filter(|(_, share)| share.hit()).map(|(delay, _)| delay),
        abort: fault.abort.filter(|(_, share)| share.hit()).map(|(abort, _)| abort),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{
            filter::Fraction,
            matcher::{HeaderMatcher, HeaderValueMatch},
        },
        http::head::tests::head,
    };

    #[test]
    fn faults_are_drawn_by_their_shares_and_only_for_their_headers() {
        let five = Duration::from_secs(5);
        let fault = |delay, abort, header: Option<&str>| Fault {
            delay: Some((five, Fraction(delay))),
            abort: Some((Abort::Http(503), Fraction(abort))),
            headers: header
                .map(|name| HeaderMatcher {
                    name: name.into(),
                    value: HeaderValueMatch::Present(true),
                    invert: false,
                    treat_missing_as_empty: false,
                })
                .into_iter()
                .collect(),
        };
        let request = head("GET", "a", "/", &[("beta", "1")]);
        let all = Injected { delay: Some(five), abort: Some(Abort::Http(503)) };
        let none = Injected { delay: None, abort: None };
        for (fault, expected) in [
            (fault(1_000_000, 1_000_000, None), all),
            (fault(1_000_000, 0, None), Injected { abort: None, ..all }),
            (fault(0, 1_000_000, None), Injected { delay: None, ..all }),
            (fault(0, 0, None), none),
            (fault(1_000_000, 1_000_000, Some("beta")), all),
            (fault(1_000_000, 1_000_000, Some("alpha")), none),
        ] {
            assert_eq!(draw(&fault, &request), expected, "{fault:?}");
        }
        let some = fault(100_000, 0, None);
        let hits = (0..10_000).filter(|_| draw(&some, &request).delay.is_some()).count();
        // Six standard deviations of a binomial distribution with p = 0.1 are 180.
        assert!((820..=1_180).contains(&hits), "{hits}");
    }
}
