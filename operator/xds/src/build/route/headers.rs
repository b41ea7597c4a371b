//! Header operations of routes and of their destinations (`istio-behaviours`, item 18).

use weft_api::xds::envoy::config::{
    core::v3::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction},
    route::v3::Route,
};
use weft_crds::networking::{HeaderOperations, Headers, HttpRoute};

/// Operations in Envoy's form, and the authority that replaces the request's.
#[derive(Debug, Default)]
pub(super) struct Mutations {
    pub(super) request_add: Vec<HeaderValueOption>,
    pub(super) request_remove: Vec<String>,
    pub(super) response_add: Vec<HeaderValueOption>,
    pub(super) response_remove: Vec<String>,
    pub(super) authority: Option<String>,
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

fn option(name: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
    // A value is a format to Envoy. What cannot be one means itself: refusing it would refuse all that comes with it.
    let value = if value.matches('%').count().is_multiple_of(2) {
        value.to_owned()
    } else {
        value.replace('%', "%%")
    };
    HeaderValueOption {
        header: Some(HeaderValue { key: name.into(), value, ..HeaderValue::default() }),
        append_action: action.into(),
        ..HeaderValueOption::default()
    }
}

fn additions(operations: &HeaderOperations) -> Vec<HeaderValueOption> {
    let plain = |(name, _): &(&String, &String)| !name.starts_with(':') && !is_authority(name);
    let set = operations.set.iter().filter(plain);
    let add = operations.add.iter().filter(plain);
    set.map(|(name, value)| option(name, value, HeaderAppendAction::OverwriteIfExistsOrAdd))
        .chain(
            add.map(|(name, value)| option(name, value, HeaderAppendAction::AppendIfExistsOrAdd)),
        )
        .collect()
}

fn removals(operations: &HeaderOperations) -> Vec<String> {
    let plain =
        operations.remove.iter().filter(|name| !name.starts_with(':') && !is_authority(name));
    plain.cloned().collect()
}

impl Mutations {
    pub(super) fn of(headers: Option<&Headers>) -> Self {
        let Some(headers) = headers else { return Self::default() };
        let mut mutations = Self::default();
        if let Some(request) = &headers.request {
            mutations.request_add = additions(request);
            mutations.request_remove = removals(request);
            let mut set = request.set.iter().chain(&request.add);
            mutations.authority =
                set.find(|(name, _)| is_authority(name)).map(|(_, value)| value.clone());
        }
        if let Some(response) = &headers.response {
            mutations.response_add = additions(response);
            mutations.response_remove = removals(response);
        }
        mutations
    }
}

/// The operations of a route, and those of its destination when there is only one.
pub(super) fn apply(route: &mut Route, rule: &HttpRoute) {
    let only = match rule.route.as_slice() {
        [only] => only.headers.as_ref(),
        _ => None,
    };
    for headers in [rule.headers.as_ref(), only] {
        let mutations = Mutations::of(headers);
        route.request_headers_to_add.extend(mutations.request_add);
        route.request_headers_to_remove.extend(mutations.request_remove);
        route.response_headers_to_add.extend(mutations.response_add);
        route.response_headers_to_remove.extend(mutations.response_remove);
    }
}
