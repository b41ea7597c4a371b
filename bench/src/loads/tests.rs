use super::*;

const WRK: &str = "Running 5s test @ http://127.77.0.1:10000/1024
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     8.79ms   11.10ms 181.79ms   92.38%
    Req/Sec     4.64k     1.54k    9.15k    72.66%
  64508 requests in 5.01s, 42.02MB read
Requests/sec:  12875.85
Transfer/sec:      8.38MB
";

const WRK_WITH_ERRORS: &str = "Running 1s test @ http://127.77.0.1:10000/1024
  100 requests in 1.00s, 4.02MB read
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 40
Requests/sec:    100.00
Transfer/sec:      8.38MB
";

const H2LOAD: &str = "starting benchmark...
Main benchmark duration is over for thread #0. Stopping all clients.
Stopped all clients for thread #0

finished in 2.00s, 2911.00 req/s, 2.92MB/s
requests: 5822 total, 5886 started, 5822 done, 5820 succeeded, 2 failed, 2 errored, 0 timeout
status codes: 5810 2xx, 0 3xx, 8 4xx, 2 5xx
traffic: 2.92MB (3056958) total, 22.80KB (23352) headers (space savings 83.96%), 2.84MB (2980864) data
";

const OHA: &str = r#"{
  "summary": {"successRate": 1.0, "total": 2.0, "requestsPerSec": 2000.0},
  "latencyPercentiles": {"p50": 0.0002, "p99": 0.0015, "p99.9": 0.004},
  "firstByteHistogram": {"NaN": 0},
  "statusCodeDistribution": {"200": 3990, "503": 4},
  "errorDistribution": {"aborted due to deadline": 7, "connection closed": 2}
}"#;

#[test]
fn wrk_counts_answers() {
    let expected = Counted { answers: 64508, failed: 0, rate: 12875.85 };
    assert_eq!(counted(Speech::Http1, WRK).unwrap(), expected);
}

#[test]
fn answers_that_are_wrong_and_broken_connections_are_failures() {
    let expected = Counted { answers: 60, failed: 50, rate: 60.0 };
    assert_eq!(counted(Speech::Http1, WRK_WITH_ERRORS).unwrap(), expected);
}

#[test]
fn h2load_counts_by_status() {
    let expected = Counted { answers: 5810, failed: 14, rate: 2905.0 };
    assert_eq!(counted(Speech::Http2, H2LOAD).unwrap(), expected);
}

#[test]
fn times_have_units() {
    for (text, expected) in [("1.50s", 1.5), ("20ms", 0.02), ("500us", 0.0005)] {
        let seconds = seconds(text).unwrap();
        assert!((seconds - expected).abs() < 1e-9, "{text}: {seconds}");
    }
    assert_eq!(seconds("5m"), None);
}

#[test]
fn oha_gives_latencies_in_milliseconds() {
    let latency = latency(OHA).unwrap();
    let counted = Counted { answers: 3990, failed: 6, rate: 1995.0 };
    assert_eq!(latency, Latency { counted, p50: 0.2, p99: 1.5, p999: 4.0 });
}

#[test]
fn what_no_load_generator_prints_is_an_error_that_shows_it() {
    for speech in [Speech::Http1, Speech::Http2] {
        let error = counted(speech, "unable to connect").unwrap_err();
        assert!(error.to_string().contains("unable to connect"));
    }
    assert!(latency("{}").is_err());
    let nothing = r#"{"statusCodeDistribution": {}, "errorDistribution": {"refused": 5}}"#;
    assert!(latency(nothing).unwrap_err().to_string().contains("refused"));
}

#[test]
fn the_load_speaks_what_the_case_speaks() {
    let loads = Loads { wrk: Tool::at("wrk"), h2load: Tool::at("h2load"), oha: Tool::at("oha") };
    let front = crate::loopback(1, 10_000);
    for case in crate::scenario::cases(&["*/1".to_owned()], false) {
        let time = Duration::from_secs(5);
        let (tool, arguments) = loads.saturate(&case, front, time);
        let http2 = case.speech() == Speech::Http2;
        assert_eq!(tool.path.to_str().unwrap(), if http2 { "h2load" } else { "wrk" });
        let calls = case.scenario.load == Load::Calls;
        assert_eq!(arguments.contains(&"te: trailers".into()), calls, "{}", case.name());
        let (_, arguments) = loads.paced(&case, front, 2000, time);
        assert_eq!(arguments.contains(&"--http2".into()), http2, "{}", case.name());
        assert!(arguments.contains(&"5s".into()) && arguments.contains(&"2000".into()));
    }
}
