use ::http::HeaderValue;

use super::*;
use crate::http::head::tests::head;

fn command(command: Command) -> FormatPart {
    FormatPart::Command { command, max: None }
}

fn header(name: &str, otherwise: Option<&str>) -> FormatPart {
    command(Command::RequestHeader { name: name.into(), otherwise: otherwise.map(Into::into) })
}

fn literal(text: &str) -> FormatPart {
    FormatPart::Literal(text.into())
}

fn format(parts: Vec<FormatPart>) -> Format {
    Format { parts }
}

#[test]
fn a_text_line_has_dashes_for_what_is_absent() {
    let request = head("GET", "shop", "/new", &[("x-envoy-original-path", "/old")]);
    let mut response = HeaderMap::new();
    response.insert("x-envoy-upstream-service-time", HeaderValue::from_static("12"));
    let entry = Entry {
        duration: Duration::from_millis(15),
        protocol: Some("HTTP/1.1"),
        head: Some(&request),
        status: Some(503),
        response: Some(&response),
        flags: ResponseFlags::UF,
        received: 3,
        sent: 91,
        upstream_host: Some("10.0.0.1:80".parse().unwrap()),
        downstream_remote: Some("10.0.0.2:5000".parse().unwrap()),
        route_name: Some(""),
        ..Entry::new(SystemTime::UNIX_EPOCH + Duration::from_millis(1_234))
    };
    let format = format(vec![
        literal("["),
        command(Command::StartTime),
        literal("] \""),
        header(":method", None),
        literal(" "),
        header("x-envoy-original-path", Some(":path")),
        literal(" "),
        command(Command::Protocol),
        literal("\" "),
        command(Command::ResponseCode),
        literal(" "),
        command(Command::ResponseFlags),
        literal(" "),
        command(Command::ResponseCodeDetails),
        literal(" "),
        command(Command::BytesReceived),
        literal(" "),
        command(Command::BytesSent),
        literal(" "),
        command(Command::Duration),
        literal(" "),
        command(Command::ResponseHeader {
            name: "x-envoy-upstream-service-time".into(),
            otherwise: None,
        }),
        literal(" \""),
        header("user-agent", None),
        literal("\" "),
        command(Command::UpstreamHost),
        literal(" "),
        command(Command::DownstreamRemoteAddressWithoutPort),
        literal(" "),
        command(Command::RouteName),
    ]);
    assert_eq!(
        line(&LogFormat::Text(format), &entry),
        "[1970-01-01T00:00:01.234Z] \"GET /old HTTP/1.1\" 503 UF - 3 91 15 12 \"-\" 10.0.0.1:80 10.0.0.2 -\n"
    );
}

#[test]
fn a_json_line_keeps_numbers_and_nulls_and_escapes() {
    let request = head("GET", "shop", "/a%22", &[("user-agent", "a\"b\\c")]);
    let entry =
        Entry { head: Some(&request), status: Some(200), ..Entry::new(SystemTime::UNIX_EPOCH) };
    let fields = vec![
        ("response_code".into(), format(vec![command(Command::ResponseCode)])),
        ("user_agent".into(), format(vec![header("user-agent", None)])),
        ("upstream_host".into(), format(vec![command(Command::UpstreamHost)])),
        ("flags".into(), format(vec![command(Command::ResponseFlags)])),
        ("mixed".into(), format(vec![literal("m="), header(":method", None), literal("!")])),
    ];
    assert_eq!(
        line(&LogFormat::Json(fields), &entry),
        "{\"response_code\":200,\"user_agent\":\"a\\\"b\\\\c\",\"upstream_host\":null,\"flags\":\"-\",\"mixed\":\"m=GET!\"}\n"
    );
}

#[test]
fn values_are_cut_at_character_boundaries() {
    let request = head("GET", "shop", "/abcdef", &[]);
    let entry = Entry { head: Some(&request), ..Entry::new(SystemTime::UNIX_EPOCH) };
    let cut = |max| {
        render(
            &format(vec![FormatPart::Command {
                command: Command::RequestHeader { name: ":path".into(), otherwise: None },
                max: Some(max),
            }]),
            &entry,
            "-",
        )
    };
    assert_eq!(cut(3), "/ab");
    assert_eq!(cut(100), "/abcdef");
    let mut out = String::new();
    Value::borrowed("aé").push_to(&mut out, Some(2));
    assert_eq!(out, "a");
}

#[test]
fn a_log_takes_only_the_flags_that_it_names() {
    let log = |only: &[&str]| AccessLog {
        path: "/dev/null".into(),
        format: LogFormat::Text(Format::default()),
        only_flags: only.iter().map(|flag| (*flag).into()).collect(),
    };
    let flags = ResponseFlags::NR;
    assert!(wants(&log(&[]), flags));
    assert!(wants(&log(&["UF", "NR"]), flags));
    assert!(!wants(&log(&["UF"]), flags));
    assert!(!wants(&log(&["NR"]), ResponseFlags::NONE));
}
