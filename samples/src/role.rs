//! The roles of the sample application and whom each of them calls.

use std::fmt;

use http::Method;

/// One of the application's services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// What customers see; calls order-service.
    Storefront,
    /// Takes orders; calls user-service and payment-service.
    OrderService,
    /// Knows the customers; calls nobody.
    UserService,
    /// Takes the money; calls nobody.
    PaymentService,
    /// Stands for customers: calls what its tunnel is asked to call.
    Load,
}

/// A call that a role makes to answer a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// An HTTP request.
    Http {
        /// The method.
        method: Method,
        /// The service's name.
        service: &'static str,
        /// The path.
        path: String,
    },
    /// The gRPC call `Charge`.
    Charge {
        /// The service's name.
        service: &'static str,
        /// The order's number.
        order: String,
    },
}

impl Role {
    /// The service's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Storefront => "storefront",
            Self::OrderService => "order-service",
            Self::UserService => "user-service",
            Self::PaymentService => "payment-service",
            Self::Load => "load",
        }
    }

    /// The calls that a request to this path needs. Paths that are not the role's own need none, so that tests
    /// can ask any role for a plain answer.
    pub fn calls(self, path: &str) -> Vec<Call> {
        match (self, path.strip_prefix("/orders/")) {
            (Self::Storefront, order) => {
                let Some(order) = order.or((path == "/").then_some("1")) else { return Vec::new() };
                vec![Call::Http {
                    method: Method::GET,
                    service: "order-service",
                    path: format!("/orders/{order}"),
                }]
            }
            (Self::OrderService, Some(order)) => vec![
                Call::Http {
                    method: Method::GET,
                    service: "user-service",
                    path: format!("/users/{order}"),
                },
                Call::Http {
                    method: Method::POST,
                    service: "payment-service",
                    path: format!("/payments/{order}"),
                },
                Call::Charge { service: "payment-service", order: order.into() },
            ],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_roles_own_paths_need_upstreams() {
        let services = |role: Role, path: &str| -> Vec<&'static str> {
            let name = |call| match call {
                Call::Http { service, .. } | Call::Charge { service, .. } => service,
            };
            role.calls(path).into_iter().map(name).collect()
        };
        assert_eq!(services(Role::Storefront, "/"), ["order-service"]);
        assert_eq!(services(Role::Storefront, "/orders/7"), ["order-service"]);
        assert_eq!(
            services(Role::OrderService, "/orders/7"),
            ["user-service", "payment-service", "payment-service"]
        );
        assert_eq!(services(Role::OrderService, "/echo"), [""; 0]);
        assert_eq!(services(Role::UserService, "/orders/7"), [""; 0]);
    }
}
