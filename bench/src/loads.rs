//! The load generators: how wrk, h2load and oha are run, and what they say.

use std::{ffi::OsString, fmt::Display, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    client::Speech,
    install::Tool,
    scenario::{Case, Load},
    tether::Order,
};

/// Requests under way at the same time.
const STREAMS: usize = 64;

/// Connections of HTTP/2, each with a share of the streams.
const HTTP2_CONNECTIONS: usize = 8;

/// The file with the message of a gRPC call, in the working folder.
pub const MESSAGE_FILE: &str = "message";

/// The load generators that are needed.
#[derive(Clone, Debug)]
pub struct Loads {
    /// As many requests as there can be, HTTP/1.1.
    pub wrk: Tool,
    /// As many requests as there can be, HTTP/2.
    pub h2load: Tool,
    /// Requests at a fixed rate.
    pub oha: Tool,
}

/// What a load generator counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Answers that were right.
    pub answers: u64,
    /// Answers that were wrong, and requests without one.
    pub failed: u64,
    /// Answers in a second.
    pub rate: f64,
}

/// Latencies in milliseconds at a fixed rate, and how the requests ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// What was counted.
    pub counted: Counted,
    /// Half of the requests took less.
    pub p50: f64,
    /// 99 of 100 took less.
    pub p99: f64,
    /// 999 of 1000 took less.
    pub p999: f64,
}

impl Loads {
    /// As many requests as there can be.
    pub fn saturate(
        &self,
        case: &Case,
        front: SocketAddr,
        time: Duration,
    ) -> (Tool, Vec<OsString>) {
        let url = url(case, front);
        let seconds = time.as_secs().max(1);
        if case.speech() == Speech::Http2 {
            let mut list = arguments([&"-t1", &"-c", &HTTP2_CONNECTIONS, &"-m"]);
            list.extend(arguments([&(STREAMS / HTTP2_CONNECTIONS), &"-D", &seconds]));
            if case.scenario.load == Load::Calls {
                list.extend(arguments([&"-d", &MESSAGE_FILE]));
                list.extend(arguments([
                    &"-H",
                    &"content-type: application/grpc",
                    &"-H",
                    &"te: trailers",
                ]));
            }
            list.push(url.into());
            (self.h2load.clone(), list)
        } else {
            let list = [&"-t1" as &dyn Display, &"-c", &STREAMS, &"-d", &seconds, &url];
            (self.wrk.clone(), arguments(list))
        }
    }

    /// Requests at a fixed rate; latencies count from when a request should have been sent.
    pub fn paced(
        &self,
        case: &Case,
        front: SocketAddr,
        rate: u32,
        time: Duration,
    ) -> (Tool, Vec<OsString>) {
        let time = format!("{}s", time.as_secs().max(1));
        let mut list =
            arguments([&"--no-tui", &"--output-format", &"json", &"--latency-correction"]);
        list.extend(arguments([&"-w", &"-q", &rate, &"-z", &time]));
        if case.speech() == Speech::Http2 {
            list.extend(arguments([&"--http2", &"-c", &4, &"-p", &8]));
        } else {
            list.extend(arguments([&"-c", &32]));
        }
        if case.scenario.load == Load::Calls {
            list.extend(arguments([&"-m", &"POST", &"-D", &MESSAGE_FILE]));
            list.extend(arguments([
                &"-H",
                &"content-type: application/grpc",
                &"-H",
                &"te: trailers",
            ]));
        }
        list.push(url(case, front).into());
        (self.oha.clone(), list)
    }
}

fn arguments<const N: usize>(list: [&dyn Display; N]) -> Vec<OsString> {
    list.iter().map(|argument| argument.to_string().into()).collect()
}

fn url(case: &Case, front: SocketAddr) -> String {
    match case.scenario.load {
        Load::Calls => format!("http://{front}/bench.Echo/Say"),
        _ => format!("http://{front}/{}", case.size),
    }
}

/// How a tool is run.
pub fn order(
    name: &str,
    tool: Tool,
    arguments: Vec<OsString>,
    cores: &[usize],
    folder: &Path,
) -> Order {
    Order {
        name: name.to_owned(),
        program: tool.path,
        arguments,
        environment: tool.environment,
        cores: cores.to_vec(),
        folder: folder.to_owned(),
    }
}

/// Reads what the generator of [`Loads::saturate`] printed.
///
/// # Errors
/// When it is not what that generator prints.
pub fn counted(speech: Speech, text: &str) -> anyhow::Result<Counted> {
    let counted = if speech == Speech::Http2 { h2load(text) } else { wrk(text) };
    counted.with_context(|| format!("the load generator printed:\n{text}"))
}

fn wrk(text: &str) -> Option<Counted> {
    let lines = || text.lines().map(str::trim);
    let after = |start: &str| lines().find_map(|line| line.strip_prefix(start));
    let all: u64 = lines().find_map(|line| line.split_once(" requests in ")?.0.parse().ok())?;
    let rate: f64 = after("Requests/sec:")?.trim().parse().ok()?;
    let wrong = after("Non-2xx or 3xx responses:").map_or(Some(0), |rest| rest.trim().parse().ok());
    let wrong: u64 = wrong?;
    // connect 0, read 0, write 0, timeout 0
    let sockets = after("Socket errors:").unwrap_or("");
    let sockets =
        sockets.split(',').filter_map(|part| part.split_whitespace().nth(1)?.parse::<u64>().ok());
    let answers = all.saturating_sub(wrong);
    let rate = rate * answers as f64 / all.max(1) as f64;
    Some(Counted { answers, failed: wrong + sockets.sum::<u64>(), rate })
}

fn h2load(text: &str) -> Option<Counted> {
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    let value = |line: &str, word: &str| -> Option<u64> {
        line.split(',').find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
    };
    let requests = line("requests: ")?;
    let answers = value(line("status codes: ")?, "2xx")?;
    let done = value(requests, "done")?;
    // Those under way when the time is over count as neither.
    let failed = done.saturating_sub(answers) + value(requests, "failed")?;
    let seconds = seconds(line("finished in ")?.split(',').next()?)?;
    Some(Counted { answers, failed, rate: answers as f64 / seconds })
}

/// A time as h2load writes it: `1.00s`, `27.46ms`, `950us`.
fn seconds(text: &str) -> Option<f64> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let known =
        |(unit, scale): (&str, f64)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * scale);
    units.into_iter().find_map(known)
}

/// Reads what oha printed.
///
/// # Errors
/// When it is not what oha prints.
pub fn latency(text: &str) -> anyhow::Result<Latency> {
    let value: serde_json::Value = serde_json::from_str(text).context("oha's JSON")?;
    let codes = |wanted: fn(&str) -> bool| -> u64 {
        let codes = value["statusCodeDistribution"].as_object().into_iter().flatten();
        codes.filter(|(code, _)| wanted(code)).filter_map(|(_, count)| count.as_u64()).sum()
    };
    let right = codes(|code| code.starts_with('2'));
    ensure!(right > 0, "oha has no right answer: {}", value["errorDistribution"]);
    let errors = value["errorDistribution"].as_object().into_iter().flatten();
    // Requests that are cut off by the end of the time did not fail.
    let errors = errors.filter(|(name, _)| name.as_str() != "aborted due to deadline");
    let errors: u64 = errors.filter_map(|(_, count)| count.as_u64()).sum();
    let millis = |name: &str| {
        let seconds = value["latencyPercentiles"][name].as_f64();
        seconds.map(|seconds| seconds * 1e3).with_context(|| format!("oha's JSON has no {name}"))
    };
    let total = value["summary"]["total"].as_f64().context("oha's JSON has no total")?;
    Ok(Latency {
        counted: Counted {
            answers: right,
            failed: codes(|code| !code.starts_with('2')) + errors,
            rate: right as f64 / total,
        },
        p50: millis("p50")?,
        p99: millis("p99")?,
        p999: millis("p99.9")?,
    })
}

#[cfg(test)]
mod tests;
