//! HTTP routes.

use super::*;

/// A VirtualService with one HTTP route.
fn http(route: &str) -> String {
    format!("{{hosts: [a], http: [{{{route}}}]}}")
}

#[track_caller]
fn assert_route_errors(table: &[(&str, &[&str])]) {
    for (route, errors) in table {
        let errors: Vec<String> = errors.iter().map(|e| format!("spec.http[0]{e}")).collect();
        let found = validate(&resource("VirtualService", &http(route)));
        assert_eq!(lines(&found.errors), errors, "{route}");
    }
}

#[test]
fn a_route_does_exactly_one_thing() {
    assert_route_errors(&[
        ("name: x", &[": does nothing: route, redirect, directResponse or delegate is required"]),
        (
            "route: [{destination: {host: a}}], redirect: {uri: /}",
            &[": only one of route, redirect can be set"],
        ),
        (
            "redirect: {uri: /}, directResponse: {status: 200}",
            &[": only one of redirect, directResponse can be set"],
        ),
        (
            "redirect: {uri: /}, rewrite: {uri: /}",
            &[".rewrite: cannot be set together with redirect or directResponse"],
        ),
        (
            "redirect: {}",
            &[".redirect: must say where to: uri, authority, scheme, port or prefixRewrite"],
        ),
        (
            "redirect: {uri: /, redirectCode: 305}",
            &[".redirect.redirectCode: must be 301, 302, 303, 307 or 308, not 305"],
        ),
        (
            "redirect: {scheme: ftp, port: 0}",
            &[
                ".redirect.scheme: \"ftp\" is neither http nor https",
                ".redirect.port: a port must be from 1 to 65535",
            ],
        ),
        (
            "redirect: {uri: /, prefixRewrite: /}",
            &[".redirect: only one of uri, prefixRewrite can be set"],
        ),
        (
            "directResponse: {status: 600}",
            &[".directResponse.status: must be from 200 to 599, not 600"],
        ),
        ("directResponse: {status: 503, body: {string: hello}}", &[]),
    ]);
}

#[test]
fn destinations_and_weights_are_checked() {
    assert_route_errors(&[
        ("route: [{destination: {host: a}, weight: 0}]", &[]),
        (
            "route: [{destination: {host: a}}, {destination: {host: b}}]",
            &[".route: the weights of several destinations cannot all be 0"],
        ),
        ("route: [{destination: {host: a}, weight: 0}, {destination: {host: b}, weight: 7}]", &[]),
        (
            "route: [{destination: {host: a}, weight: 4294967295}, {destination: {host: b}, weight: 1}]",
            &[".route: the weights add up to more than 4294967295"],
        ),
        ("route: [{destination: {}}]", &[".route[0].destination.host: is required"]),
        (
            "route: [{destination: {host: '*'}}]",
            &[".route[0].destination.host: a destination cannot be *"],
        ),
        (
            "route: [{destination: {host: a, subset: 'v 1', port: {number: 0}}}]",
            &[
                ".route[0].destination.subset: \"v 1\" is not a name for a subset: letters, digits, - _ and . only",
                ".route[0].destination.port.number: a port must be from 1 to 65535",
            ],
        ),
        (
            "route: [{destination: {host: a}, headers: {request: {set: {'a b': c}}}}]",
            &[".route[0].headers.request.set[a b]: \"a b\" is not the name of a header"],
        ),
    ]);
}

#[test]
fn what_a_route_matches_is_checked() {
    let to = "route: [{destination: {host: a}}]";
    for (request, errors) in [
        ("uri: {regex: '/a(b'}", vec![".match[0].uri: not a regular expression: unclosed group"]),
        ("uri: {regex: '/orders/\\w{8}-\\w{4}-\\w{4}-\\w{4}-\\w{12}'}", vec![]),
        (
            "uri: {regex: '(\\w{1,1000}){1,1000}'}",
            vec![
                ".match[0].uri: not a regular expression: Compiled regex exceeds size limit of 1048576 bytes.",
            ],
        ),
        (
            "uri: {regex: '/a(?=b)'}",
            vec![
                ".match[0].uri: not a regular expression: look-around, including look-ahead and look-behind, is not supported",
            ],
        ),
        ("method: {exact: GET}, port: 0", vec![".match[0].port: a port must be from 1 to 65535"]),
        ("headers: {x-a: {}, x-b: {regex: '*'}, ':path': {prefix: /}}", vec![]),
        (
            "headers: {'x y': {exact: a}}",
            vec![".match[0].headers[x y]: \"x y\" is not the name of a header"],
        ),
        ("headers: {'@request.auth.claims.sub': {exact: a}}", vec![]),
        (
            "withoutHeaders: {'': {}}",
            vec![".match[0].withoutHeaders[]: \"\" is not the name of a header"],
        ),
        (
            "queryParams: {'': {exact: a}}",
            vec![".match[0].queryParams: a query parameter needs a name"],
        ),
        (
            "sourceLabels: {app: 'a b'}",
            vec![".match[0].sourceLabels[app]: \"a b\" is not the value of a label"],
        ),
        (
            "gateways: ['/']",
            vec![".match[0].gateways[0]: \"/\" is not a gateway: name or namespace/name"],
        ),
    ] {
        assert_route_errors(&[(&format!("match: [{{{request}}}], {to}"), &errors)]);
    }
    let long = "a".repeat(1025);
    assert_route_errors(&[(
        &format!("match: [{{uri: {{regex: {long}}}}}], {to}"),
        &[".match[0].uri: a regular expression has at most 1024 characters"],
    )]);
}

#[test]
fn timeouts_retries_and_faults_are_checked() {
    let to = "route: [{destination: {host: a}}]";
    for (policy, errors) in [
        ("timeout: 0s", vec![]),
        ("timeout: 0.1ms", vec![".timeout: a duration must be 1ms at least"]),
        ("retries: {attempts: 0}", vec![]),
        (
            "retries: {attempts: 0, retryOn: 5xx}",
            vec![
                ".retries: attempts of 0 switches retries off, so that the other fields mean nothing",
            ],
        ),
        ("retries: {attempts: 2, retryOn: '5xx, reset,503,gateway-error'}", vec![]),
        (
            "retries: {attempts: 2, retryOn: '999'}",
            vec![".retries.retryOn: 999 is not a status code"],
        ),
        (
            "retries: {attempts: 2, perTryTimeout: 1us, backoff: 0s}",
            vec![
                ".retries.perTryTimeout: a duration must be 1ms at least",
                ".retries.backoff: a duration must be 1ms at least",
            ],
        ),
        ("fault: {}", vec![".fault: must have delay or abort"]),
        (
            "fault: {delay: {percentage: {value: 101}, fixedDelay: 1s}}",
            vec![".fault.delay.percentage: a share must be from 0 to 100, not 101"],
        ),
        ("fault: {delay: {percentage: {value: 1}}}", vec![".fault.delay.fixedDelay: is required"]),
        (
            "fault: {delay: {percentage: {value: 1}, exponentialDelay: 1s}}",
            vec![".fault.delay.exponentialDelay: is not supported: use fixedDelay"],
        ),
        (
            "fault: {abort: {percentage: {value: -1}, httpStatus: 99}}",
            vec![
                ".fault.abort.httpStatus: must be from 200 to 599, not 99",
                ".fault.abort.percentage: a share must be from 0 to 100, not -1",
            ],
        ),
        ("fault: {abort: {percentage: {value: 1}, grpcStatus: UNAVAILABLE}}", vec![]),
        ("fault: {abort: {percentage: {value: 1}, grpcStatus: '14'}}", vec![]),
        (
            "fault: {abort: {percentage: {value: 1}, grpcStatus: NOPE}}",
            vec![".fault.abort.grpcStatus: \"NOPE\" is not a gRPC status"],
        ),
        (
            "fault: {abort: {percentage: {value: 1}}}",
            vec![".fault.abort: must have httpStatus or grpcStatus"],
        ),
        ("rewrite: {}", vec![".rewrite: must have uri, authority or uriRegexRewrite"]),
        (
            "rewrite: {uri: /, uriRegexRewrite: {match: '(', rewrite: x}}",
            vec![
                ".rewrite: only one of uri, uriRegexRewrite can be set",
                ".rewrite.uriRegexRewrite.match: not a regular expression: unclosed group",
            ],
        ),
        (
            "corsPolicy: {allowOrigins: [{regex: '['}], allowMethods: ['G T']}",
            vec![
                ".corsPolicy.allowOrigins[0]: not a regular expression: unclosed character class",
                ".corsPolicy.allowMethods[0]: \"G T\" is not a method",
            ],
        ),
        (
            "mirror: {host: b}, mirrors: [{destination: {host: c}}]",
            vec![": only one of mirror, mirrors can be set"],
        ),
        (
            "mirror: {host: b}, mirrorPercentage: {value: 200}",
            vec![".mirrorPercentage: a share must be from 0 to 100, not 200"],
        ),
        (
            "headers: {response: {add: {x: \"a\\r\\nb\"}}}",
            vec![".headers.response.add[x]: a header's value cannot contain a line break"],
        ),
    ] {
        assert_route_errors(&[(&format!("{policy}, {to}"), &errors)]);
    }
    let found = validate(&resource(
        "VirtualService",
        &http(&format!("retries: {{attempts: 1, retryOn: 'nope'}}, {to}")),
    ));
    assert!(
        found.errors[0]
            .reason
            .starts_with("\"nope\" is not a condition; known are status codes and 5xx"),
        "{found:?}"
    );
}

#[test]
fn deprecated_and_surprising_parts_of_routes_are_warned_of() {
    let to = "route: [{destination: {host: a}}]";
    for (policy, warnings) in [
        (
            "mirror: {host: b}, mirror_percent: 5",
            vec!["spec.http[0].mirrorPercent: is deprecated: use mirrorPercentage"],
        ),
        (
            "mirrorPercentage: {value: 5}",
            vec!["spec.http[0]: says a share to mirror, but no mirror"],
        ),
        (
            "fault: {delay: {percent: 5, fixedDelay: 1s}}",
            vec!["spec.http[0].fault.delay.percent: is deprecated: use percentage"],
        ),
        (
            "fault: {delay: {fixedDelay: 1s}}",
            vec!["spec.http[0].fault.delay.percentage: is not set, so that no request is delayed"],
        ),
        (
            "fault: {abort: {httpStatus: 503}}",
            vec!["spec.http[0].fault.abort.percentage: is not set, so that no request fails"],
        ),
        (
            "corsPolicy: {allowOrigin: [a], maxAge: 1.5s}",
            vec![
                "spec.http[0].corsPolicy.allowOrigin: is deprecated: use allowOrigins",
                "spec.http[0].corsPolicy.maxAge: is cut down to whole seconds",
            ],
        ),
        (
            "headers: {request: {set: {':authority': b, ':path': /}}}",
            vec![
                "spec.http[0].headers.request.set[:path]: has no effect: of the pseudo headers only :authority can be changed",
            ],
        ),
    ] {
        assert_warnings("VirtualService", &[(&http(&format!("{policy}, {to}")), &warnings)]);
    }
    assert_warnings(
        "VirtualService",
        &[(
            &format!("{{hosts: [a, A], http: [{{{to}}}]}}"),
            &["spec.hosts[1]: \"A\" is there twice"],
        )],
    );
}

#[test]
fn routes_that_no_request_reaches_are_warned_of() {
    let to = "route: [{destination: {host: a}}]";
    let last = ["spec.http[1]: is never reached: spec.http[0] comes first"].as_slice();
    for (first, second, warnings) in [
        ("", "match: [{uri: {exact: /a}}],", last),
        ("match: [{uri: {prefix: /}}],", "", last),
        (
            "match: [{uri: {exact: /b}}, {uri: {regex: '.*'}, name: rest}],",
            "match: [{port: 80}],",
            last,
        ),
        ("match: [{uri: {exact: /a}}],", "match: [{uri: {exact: /a}, name: again}],", last),
        ("match: [{uri: {exact: /a}}],", "match: [{uri: {exact: /b}}],", &[]),
        ("match: [{uri: {exact: /a}}],", "", &[]),
        ("match: [{uri: {prefix: /}, headers: {x: {}}}],", "", &[]),
        ("match: [{uri: {prefix: /}, gateways: [gw]}],", "", &[]),
        ("match: [{uri: {prefix: /}, sourceNamespace: b}],", "", &[]),
    ] {
        let spec = format!("{{hosts: [a], http: [{{{first} {to}}}, {{{second} {to}}}]}}");
        assert_warnings("VirtualService", &[(&spec, warnings)]);
    }
}
