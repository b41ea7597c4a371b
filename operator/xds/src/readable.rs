//! Resources in readable form, for admin views: what decides where traffic goes, without what every resource has.
//!
//! Fed with what was sent; read by the operator's `/debug/config_dump`. Not a stable format: it is for people.

mod cluster;
mod listener;
mod matching;
mod route;

use prost::Message;
use serde_json::{Map, Value, json};
use weft_api::xds::{
    envoy::config::{
        cluster::v3::Cluster,
        core::v3::{Address, Metadata, address},
        endpoint::v3::ClusterLoadAssignment,
        listener::v3::Listener,
        route::v3::{RouteConfiguration, VirtualHost},
    },
    envoy::extensions::transport_sockets::tls::v3::{Secret, secret::Type as SecretType},
    google::protobuf::{Any, Duration, Struct, value::Kind},
};

use crate::ResourceType;

/// A resource's content.
pub fn resource(kind: ResourceType, body: &[u8]) -> Value {
    fn read<M: Message + Default>(body: &[u8], show: impl Fn(&M) -> Value) -> Value {
        M::decode(body).map_or_else(|error| json!({ "error": error.to_string() }), |m| show(&m))
    }
    match kind {
        ResourceType::Cluster => read::<Cluster>(body, cluster::cluster),
        ResourceType::Endpoints => read::<ClusterLoadAssignment>(body, cluster::assignment),
        ResourceType::Secret => read::<Secret>(body, secret),
        ResourceType::Listener => read::<Listener>(body, listener::listener),
        ResourceType::Route => read::<RouteConfiguration>(body, route::config),
        ResourceType::VirtualHost => read::<VirtualHost>(body, route::virtual_host),
    }
}

/// What a secret is, without its content.
fn secret(secret: &Secret) -> Value {
    let holds = match &secret.r#type {
        Some(SecretType::TlsCertificate(_)) => "certificate and key",
        Some(SecretType::ValidationContext(_)) => "authorities",
        _ => "something else",
    };
    json!({ "name": secret.name, "holds": holds })
}

/// An object without the fields that say nothing.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    object_of(fields)
}

fn object_of<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let says_something = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    let fields = fields.into_iter().filter(|(_, value)| says_something(value));
    Value::Object(fields.map(|(key, value)| (key.to_owned(), value)).collect())
}

/// The message inside, when it is of this type.
fn unpack<M: Message + prost::Name + Default>(any: &Any) -> Option<M> {
    let is = any.type_url.rsplit('/').next() == Some(M::full_name().as_str());
    is.then(|| M::decode(&*any.value).ok()).flatten()
}

fn address(address: &Address) -> String {
    use weft_api::xds::envoy::config::core::v3::socket_address::PortSpecifier;
    match &address.address {
        Some(address::Address::SocketAddress(socket)) => match &socket.port_specifier {
            Some(PortSpecifier::PortValue(port)) => format!("{}:{port}", socket.address),
            _ => socket.address.clone(),
        },
        Some(address::Address::Pipe(pipe)) => pipe.path.clone(),
        _ => String::new(),
    }
}

/// `1.5s`; nothing for what is not set.
fn duration(duration: Option<&Duration>) -> Value {
    duration.map_or(Value::Null, |duration| {
        let fraction = format!("{:09}", duration.nanos.unsigned_abs());
        let fraction = fraction.trim_end_matches('0');
        match fraction {
            "" => json!(format!("{}s", duration.seconds)),
            fraction => json!(format!("{}.{fraction}s", duration.seconds)),
        }
    })
}

fn plain(value: &weft_api::xds::google::protobuf::Value) -> Value {
    match &value.kind {
        Some(Kind::StringValue(text)) => json!(text),
        Some(Kind::NumberValue(number)) => json!(number),
        Some(Kind::BoolValue(value)) => json!(value),
        Some(Kind::StructValue(fields)) => fields_of(fields),
        Some(Kind::ListValue(list)) => list.values.iter().map(plain).collect(),
        Some(Kind::NullValue(_)) | None => Value::Null,
    }
}

fn fields_of(fields: &Struct) -> Value {
    let mut sorted: Vec<_> = fields.fields.iter().collect();
    sorted.sort_by_key(|(key, _)| *key);
    sorted.into_iter().map(|(key, value)| (key.clone(), plain(value))).collect::<Map<_, _>>().into()
}

fn metadata(metadata: Option<&Metadata>) -> Value {
    let Some(metadata) = metadata else { return Value::Null };
    let mut sorted: Vec<_> = metadata.filter_metadata.iter().collect();
    sorted.sort_by_key(|(key, _)| *key);
    let fields = sorted.into_iter().map(|(key, value)| (key.clone(), fields_of(value)));
    fields.collect::<Map<_, _>>().into()
}
