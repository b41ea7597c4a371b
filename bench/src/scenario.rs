//! What is measured: which proxies stand in the way, what is spoken, and how large the answers are.

use crate::client::Speech;

/// What the load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Requests, as many as there can be and then at a fixed rate.
    Requests(Speech),
    /// Unary gRPC calls, in the same way.
    Calls,
    /// A new connection with a TLS handshake for every request.
    Churn {
        /// TLS sessions are resumed.
        resume: bool,
    },
    /// Connections that are open and idle.
    Idle {
        /// How many.
        count: usize,
        /// With mutual TLS.
        tls: bool,
    },
    /// Starting, again and again.
    Start,
}

/// One row of the plan.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    /// The roles of the proxies, in the order in which a request meets them.
    pub roles: &'static [&'static str],
    /// What is done with them.
    pub load: Load,
    /// Sizes of answers; the first is measured with two workers as well.
    pub sizes: &'static [usize],
}

const KIB: usize = 1024;

/// Every scenario.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "start",
        about: "from exec to the first answer, and memory after it",
        roles: &["h1"],
        load: Load::Start,
        sizes: &[],
    },
    Scenario {
        name: "h1",
        about: "one hop, HTTP/1.1",
        roles: &["h1"],
        load: Load::Requests(Speech::Http1),
        sizes: &[KIB, 0, 64 * KIB],
    },
    Scenario {
        name: "h2",
        about: "one hop, HTTP/2 to HTTP/2",
        roles: &["h2"],
        load: Load::Requests(Speech::Http2),
        sizes: &[KIB, 0, 64 * KIB],
    },
    Scenario {
        name: "sidecars-h1",
        about: "two sidecars, mTLS and RBAC, HTTP/1.1 all the way",
        roles: &["client-h1", "server-h1"],
        load: Load::Requests(Speech::Http1),
        sizes: &[KIB, 0, 64 * KIB],
    },
    Scenario {
        name: "sidecars-h2",
        about: "two sidecars, mTLS and RBAC, HTTP/2 between them",
        roles: &["client-h2", "server-h1"],
        load: Load::Requests(Speech::Http1),
        sizes: &[KIB, 0, 64 * KIB],
    },
    Scenario {
        name: "sidecars-h2-end",
        about: "two sidecars, mTLS and RBAC, HTTP/2 all the way",
        roles: &["client-h2", "server-h2"],
        load: Load::Requests(Speech::Http2),
        sizes: &[KIB, 0, 64 * KIB],
    },
    Scenario {
        name: "sidecars-grpc",
        about: "two sidecars, mTLS and RBAC, unary gRPC",
        roles: &["client-h2", "server-h2"],
        load: Load::Calls,
        sizes: &[crate::backend::MESSAGE],
    },
    Scenario {
        name: "tcp",
        about: "one hop, bytes",
        roles: &["tcp"],
        load: Load::Requests(Speech::Http1),
        sizes: &[KIB, 64 * KIB],
    },
    Scenario {
        name: "tls-churn",
        about: "a new mTLS connection for every request, full handshakes",
        roles: &["server-h1"],
        load: Load::Churn { resume: false },
        sizes: &[KIB],
    },
    Scenario {
        name: "tls-resume",
        about: "a new mTLS connection for every request, sessions resumed",
        roles: &["server-h1"],
        load: Load::Churn { resume: true },
        sizes: &[KIB],
    },
    Scenario {
        name: "idle-1k",
        about: "1,000 idle HTTP/1.1 connections",
        roles: &["h1"],
        load: Load::Idle { count: 1_000, tls: false },
        sizes: &[],
    },
    Scenario {
        name: "idle-10k",
        about: "10,000 idle HTTP/1.1 connections",
        roles: &["h1"],
        load: Load::Idle { count: 10_000, tls: false },
        sizes: &[],
    },
    Scenario {
        name: "idle-mtls-1k",
        about: "1,000 idle mTLS connections",
        roles: &["server-h1"],
        load: Load::Idle { count: 1_000, tls: true },
        sizes: &[],
    },
    Scenario {
        name: "idle-mtls-10k",
        about: "10,000 idle mTLS connections",
        roles: &["server-h1"],
        load: Load::Idle { count: 10_000, tls: true },
        sizes: &[],
    },
];

/// A scenario with the size of the answers and the number of workers: what is measured at once.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The scenario.
    pub scenario: &'static Scenario,
    /// The size of answers, in bytes.
    pub size: usize,
    /// Data threads of each proxy.
    pub workers: usize,
}

impl Case {
    /// What `--scenario` is compared with, such as `h1/1k/2`.
    pub fn name(&self) -> String {
        let Self { scenario, size, workers } = self;
        match scenario.sizes {
            [] => scenario.name.to_owned(),
            _ => format!("{}/{}/{workers}", scenario.name, short(*size)),
        }
    }

    /// Of its scenario the one that stands for it: one worker, the first size.
    pub fn is_main(&self) -> bool {
        let first = self.scenario.sizes.first().is_none_or(|size| *size == self.size);
        first && self.workers == 1
    }

    /// What the first proxy is spoken to in.
    pub fn speech(&self) -> Speech {
        match self.scenario.load {
            Load::Requests(speech) => speech,
            Load::Calls => Speech::Http2,
            Load::Churn { .. } | Load::Idle { tls: true, .. } => Speech::Http1Tls,
            Load::Start | Load::Idle { tls: false, .. } => Speech::Http1,
        }
    }
}

fn short(size: usize) -> String {
    if size >= KIB { format!("{}k", size / KIB) } else { size.to_string() }
}

/// The cases whose name (a glob with `/`) or whose scenario's name matches one of the globs; all, without any. `quick`
/// leaves out other sizes than the first, two workers, and ten thousand connections, unless they are asked for by name.
pub fn cases(globs: &[String], quick: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for scenario in ALL {
        let main = scenario.sizes.first().copied().unwrap_or_default();
        cases.push(Case { scenario, size: main, workers: 1 });
        cases.extend(scenario.sizes.iter().skip(1).map(|size| Case {
            scenario,
            size: *size,
            workers: 1,
        }));
        if !scenario.sizes.is_empty() {
            cases.push(Case { scenario, size: main, workers: 2 });
        }
    }
    let wanted = |case: &Case| {
        let (name, scenario) = (case.name(), case.scenario.name);
        let main = case.is_main();
        let small = main && !scenario.ends_with("10k");
        let matches = |glob: &String| match glob.contains('/') {
            true => matches(glob, &name),
            false => matches(glob, scenario) && (!quick || small || (main && glob == scenario)),
        };
        if globs.is_empty() { !quick || small } else { globs.iter().any(matches) }
    };
    cases.retain(wanted);
    cases
}

/// `*` stands for any text.
pub fn matches(glob: &str, text: &str) -> bool {
    match glob.split_once('*') {
        None => glob == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            text.char_indices()
                .map(|(index, _)| index)
                .chain([text.len()])
                .any(|index| matches(rest, &text[index..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(globs: &[&str], quick: bool) -> Vec<String> {
        let globs: Vec<_> = globs.iter().map(|glob| (*glob).to_owned()).collect();
        cases(&globs, quick).iter().map(Case::name).collect()
    }

    #[test]
    fn a_glob_selects_cases_or_whole_scenarios() {
        assert_eq!(names(&["h1"], false), ["h1/1k/1", "h1/0/1", "h1/64k/1", "h1/1k/2"]);
        assert_eq!(names(&["h1"], true), ["h1/1k/1"]);
        assert_eq!(names(&["h1/*"], true).len(), 4);
        assert_eq!(names(&["*/2"], false).len(), 9);
        assert_eq!(names(&["idle-*"], true), ["idle-1k", "idle-mtls-1k"]);
        assert_eq!(names(&["idle-10k"], true), ["idle-10k"]);
        assert!(names(&["nothing"], false).is_empty());
    }

    #[test]
    fn without_a_glob_everything_or_the_quick_part_is_measured() {
        assert!(names(&[], false).contains(&"idle-mtls-10k".to_owned()));
        assert!(names(&[], true).iter().all(|name| !name.ends_with("/2") && !name.contains("10k")));
    }

    #[test]
    fn stars_match_any_text() {
        for (glob, text, expected) in [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "abcd", false),
            ("*b*", "abc", true),
            ("**", "x", true),
            ("a", "ab", false),
        ] {
            assert_eq!(matches(glob, text), expected, "{glob} {text}");
        }
    }
}
