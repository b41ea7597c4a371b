use super::*;
use crate::{
    config::{
        access_log::{Command, FormatPart, LogFormat},
        cluster::LbPolicy,
        filter::{Fraction, HttpFilter as Filter},
        http::RouteSource,
        listener::{Terminal, TransportMatch},
        rbac::RbacAction,
        route::{HeaderFormat, HeaderMutation, PathMatch, RouteAction},
        tls::{TlsSource, TlsVersions},
    },
    control::fixtures::*,
};
use proptest::prelude::{prop, proptest};
use prost::Message;
use std::time::Duration;
use weft_api::xds::{
    envoy::{
        config::{
            accesslog::v3::{
                AccessLog as PbLog, AccessLogFilter, ResponseFlagFilter, access_log,
                access_log_filter,
            },
            cluster::v3::{Cluster, OutlierDetection as PbOutlier},
            core::v3::{HeaderValue, HeaderValueOption},
            listener::v3::{FilterChainMatch as PbMatch, Listener as PbListener},
            rbac::v3::{Permission, Policy, Principal, Rbac as PbRules, permission, principal},
            route::v3::{
                HeaderMatcher, RetryPolicy as PbRetry, RouteConfiguration, VirtualHost as PbHost,
                header_matcher, route, route_action, route_match,
            },
        },
        extensions::{
            access_loggers::file::v3::{FileAccessLog, file_access_log},
            filters::{
                http::rbac::v3::Rbac as PbRbac,
                network::http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, http_connection_manager, http_filter,
                },
            },
        },
        r#type::matcher::v3::{RegexMatcher, StringMatcher as PbString, string_matcher},
    },
    google::protobuf::{self as pb, Struct, UInt32Value, Value, value::Kind as PbKind},
};

mod access_logs;
mod bytes;
mod clusters;
mod filters;
mod listeners;
mod routes;

fn decoder() -> Decoder {
    Decoder::new(&Settings::test()).unwrap()
}

fn listener(pb: &PbListener) -> Result<Listener, String> {
    decoder().listener(&pb.name, &any(pb)).map_err(|invalid| invalid.to_string())
}

fn host(pb: &PbHost) -> Result<VirtualHost, String> {
    decoder().virtual_host("r/h", &any(pb)).map_err(|invalid| invalid.to_string())
}

fn cluster(pb: &Cluster) -> Result<DecodedCluster, String> {
    decoder().cluster(&pb.name, &any(pb)).map_err(|invalid| invalid.to_string())
}

fn inline(config: RouteConfiguration) -> http_connection_manager::RouteSpecifier {
    http_connection_manager::RouteSpecifier::RouteConfig(config)
}

fn manager_listener(change: impl FnOnce(&mut HttpConnectionManager)) -> PbListener {
    let mut manager = connection_manager(inline(route_config("r", &["c"])), Vec::new());
    change(&mut manager);
    listener_of("l", &manager)
}

fn manager(listener: &Listener) -> &crate::config::http::HttpConnectionManager {
    match &listener.chains[0].terminal {
        Terminal::Http(manager) => manager,
        Terminal::Tcp(_) => panic!("not HTTP"),
    }
}

fn filter_of<T: Message + prost::Name>(name: &str, config: &T) -> HttpFilter {
    HttpFilter {
        name: name.into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(config))),
        ..HttpFilter::default()
    }
}

fn text_value(text: &str) -> Value {
    Value { kind: Some(PbKind::StringValue(text.into())) }
}
