//! Kubernetes' own objects as the model sees them.

pub(crate) mod pod;
pub(crate) mod service;
pub(crate) mod slice;
