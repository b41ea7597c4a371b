//! Objects in, snapshots out: tables of events and what clients are then told.
#![allow(clippy::unwrap_used)]

mod changes;
mod fixture;
mod order;
mod policies;
mod routing;
mod secrets;
mod services;
