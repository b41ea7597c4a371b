//! HTTP connection managers: inbound, outbound and at the edge (`istio-behaviours`, items 32, 50, 51 and 85).

use weft_api::xds::{
    envoy::{
        config::{
            core::v3::{Http1ProtocolOptions, HttpProtocolOptions},
            listener::v3::{Filter, filter},
        },
        extensions::filters::{
            http::{cors::v3::Cors, fault::v3::HttpFault, router::v3::Router},
            network::http_connection_manager::v3::{
                HttpConnectionManager, HttpFilter,
                http_connection_manager::{
                    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction,
                    RouteSpecifier, SetCurrentClientCertDetails, UpgradeConfig,
                },
                http_filter,
            },
        },
    },
    google::protobuf::{Any, Duration},
};
use weft_core::mesh::PathNormalization;

use super::{
    access_log,
    message::{boolean, uint32},
    scope::Scope,
};
use crate::wire;

pub(crate) const CORS: &str = "envoy.filters.http.cors";
pub(crate) const FAULT: &str = "envoy.filters.http.fault";
pub(crate) const LOCAL_RATE_LIMIT: &str = "envoy.filters.http.local_ratelimit";
const ROUTER: &str = "envoy.filters.http.router";
const MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// The largest head of a request, in KiB, and the most fields in it.
const MAX_HEAD_KIB: u32 = 64;
const MAX_HEAD_FIELDS: u32 = 100;

/// Which way requests flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// To the workload's application.
    Inbound,
    /// From the workload's application.
    Outbound,
    /// From anywhere, at the edge of the mesh.
    Edge,
}

pub(crate) fn filter(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}

pub(crate) fn network_filter(name: &str, config: Any) -> Filter {
    Filter { name: name.into(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

/// A connection manager. `filters` come before those that every chain ends with: fault, cross-origin policy (but inbound)
/// and router.
pub(crate) fn manager(
    scope: &Scope<'_>,
    side: Side,
    stat_prefix: String,
    routes: RouteSpecifier,
    mut filters: Vec<HttpFilter>,
    upgrades: &[&str],
) -> Filter {
    filters.push(filter(FAULT, wire::pack(&HttpFault::default())));
    if side != Side::Inbound {
        filters.push(filter(CORS, wire::pack(&Cors {})));
    }
    filters.push(filter(ROUTER, wire::pack(&Router::default())));
    let path = scope.mesh().path_normalization;
    let escaped = match path {
        PathNormalization::DecodeAndMergeSlashes => {
            PathWithEscapedSlashesAction::UnescapeAndForward
        }
        _ => PathWithEscapedSlashesAction::KeepUnchanged,
    };
    let merges =
        matches!(path, PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes);
    let upgrade =
        |name: &&str| UpgradeConfig { upgrade_type: (*name).into(), ..UpgradeConfig::default() };
    let mut manager = HttpConnectionManager {
        codec_type: CodecType::Auto.into(),
        stat_prefix,
        http_filters: filters,
        common_http_protocol_options: Some(HttpProtocolOptions {
            max_headers_count: Some(uint32(MAX_HEAD_FIELDS)),
            ..HttpProtocolOptions::default()
        }),
        // Old clients and health checkers are still about.
        http_protocol_options: Some(Http1ProtocolOptions {
            accept_http_10: true,
            ..Http1ProtocolOptions::default()
        }),
        max_request_headers_kb: Some(uint32(MAX_HEAD_KIB)),
        stream_idle_timeout: Some(Duration::default()),
        access_log: access_log::build(scope.mesh()),
        // What a client outside says of where it comes from is not believed.
        use_remote_address: Some(boolean(side == Side::Edge)),
        generate_request_id: Some(boolean(true)),
        upgrade_configs: upgrades.iter().map(upgrade).collect(),
        normalize_path: Some(boolean(path != PathNormalization::None)),
        merge_slashes: merges,
        path_with_escaped_slashes_action: escaped.into(),
        route_specifier: Some(routes),
        ..HttpConnectionManager::default()
    };
    if side != Side::Outbound {
        manager.server_name = "istio-envoy".into();
        manager.forward_client_cert_details = match side {
            Side::Edge => ForwardClientCertDetails::SanitizeSet,
            Side::Inbound | Side::Outbound => ForwardClientCertDetails::AppendForward,
        }
        .into();
        manager.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
            subject: Some(boolean(true)),
            dns: true,
            uri: true,
            ..SetCurrentClientCertDetails::default()
        });
    }
    network_filter(MANAGER, wire::pack(&manager))
}
