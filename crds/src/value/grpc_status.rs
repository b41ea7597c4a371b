/// The names of gRPC's status codes, by number.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The code of a gRPC status that is written by name or by number; `None` when there is no such status.
pub fn grpc_status(text: &str) -> Option<u32> {
    let named = NAMES.iter().position(|name| *name == text);
    let numbered = || text.parse::<usize>().ok().filter(|code| *code < NAMES.len());
    named.or_else(numbered).and_then(|code| u32::try_from(code).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_written_by_name_or_by_number() {
        for (text, code) in [
            ("OK", Some(0)),
            ("UNAVAILABLE", Some(14)),
            ("UNAUTHENTICATED", Some(16)),
            ("14", Some(14)),
            ("17", None),
            ("-1", None),
            ("unavailable", None),
            ("", None),
        ] {
            assert_eq!(grpc_status(text), code, "{text:?}");
        }
    }
}
