//! The resources of `networking.istio.io` and `security.istio.io` as Rust types, their schemas, a parser for YAML and
//! JSON in any served version, and validation of one resource by itself.
//!
//! Sources (Kubernetes or a folder) feed [`parse_text`]; the index keeps the specs; `manifests/` holds the generated
//! definitions. What needs a second resource to judge (a missing subset, a duplicate host) is not decided here.
#![deny(missing_docs)]

pub mod cipher_suites;
mod definition;
mod finding;
mod kind;
mod message;
pub mod networking;
mod parse;
mod path;
mod resource;
mod schema;
pub mod security;
mod selector;
mod shape;
mod status;
mod validate;
mod value;

pub use definition::{chart_template, definition, manifest};
pub use finding::FieldError;
pub use kind::Kind;
pub use parse::{DEFAULT_NAMESPACE, Object, ParseError, Parsed, parse_document, parse_text};
pub use resource::AnyResource;
pub use selector::{PolicyTargetReference, WorkloadSelector};
pub use status::{AssignedAddress, Condition, ResourceStatus};
pub use validate::{Validation, validate};
pub use value::{Bytes, Duration, DurationError, Percent, StringMatch, grpc_status};
