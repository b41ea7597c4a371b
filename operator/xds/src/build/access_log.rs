//! Access logs, when the mesh's settings ask for them (`istio-behaviours` 4.3).

use weft_api::{
    access_log::{JSON, TEXT},
    xds::{
        envoy::{
            config::{
                accesslog::v3::{AccessLog, access_log},
                core::v3::{
                    DataSource, SubstitutionFormatString, data_source::Specifier,
                    substitution_format_string::Format,
                },
            },
            extensions::access_loggers::file::v3::{
                FileAccessLog, file_access_log::AccessLogFormat,
            },
        },
        google::protobuf::Struct,
    },
};
use weft_core::mesh::{AccessLogEncoding, MeshConfig};

use super::message::text;
use crate::wire;

/// The access logs of a connection manager or TCP proxy.
pub(crate) fn build(mesh: &MeshConfig) -> Vec<AccessLog> {
    if mesh.access_log_file.is_empty() {
        return Vec::new();
    }
    let format = match mesh.access_log_encoding {
        AccessLogEncoding::Text => Format::TextFormatSource(DataSource {
            specifier: Some(Specifier::InlineString(TEXT.into())),
            ..DataSource::default()
        }),
        AccessLogEncoding::Json => Format::JsonFormat(Struct {
            fields: JSON.iter().map(|(key, value)| ((*key).to_owned(), text(*value))).collect(),
        }),
    };
    let format =
        SubstitutionFormatString { format: Some(format), ..SubstitutionFormatString::default() };
    let file = FileAccessLog {
        path: mesh.access_log_file.to_string(),
        access_log_format: Some(AccessLogFormat::LogFormat(format)),
    };
    vec![AccessLog {
        name: "envoy.access_loggers.file".into(),
        config_type: Some(access_log::ConfigType::TypedConfig(wire::pack(&file))),
        ..AccessLog::default()
    }]
}
