//! Access logs and their formats.

use super::*;

#[test]
fn formats_are_parsed_once() {
    let parse = |text: &str| format::parse(text).map_err(|invalid| invalid.to_string());
    assert_eq!(
        parse("a%%%REQ(X-A?:PATH):10%b").unwrap().parts,
        [
            FormatPart::Literal("a%".into()),
            FormatPart::Command {
                command: Command::RequestHeader {
                    name: "x-a".into(),
                    otherwise: Some(":path".into())
                },
                max: Some(10)
            },
            FormatPart::Literal("b".into()),
        ]
    );
    for (text, expected) in [
        ("%NOPE%", "\"%NOPE%\" is not supported"),
        ("%REQ(A", "\"%REQ(A\" is not a finished %COMMAND%"),
        ("%PROTOCOL", "\"%PROTOCOL\" is not a finished %COMMAND%"),
        ("%REQ(a b)%", "\"a b\" is not a header name"),
        ("%REQ(A):x%", "\"x\" is not a length"),
        ("%DYNAMIC_METADATA(x)%", "\"%DYNAMIC_METADATA(x)%\" is not supported"),
    ] {
        assert_eq!(parse(text).unwrap_err(), expected);
    }
}

#[test]
fn access_logs_come_from_the_configuration_or_from_the_command_line() {
    let json = Struct {
        fields: [("b", "%PROTOCOL%"), ("a", "x")]
            .map(|(key, text)| (key.to_owned(), text_value(text)))
            .into(),
    };
    let log = PbLog {
        name: "log".into(),
        filter: Some(AccessLogFilter {
            filter_specifier: Some(access_log_filter::FilterSpecifier::ResponseFlagFilter(
                ResponseFlagFilter { flags: vec!["NR".into()] },
            )),
        }),
        config_type: Some(access_log::ConfigType::TypedConfig(any(&FileAccessLog {
            path: "/dev/stdout".into(),
            access_log_format: Some(file_access_log::AccessLogFormat::JsonFormat(json)),
        }))),
    };
    let pb = manager_listener(|manager| manager.access_log.push(log));
    let decoded = listener(&pb).unwrap();
    let log = &manager(&decoded).access_logs[0];
    assert_eq!((&*log.path, &*log.only_flags[0]), ("/dev/stdout", "NR"));
    let LogFormat::Json(fields) = &log.format else { panic!("JSON") };
    assert_eq!(fields.iter().map(|(key, _)| &**key).collect::<Vec<_>>(), ["a", "b"]);
    for format in [crate::settings::AccessLogFormat::Text, crate::settings::AccessLogFormat::Json] {
        let mut settings = Settings::test();
        settings.access_log =
            Some(crate::settings::AccessLogSettings { format, file: "/tmp/log".into() });
        let decoder = Decoder::new(&settings).unwrap();
        let decoded = decoder.listener("l", &any(&pb)).unwrap();
        assert_eq!(&*manager(&decoded).access_logs[0].path, "/tmp/log");
        assert_eq!(manager(&decoded).access_logs.len(), 1);
    }
}
