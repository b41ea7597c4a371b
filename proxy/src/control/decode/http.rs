//! The HTTP connection manager.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use weft_api::xds::envoy::{
    config::core::v3::{Http1ProtocolOptions, HttpProtocolOptions},
    extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager as PbHcm,
        http_connection_manager::{
            CodecType as PbCodec, ForwardClientCertDetails, PathWithEscapedSlashesAction,
            RouteSpecifier, ServerHeaderTransformation, SetCurrentClientCertDetails,
        },
    },
};

use super::{
    Context, access_log, filter,
    invalid::{At, Invalid, refuse, refuse_all},
    route,
    value::{duration_or, flag, number, timeout_or},
};
use crate::config::{
    http::{
        ClientCertDetails, CodecType, EscapedSlashes, ForwardClientCert, HttpConnectionManager,
        PathNormalization, RouteSource, ServerHeader,
    },
    listener::TrafficDirection,
};

/// A request's head may be so large unless the configuration says otherwise.
const DEFAULT_HEAD_KIB: u32 = 64;
/// Envoy's most for a request's head.
const MOST_HEAD_KIB: u32 = 8192;
/// A client that takes longer for a request's head is cut off, unless the configuration says zero.
const DEFAULT_HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.
pub fn connection_manager(
    context: &Context<'_>,
    config: &PbHcm,
    direction: TrafficDirection,
) -> Result<HttpConnectionManager, Invalid> {
    refuse_unsupported(config)?;
    let unset = HttpProtocolOptions::default();
    let common = config.common_http_protocol_options.as_ref().unwrap_or(&unset);
    refuse_common(common).at("common_http_protocol_options")?;
    let http1 = config.http_protocol_options.clone().unwrap_or_default();
    refuse_http1(&http1).at("http_protocol_options")?;
    let head_kib = number(config.max_request_headers_kb.as_ref(), DEFAULT_HEAD_KIB);
    if head_kib == 0 || head_kib > MOST_HEAD_KIB {
        return Err(Invalid::value(head_kib.to_string(), "1 to 8192")).at("max_request_headers_kb");
    }
    let to_usize = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    Ok(HttpConnectionManager {
        stat_prefix: config.stat_prefix.as_str().into(),
        direction,
        codec: codec(config.codec_type).at("codec_type")?,
        routes: routes(context, config)?,
        filters: filter::filters(context, &config.http_filters)?,
        access_logs: access_log::access_logs(context, &config.access_log)?,
        idle_timeout: timeout_or(
            common.idle_timeout.as_ref(),
            "common_http_protocol_options.idle_timeout",
            Some(Duration::from_secs(3600)),
        )?,
        stream_idle_timeout: timeout_or(
            config.stream_idle_timeout.as_ref(),
            "stream_idle_timeout",
            Some(Duration::from_secs(300)),
        )?,
        request_headers_timeout: timeout_or(
            config.request_headers_timeout.as_ref(),
            "request_headers_timeout",
            Some(DEFAULT_HEAD_TIMEOUT),
        )?,
        request_timeout: timeout_or(config.request_timeout.as_ref(), "request_timeout", None)?,
        max_connection_duration: timeout_or(
            common.max_connection_duration.as_ref(),
            "common_http_protocol_options.max_connection_duration",
            None,
        )?,
        drain_timeout: duration_or(
            config.drain_timeout.as_ref(),
            "drain_timeout",
            Duration::from_secs(5),
        )?,
        max_request_headers_bytes: to_usize(head_kib * 1024),
        max_request_headers: to_usize(number(common.max_headers_count.as_ref(), 100)),
        accept_http_10: http1.accept_http_10,
        server_name: match config.server_name.as_str() {
            "" => HeaderValue::from_static("envoy"),
            name => HeaderValue::from_str(name)
                .map_err(|_| Invalid::value(name, "a header's value"))
                .at("server_name")?,
        },
        server_header: server_header(config.server_header_transformation)?,
        use_remote_address: flag(config.use_remote_address.as_ref()),
        xff_trusted_hops: config.xff_num_trusted_hops,
        generate_request_id: config.generate_request_id.as_ref().is_none_or(|make| make.value),
        preserve_request_id: config.preserve_external_request_id,
        forward_client_cert: forward_client_cert(config.forward_client_cert_details)?,
        client_cert_details: config
            .set_current_client_cert_details
            .as_ref()
            .map_or(Ok(ClientCertDetails::default()), client_cert_details)
            .at("set_current_client_cert_details")?,
        path: PathNormalization {
            normalize: flag(config.normalize_path.as_ref()),
            merge_slashes: config.merge_slashes,
            escaped_slashes: escaped_slashes(config.path_with_escaped_slashes_action)?,
        },
        upgrades: upgrades(config)?,
        max_concurrent_streams: config
            .http2_protocol_options
            .as_ref()
            .and_then(|http2| http2.max_concurrent_streams.as_ref())
            .map(|streams| streams.value),
    })
}

fn refuse_unsupported(config: &PbHcm) -> Result<(), Invalid> {
    refuse_all(&[
        (config.scheme_header_transformation.is_some(), "scheme_header_transformation"),
        (!config.original_ip_detection_extensions.is_empty(), "original_ip_detection_extensions"),
        (!config.early_header_mutation_extensions.is_empty(), "early_header_mutation_extensions"),
        (config.skip_xff_append, "skip_xff_append"),
        (!config.via.is_empty(), "via"),
        (config.always_set_request_id_in_response, "always_set_request_id_in_response"),
        (config.forward_client_cert_matcher.is_some(), "forward_client_cert_matcher"),
        (
            config.represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
            "represent_ipv4_remote_address_as_ipv4_mapped_ipv6",
        ),
        (config.local_reply_config.is_some(), "local_reply_config"),
        (config.strip_matching_host_port, "strip_matching_host_port"),
        (config.strip_port_mode.is_some(), "strip_any_host_port"),
        (config.strip_trailing_host_dot, "strip_trailing_host_dot"),
        (config.path_normalization_options.is_some(), "path_normalization_options"),
        (config.proxy_status_config.is_some(), "proxy_status_config"),
        (config.typed_header_validation_config.is_some(), "typed_header_validation_config"),
        (config.append_x_forwarded_port, "append_x_forwarded_port"),
        (config.forward_proto_config.is_some(), "forward_proto_config"),
        (flag(config.add_user_agent.as_ref()), "add_user_agent"),
    ])
}

fn refuse_common(common: &HttpProtocolOptions) -> Result<(), Invalid> {
    refuse_all(&[
        (common.max_stream_duration.is_some(), "max_stream_duration"),
        (common.headers_with_underscores_action != 0, "headers_with_underscores_action"),
        (common.max_requests_per_connection.is_some(), "max_requests_per_connection"),
    ])
}

fn refuse_http1(http1: &Http1ProtocolOptions) -> Result<(), Invalid> {
    refuse_all(&[
        (http1.allow_chunked_length, "allow_chunked_length"),
        (!http1.default_host_for_http_10.is_empty(), "default_host_for_http_10"),
        (http1.header_key_format.is_some(), "header_key_format"),
        (http1.send_fully_qualified_url, "send_fully_qualified_url"),
    ])
}

fn codec(value: i32) -> Result<CodecType, Invalid> {
    match PbCodec::try_from(value) {
        Ok(PbCodec::Auto) => Ok(CodecType::Auto),
        Ok(PbCodec::Http1) => Ok(CodecType::Http1),
        Ok(PbCodec::Http2) => Ok(CodecType::Http2),
        Ok(PbCodec::Http3) | Err(_) => Err(Invalid::unsupported_value(value.to_string())),
    }
}

fn routes(context: &Context<'_>, config: &PbHcm) -> Result<RouteSource, Invalid> {
    match &config.route_specifier {
        Some(RouteSpecifier::RouteConfig(inline)) => {
            let inline = route::route_configuration(context, inline).at("route_config")?;
            refuse(inline.on_demand, "route_config.vhds")?;
            Ok(RouteSource::Inline(Arc::new(inline)))
        }
        Some(RouteSpecifier::Rds(rds)) => {
            refuse(rds.route_config_name.is_empty(), "rds.route_config_name that is empty")?;
            Ok(RouteSource::Rds(context.intern(&rds.route_config_name)))
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => Err(Invalid::unsupported("scoped_routes")),
        None => Err(Invalid::missing("route_specifier")),
    }
}

fn server_header(value: i32) -> Result<ServerHeader, Invalid> {
    match ServerHeaderTransformation::try_from(value) {
        Ok(ServerHeaderTransformation::Overwrite) => Ok(ServerHeader::Overwrite),
        Ok(ServerHeaderTransformation::AppendIfAbsent) => Ok(ServerHeader::AppendIfAbsent),
        Ok(ServerHeaderTransformation::PassThrough) => Ok(ServerHeader::PassThrough),
        Err(_) => Err(Invalid::unsupported("server_header_transformation")),
    }
}

fn forward_client_cert(value: i32) -> Result<ForwardClientCert, Invalid> {
    match ForwardClientCertDetails::try_from(value) {
        Ok(ForwardClientCertDetails::Sanitize) => Ok(ForwardClientCert::Sanitize),
        Ok(ForwardClientCertDetails::ForwardOnly) => Ok(ForwardClientCert::ForwardOnly),
        Ok(ForwardClientCertDetails::AppendForward) => Ok(ForwardClientCert::AppendForward),
        Ok(ForwardClientCertDetails::SanitizeSet) => Ok(ForwardClientCert::SanitizeSet),
        Ok(ForwardClientCertDetails::AlwaysForwardOnly) => Ok(ForwardClientCert::AlwaysForwardOnly),
        Err(_) => Err(Invalid::unsupported("forward_client_cert_details")),
    }
}

fn client_cert_details(
    details: &SetCurrentClientCertDetails,
) -> Result<ClientCertDetails, Invalid> {
    refuse_all(&[
        (details.cert, "cert"),
        (details.chain, "chain"),
        (details.issuer, "issuer"),
        (details.format != 0, "format"),
    ])?;
    Ok(ClientCertDetails {
        subject: flag(details.subject.as_ref()),
        uri: details.uri,
        dns: details.dns,
    })
}

fn escaped_slashes(value: i32) -> Result<EscapedSlashes, Invalid> {
    use PathWithEscapedSlashesAction as Action;
    match Action::try_from(value) {
        Ok(Action::ImplementationSpecificDefault | Action::KeepUnchanged) => {
            Ok(EscapedSlashes::Keep)
        }
        Ok(Action::RejectRequest) => Ok(EscapedSlashes::Reject),
        Ok(Action::UnescapeAndRedirect) => Ok(EscapedSlashes::UnescapeAndRedirect),
        Ok(Action::UnescapeAndForward) => Ok(EscapedSlashes::UnescapeAndForward),
        Err(_) => Err(Invalid::unsupported("path_with_escaped_slashes_action")),
    }
}

fn upgrades(config: &PbHcm) -> Result<Vec<Box<str>>, Invalid> {
    let mut upgrades = Vec::new();
    for upgrade in &config.upgrade_configs {
        refuse(!upgrade.filters.is_empty(), "upgrade_configs.filters")?;
        if upgrade.enabled.as_ref().is_none_or(|enabled| enabled.value) {
            upgrades.push(upgrade.upgrade_type.to_ascii_lowercase().into());
        }
    }
    Ok(upgrades)
}
