//! Small protobuf values: durations, wrappers, fractions, addresses, `Any`, `DataSource`.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use prost::{Message, Name};
use weft_api::xds::{
    envoy::{
        config::core::v3::{
            Address, CidrRange, DataSource, RuntimeFractionalPercent, SocketAddress, address,
            data_source, socket_address,
        },
        r#type::v3::{FractionalPercent, fractional_percent::DenominatorType},
    },
    google::protobuf::{self as pb, Any, BoolValue, Struct, UInt32Value, value::Kind},
};

use super::invalid::{At, Invalid, Reason};
use crate::config::filter::Fraction;

/// Reads a message from bytes.
pub fn message<T: Message + Name + Default>(bytes: &[u8]) -> Result<T, Invalid> {
    T::decode(bytes).map_err(|error| Invalid {
        path: String::new(),
        reason: Reason::Protobuf { message: T::NAME, error: error.to_string() },
    })
}

/// The message's name in a type URL.
pub fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// Whether an `Any` holds this message.
pub fn is<T: Name>(any: &Any) -> bool {
    type_name(any) == T::full_name()
}

/// Reads an `Any` that must hold this message.
pub fn unpack<T: Message + Name + Default>(any: &Any) -> Result<T, Invalid> {
    if is::<T>(any) { message(&any.value) } else { Err(Invalid::unsupported_value(type_name(any))) }
}

/// A duration that is not negative.
pub fn duration(value: &pb::Duration) -> Result<Duration, Invalid> {
    /// Ten thousand years: protobuf's own bound, and far from what a clock cannot add.
    const MAX_SECONDS: u64 = 315_576_000_000;
    let seconds = u64::try_from(value.seconds).ok().filter(|seconds| *seconds <= MAX_SECONDS);
    let nanos = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Ok(Duration::new(seconds, nanos)),
        _ => Err(Invalid::value(
            format!("{}s {}ns", value.seconds, value.nanos),
            "a duration of zero or more",
        )),
    }
}

/// A duration, or what holds when it is not given.
pub fn duration_or(
    value: Option<&pb::Duration>,
    field: &str,
    default: Duration,
) -> Result<Duration, Invalid> {
    value.map_or(Ok(default), duration).at(field)
}

/// A timeout, where zero means none.
pub fn timeout_or(
    value: Option<&pb::Duration>,
    field: &str,
    default: Option<Duration>,
) -> Result<Option<Duration>, Invalid> {
    match value {
        None => Ok(default),
        Some(value) => {
            duration(value).at(field).map(|duration| Some(duration).filter(|d| !d.is_zero()))
        }
    }
}

/// A wrapped boolean.
pub fn flag(value: Option<&BoolValue>) -> bool {
    value.is_some_and(|value| value.value)
}

/// A wrapped number.
pub fn number(value: Option<&UInt32Value>, default: u32) -> u32 {
    value.map_or(default, |value| value.value)
}

/// A port of the wire's 32-bit numbers.
pub fn port(value: u32) -> Result<u16, Invalid> {
    u16::try_from(value).map_err(|_| Invalid::value(value.to_string(), "a port"))
}

/// A fraction.
pub fn fraction(value: &FractionalPercent) -> Result<Fraction, Invalid> {
    let scale: u64 = match DenominatorType::try_from(value.denominator) {
        Ok(DenominatorType::Hundred) => 10_000,
        Ok(DenominatorType::TenThousand) => 100,
        Ok(DenominatorType::Million) => 1,
        Err(_) => {
            return Err(Invalid::value(value.denominator.to_string(), "a denominator"))
                .at("denominator");
        }
    };
    let parts = (u64::from(value.numerator) * scale).min(1_000_000);
    Ok(Fraction(u32::try_from(parts).unwrap_or(1_000_000)))
}

/// A fraction that Envoy could override at run time; Weft has no runtime, so the default counts.
pub fn runtime_fraction(
    value: Option<&RuntimeFractionalPercent>,
    default: Fraction,
) -> Result<Fraction, Invalid> {
    match value.and_then(|value| value.default_value.as_ref()) {
        Some(value) => fraction(value).at("default_value"),
        None => Ok(default),
    }
}

/// An address range.
pub fn cidr(range: &CidrRange) -> Result<IpNet, Invalid> {
    let address: IpAddr = range
        .address_prefix
        .parse()
        .map_err(|_| Invalid::value(&range.address_prefix, "an IP address"))
        .at("address_prefix")?;
    let bits = number(range.prefix_len.as_ref(), 0);
    u8::try_from(bits)
        .ok()
        .and_then(|bits| IpNet::new(address, bits).ok())
        .map(|net| net.trunc())
        .ok_or_else(|| Invalid::value(bits.to_string(), "a prefix length of that address"))
        .at("prefix_len")
}

/// The socket address of an `Address`.
pub fn socket(address: &Address) -> Result<&SocketAddress, Invalid> {
    match &address.address {
        Some(address::Address::SocketAddress(socket)) => {
            if socket.protocol == socket_address::Protocol::Tcp as i32 {
                Ok(socket)
            } else {
                Err(Invalid::unsupported("socket_address.protocol"))
            }
        }
        Some(address::Address::Pipe(_)) => Err(Invalid::unsupported("pipe")),
        Some(address::Address::EnvoyInternalAddress(_)) => {
            Err(Invalid::unsupported("envoy_internal_address"))
        }
        None => Err(Invalid::missing("socket_address")),
    }
}

/// A socket address's port.
pub fn socket_port(socket: &SocketAddress) -> Result<u16, Invalid> {
    match &socket.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(value)) => port(*value).at("port_value"),
        Some(socket_address::PortSpecifier::NamedPort(_)) => {
            Err(Invalid::unsupported("named_port"))
        }
        None => Err(Invalid::missing("port_value")),
    }
}

/// An IP address.
pub fn ip(text: &str) -> Result<IpAddr, Invalid> {
    text.parse().map_err(|_| Invalid::value(text, "an IP address"))
}

/// An IP address with its port.
pub fn socket_addr(address: &Address) -> Result<SocketAddr, Invalid> {
    let socket = socket(address)?;
    let ip = ip(&socket.address).at("socket_address.address")?;
    Ok(SocketAddr::new(ip, socket_port(socket).at("socket_address")?))
}

/// The bytes of a `DataSource` that holds them itself.
pub fn inline(source: &DataSource) -> Result<Vec<u8>, Invalid> {
    match &source.specifier {
        Some(data_source::Specifier::InlineBytes(bytes)) => Ok(bytes.clone()),
        Some(data_source::Specifier::InlineString(text)) => Ok(text.clone().into_bytes()),
        Some(data_source::Specifier::Filename(_)) => Err(Invalid::unsupported("filename")),
        Some(data_source::Specifier::EnvironmentVariable(_)) => {
            Err(Invalid::unsupported("environment_variable"))
        }
        None => Err(Invalid::missing("specifier")),
    }
}

/// The string under a path of keys of a `Struct`.
pub fn text_of<'a>(value: &'a Struct, key: &str) -> Option<&'a str> {
    match value.fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}
