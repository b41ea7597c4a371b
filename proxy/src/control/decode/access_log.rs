//! Access loggers: files and the standard streams, with text or JSON formats.

use std::sync::Arc;

use weft_api::{
    access_log as access_log_format,
    xds::{
        envoy::{
            config::{
                accesslog::v3::{
                    AccessLog as PbLog, access_log, access_log_filter::FilterSpecifier,
                },
                core::v3::{
                    SubstitutionFormatString, substitution_format_string::Format as PbFormat,
                },
            },
            extensions::access_loggers::{
                file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
                stream::v3::{
                    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
                },
            },
        },
        google::protobuf::{Any, Struct, value::Kind},
    },
};

use super::{
    Context, format,
    invalid::{At, Invalid, each},
    value::{inline, is, type_name, unpack},
};
use crate::{
    config::access_log::{AccessLog, LogFormat},
    settings::{AccessLogFormat as WantedFormat, AccessLogSettings},
};

/// What Envoy writes when it is told no format.
const ENVOY_DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// The access log that the command line asks for.
pub fn from_settings(settings: &AccessLogSettings) -> Result<AccessLog, Invalid> {
    let format = match settings.format {
        WantedFormat::Text => LogFormat::Text(format::parse(access_log_format::TEXT)?),
        WantedFormat::Json => LogFormat::Json(
            access_log_format::JSON
                .iter()
                .map(|(key, text)| Ok(((*key).into(), format::parse(text)?)))
                .collect::<Result<_, Invalid>>()?,
        ),
    };
    let path = settings.file.to_string_lossy().as_ref().into();
    Ok(AccessLog { path, format, only_flags: Vec::new() })
}

/// A connection's or request's access logs: those configured, or the one that the command line asks for.
pub fn access_logs(context: &Context<'_>, logs: &[PbLog]) -> Result<Vec<Arc<AccessLog>>, Invalid> {
    if let Some(log) = &context.access_log {
        return Ok(vec![log.clone()]);
    }
    each(logs, "access_log", |log| access_log(log).map(Arc::new))
}

fn access_log(log: &PbLog) -> Result<AccessLog, Invalid> {
    let only_flags = match log.filter.as_ref().map(|filter| &filter.filter_specifier) {
        None => Vec::new(),
        Some(Some(FilterSpecifier::ResponseFlagFilter(filter))) => {
            filter.flags.iter().map(|flag| flag.as_str().into()).collect()
        }
        Some(_) => return Err(Invalid::unsupported("filter")),
    };
    let Some(access_log::ConfigType::TypedConfig(config)) = &log.config_type else {
        return Err(Invalid::missing("typed_config"));
    };
    let (path, format) = logger(config).at("typed_config")?;
    Ok(AccessLog { path, format, only_flags })
}

fn logger(config: &Any) -> Result<(Arc<str>, LogFormat), Invalid> {
    if is::<FileAccessLog>(config) {
        let log: FileAccessLog = unpack(config)?;
        if log.path.is_empty() {
            return Err(Invalid::missing("path"));
        }
        let format = match &log.access_log_format {
            None => default_format()?,
            Some(AccessLogFormat::Format(text)) => text_format(text).at("format")?,
            Some(AccessLogFormat::JsonFormat(fields)) => json(fields).at("json_format")?,
            Some(AccessLogFormat::TypedJsonFormat(fields)) => {
                json(fields).at("typed_json_format")?
            }
            Some(AccessLogFormat::LogFormat(format)) => substitution(format).at("log_format")?,
        };
        return Ok((log.path.into(), format));
    }
    if is::<StdoutAccessLog>(config) {
        let log: StdoutAccessLog = unpack(config)?;
        let format = match &log.access_log_format {
            None => default_format()?,
            Some(stdout_access_log::AccessLogFormat::LogFormat(format)) => {
                substitution(format).at("log_format")?
            }
        };
        return Ok(("/dev/stdout".into(), format));
    }
    if is::<StderrAccessLog>(config) {
        let log: StderrAccessLog = unpack(config)?;
        let format = match &log.access_log_format {
            None => default_format()?,
            Some(stderr_access_log::AccessLogFormat::LogFormat(format)) => {
                substitution(format).at("log_format")?
            }
        };
        return Ok(("/dev/stderr".into(), format));
    }
    Err(Invalid::unsupported_value(type_name(config)))
}

fn default_format() -> Result<LogFormat, Invalid> {
    text_format(ENVOY_DEFAULT)
}

fn text_format(text: &str) -> Result<LogFormat, Invalid> {
    Ok(LogFormat::Text(format::parse(if text.is_empty() { ENVOY_DEFAULT } else { text })?))
}

fn substitution(format: &SubstitutionFormatString) -> Result<LogFormat, Invalid> {
    match &format.format {
        None => Err(Invalid::missing("format")),
        Some(PbFormat::TextFormat(text)) => text_format(text).at("text_format"),
        Some(PbFormat::TextFormatSource(source)) => {
            let bytes = inline(source).at("text_format_source")?;
            let text = String::from_utf8(bytes)
                .map_err(|_| Invalid::value("...", "UTF-8"))
                .at("text_format_source")?;
            text_format(&text).at("text_format_source")
        }
        Some(PbFormat::JsonFormat(fields)) => json(fields).at("json_format"),
    }
}

/// A flat JSON object; Envoy has no order for its keys, so they are sorted.
fn json(fields: &Struct) -> Result<LogFormat, Invalid> {
    let mut pairs = Vec::with_capacity(fields.fields.len());
    for (key, value) in &fields.fields {
        let Some(Kind::StringValue(text)) = &value.kind else {
            return Err(Invalid::unsupported("value that is not a string")).at(key);
        };
        pairs.push((key.as_str().into(), format::parse(text).at(key)?));
    }
    pairs.sort_by(|(a, _): &(Box<str>, _), (b, _)| a.cmp(b));
    Ok(LogFormat::Json(pairs))
}
