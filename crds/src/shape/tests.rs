//! Properties: whatever has the right shape becomes a resource and back, and nothing makes the parser panic.

use proptest::{collection::vec, option::weighted, prelude::*, sample::select};
use serde_json::{Map, json};

use super::*;
use crate::{AnyResource, Kind, Parsed, parse_document, parse_text, validate};

/// Values of a shape, in the form that is written.
fn values(shape: &Shape) -> BoxedStrategy<Value> {
    match shape {
        Shape::Object { fields, required, one_of } => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, field)| {
                    let value = if required.contains(name) {
                        values(field).prop_map(Some).boxed()
                    } else {
                        weighted(0.3, values(field)).boxed()
                    };
                    (Just(name.clone()), value)
                })
                .collect();
            let one_of = one_of.clone();
            fields
                .prop_map(move |fields| {
                    let given = fields.into_iter().filter_map(|(name, v)| Some((name, v?)));
                    let mut object: Map<String, Value> = given.collect();
                    for group in &one_of {
                        let there = group.iter().filter(|name| object.contains_key(*name));
                        for name in there.skip(1).cloned().collect::<Vec<_>>() {
                            object.remove(&name);
                        }
                    }
                    Value::Object(object)
                })
                .boxed()
        }
        Shape::Map { values: each, least, ports } => {
            let key = if *ports { "[1-9][0-9]{0,3}" } else { "[a-z][a-z0-9./-]{0,8}" };
            vec((key, values(each)), *least..3)
                .prop_map(|entries| Value::Object(entries.into_iter().collect()))
                .boxed()
        }
        Shape::List { items, least, most } => {
            vec(values(items), *least..(*least + 3).min(most.saturating_add(1)))
                .prop_map(Value::Array)
                .boxed()
        }
        Shape::Text { .. } => {
            "[a-zA-Z0-9 ./:*{}\\[\\]'\"#&é-]{1,12}".prop_map(Value::String).boxed()
        }
        Shape::Duration => (1..10_000_u64)
            .prop_map(|ms| Value::String(Duration::from_millis(ms).to_string()))
            .boxed(),
        Shape::Bytes => Just(json!("aGVsbG8=")).boxed(),
        Shape::Choice(names) => select(names.clone()).prop_map(Value::String).boxed(),
        Shape::Integer { least, most } => {
            let bound = |n: i128| i64::try_from(n).unwrap();
            // A required number that is zero is not written.
            (bound(*least).max(1)..=bound(*most)).prop_map(Value::from).boxed()
        }
        Shape::Number => (1..1_000_000_u32).prop_map(|n| json!(f64::from(n) / 64.0)).boxed(),
        Shape::Boolean => any::<bool>().prop_map(Value::Bool).boxed(),
        Shape::Free => Just(json!({ "a": [1, { "b": null }] })).boxed(),
    }
}

fn specs() -> impl Strategy<Value = (Kind, Value)> {
    let kinds = Kind::ALL.map(|kind| (Just(kind), values(kind.spec_shape())).boxed());
    proptest::strategy::Union::new(kinds)
}

fn document(kind: Kind, version: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": format!("{}/{version}", kind.group()),
        "kind": kind.as_str(),
        "metadata": { "name": "a", "namespace": "b", "labels": { "c": "d" } },
        "spec": spec,
    })
}

fn ours(result: Result<Parsed, crate::ParseError>) -> AnyResource {
    match result {
        Ok(Parsed::Ours(resource)) => *resource,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_fits_becomes_a_resource_and_back((kind, spec) in specs()) {
        let resource = ours(parse_document(document(kind, kind.versions()[0], &spec)));
        validate(&resource);
        let again = resource.to_value();
        prop_assert_eq!(&ours(parse_document(again.clone())), &resource);
        let yaml = serde_saphyr::to_string(&again).unwrap();
        prop_assert_eq!(ours(parse_text(&yaml).pop().unwrap()), resource);
    }

    #[test]
    fn every_served_version_reads_the_same((kind, spec) in specs()) {
        let mut read = kind.versions().iter().map(|version| ours(parse_document(document(kind, version, &spec))));
        let first = read.next().unwrap();
        prop_assert!(read.all(|resource| resource == first));
    }

    #[test]
    fn one_wrong_value_is_refused_or_read_but_never_panics(
        (kind, spec) in specs(),
        place in any::<prop::sample::Index>(),
        wrong in select(vec![json!(null), json!(-1), json!(1e300), json!("x"), json!([[]]), json!({"a": 1}), json!(true)]),
    ) {
        let mut spec = spec;
        let mut places = Vec::new();
        pointers(&spec, "", &mut places);
        let place = place.get(places.as_slice());
        *spec.pointer_mut(place).unwrap() = wrong;
        if let Ok(Parsed::Ours(resource)) = parse_document(document(kind, kind.versions()[0], &spec)) {
            validate(&resource);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC*") {
        parse_text(&text);
    }

    #[test]
    fn no_yaml_like_text_makes_the_parser_panic(
        parts in vec(select(vec!["apiVersion: networking.istio.io/v1\n", "kind: VirtualService\n", "metadata:\n  name: a\n",
            "spec:\n", "  http:\n", "  - match:\n", "    - uri: {exact: a}\n", "---\n", "&a ", "*a\n", "<<: *a\n", "[", "]", "{", "}",
            "- ", ": ", "? ", "!!binary ", "|\n", "\t", "'", "\"", "\n", "null\n", "1e400\n", ".nan\n", "0x1F\n", "2026-01-01\n"]), 0..24)
    ) {
        for result in parse_text(&parts.concat()) {
            if let Err(error) = result {
                error.to_string();
            }
        }
    }
}

/// Pointers to all values within a value.
fn pointers(value: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(value, &format!("{here}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                pointers(value, &format!("{here}/{index}"), found);
            }
        }
        _ => {}
    }
}
