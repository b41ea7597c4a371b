//! A configuration with mistakes, for who has no better one: all of it that makes sense by itself.
//!
//! An operator that starts while somebody's typing error is in the ConfigMap would otherwise have to choose between
//! injecting nothing and injecting what nobody set.

use serde_json::{Value, json};

use super::{ConfigError, InjectConfig, read_mesh};
use crate::json::Object;

impl InjectConfig {
    /// Reads the same keys as [`read`](Self::read), field by field: what makes no sense is left out and told of.
    pub fn salvage(values: &str, mesh: &str) -> (Self, Vec<ConfigError>) {
        let mut problems = Vec::new();
        let mut config = from_values(values, &mut problems);
        let mesh = read_mesh(mesh).unwrap_or_else(|error| {
            problems.push(error);
            Object::new()
        });
        for field in mesh.into_iter().flat_map(single_fields) {
            match config.clone().with_mesh(&field) {
                Ok(with_it) => config = with_it,
                Err(error) => problems.push(error),
            }
        }
        (config, problems)
    }

    fn with_mesh(mut self, mesh: &Value) -> Result<Self, ConfigError> {
        self.merge_mesh(mesh)?;
        self.check()?;
        Ok(self)
    }
}

fn from_values(values: &str, problems: &mut Vec<ConfigError>) -> InjectConfig {
    let mut config = InjectConfig::default();
    let fields = match serde_json::from_str::<Object>(values) {
        Ok(fields) => fields,
        Err(_) if values.trim().is_empty() => return config,
        Err(error) => {
            problems.push(ConfigError::Values(error));
            return config;
        }
    };
    let mut kept = Object::new();
    for (name, value) in fields {
        let mut tried = kept.clone();
        tried.insert(name, value);
        let read = serde_json::from_value::<InjectConfig>(tried.clone().into());
        match read.map_err(ConfigError::Values).and_then(|read| read.check().map(|()| read)) {
            Ok(read) => (config, kept) = (read, tried),
            Err(error) => problems.push(error),
        }
    }
    config
}

/// A field of the mesh's configuration as a configuration by itself; every field of `defaultConfig` too.
fn single_fields((name, value): (String, Value)) -> Vec<Value> {
    match value {
        Value::Object(fields) if name == "defaultConfig" => {
            let single = |(field, value)| {
                let mut of_proxies = Object::new();
                of_proxies.insert(field, value);
                json!({ "defaultConfig": of_proxies })
            };
            fields.into_iter().map(single).collect()
        }
        value => {
            let mut field = Object::new();
            field.insert(name, value);
            vec![field.into()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_sense_is_kept_and_the_rest_told_of() {
        let values = json!({
            "image": "registry.example/proxy:9",
            "imag": "typo",
            "logLevel": "loud",
            "startupSeconds": 0,
            "clusterId": "east",
            "defaultConfig": { "concurrency": 3 },
        });
        let mesh =
            "{trustDomain: td.example, defaultConfig: {drainDuration: soon, concurrency: 1}}";
        let (config, problems) = InjectConfig::salvage(&values.to_string(), mesh);
        let kept = json!({
            "image": "registry.example/proxy:9",
            "clusterId": "east",
            "defaultConfig": { "concurrency": 3 },
        });
        let kept_mesh = "{trustDomain: td.example, defaultConfig: {concurrency: 1}}";
        assert_eq!(config, InjectConfig::read(&kept.to_string(), kept_mesh).unwrap());
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let expected = [
            "values: unknown field `imag`",
            "logLevel: \"loud\" is none of",
            "startupSeconds: must be at least 1",
            "defaultConfig.drainDuration: is not a duration",
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for expected in expected {
            assert!(problems.iter().any(|p| p.starts_with(expected)), "{expected}: {problems:?}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_read_leaves_the_other() {
        let image = json!({ "image": "registry.example/proxy:9" }).to_string();
        for (values, mesh, told) in [
            (image.as_str(), "a: [", "mesh: "),
            (image.as_str(), "[]", "mesh: is not an object"),
            (image.as_str(), "defaultConfig: 1", "mesh: defaultConfig: is not an object"),
            ("{", "trustDomain: td.example", "values: EOF"),
        ] {
            let (config, problems) = InjectConfig::salvage(values, mesh);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].to_string().starts_with(told), "{}", problems[0]);
            let good = [(values, ""), ("", mesh)].map(|(v, m)| InjectConfig::read(v, m));
            assert_eq!(good.iter().flatten().collect::<Vec<_>>(), [&config]);
        }
    }

    #[test]
    fn nothing_is_lost_without_mistakes() {
        let values = serde_json::to_string(&InjectConfig {
            image: "registry.example/proxy:9".into(),
            ..InjectConfig::default()
        });
        let values = values.unwrap();
        for (values, mesh) in [
            ("", ""),
            ("{}", "{}"),
            ("", "# nothing yet\n"),
            (values.as_str(), "trustDomain: td.example\nunknown: 1"),
        ] {
            let (config, problems) = InjectConfig::salvage(values, mesh);
            assert!(problems.is_empty(), "{problems:?}");
            assert_eq!(config, InjectConfig::read(values, mesh).unwrap());
        }
    }
}
