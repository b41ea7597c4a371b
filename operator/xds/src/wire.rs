//! Messages to bytes: always the same bytes for the same message.
//!
//! prost keeps protobuf maps in hash maps and writes their entries in an order that differs from call to call. Versions are
//! hashes of the bytes, so entries are sorted here. Which fields are maps is written down for the messages
//! that Weft builds; an `Any` inside was encoded here itself.

use bytes::Bytes;
use prost::{Message, Name, encoding::decode_varint};
use weft_api::xds::google::protobuf::Any;

/// What is known of a field.
enum Field {
    /// A map whose values hold no map.
    Map,
    /// A map whose values are messages that hold maps.
    MapOf(Shape),
    /// A message that holds maps.
    In(Shape),
}

/// The fields of a message that are or hold maps.
type Shape = fn(u32) -> Option<Field>;

fn none(_: u32) -> Option<Field> {
    None
}

fn struct_(field: u32) -> Option<Field> {
    (field == 1).then_some(Field::MapOf(value))
}

fn value(field: u32) -> Option<Field> {
    match field {
        5 => Some(Field::In(struct_)),
        6 => Some(Field::In(list_value)),
        _ => None,
    }
}

fn list_value(field: u32) -> Option<Field> {
    (field == 1).then_some(Field::In(value))
}

fn metadata(field: u32) -> Option<Field> {
    match field {
        1 => Some(Field::MapOf(struct_)),
        2 => Some(Field::Map),
        _ => None,
    }
}

fn cluster(field: u32) -> Option<Field> {
    match field {
        25 => Some(Field::In(metadata)),
        33 => Some(Field::In(load_assignment)),
        36 => Some(Field::Map),
        43 => Some(Field::In(transport_socket_match)),
        _ => None,
    }
}

fn transport_socket_match(field: u32) -> Option<Field> {
    (field == 2).then_some(Field::In(struct_))
}

fn load_assignment(field: u32) -> Option<Field> {
    (field == 2).then_some(Field::In(locality_endpoints))
}

fn locality_endpoints(field: u32) -> Option<Field> {
    (field == 2).then_some(Field::In(lb_endpoint))
}

fn lb_endpoint(field: u32) -> Option<Field> {
    (field == 3).then_some(Field::In(metadata))
}

fn route_configuration(field: u32) -> Option<Field> {
    match field {
        2 => Some(Field::In(virtual_host)),
        16 => Some(Field::Map),
        _ => None,
    }
}

fn virtual_host(field: u32) -> Option<Field> {
    match field {
        3 => Some(Field::In(route)),
        15 => Some(Field::Map),
        _ => None,
    }
}

fn route(field: u32) -> Option<Field> {
    match field {
        2 => Some(Field::In(route_action)),
        4 => Some(Field::In(metadata)),
        13 => Some(Field::Map),
        _ => None,
    }
}

fn route_action(field: u32) -> Option<Field> {
    (field == 3).then_some(Field::In(weighted_clusters))
}

fn weighted_clusters(field: u32) -> Option<Field> {
    (field == 1).then_some(Field::In(cluster_weight))
}

fn cluster_weight(field: u32) -> Option<Field> {
    (field == 10).then_some(Field::Map)
}

fn connection_manager(field: u32) -> Option<Field> {
    (field == 4).then_some(Field::In(route_configuration))
}

fn rbac_filter(field: u32) -> Option<Field> {
    matches!(field, 1 | 2).then_some(Field::In(rbac))
}

fn rbac(field: u32) -> Option<Field> {
    (field == 2).then_some(Field::Map)
}

fn file_access_log(field: u32) -> Option<Field> {
    match field {
        3 | 4 => Some(Field::In(struct_)),
        5 => Some(Field::In(substitution_format)),
        _ => None,
    }
}

fn substitution_format(field: u32) -> Option<Field> {
    (field == 2).then_some(Field::In(struct_))
}

fn shape_of(full_name: &str) -> Shape {
    match full_name {
        "envoy.config.cluster.v3.Cluster" => cluster,
        "envoy.config.endpoint.v3.ClusterLoadAssignment" => load_assignment,
        "envoy.config.route.v3.RouteConfiguration" => route_configuration,
        "envoy.config.route.v3.VirtualHost" => virtual_host,
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            connection_manager
        }
        "envoy.extensions.filters.http.rbac.v3.RBAC"
        | "envoy.extensions.filters.network.rbac.v3.RBAC" => rbac_filter,
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => file_access_log,
        _ => none,
    }
}

/// One field as it stands in the bytes: its number, its header, and its payload when that has a length.
struct Raw<'a> {
    field: u32,
    whole: &'a [u8],
    payload: Option<&'a [u8]>,
}

/// Takes the first field off. `None` for bytes that are no message, which prost does not write.
fn split<'a>(bytes: &mut &'a [u8]) -> Option<Raw<'a>> {
    let start = *bytes;
    let key = decode_varint(bytes).ok()?;
    let field = u32::try_from(key >> 3).ok()?;
    let mut payload = None;
    let mut skip = 0;
    match key & 7 {
        0 => {
            decode_varint(bytes).ok()?;
        }
        1 => skip = 8,
        2 => {
            skip = usize::try_from(decode_varint(bytes).ok()?).ok()?;
            payload = Some(bytes.get(..skip)?);
        }
        5 => skip = 4,
        _ => return None,
    }
    *bytes = bytes.get(skip..)?;
    Some(Raw { field, whole: &start[..start.len() - bytes.len()], payload })
}

fn write(out: &mut Vec<u8>, field: u32, payload: &[u8]) {
    prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, out);
    prost::encoding::encode_varint(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

fn entry_shape(value: Shape) -> impl Fn(u32) -> Option<Field> {
    move |field| (field == 2).then_some(Field::In(value))
}

/// The message with the entries of its maps in order.
fn sorted(mut bytes: &[u8], shape: &dyn Fn(u32) -> Option<Field>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut map: Option<(u32, Vec<Vec<u8>>)> = None;
    let flush = |map: &mut Option<(u32, Vec<Vec<u8>>)>, out: &mut Vec<u8>| {
        if let Some((field, mut entries)) = map.take() {
            entries.sort_unstable();
            entries.iter().for_each(|entry| write(out, field, entry));
        }
    };
    while !bytes.is_empty() {
        let raw = split(&mut bytes)?;
        if map.as_ref().is_some_and(|(field, _)| *field != raw.field) {
            flush(&mut map, &mut out);
        }
        let (Some(payload), Some(known)) = (raw.payload, shape(raw.field)) else {
            out.extend_from_slice(raw.whole);
            continue;
        };
        let entry = match known {
            Field::In(inner) => {
                write(&mut out, raw.field, &sorted(payload, &inner)?);
                continue;
            }
            Field::Map => payload.to_vec(),
            Field::MapOf(inner) => sorted(payload, &entry_shape(inner))?,
        };
        map.get_or_insert_with(|| (raw.field, Vec::new())).1.push(entry);
    }
    flush(&mut map, &mut out);
    Some(out)
}

/// The bytes of a message: equal messages, equal bytes.
pub fn encode<M: Message + Name>(message: &M) -> Bytes {
    let bytes = message.encode_to_vec();
    let shape = shape_of(&M::full_name());
    match sorted(&bytes, &shape) {
        Some(sorted) => sorted.into(),
        None => bytes.into(),
    }
}

/// The message as an `Any`: equal messages, equal bytes.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{}", M::full_name()),
        value: encode(message).to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use weft_api::xds::{
        envoy::config::{
            core::v3::Metadata,
            rbac::v3::{Policy, Rbac},
            route::v3::{Route, RouteConfiguration, VirtualHost},
        },
        envoy::extensions::filters::http::rbac::v3::Rbac as RbacFilter,
        google::protobuf::{Struct, Value, value::Kind},
    };

    use super::*;

    fn big_struct() -> Struct {
        let leaf = |n: usize| Value { kind: Some(Kind::StringValue(n.to_string())) };
        let inner = Struct { fields: (0..8).map(|n| (format!("inner{n}"), leaf(n))).collect() };
        let nested = Value { kind: Some(Kind::StructValue(inner)) };
        Struct { fields: (0..8).map(|n| (format!("key{n}"), nested.clone())).collect() }
    }

    fn routes() -> RouteConfiguration {
        let filter_metadata: HashMap<_, _> =
            (0..8).map(|n| (format!("filter{n}"), big_struct())).collect();
        let route = Route {
            name: "r".into(),
            metadata: Some(Metadata { filter_metadata, ..Metadata::default() }),
            typed_per_filter_config: (0..8).map(|n| (format!("f{n}"), Any::default())).collect(),
            ..Route::default()
        };
        RouteConfiguration {
            name: "name".into(),
            virtual_hosts: vec![VirtualHost {
                name: "v".into(),
                domains: vec!["*".into()],
                routes: vec![route.clone(), route],
                ..VirtualHost::default()
            }],
            ..RouteConfiguration::default()
        }
    }

    #[test]
    fn equal_messages_have_equal_bytes_that_decode_to_them() {
        let rbac = || RbacFilter {
            rules: Some(Rbac {
                policies: (0..9).map(|n| (format!("p{n}"), Policy::default())).collect(),
                ..Rbac::default()
            }),
            ..RbacFilter::default()
        };
        let bytes = (encode(&routes()), encode(&rbac()));
        for _ in 0..20 {
            assert_eq!((encode(&routes()), encode(&rbac())), bytes);
        }
        assert_eq!(RouteConfiguration::decode(bytes.0), Ok(routes()));
        assert_eq!(RbacFilter::decode(bytes.1), Ok(rbac()));
    }

    #[test]
    fn bytes_that_are_no_message_are_left_alone() {
        assert_eq!(sorted(&[0xff], &routes_shape()), None);
        assert_eq!(sorted(&[0x0a, 0x05, 1], &routes_shape()), None);
    }

    fn routes_shape() -> Shape {
        route_configuration
    }
}
