//! Validation of a VirtualService's HTTP routes.

use super::{
    Validation, text,
    virtual_service::{destination, gateways, source, weights},
};
use crate::{
    StringMatch, grpc_status,
    networking::{
        CorsPolicy, Delegate, FaultAbort, FaultDelay, HeaderOperations, Headers,
        HttpDirectResponse, HttpFaultInjection, HttpMatchRequest, HttpRedirect, HttpRetry,
        HttpRewrite, HttpRoute, VirtualServiceSpec,
    },
    path::Path,
};

/// A key of `headers` that stands for a claim of the request's token.
const CLAIM: &str = "@request.auth.claims";

/// Bodies of direct responses are kept in every proxy.
const BODY_ERROR: usize = 1024 * 1024;
const BODY_WARNING: usize = 100 * 1024;

/// Conditions for retries; numbers are status codes.
const RETRY_ON: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

pub(super) fn validate_all(spec: &VirtualServiceSpec, report: &mut Validation) {
    let (root, is_delegate) = (Path::root("spec"), spec.hosts.is_empty());
    let list = root.field("http");
    for (index, route) in spec.http.iter().enumerate() {
        let path = list.index(index);
        http_route(route, is_delegate, &path, report);
        if let Some(before) = spec.http[..index].iter().position(|r| shadows(r, route)) {
            report.warn(&path, format!("is never reached: spec.http[{before}] comes first"));
        }
    }
}

/// Whether the first of two routes leaves no request for the second.
fn shadows(first: &HttpRoute, second: &HttpRoute) -> bool {
    let covered = |wanted: &HttpMatchRequest| {
        first.matches.iter().any(|given| is_catch_all(given) || same_requests(given, wanted))
    };
    first.matches.is_empty()
        || first.matches.iter().any(is_catch_all)
        || (!second.matches.is_empty() && second.matches.iter().all(covered))
}

fn is_catch_all(request: &HttpMatchRequest) -> bool {
    let every_path = match &request.uri {
        None | Some(StringMatch::Unset) => true,
        Some(StringMatch::Prefix(prefix)) => prefix.is_empty() || prefix == "/",
        Some(StringMatch::Regex(regex)) => regex == ".*",
        Some(StringMatch::Exact(_)) => false,
    };
    every_path
        && same_requests(&HttpMatchRequest { uri: None, ..request.clone() }, &Default::default())
}

fn same_requests(a: &HttpMatchRequest, b: &HttpMatchRequest) -> bool {
    let bare = |request: &HttpMatchRequest| HttpMatchRequest {
        name: String::new(),
        stat_prefix: String::new(),
        ignore_uri_case: request.ignore_uri_case && request.uri.is_some(),
        ..request.clone()
    };
    bare(a) == bare(b)
}

fn http_route(route: &HttpRoute, is_delegate: bool, path: &Path<'_>, report: &mut Validation) {
    action(route, is_delegate, path, report);
    let list = path.field("match");
    for (index, request) in route.matches.iter().enumerate() {
        match_request(request, &list.index(index), report);
    }
    let list = path.field("route");
    weights(route.route.iter().map(|d| d.weight), &list, report);
    for (index, target) in route.route.iter().enumerate() {
        let at = list.index(index);
        destination(&target.destination, &at.field("destination"), report);
        headers(target.headers.as_ref(), &at.field("headers"), report);
    }
    report.check(&path.field("timeout"), text::duration_or_zero(route.timeout));
    if let Some(retries) = &route.retries {
        retry(retries, &path.field("retries"), report);
    }
    if let Some(fault) = &route.fault {
        self::fault(fault, &path.field("fault"), report);
    }
    if let Some(cors) = &route.cors_policy {
        self::cors(cors, &path.field("corsPolicy"), report);
    }
    headers(route.headers.as_ref(), &path.field("headers"), report);
    mirror(route, path, report);
}

/// What a route does: exactly one thing.
fn action(route: &HttpRoute, is_delegate: bool, path: &Path<'_>, report: &mut Validation) {
    let actions = [
        ("route", !route.route.is_empty()),
        ("redirect", route.redirect.is_some()),
        ("directResponse", route.direct_response.is_some()),
        ("delegate", route.delegate.is_some()),
    ];
    let chosen: Vec<&str> = actions.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    match chosen.as_slice() {
        [] => report
            .error(path, "does nothing: route, redirect, directResponse or delegate is required"),
        [_] => {}
        several => report.error(path, format!("only one of {} can be set", several.join(", "))),
    }
    if route.rewrite.is_some() && (route.redirect.is_some() || route.direct_response.is_some()) {
        let reason = "cannot be set together with redirect or directResponse";
        report.error(&path.field("rewrite"), reason);
    }
    if let Some(delegate) = &route.delegate {
        self::delegate(delegate, is_delegate, &path.field("delegate"), report);
    }
    if let Some(redirect) = &route.redirect {
        self::redirect(redirect, &path.field("redirect"), report);
    }
    if let Some(response) = &route.direct_response {
        direct_response(response, &path.field("directResponse"), report);
    }
    if let Some(rewrite) = &route.rewrite {
        self::rewrite(rewrite, &path.field("rewrite"), report);
    }
}

fn delegate(delegate: &Delegate, is_delegate: bool, path: &Path<'_>, report: &mut Validation) {
    if is_delegate {
        report
            .error(path, "a VirtualService without hosts is a delegate itself and cannot have one");
    }
    if delegate.name.is_empty() {
        report.error(&path.field("name"), "is required");
    } else {
        report.check(&path.field("name"), text::domain(&delegate.name));
    }
    if !delegate.namespace.is_empty() && !text::is_label(&delegate.namespace) {
        report.error(
            &path.field("namespace"),
            format!("{:?} is not a namespace", delegate.namespace),
        );
    }
}

fn match_request(request: &HttpMatchRequest, path: &Path<'_>, report: &mut Validation) {
    for (field, value) in [
        ("uri", &request.uri),
        ("scheme", &request.scheme),
        ("method", &request.method),
        ("authority", &request.authority),
    ] {
        if let Some(value) = value {
            report.check(&path.field(field), text::string_match(value, false));
        }
    }
    for (field, headers) in
        [("headers", &request.headers), ("withoutHeaders", &request.without_headers)]
    {
        let list = path.field(field);
        for (name, value) in headers {
            let at = list.key(name);
            if name.starts_with(CLAIM) {
                report.warn(&at, "takes effect in gateways only: sidecars do not look at claims");
            } else if !name.starts_with(':') {
                report.check(&at, text::header_name(name));
            }
            report.check(&at, text::string_match(value, true));
        }
    }
    let list = path.field("queryParams");
    for (name, value) in &request.query_params {
        if name.is_empty() {
            report.error(&list, "a query parameter needs a name");
        }
        report.check(&list.key(name), text::string_match(value, true));
    }
    source(request.port, &request.source_labels, path, report);
    gateways(&request.gateways, &path.field("gateways"), report);
}

fn headers(headers: Option<&Headers>, path: &Path<'_>, report: &mut Validation) {
    let Some(headers) = headers else { return };
    for (field, operations) in [("request", &headers.request), ("response", &headers.response)] {
        if let Some(operations) = operations {
            header_operations(operations, &path.field(field), report);
        }
    }
}

fn header_operations(operations: &HeaderOperations, path: &Path<'_>, report: &mut Validation) {
    for (field, values) in [("set", &operations.set), ("add", &operations.add)] {
        let list = path.field(field);
        for (name, value) in values {
            let at = list.key(name);
            match name.strip_prefix(':') {
                Some("authority") => {}
                Some(_) => report.warn(
                    &at,
                    "has no effect: of the pseudo headers only :authority can be changed",
                ),
                None => report.check(&at, text::header_name(name)),
            }
            report.check(&at, text::header_value(value));
        }
    }
    let list = path.field("remove");
    for (index, name) in operations.remove.iter().enumerate() {
        report.check(&list.index(index), text::header_name(name));
    }
}

fn redirect(redirect: &HttpRedirect, path: &Path<'_>, report: &mut Validation) {
    let HttpRedirect { uri, authority, scheme, prefix_rewrite, .. } = redirect;
    let changes = ![uri, authority, scheme, prefix_rewrite].iter().all(|text| text.is_empty());
    if !changes
        && redirect.port.is_none()
        && redirect.derive_port.is_none()
        && redirect.redirect_code == 0
    {
        report.error(path, "must say where to: uri, authority, scheme, port or prefixRewrite");
    }
    if !uri.is_empty() && !prefix_rewrite.is_empty() {
        report.error(path, "only one of uri, prefixRewrite can be set");
    }
    if !matches!(scheme.as_str(), "" | "http" | "https") {
        report.error(&path.field("scheme"), format!("{scheme:?} is neither http nor https"));
    }
    if let Some(port) = redirect.port {
        report.check(&path.field("port"), text::port(port));
    }
    if !matches!(redirect.redirect_code, 0 | 301 | 302 | 303 | 307 | 308) {
        let reason = format!("must be 301, 302, 303, 307 or 308, not {}", redirect.redirect_code);
        report.error(&path.field("redirectCode"), reason);
    }
    if !authority.is_empty() {
        report.check(&path.field("authority"), text::header_value(authority));
    }
    report.check(&path.field("uri"), text::header_value(uri));
}

fn direct_response(response: &HttpDirectResponse, path: &Path<'_>, report: &mut Validation) {
    if !(200..600).contains(&response.status) {
        let reason = format!("must be from 200 to 599, not {}", response.status);
        report.error(&path.field("status"), reason);
    }
    if let Some(body) = &response.body {
        let (at, size) = (path.field("body"), body.content().len());
        if size > BODY_ERROR {
            report.error(&at, format!("has {size} bytes, more than {BODY_ERROR}"));
        } else if size > BODY_WARNING {
            report.warn(&at, format!("has {size} bytes, which every proxy keeps in memory"));
        }
    }
}

fn rewrite(rewrite: &HttpRewrite, path: &Path<'_>, report: &mut Validation) {
    if rewrite.uri.is_empty() && rewrite.authority.is_empty() && rewrite.uri_regex_rewrite.is_none()
    {
        report.error(path, "must have uri, authority or uriRegexRewrite");
    }
    report.check(&path.field("uri"), text::header_value(&rewrite.uri));
    report.check(&path.field("authority"), text::header_value(&rewrite.authority));
    if let Some(replacement) = &rewrite.uri_regex_rewrite {
        let at = path.field("uriRegexRewrite");
        if !rewrite.uri.is_empty() {
            report.error(path, "only one of uri, uriRegexRewrite can be set");
        }
        if replacement.pattern.is_empty() || replacement.rewrite.is_empty() {
            report.error(&at, "must have both match and rewrite");
        }
        report.check(&at.field("match"), text::regex(&replacement.pattern));
    }
}

fn retry(retries: &HttpRetry, path: &Path<'_>, report: &mut Validation) {
    let detailed = retries.per_try_timeout.is_some()
        || !retries.retry_on.is_empty()
        || retries.retry_remote_localities.is_some()
        || retries.backoff.is_some();
    if retries.attempts == 0 && detailed {
        report.error(
            path,
            "attempts of 0 switches retries off, so that the other fields mean nothing",
        );
    }
    report.check(&path.field("perTryTimeout"), text::duration_or_zero(retries.per_try_timeout));
    report.check(&path.field("backoff"), text::duration(retries.backoff));
    if retries.retry_on.is_empty() {
        return;
    }
    let at = path.field("retryOn");
    for condition in retries.retry_on.split(',').map(str::trim) {
        if let Ok(status) = condition.parse::<u16>() {
            if !(100..600).contains(&status) {
                report.error(&at, format!("{status} is not a status code"));
            }
        } else if !RETRY_ON.contains(&condition) {
            let known = RETRY_ON.join(", ");
            report.error(
                &at,
                format!("{condition:?} is not a condition; known are status codes and {known}"),
            );
        }
    }
}

fn fault(fault: &HttpFaultInjection, path: &Path<'_>, report: &mut Validation) {
    if fault.delay.is_none() && fault.abort.is_none() {
        report.error(path, "must have delay or abort");
    }
    if let Some(delay) = &fault.delay {
        fault_delay(delay, &path.field("delay"), report);
    }
    if let Some(abort) = &fault.abort {
        fault_abort(abort, &path.field("abort"), report);
    }
}

fn fault_delay(delay: &FaultDelay, path: &Path<'_>, report: &mut Validation) {
    if delay.exponential_delay.is_some() {
        report.error(&path.field("exponentialDelay"), "is not supported: use fixedDelay");
    } else if delay.fixed_delay.is_none() {
        report.error(&path.field("fixedDelay"), "is required");
    }
    report.check(&path.field("fixedDelay"), text::duration(delay.fixed_delay));
    report.check(&path.field("percentage"), text::percent(delay.percentage));
    if delay.percent > 100 {
        report.error(&path.field("percent"), "a share must be from 0 to 100");
    }
    if delay.percent > 0 {
        report.warn(&path.field("percent"), "is deprecated: use percentage");
    } else if delay.percentage.is_none() {
        report.warn(&path.field("percentage"), "is not set, so that no request is delayed");
    }
}

fn fault_abort(abort: &FaultAbort, path: &Path<'_>, report: &mut Validation) {
    if abort.http2_error.is_some() {
        report.error(&path.field("http2Error"), "is not supported: use httpStatus or grpcStatus");
    } else if abort.http_status.is_none() && abort.grpc_status.is_none() {
        report.error(path, "must have httpStatus or grpcStatus");
    }
    if let Some(status) = abort.http_status
        && !(200..600).contains(&status)
    {
        report.error(&path.field("httpStatus"), format!("must be from 200 to 599, not {status}"));
    }
    if let Some(status) = &abort.grpc_status
        && grpc_status(status).is_none()
    {
        report.error(&path.field("grpcStatus"), format!("{status:?} is not a gRPC status"));
    }
    report.check(&path.field("percentage"), text::percent(abort.percentage));
    if abort.percentage.is_none() {
        report.warn(&path.field("percentage"), "is not set, so that no request fails");
    }
}

fn cors(cors: &CorsPolicy, path: &Path<'_>, report: &mut Validation) {
    if !cors.allow_origin.is_empty() {
        report.warn(&path.field("allowOrigin"), "is deprecated: use allowOrigins");
    }
    let list = path.field("allowOrigins");
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        report.check(&list.index(index), text::string_match(origin, false));
    }
    let list = path.field("allowMethods");
    for (index, method) in cors.allow_methods.iter().enumerate() {
        report.check(&list.index(index), text::method(method));
    }
    for (field, names) in
        [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)]
    {
        let list = path.field(field);
        for (index, name) in names.iter().enumerate() {
            report.check(&list.index(index), text::header_name(name));
        }
    }
    if cors.max_age.is_some_and(|age| age.0.subsec_nanos() > 0) {
        report.warn(&path.field("maxAge"), "is cut down to whole seconds");
    }
}

fn mirror(route: &HttpRoute, path: &Path<'_>, report: &mut Validation) {
    if let Some(target) = &route.mirror {
        destination(target, &path.field("mirror"), report);
        if !route.mirrors.is_empty() {
            report.error(path, "only one of mirror, mirrors can be set");
        }
    }
    let list = path.field("mirrors");
    for (index, mirror) in route.mirrors.iter().enumerate() {
        let at = list.index(index);
        destination(&mirror.destination, &at.field("destination"), report);
        report.check(&at.field("percentage"), text::percent(mirror.percentage));
    }
    report.check(&path.field("mirrorPercentage"), text::percent(route.mirror_percentage));
    if let Some(share) = route.mirror_percent {
        report.warn(&path.field("mirrorPercent"), "is deprecated: use mirrorPercentage");
        if share > 100 {
            report.error(&path.field("mirrorPercent"), "a share must be from 0 to 100");
        }
    }
    if route.mirror.is_none()
        && (route.mirror_percent.is_some() || route.mirror_percentage.is_some())
    {
        report.warn(path, "says a share to mirror, but no mirror");
    }
}
