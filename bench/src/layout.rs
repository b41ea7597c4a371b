//! Which functions a proxy enters when it starts and serves, seen by callgrind: `proxy/layout.txt`, by which the linker puts
//! them side by side (`proxy/build.rs`). The rest of the program then stays out of memory.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, ensure};

use crate::{
    certificates,
    client::Speech,
    gates::{self, Stand},
    peer::Peer,
};

/// What is run: its name in the file, the roles of the proxies, what the client speaks. Functions stand where they are first
/// entered, so that a proxy of the first kind does not have those of the others between its own.
const RUNS: &[(&str, &[&str], Speech)] = &[
    ("starting, HTTP/1.1", &["h1"], Speech::Http1),
    ("bytes", &["tcp"], Speech::Http1),
    ("HTTP/2", &["h2"], Speech::Http2),
    ("mutual TLS, HTTP/1.1", &["client-h1", "server-h1"], Speech::Http1),
    ("mutual TLS, HTTP/2", &["client-h2", "server-h2"], Speech::Http2),
];

/// More than one, so that connections are used again.
const REQUESTS: usize = 10;

const HEADING: &str = "\
# Functions that the proxy enters when it starts and serves, as symbols without what changes from build to build.
# Written by `./justw layout`, read by build.rs.
";

/// Runs the proxy, a build that is not stripped, and writes the file.
///
/// # Errors
/// When valgrind is missing or something does not run.
pub fn run(proxy: &Path, file: &Path) -> anyhow::Result<()> {
    let (stand, mut upstream) = Stand::new(proxy)?;
    certificates::write(&stand.folder().join("certs"))?;
    let mut known = BTreeSet::new();
    let mut text = HEADING.to_owned();
    for (title, roles, speech) in RUNS {
        let (mut programs, mut outputs) = (Vec::new(), Vec::new());
        for role in roles.iter().rev() {
            let output = stand.folder().join(format!("{role}.callgrind"));
            let configuration = Peer::Weft.configuration(role).context("no configuration")?;
            let options = ["--demangle=no"];
            programs.push(stand.callgrind(role, &options, &output, &configuration)?);
            outputs.push(output);
        }
        gates::profile(programs, *speech, REQUESTS).with_context(|| (*title).to_owned())?;
        upstream.must_run()?;
        let mut entered = BTreeSet::new();
        for output in outputs {
            let output = std::fs::read_to_string(output).context("callgrind's output")?;
            entered.extend(functions(&output));
        }
        ensure!(!entered.is_empty(), "{} names no functions: it is stripped", proxy.display());
        text.push_str(&format!("\n# {title}\n"));
        for symbol in entered {
            if known.insert(symbol.clone()) {
                text.push_str(&symbol);
                text.push('\n');
            }
        }
    }
    std::fs::write(file, text).with_context(|| file.display().to_string())?;
    gates::say(&format!("written: {} ({} functions)", file.display(), known.len()))
}

/// The functions of Rust that callgrind's file names.
fn functions(text: &str) -> impl Iterator<Item = String> {
    let names = text.lines().filter_map(|line| {
        let function = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn="))?;
        // Names are written once, `(12) name`, and then only as `(12)`.
        Some(function.split_once(' ')?.1)
    });
    names.filter_map(lasting)
}

/// A symbol with `*` for what depends on the versions of crates: the hash at its end, or those of crates; and for the number
/// that the compiler gives to one of several of the same name.
fn lasting(symbol: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$');
    if !symbol.chars().all(plain) {
        return None;
    }
    if symbol.starts_with("_ZN") {
        let (name, hash) = symbol.rsplit_once("17h")?;
        let hash = hash.get(..16)?;
        return hash.chars().all(|c| c.is_ascii_hexdigit()).then(|| format!("{name}17h*"));
    }
    if let Some((name, number)) = symbol.rsplit_once('.')
        && number.chars().all(|c| c.is_ascii_digit())
    {
        return lasting(name).map(|name| name + ".*");
    }
    let mut rest = symbol.strip_prefix("_R")?;
    let mut text = String::from("_R");
    while let Some((before, after)) = rest.split_once("Cs") {
        text.push_str(before);
        let hash = after.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(after.len());
        rest = if after[hash..].starts_with('_') { &after[hash..] } else { after };
        text.push_str(if rest.len() < after.len() { "Cs*" } else { "Cs" });
    }
    text.push_str(rest);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_named_without_what_changes() {
        let text = "fn=(1) _ZN4weft5serve17h0123456789abcdefE\n1 10\ncfn=(2) malloc\ncalls=7 0\n\
            cfn=(1)\ncfn=(3) _RNvNtCsldLT0ZTESoL_3std2rt19lang_start_internal\nfn=(4) ???\n\
            cfn=(5) _ZN4weft3end17h0123456789abcdefE.llvm.123\nfn=(6) _ZN4weft6brokenE\n";
        let expected =
            ["_ZN4weft5serve17h*", "_RNvNtCs*_3std2rt19lang_start_internal", "_ZN4weft3end17h*"];
        assert_eq!(functions(text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn every_hash_of_a_crate_goes() {
        let symbol = "_RINvNtCsabc_4core3ptr13drop_in_placeNtNtCs12_4weft3RowECsz9_4weft";
        let expected = "_RINvNtCs*_4core3ptr13drop_in_placeNtNtCs*_4weft3RowECs*_4weft";
        assert_eq!(lasting(symbol).as_deref(), Some(expected));
        assert_eq!(lasting("_RNvCsabc_3std4park.6336").as_deref(), Some("_RNvCs*_3std4park.*"));
        assert_eq!(lasting("_RNvC\n"), None);
    }
}
