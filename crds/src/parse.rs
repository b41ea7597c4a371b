//! From YAML or JSON to resources.
//!
//! Strict about what it does not know (a field, a value, a type), because a typing error in a policy must not pass in
//! silence; lenient about spellings that protobuf's JSON allows. Kinds that are not ours are handed back as they are.

mod error;
mod yaml;

use std::sync::OnceLock;

use kube::core::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use self::error::ParseError;
use crate::{
    AnyResource, FieldError, Kind, ResourceStatus,
    networking::{DestinationRule, EnvoyFilter, Gateway, ServiceEntry, VirtualService},
    path::Path,
    security::{AuthorizationPolicy, PeerAuthentication},
    shape::Shape,
};

/// The namespace of resources that do not name one.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A document that was understood, as far as it is ours.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// A resource of one of our kinds.
    Ours(Box<AnyResource>),
    /// An object of another kind.
    Other(Object),
}

/// An object of a kind that is not ours, untouched.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its `apiVersion`; may be empty.
    pub api_version: String,
    /// Its `kind`; may be empty.
    pub kind: String,
    /// All of it.
    pub value: Value,
}

impl Object {
    /// The name in its metadata, if there is one.
    pub fn name(&self) -> Option<&str> {
        self.value.get("metadata")?.get("name")?.as_str()
    }

    /// The namespace in its metadata, if there is one.
    pub fn namespace(&self) -> Option<&str> {
        self.value.get("metadata")?.get("namespace")?.as_str()
    }
}

/// Parses a text of any number of YAML documents; empty ones are passed over, those of a `List` stand for their items.
/// An error of one document leaves the others; a text that is not YAML yields a single error.
pub fn parse_text(text: &str) -> Vec<Result<Parsed, ParseError>> {
    let documents = match yaml::documents(text) {
        Ok(documents) => documents,
        Err(error) => return vec![Err(error)],
    };
    let several = documents.iter().filter(|d| !d.is_null()).count() > 1;
    let mut parsed = Vec::with_capacity(documents.len());
    for (index, document) in documents.into_iter().enumerate() {
        if document.is_null() {
            continue;
        }
        let results = items(document).into_iter().map(parse_document);
        let place = several.then_some(index);
        parsed.extend(results.map(|result| result.map_err(|error| error.in_document(place))));
    }
    parsed
}

/// The items of a `List` or of a list of one kind, else the document itself.
fn items(mut document: Value) -> Vec<Value> {
    let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default();
    let Some(item_kind) = kind.strip_suffix("List").map(str::to_owned) else {
        return vec![document];
    };
    let api_version = document.get("apiVersion").cloned().unwrap_or_default();
    let Some(Value::Array(mut items)) = document.get_mut("items").map(Value::take) else {
        return vec![document];
    };
    // In lists of one kind Kubernetes leaves the kind out of the items.
    if !item_kind.is_empty() {
        for item in items.iter_mut().filter_map(Value::as_object_mut) {
            item.entry("kind").or_insert_with(|| item_kind.clone().into());
            item.entry("apiVersion").or_insert_with(|| api_version.clone());
        }
    }
    items
}

/// Parses one resource.
pub fn parse_document(document: Value) -> Result<Parsed, ParseError> {
    let Value::Object(mut object) = document else {
        return Err(ParseError::NotAnObject { document: None });
    };
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind_name) = (text("apiVersion"), text("kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let Some(kind) = Kind::find(group, &kind_name) else {
        let other = Object { api_version, kind: kind_name, value: Value::Object(object) };
        return Ok(Parsed::Other(other));
    };
    let mut problems = Vec::new();
    if !kind.versions().contains(&version) {
        let served = kind.versions().join(", ");
        let reason = format!("{kind} has no version {version:?}; served are {served}");
        problems.push(FieldError { path: "apiVersion".into(), reason });
    }
    let metadata = object.remove("metadata").unwrap_or_default();
    let place = Place::of(kind, &metadata);
    let metadata = read_metadata(metadata, &mut problems);
    // `spec:` without anything in it is an empty spec.
    let spec = object.remove("spec").filter(|v| !v.is_null()).unwrap_or_else(|| json!({}));
    let spec = kind.spec_shape().read(spec, &Path::root("spec"), &mut problems);
    let status = object.remove("status").filter(Value::is_object);
    for key in object.keys().filter(|key| !matches!(key.as_str(), "apiVersion" | "kind")) {
        problems.push(FieldError { path: key.clone(), reason: "unknown field".into() });
    }
    if !problems.is_empty() {
        return Err(place.error(problems));
    }
    // A status is the control plane's; one that a file carries along means nothing.
    let status = status.and_then(|status| serde_json::from_value(status).ok());
    build(kind, metadata, spec, status)
        .map(|resource| Parsed::Ours(Box::new(resource)))
        .map_err(|problem| place.error(vec![problem]))
}

/// Which resource an error speaks of.
struct Place {
    kind: Kind,
    namespace: String,
    name: String,
}

impl Place {
    fn of(kind: Kind, metadata: &Value) -> Self {
        let text = |key: &str| metadata.get(key).and_then(Value::as_str);
        Self {
            kind,
            namespace: text("namespace").unwrap_or(DEFAULT_NAMESPACE).to_owned(),
            name: text("name").unwrap_or_default().to_owned(),
        }
    }

    fn error(&self, problems: Vec<FieldError>) -> ParseError {
        ParseError::Resource {
            kind: self.kind,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            problems,
            document: None,
        }
    }
}

fn read_metadata(metadata: Value, problems: &mut Vec<FieldError>) -> ObjectMeta {
    static SHAPE: OnceLock<Shape> = OnceLock::new();
    let path = Path::root("metadata");
    if metadata.is_null() {
        problems.push(FieldError::new(&path.field("name"), "is required"));
        return ObjectMeta::default();
    }
    let before = problems.len();
    let read = SHAPE.get_or_init(Shape::of::<ObjectMeta>).read(metadata, &path, problems);
    if problems.len() > before {
        return ObjectMeta::default();
    }
    let mut metadata: ObjectMeta = match serde_json::from_value(read) {
        Ok(metadata) => metadata,
        Err(error) => {
            problems.push(FieldError::new(&path, error.to_string()));
            return ObjectMeta::default();
        }
    };
    match metadata.name.as_deref().unwrap_or_default() {
        "" => problems.push(FieldError::new(&path.field("name"), "is required")),
        name if !is_name(name, 253, true) => problems.push(FieldError::new(
            &path.field("name"),
            format!("{name:?} is not a name: lower-case letters, digits, - and . only"),
        )),
        _ => {}
    }
    let namespace = metadata.namespace.get_or_insert_with(|| DEFAULT_NAMESPACE.into());
    if !is_name(namespace, 63, false) {
        let reason =
            format!("{namespace:?} is not a namespace: lower-case letters, digits and - only");
        problems.push(FieldError::new(&path.field("namespace"), reason));
    }
    metadata
}

/// Whether a text can name an object (RFC 1123): names end up in paths and in the names of policies.
fn is_name(name: &str, most: usize, dots: bool) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.len() <= most && if dots { name.split('.').all(label) } else { label(name) }
}

fn build(
    kind: Kind,
    metadata: ObjectMeta,
    spec: Value,
    status: Option<ResourceStatus>,
) -> Result<AnyResource, FieldError> {
    macro_rules! resource {
        ($kind:ident) => {
            AnyResource::$kind($kind { metadata, spec: from_value(spec)?, status })
        };
    }
    Ok(match kind {
        Kind::VirtualService => resource!(VirtualService),
        Kind::DestinationRule => resource!(DestinationRule),
        Kind::Gateway => resource!(Gateway),
        Kind::ServiceEntry => resource!(ServiceEntry),
        Kind::EnvoyFilter => resource!(EnvoyFilter),
        Kind::PeerAuthentication => resource!(PeerAuthentication),
        Kind::AuthorizationPolicy => resource!(AuthorizationPolicy),
    })
}

/// What has the right shape deserialises; should it not, that is an error of the resource and no panic.
fn from_value<T: DeserializeOwned>(spec: Value) -> Result<T, FieldError> {
    serde_json::from_value(spec)
        .map_err(|error| FieldError { path: "spec".into(), reason: error.to_string() })
}
