//! The schema that bootstrap files are read by is made of the descriptors that `envoy-types` ships: every message that a
//! bootstrap can hold and that the decoder knows something of. `WEFT_UPDATE=1 cargo test -p weft-proxy --test
//! bootstrap_schema` writes it anew.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

const FILE: &str = "src/control/bootstrap/schema.txt";

/// What a file begins with, and what an `Any` may hold.
const ROOTS: &[&str] = &[
    "envoy.config.bootstrap.v3.Bootstrap",
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.FilterConfig",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.cors.v3.CorsPolicy",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    "envoy.extensions.filters.http.on_demand.v3.OnDemand",
    "envoy.extensions.filters.http.rbac.v3.RBAC",
    "envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "envoy.extensions.filters.network.rbac.v3.RBAC",
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    "envoy.extensions.transport_sockets.tls.v3.Secret",
    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "envoy.service.discovery.v3.DiscoveryResponse",
];

/// What is known by name only: a field of such a type is refused as not supported, not as unknown.
const LEFT_OUT: &[&str] = &[
    "cel.expr.",
    "envoy.config.common.",
    "envoy.config.overload.",
    "envoy.config.ratelimit.",
    "envoy.config.trace.",
    "envoy.data.",
    "envoy.extensions.filters.common.matcher.",
    "envoy.type.http.",
    "google.api.",
    "xds.core.v3.CollectionEntry",
    "xds.core.v3.ResourceLocator",
    "xds.type.matcher.",
];

/// Types with a JSON form of their own, which the reader knows by itself.
const WELL_KNOWN: &[&str] = &[
    "google.protobuf.Any",
    "google.protobuf.BoolValue",
    "google.protobuf.BytesValue",
    "google.protobuf.DoubleValue",
    "google.protobuf.Duration",
    "google.protobuf.FloatValue",
    "google.protobuf.Int32Value",
    "google.protobuf.Int64Value",
    "google.protobuf.ListValue",
    "google.protobuf.StringValue",
    "google.protobuf.Struct",
    "google.protobuf.Timestamp",
    "google.protobuf.UInt32Value",
    "google.protobuf.UInt64Value",
    "google.protobuf.Value",
];

#[derive(Default)]
struct Types {
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
}

impl Types {
    fn of(set: FileDescriptorSet) -> Self {
        let mut types = Self::default();
        for FileDescriptorProto { package, message_type, enum_type, .. } in set.file {
            let package = package.unwrap_or_default();
            types.add(&package, message_type, enum_type);
        }
        types
    }

    fn add(
        &mut self,
        scope: &str,
        messages: Vec<DescriptorProto>,
        enums: Vec<EnumDescriptorProto>,
    ) {
        for found in enums {
            self.enums.insert(format!("{scope}.{}", found.name()), found);
        }
        for mut found in messages {
            let name = format!("{scope}.{}", found.name());
            let (nested, enums) =
                (std::mem::take(&mut found.nested_type), std::mem::take(&mut found.enum_type));
            self.add(&name, nested, enums);
            self.messages.insert(name, found);
        }
    }

    fn is_map(&self, name: &str) -> bool {
        self.messages[name].options.as_ref().is_some_and(prost_types::MessageOptions::map_entry)
    }
}

fn is_left_out(name: &str) -> bool {
    LEFT_OUT.iter().any(|prefix| name.starts_with(prefix))
}

/// Messages and enumerations that the roots lead to.
fn reachable(types: &Types) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let (mut messages, mut enums) = (BTreeSet::new(), BTreeSet::new());
    let mut open: VecDeque<&str> = ROOTS.iter().copied().collect();
    while let Some(name) = open.pop_front() {
        if WELL_KNOWN.contains(&name) || is_left_out(name) || !messages.insert(name) {
            continue;
        }
        let message = types.messages.get(name).unwrap_or_else(|| panic!("no message {name}"));
        for field in &message.field {
            let of = field.type_name().trim_start_matches('.');
            match field.r#type() {
                Type::Message => {
                    let (of, _) = types.messages.get_key_value(of).unwrap();
                    open.push_back(of);
                }
                Type::Enum => {
                    let (of, _) = types.enums.get_key_value(of).unwrap();
                    enums.insert(of.as_str());
                }
                _ => {}
            }
        }
    }
    messages.retain(|name| !types.is_map(name));
    (messages, enums)
}

fn kind(types: &Types, field: &FieldDescriptorProto) -> String {
    let of = field.type_name().trim_start_matches('.');
    match field.r#type() {
        Type::Message if WELL_KNOWN.contains(&of) => of.to_owned(),
        Type::Message if is_left_out(of) => "unsupported".to_owned(),
        Type::Message => match types.is_map(of).then(|| &types.messages[of].field[..]) {
            Some([key, value]) => {
                format!("map {} {}", kind(types, key), kind(types, value))
            }
            _ => of.to_owned(),
        },
        Type::Enum => format!("enum {of}"),
        Type::Group => panic!("a group"),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn schema(types: &Types) -> String {
    let (messages, enums) = reachable(types);
    let mut out = String::from(
        "# Made by the test `bootstrap_schema` from Envoy's descriptors. FIELD NUMBER[*] [@ONEOF] TYPE; * is a list.\n",
    );
    for name in messages {
        let message = &types.messages[name];
        writeln!(out, "\nmessage {name}").unwrap();
        for field in &message.field {
            let kind = kind(types, field);
            let list = match field.label() {
                Label::Repeated if !kind.starts_with("map ") => "*",
                _ => "",
            };
            let one_of = match field.oneof_index {
                Some(index) if !field.proto3_optional() => {
                    let index = usize::try_from(index).unwrap();
                    format!(" @{}", message.oneof_decl[index].name())
                }
                _ => String::new(),
            };
            writeln!(out, "{} {}{list}{one_of} {kind}", field.name(), field.number()).unwrap();
        }
    }
    for name in enums {
        writeln!(out, "\nenum {name}").unwrap();
        for value in &types.enums[name].value {
            writeln!(out, "{} {}", value.name(), value.number()).unwrap();
        }
    }
    out
}

/// `envoy-types` as cargo has it.
fn descriptors() -> FileDescriptorSet {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|package| package["name"] == "envoy-types")
        .unwrap();
    let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
    let bytes = std::fs::read(manifest.with_file_name("src/generated/types.bin")).unwrap();
    FileDescriptorSet::decode(&bytes[..]).unwrap()
}

#[test]
fn the_schema_is_that_of_envoys_descriptors() {
    let wanted = schema(&Types::of(descriptors()));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("WEFT_UPDATE").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{FILE} is not current; write it anew with WEFT_UPDATE=1");
}
