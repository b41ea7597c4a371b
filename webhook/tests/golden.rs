//! Pods before and after: `golden/NAME.yaml` becomes `golden/NAME.injected.yaml`. `WEFT_BLESS=1` writes the latter.
#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use serde_json::Value;
use weft_webhook::{InjectConfig, Outcome, inject, strip};

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn pods() -> Vec<(String, Value)> {
    let mut pods = Vec::new();
    for entry in fs::read_dir(golden()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        if let Some(name) = file.strip_suffix(".yaml").filter(|name| !name.contains('.')) {
            let text = fs::read_to_string(golden().join(&file)).unwrap();
            pods.push((name.to_owned(), serde_saphyr::from_str(&text).unwrap()));
        }
    }
    pods.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(pods.len() >= 7, "{}", pods.len());
    pods
}

fn injected(pod: &Value) -> (Value, Vec<String>) {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap();
    match inject(pod.clone(), namespace, None, &InjectConfig::default()).unwrap() {
        Outcome::Injected(injected) => (injected.pod, injected.warnings),
        Outcome::Skipped(skip) => panic!("skipped: {skip}"),
    }
}

#[test]
fn pods_become_what_the_golden_files_say() {
    for (name, pod) in pods() {
        let (injected, warnings) = injected(&pod);
        let text = serde_saphyr::to_string(&injected).unwrap();
        let text =
            warnings.iter().map(|warning| format!("# {warning}\n")).collect::<String>() + &text;
        let path = golden().join(format!("{name}.injected.yaml"));
        if std::env::var_os("WEFT_BLESS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, expected, "{name}; run again with WEFT_BLESS=1 if this is right");
        let again: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(again, injected, "{name}: the file says the same");
    }
}

#[test]
fn injecting_again_changes_nothing() {
    for (name, pod) in pods() {
        let (once, _) = injected(&pod);
        let (twice, _) = injected(&once);
        assert_eq!(twice, once, "{name}");
    }
}

/// Labels and annotations that stay have no effect on another injection; everything else is as it was.
#[test]
fn what_was_injected_can_be_taken_back() {
    for (name, pod) in pods() {
        let (mut stripped, _) = injected(&pod);
        strip(&mut stripped).unwrap();
        let (again, _) = injected(&stripped);
        assert_eq!(again, injected(&pod).0, "{name}");
        let names = |pod: &Value, key: &str| -> Vec<String> {
            let list = pod["spec"][key].as_array().into_iter().flatten();
            let mut names: Vec<_> = list.map(|item| item["name"].to_string()).collect();
            names.sort();
            names
        };
        for key in ["containers", "initContainers", "volumes", "imagePullSecrets"] {
            assert_eq!(names(&stripped, key), names(&pod, key), "{name}: {key}");
        }
    }
}
