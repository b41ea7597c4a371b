//! The injector's settings from files and the command line.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use serde_json::{Map, Value};
use weft_webhook::InjectConfig;

/// Reads the settings: a file of values, settings over it, and the mesh's configuration.
///
/// # Errors
/// When a file is not there, or a setting does not exist or has a value that it cannot have.
pub fn read(
    values: Option<&Path>,
    settings: &[String],
    mesh: Option<&Path>,
) -> anyhow::Result<InjectConfig> {
    let mut all = match values {
        Some(path) => serde_saphyr::from_str::<Option<Map<String, Value>>>(&text(path)?)
            .with_context(|| path.display().to_string())?
            .unwrap_or_default(),
        None => Map::new(),
    };
    for setting in settings {
        set(&mut all, setting).with_context(|| format!("--set {setting}"))?;
    }
    let mesh = mesh.map(text).transpose()?.unwrap_or_default();
    InjectConfig::read(&Value::Object(all).to_string(), &mesh).context("the injector's settings")
}

fn text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Sets one value by the path of its key.
fn set(values: &mut Map<String, Value>, setting: &str) -> anyhow::Result<()> {
    let Some((path, value)) = setting.split_once('=') else { bail!("is not KEY=VALUE") };
    let mut keys: Vec<_> = path.split('.').collect();
    let last = keys.pop().unwrap_or_default();
    let mut object = values;
    for key in keys {
        let entry = object.entry(key).or_insert_with(|| Map::new().into());
        let Value::Object(inner) = entry else { bail!("{key} is not an object") };
        object = inner;
    }
    if last.is_empty() {
        bail!("is not KEY=VALUE");
    }
    object.insert(last.to_owned(), scalar(value));
    Ok(())
}

/// What a value stands for: a list or an object in YAML, true, false, a number, or a text.
fn scalar(value: &str) -> Value {
    let text = || Value::String(value.to_owned());
    match value {
        "true" | "false" => Value::Bool(value == "true"),
        _ if value.starts_with(['[', '{']) => {
            serde_saphyr::from_str(value).unwrap_or_else(|_| text())
        }
        _ => match value.parse::<u64>() {
            Ok(number) => number.into(),
            Err(_) => text(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn settings(settings: &[&str]) -> anyhow::Result<InjectConfig> {
        let settings: Vec<_> = settings.iter().map(|&setting| setting.to_owned()).collect();
        read(None, &settings, None)
    }

    #[test]
    fn settings_are_set_by_path() {
        let config = settings(&[
            "logLevel=off",
            "resources.requests.cpu=1",
            "resources.requests.memory=64Mi",
            "resources.limits={}",
            "nativeSidecars=false",
            "excludeOutboundPorts=25",
            "imagePullSecrets=[a, b]",
            "image=registry.example:5000/proxy:1=2",
        ])
        .unwrap();
        let own = |(name, amount): (&str, &str)| (name.to_owned(), amount.to_owned());
        assert_eq!(config.log_level, "off");
        assert_eq!(config.resources.requests, [("cpu", "1"), ("memory", "64Mi")].map(own).into());
        assert_eq!(config.resources.limits, BTreeMap::new());
        assert_eq!(config.exclude_outbound_ports, "25");
        assert_eq!(config.image_pull_secrets, ["a", "b"]);
        assert_eq!(config.image, "registry.example:5000/proxy:1=2");
    }

    #[test]
    fn mistakes_name_the_setting() {
        for (setting, expected) in [
            ("logLevel", "--set logLevel: is not KEY=VALUE"),
            ("=1", "--set =1: is not KEY=VALUE"),
            ("image.tag=1", "invalid type: map"),
            ("loglevel=warn", "unknown field `loglevel`"),
            ("logLevel=loud", "logLevel: \"loud\" is none of"),
        ] {
            let error = format!("{:#}", settings(&[setting]).unwrap_err());
            assert!(error.contains(expected), "{setting}: {error}");
        }
    }
}
