//! The mesh model as plain values: services, endpoints, workloads and the policies that apply to them, with Istio's
//! rules of visibility, precedence and merging. No I/O, no async, no protobuf.
//!
//! `weft-index` builds [`snapshot::Snapshot`]s from watch events; `weft-xds` asks them questions.
//! Specs of resources are the types of `weft-crds`, already validated; a resource that is not valid never gets here.
#![deny(missing_docs)]

pub mod change;
pub mod credential;
pub mod destination_rule;
pub mod diagnosis;
pub mod endpoint;
pub mod gateway;
pub mod host;
pub mod mesh;
pub mod policy;
pub mod protocol;
pub mod resource;
pub mod selector;
pub mod service;
pub mod snapshot;
pub mod store;
pub mod view;
pub mod virtual_service;
pub mod workload;
