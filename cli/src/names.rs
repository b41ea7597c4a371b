//! Names of what the chart and the operator make in a cluster.

/// Deployment, Service, ServiceAccount and roles, and the label `app` of the operator's pods.
pub const OPERATOR: &str = "weft-operator";
/// The settings of mesh and injector.
pub const CONFIG_MAP: &str = "weft";
/// Who injects.
pub const INJECTOR: &str = "weft-sidecar-injector";
/// Who validates.
pub const VALIDATOR: &str = "weft-validator";
/// Which replica writes statuses.
pub const LEASE: &str = "weft-leader";
/// The root of the authority that the operator made.
pub const CA_SECRET: &str = "weft-ca-secret";
/// The root certificate in namespaces.
pub const ROOT_CONFIG_MAP: &str = "istio-ca-root-cert";
/// Its key.
pub const ROOT_KEY: &str = "root-cert.pem";
/// The operator's administration port.
pub const ADMIN_PORT: u16 = 15014;
/// The mark of what the operator made.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "weft-operator");
/// The mark of definitions that are Weft's.
pub const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "weft");
