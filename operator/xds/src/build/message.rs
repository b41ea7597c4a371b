//! Small protobuf messages that every resource is made of.

use std::{net::IpAddr, time};

use weft_api::xds::{
    envoy::{
        config::core::v3::{
            Address, AggregatedConfigSource, ApiVersion, ConfigSource, Metadata,
            RuntimeFractionalPercent, SocketAddress, TransportSocket, address::Address as Kind,
            config_source::ConfigSourceSpecifier, socket_address::PortSpecifier, transport_socket,
        },
        r#type::v3::{FractionalPercent, fractional_percent::DenominatorType},
    },
    google::protobuf::{
        BoolValue, Duration, ListValue, Struct, UInt32Value, UInt64Value, Value, value,
    },
};

use crate::wire;

pub(crate) fn duration(duration: time::Duration) -> Duration {
    Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        // Below 10^9, which fits.
        nanos: duration.subsec_nanos().cast_signed(),
    }
}

pub(crate) fn uint32(value: u32) -> UInt32Value {
    UInt32Value { value }
}

pub(crate) fn uint64(value: u64) -> UInt64Value {
    UInt64Value { value }
}

pub(crate) fn boolean(value: bool) -> BoolValue {
    BoolValue { value }
}

pub(crate) fn address(ip: IpAddr, port: u16) -> Address {
    let port = PortSpecifier::PortValue(port.into());
    let socket = SocketAddress {
        address: ip.to_string(),
        port_specifier: Some(port),
        ..SocketAddress::default()
    };
    Address { address: Some(Kind::SocketAddress(socket)) }
}

pub(crate) fn named_address(name: &str, port: u16) -> Address {
    let socket = SocketAddress {
        address: name.into(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..SocketAddress::default()
    };
    Address { address: Some(Kind::SocketAddress(socket)) }
}

/// From the stream that this resource came by.
pub(crate) fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        initial_fetch_timeout: Some(Duration::default()),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

/// A share in percent, as exactly as Envoy keeps it.
pub(crate) fn percent(percent: f64) -> FractionalPercent {
    // In range after the clamp; what is cut off is less than a millionth.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let numerator = (percent.clamp(0.0, 100.0) * 10_000.0).round() as u32;
    FractionalPercent { numerator, denominator: DenominatorType::Million.into() }
}

pub(crate) fn runtime_percent(share: f64) -> RuntimeFractionalPercent {
    RuntimeFractionalPercent { default_value: Some(percent(share)), ..Default::default() }
}

pub(crate) fn text(text: impl Into<String>) -> Value {
    Value { kind: Some(value::Kind::StringValue(text.into())) }
}

pub(crate) fn number(number: u16) -> Value {
    Value { kind: Some(value::Kind::NumberValue(number.into())) }
}

pub(crate) fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(value::Kind::ListValue(ListValue { values })) }
}

pub(crate) fn object<const N: usize>(fields: [(&str, Value); N]) -> Struct {
    Struct { fields: fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect() }
}

pub(crate) fn nested(fields: Struct) -> Value {
    Value { kind: Some(value::Kind::StructValue(fields)) }
}

pub(crate) fn metadata(filters: impl IntoIterator<Item = (&'static str, Struct)>) -> Metadata {
    Metadata {
        filter_metadata: filters.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        ..Metadata::default()
    }
}

pub(crate) fn transport_socket<M: prost::Message + prost::Name>(
    name: &str,
    config: &M,
) -> TransportSocket {
    TransportSocket {
        name: name.into(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(wire::pack(config))),
    }
}
