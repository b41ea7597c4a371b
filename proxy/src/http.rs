//! HTTP: from a client's connection to a response.
//!
//! [`downstream`] runs the connection, [`manager`] takes each request through the filters, [`router`] forwards it, and
//! [`record`] says afterwards what became of it.

pub mod access_log;
pub mod cors;
pub mod downstream;
pub mod fault;
pub mod grpc;
pub mod head;
pub mod incoming;
pub mod manager;
pub mod matching;
pub mod mirror;
pub mod mutate;
pub mod path;
pub mod rate_limit;
pub mod rbac;
pub mod record;
pub mod replay;
pub mod response;
pub mod retry;
pub mod router;
pub mod routes;
pub mod sanitize;
pub mod seen;
pub mod telemetry;
pub mod upgrade;
