//! The connection manager.

use serde_json::{Value, json};

use super::{duration, filter, pruned, route, timeout};
use crate::config::{
    http::{
        CodecType, EscapedSlashes, ForwardClientCert, HttpConnectionManager, RouteSource,
        ServerHeader,
    },
    listener::TrafficDirection,
};

const TYPE: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

pub fn connection_manager(manager: &HttpConnectionManager) -> Value {
    let (route_config, rds) = match &manager.routes {
        RouteSource::Inline(config) => (Some(route::route_config(config, Vec::new())), None),
        RouteSource::Rds(name) => {
            (None, Some(json!({"route_config_name": &**name, "config_source": {"ads": {}}})))
        }
    };
    let upgrades: Vec<_> =
        manager.upgrades.iter().map(|name| json!({"upgrade_type": name})).collect();
    let access_logs: Vec<_> =
        manager.access_logs.iter().map(|log| json!({"path": &*log.path})).collect();
    let details = manager.client_cert_details;
    pruned(json!({
        "@type": TYPE,
        "codec_type": codec(manager.codec),
        "stat_prefix": manager.stat_prefix,
        "route_config": route_config,
        "rds": rds,
        "http_filters": filter::filters(&manager.filters),
        "server_name": manager.server_name.to_str().unwrap_or_default(),
        "server_header_transformation": server_header(manager.server_header),
        "common_http_protocol_options": pruned(json!({
            "idle_timeout": timeout(manager.idle_timeout),
            "max_connection_duration": manager.max_connection_duration.map(duration),
            "max_headers_count": manager.max_request_headers,
        })),
        "http_protocol_options": pruned(json!({"accept_http_10": manager.accept_http_10})),
        "http2_protocol_options": pruned(json!({
            "max_concurrent_streams": manager.max_concurrent_streams,
        })),
        "stream_idle_timeout": timeout(manager.stream_idle_timeout),
        "request_timeout": manager.request_timeout.map(duration),
        "request_headers_timeout": timeout(manager.request_headers_timeout),
        "drain_timeout": duration(manager.drain_timeout),
        "max_request_headers_kb": manager.max_request_headers_bytes / 1024,
        "access_log": access_logs,
        "use_remote_address": manager.use_remote_address,
        "xff_num_trusted_hops": manager.xff_trusted_hops,
        "generate_request_id": manager.generate_request_id,
        "forward_client_cert_details": forward_client_cert(manager.forward_client_cert),
        "set_current_client_cert_details": pruned(json!({
            "subject": details.subject,
            "uri": details.uri,
            "dns": details.dns,
        })),
        "normalize_path": manager.path.normalize,
        "merge_slashes": manager.path.merge_slashes,
        "path_with_escaped_slashes_action": escaped_slashes(manager.path.escaped_slashes),
        "upgrade_configs": upgrades,
    }))
}

/// A listener's direction.
pub fn direction(direction: TrafficDirection) -> &'static str {
    match direction {
        TrafficDirection::Inbound => "INBOUND",
        TrafficDirection::Outbound => "OUTBOUND",
    }
}

fn codec(codec: CodecType) -> &'static str {
    match codec {
        CodecType::Auto => "AUTO",
        CodecType::Http1 => "HTTP1",
        CodecType::Http2 => "HTTP2",
    }
}

fn server_header(header: ServerHeader) -> &'static str {
    match header {
        ServerHeader::Overwrite => "OVERWRITE",
        ServerHeader::AppendIfAbsent => "APPEND_IF_ABSENT",
        ServerHeader::PassThrough => "PASS_THROUGH",
    }
}

fn forward_client_cert(mode: ForwardClientCert) -> &'static str {
    match mode {
        ForwardClientCert::Sanitize => "SANITIZE",
        ForwardClientCert::ForwardOnly => "FORWARD_ONLY",
        ForwardClientCert::AppendForward => "APPEND_FORWARD",
        ForwardClientCert::SanitizeSet => "SANITIZE_SET",
        ForwardClientCert::AlwaysForwardOnly => "ALWAYS_FORWARD_ONLY",
    }
}

fn escaped_slashes(action: EscapedSlashes) -> &'static str {
    match action {
        EscapedSlashes::Keep => "KEEP_UNCHANGED",
        EscapedSlashes::Reject => "REJECT_REQUEST",
        EscapedSlashes::UnescapeAndRedirect => "UNESCAPE_AND_REDIRECT",
        EscapedSlashes::UnescapeAndForward => "UNESCAPE_AND_FORWARD",
    }
}
