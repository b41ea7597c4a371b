//! AuthorizationPolicy: who may do what with a workload (`istio-behaviours` 1.6, 2.9).

use kube::CustomResource;

use crate::{
    PolicyTargetReference, ResourceStatus, WorkloadSelector,
    message::{enumeration, message},
};

message! {
    /// Who may do what with workloads.
    #[derive(CustomResource)]
    #[kube(
        group = "security.istio.io",
        version = "v1",
        kind = "AuthorizationPolicy",
        plural = "authorizationpolicies",
        shortname = "ap",
        namespaced,
        status = "ResourceStatus",
        schema = "disabled",
        derive = "PartialEq",
        derive = "Default",
        doc = "Says who may do what with workloads."
    )]
    #[schemars(extend("x-weft-one-of" = [["selector", "targetRef", "targetRefs"]]))]
    pub struct AuthorizationPolicySpec {
        /// The workloads. Unset is all of the namespace, or of the mesh in the root namespace.
        pub selector: Option<WorkloadSelector>,
        /// Attaches the policy to a gateway or service.
        pub target_ref: Option<PolicyTargetReference>,
        /// Attaches the policy to gateways or services.
        #[schemars(length(max = 16))]
        pub target_refs: Vec<PolicyTargetReference>,
        /// The requests: any of these. None matches no request: with ALLOW, nothing is allowed. An empty rule matches
        /// every request.
        #[schemars(length(max = 512))]
        pub rules: Vec<Rule>,
        /// What happens to them.
        pub action: AuthorizationAction,
        /// CUSTOM: who decides.
        pub provider: Option<ExtensionProvider>,
    }
}

enumeration! {
    /// What a policy does with the requests that it matches.
    pub enum AuthorizationAction {
        /// Lets them pass, and stops those that no such policy of the workload matches.
        Allow = "ALLOW",
        /// Stops them, whatever else allows them.
        Deny = "DENY",
        /// Notes them.
        Audit = "AUDIT",
        /// Asks a provider.
        Custom = "CUSTOM",
    }
}

message! {
    /// Who decides for CUSTOM.
    #[derive(Eq)]
    pub struct ExtensionProvider {
        /// A provider of the mesh's settings.
        pub name: String,
    }
}

message! {
    /// Requests that have all of these properties.
    #[derive(Eq)]
    pub struct Rule {
        /// From whom: any of these. Unset is anybody.
        #[schemars(length(min = 1, max = 512))]
        pub from: Vec<RuleFrom>,
        /// To do what: any of these. Unset is anything.
        #[schemars(length(min = 1))]
        pub to: Vec<RuleTo>,
        /// Further conditions: all of them.
        #[schemars(length(min = 1))]
        pub when: Vec<AuthorizationCondition>,
    }
}

message! {
    /// A client.
    #[derive(Eq)]
    pub struct RuleFrom {
        /// Its properties.
        pub source: Source,
    }
}

message! {
    /// A client that has all of these properties; of each list any value, of each `not` list none. A list must not be
    /// empty. Names can begin or end with `*`, which alone asks for presence.
    #[derive(Eq)]
    #[schemars(extend("x-kubernetes-validations" = [
        {
            "rule": "!(has(self.serviceAccounts) && (has(self.principals) || has(self.namespaces)))",
            "message": "serviceAccounts cannot be used together with principals or namespaces",
        },
        {
            "rule": "!(has(self.notServiceAccounts) && (has(self.notPrincipals) || has(self.notNamespaces)))",
            "message": "notServiceAccounts cannot be used together with notPrincipals or notNamespaces",
        },
    ]))]
    pub struct Source {
        /// Identities without `spiffe://`: `cluster.local/ns/default/sa/frontend`. Needs mutual TLS.
        #[schemars(length(min = 1))]
        pub principals: Vec<String>,
        /// No such identity.
        #[schemars(length(min = 1))]
        pub not_principals: Vec<String>,
        /// Identities of tokens: `issuer/subject`.
        #[schemars(length(min = 1))]
        pub request_principals: Vec<String>,
        /// No such identity of a token.
        #[schemars(length(min = 1))]
        pub not_request_principals: Vec<String>,
        /// Namespaces. Needs mutual TLS.
        #[schemars(length(min = 1))]
        pub namespaces: Vec<String>,
        /// No such namespace.
        #[schemars(length(min = 1))]
        pub not_namespaces: Vec<String>,
        /// Service accounts: `namespace/name`, or `name` in this resource's namespace. Needs mutual TLS.
        #[schemars(length(min = 1, max = 16), inner(length(max = 320)))]
        pub service_accounts: Vec<String>,
        /// No such service account.
        #[schemars(length(min = 1, max = 16), inner(length(max = 320)))]
        pub not_service_accounts: Vec<String>,
        /// Addresses or CIDR ranges of the connection's other end.
        #[schemars(length(min = 1))]
        pub ip_blocks: Vec<String>,
        /// No such address.
        #[schemars(length(min = 1))]
        pub not_ip_blocks: Vec<String>,
        /// Addresses or CIDR ranges of the original client, as forwarded by trusted proxies.
        #[schemars(length(min = 1))]
        pub remote_ip_blocks: Vec<String>,
        /// No such original client.
        #[schemars(length(min = 1))]
        pub not_remote_ip_blocks: Vec<String>,
        /// Trust domains of identities. Needs mutual TLS.
        #[schemars(length(min = 1))]
        pub trust_domains: Vec<String>,
        /// No such trust domain.
        #[schemars(length(min = 1))]
        pub not_trust_domains: Vec<String>,
    }
}

message! {
    /// Something to do with a workload.
    #[derive(Eq)]
    pub struct RuleTo {
        /// Its properties.
        pub operation: Operation,
    }
}

message! {
    /// A request that has all of these properties; of each list any value, of each `not` list none. A list must not be
    /// empty. Names can begin or end with `*`, which alone asks for presence.
    #[derive(Eq)]
    pub struct Operation {
        /// Hosts, case-insensitive, with or without port.
        #[schemars(length(min = 1))]
        pub hosts: Vec<String>,
        /// No such host.
        #[schemars(length(min = 1))]
        pub not_hosts: Vec<String>,
        /// Ports of the workload.
        #[schemars(length(min = 1))]
        pub ports: Vec<String>,
        /// No such port.
        #[schemars(length(min = 1))]
        pub not_ports: Vec<String>,
        /// Methods; for gRPC always POST.
        #[schemars(length(min = 1))]
        pub methods: Vec<String>,
        /// No such method.
        #[schemars(length(min = 1))]
        pub not_methods: Vec<String>,
        /// Paths without query; for gRPC `/package.Service/Method`. `{*}` stands for one segment, `{**}` for any number.
        #[schemars(length(min = 1))]
        pub paths: Vec<String>,
        /// No such path.
        #[schemars(length(min = 1))]
        pub not_paths: Vec<String>,
    }
}

message! {
    /// A further property of a request.
    #[derive(Eq)]
    #[schemars(extend("required" = ["key"]))]
    pub struct AuthorizationCondition {
        /// Which property, such as `request.headers[name]` or `source.namespace`.
        #[schemars(length(min = 1))]
        pub key: String,
        /// Values of which it has one.
        #[schemars(length(min = 1))]
        pub values: Vec<String>,
        /// Values of which it has none.
        #[schemars(length(min = 1))]
        pub not_values: Vec<String>,
    }
}
