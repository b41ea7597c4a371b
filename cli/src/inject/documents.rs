//! A text as YAML documents, each with its own text, so that what is not changed stays to the letter.

use serde_json::Value;
use serde_saphyr::options;

/// The texts of the documents; each but the first begins with its separator.
pub fn split(text: &str) -> Vec<&str> {
    let mut documents = Vec::new();
    let (mut start, mut place, mut has_content) = (0, 0, false);
    for line in text.split_inclusive('\n') {
        let separator = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.trim_start() != rest || rest.is_empty());
        // Comments and directives before a separator are of the document after it.
        if separator && has_content {
            documents.push(&text[start..place]);
            start = place;
        }
        has_content = if separator { true } else { has_content || is_content(line) };
        place += line.len();
    }
    if has_content {
        documents.push(&text[start..]);
    }
    documents
}

fn is_content(line: &str) -> bool {
    let line = line.trim_start_matches('\u{feff}').trim();
    !line.is_empty() && !line.starts_with('#') && !line.starts_with('%')
}

/// Reads a document as `kubectl` does: `yes` is a boolean and `0644` is octal.
pub fn parse(text: &str) -> Result<Value, String> {
    let options = options! { legacy_octal_numbers: true, with_snippet: false };
    serde_saphyr::from_str_with_options::<Option<Value>>(text, options)
        .map(Option::unwrap_or_default)
        .map_err(|error| format!("not valid YAML: {error}"))
}

/// Writes a document.
pub fn write(value: &Value) -> Result<String, String> {
    serde_saphyr::to_string(value).map_err(|error| format!("cannot be written as YAML: {error}"))
}

/// One text of documents.
pub fn join(documents: &[String]) -> String {
    let mut text = String::new();
    for document in documents {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let separated = document
            .lines()
            .find(|line| is_content(line))
            .is_some_and(|line| line.starts_with("---"));
        if !text.is_empty() && !separated {
            text.push_str("---\n");
        }
        text.push_str(document);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_split_at_separators_only_and_join_to_the_same() {
        for (text, expected) in [
            ("", vec![]),
            ("\n# nothing\n", vec![]),
            ("a: 1", vec!["a: 1"]),
            ("a: 1\n---\nb: 2\n", vec!["a: 1\n", "---\nb: 2\n"]),
            (
                "# head\n---\na: 1\n--- # two\nb: 2\n",
                vec!["# head\n---\na: 1\n", "--- # two\nb: 2\n"],
            ),
            ("%YAML 1.2\n---\na: 1\n", vec!["%YAML 1.2\n---\na: 1\n"]),
            ("a: |\n  ---\n  b\n", vec!["a: |\n  ---\n  b\n"]),
            ("a: 1\n----\n", vec!["a: 1\n----\n"]),
            ("a: 1\r\n---\r\nb: 2\r\n", vec!["a: 1\r\n", "---\r\nb: 2\r\n"]),
        ] {
            let documents = split(text);
            assert_eq!(documents, expected, "{text:?}");
            if !documents.is_empty() {
                let documents: Vec<_> = documents.into_iter().map(str::to_owned).collect();
                assert_eq!(join(&documents), text);
            }
        }
        assert_eq!(join(&["a: 1".into(), "b: 2\n".into()]), "a: 1\n---\nb: 2\n");
    }

    #[test]
    fn values_are_read_as_kubernetes_reads_them() {
        let value = parse("{mode: 0644, on: yes, text: \"0644\", version: 1.20, none: ~}").unwrap();
        assert_eq!(value["mode"], 420);
        assert_eq!(value["text"], "0644");
        assert_eq!(value["none"], json!(null));
        assert_eq!(parse("---\n").unwrap(), json!(null));
        assert!(parse("a: [").unwrap_err().starts_with("not valid YAML: "));
    }
}
