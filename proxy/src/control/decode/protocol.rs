//! What a cluster speaks: `HttpProtocolOptions`, and the older fields of the cluster itself.

use std::time::Duration;

use weft_api::xds::envoy::{
    config::{
        cluster::v3::{Cluster as PbCluster, cluster::ClusterProtocolSelection},
        core::v3::{
            Http2ProtocolOptions, HttpProtocolOptions as PbCommon, UpstreamHttpProtocolOptions,
        },
    },
    extensions::upstreams::http::v3::{
        HttpProtocolOptions as PbOptions,
        http_protocol_options::{UpstreamProtocolOptions, explicit_http_config::ProtocolConfig},
    },
};

use super::{
    invalid::{At, Invalid, refuse_all},
    value::{number, timeout_or, unpack},
};
use crate::config::cluster::UpstreamProtocol;

const EXTENSION: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// What is spoken to endpoints, and how long connections live.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// HTTP/1.1, HTTP/2, or what the client spoke.
    pub protocol: UpstreamProtocol,
    /// 0 is without limit.
    pub max_requests_per_connection: u32,
    /// A connection without requests is closed after so long.
    pub idle_timeout: Option<Duration>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// HTTP/2: streams at once on one connection.
    pub max_concurrent_streams: u32,
    /// HTTP/2 PING interval.
    pub http2_keepalive: Option<Duration>,
    /// SNI is the request's authority.
    pub auto_sni: bool,
}

/// Reads what the cluster says of its protocol.
pub fn protocol(cluster: &PbCluster) -> Result<Protocol, Invalid> {
    let older = if cluster.http2_protocol_options.is_some() {
        UpstreamProtocol::Http2
    } else if cluster.protocol_selection == ClusterProtocolSelection::UseDownstreamProtocol as i32 {
        UpstreamProtocol::Downstream
    } else {
        UpstreamProtocol::Http1
    };
    let mut protocol = Protocol {
        protocol: older,
        max_requests_per_connection: number(cluster.max_requests_per_connection.as_ref(), 0),
        idle_timeout: Some(Duration::from_secs(3600)),
        max_connection_duration: None,
        max_concurrent_streams: i32::MAX.unsigned_abs(),
        http2_keepalive: None,
        auto_sni: false,
    };
    if let Some(http2) = &cluster.http2_protocol_options {
        apply_http2(&mut protocol, http2).at("http2_protocol_options")?;
    }
    if let Some(common) = &cluster.common_http_protocol_options {
        apply_common(&mut protocol, common).at("common_http_protocol_options")?;
    }
    apply_upstream(&mut protocol, cluster.upstream_http_protocol_options.as_ref())
        .at("upstream_http_protocol_options")?;
    for (name, config) in &cluster.typed_extension_protocol_options {
        if name != EXTENSION {
            return Err(Invalid::unsupported_value(name)).at("typed_extension_protocol_options");
        }
        unpack(config)
            .and_then(|options| apply(&mut protocol, &options))
            .at_key("typed_extension_protocol_options", EXTENSION)?;
    }
    Ok(protocol)
}

fn apply(protocol: &mut Protocol, options: &PbOptions) -> Result<(), Invalid> {
    refuse_all(&[
        (!options.http_filters.is_empty(), "http_filters"),
        (options.header_validation_config.is_some(), "header_validation_config"),
        (options.outlier_detection.is_some(), "outlier_detection"),
        (!options.request_mirror_policies.is_empty(), "request_mirror_policies"),
        (!options.hash_policy.is_empty(), "hash_policy"),
        (options.retry_policy.is_some(), "retry_policy"),
    ])?;
    if let Some(common) = &options.common_http_protocol_options {
        apply_common(protocol, common).at("common_http_protocol_options")?;
    }
    apply_upstream(protocol, options.upstream_http_protocol_options.as_ref())
        .at("upstream_http_protocol_options")?;
    match &options.upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => {
            match &explicit.protocol_config {
                Some(ProtocolConfig::HttpProtocolOptions(_)) => {
                    protocol.protocol = UpstreamProtocol::Http1;
                }
                Some(ProtocolConfig::Http2ProtocolOptions(http2)) => {
                    protocol.protocol = UpstreamProtocol::Http2;
                    apply_http2(protocol, http2)
                        .at("explicit_http_config.http2_protocol_options")?;
                }
                Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                    return Err(Invalid::unsupported(
                        "explicit_http_config.http3_protocol_options",
                    ));
                }
                None => return Err(Invalid::missing("explicit_http_config.protocol_config")),
            }
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => {
            protocol.protocol = UpstreamProtocol::Downstream;
            if let Some(http2) = &config.http2_protocol_options {
                apply_http2(protocol, http2)
                    .at("use_downstream_protocol_config.http2_protocol_options")?;
            }
        }
        Some(UpstreamProtocolOptions::AutoConfig(_)) => {
            return Err(Invalid::unsupported("auto_config"));
        }
        None => {}
    }
    Ok(())
}

fn apply_common(protocol: &mut Protocol, common: &PbCommon) -> Result<(), Invalid> {
    refuse_all(&[
        (common.max_stream_duration.is_some(), "max_stream_duration"),
        (common.headers_with_underscores_action != 0, "headers_with_underscores_action"),
    ])?;
    protocol.idle_timeout =
        timeout_or(common.idle_timeout.as_ref(), "idle_timeout", protocol.idle_timeout)?;
    protocol.max_connection_duration = timeout_or(
        common.max_connection_duration.as_ref(),
        "max_connection_duration",
        protocol.max_connection_duration,
    )?;
    protocol.max_requests_per_connection =
        number(common.max_requests_per_connection.as_ref(), protocol.max_requests_per_connection);
    Ok(())
}

fn apply_http2(protocol: &mut Protocol, http2: &Http2ProtocolOptions) -> Result<(), Invalid> {
    refuse_all(&[
        (http2.allow_metadata, "allow_metadata"),
        (!http2.custom_settings_parameters.is_empty(), "custom_settings_parameters"),
    ])?;
    protocol.max_concurrent_streams =
        number(http2.max_concurrent_streams.as_ref(), protocol.max_concurrent_streams).max(1);
    if let Some(keepalive) = &http2.connection_keepalive {
        protocol.http2_keepalive =
            timeout_or(keepalive.interval.as_ref(), "connection_keepalive.interval", None)?;
    }
    Ok(())
}

fn apply_upstream(
    protocol: &mut Protocol,
    options: Option<&UpstreamHttpProtocolOptions>,
) -> Result<(), Invalid> {
    let Some(options) = options else {
        return Ok(());
    };
    refuse_all(&[(!options.override_auto_sni_header.is_empty(), "override_auto_sni_header")])?;
    protocol.auto_sni = options.auto_sni;
    Ok(())
}
