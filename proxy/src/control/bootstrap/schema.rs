//! What messages look like: fields with their numbers and types, read from a text that is part of the program.
//!
//! The text is made of Envoy's descriptors (test `bootstrap_schema`) and searched as it is: nothing of it stays in memory
//! when the configuration has been read.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

const TEXT: &str = include_str!("schema.txt");

/// The messages that were looked up so far.
#[derive(Debug, Default)]
pub struct Schema {
    messages: RefCell<HashMap<&'static str, Rc<Message>>>,
}

/// A message's fields.
#[derive(Debug)]
pub struct Message {
    /// In the order of the descriptor.
    pub fields: Vec<Field>,
}

/// A field.
#[derive(Debug)]
pub struct Field {
    /// In snake case.
    pub name: &'static str,
    /// On the wire.
    pub number: u32,
    /// A list.
    pub repeated: bool,
    /// At most one of these is set.
    pub one_of: Option<&'static str>,
    /// What it holds.
    pub kind: Kind,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Bool,
    String,
    Bytes,
    /// By the enumeration's name.
    Enum(&'static str),
    /// By the message's name.
    Message(&'static str),
    /// Texts to something.
    Map(&'static str),
    /// A type of `google.protobuf` with a JSON form of its own.
    WellKnown(&'static str),
    /// Envoy knows it, Weft does not.
    Unsupported,
}

impl Kind {
    fn parse(text: &'static str) -> Self {
        match text {
            "double" => Self::Double,
            "float" => Self::Float,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "uint32" => Self::Uint32,
            "uint64" => Self::Uint64,
            "bool" => Self::Bool,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "unsupported" => Self::Unsupported,
            _ => match (text.strip_prefix("enum "), text.strip_prefix("map string ")) {
                (Some(name), _) => Self::Enum(name),
                (_, Some(value)) => Self::Map(value),
                _ => match text.strip_prefix("google.protobuf.") {
                    Some("Empty") | None => Self::Message(text),
                    Some(name) => Self::WellKnown(name),
                },
            },
        }
    }

    /// What a map's values are.
    pub fn of_map(value: &'static str) -> Self {
        Self::parse(value)
    }
}

/// The lines of an entry.
fn lines(kind: &str, name: &str) -> Option<(&'static str, std::str::Lines<'static>)> {
    let title = format!("\n{kind} {name}\n");
    let start = TEXT.find(&title)?;
    // With the end of the title's line, after which a message without fields ends.
    let body = &TEXT[start + title.len() - 1..];
    let end = body.find("\n\n").unwrap_or(body.len());
    let name = &TEXT[start + 2 + kind.len()..start + title.len() - 1];
    Some((name, body[..end].trim_start().lines()))
}

impl Schema {
    /// A message by its full name; `None` when it is not one that a bootstrap may hold.
    pub fn message(&self, name: &str) -> Option<Rc<Message>> {
        if let Some(known) = self.messages.borrow().get(name) {
            return Some(known.clone());
        }
        let (name, lines) = lines("message", name)?;
        let message = Rc::new(Message { fields: lines.filter_map(field).collect() });
        self.messages.borrow_mut().insert(name, message.clone());
        Some(message)
    }

    /// The number of an enumeration's value.
    pub fn number(&self, name: &str, value: &str) -> Option<i32> {
        let (_, mut lines) = lines("enum", name)?;
        lines.find_map(|line| {
            let (known, number) = line.split_once(' ')?;
            (known == value).then(|| number.parse().ok()).flatten()
        })
    }
}

/// `FIELD NUMBER[*] [@ONEOF] TYPE`
fn field(line: &'static str) -> Option<Field> {
    let (name, rest) = line.split_once(' ')?;
    let (number, rest) = rest.split_once(' ')?;
    let (one_of, kind) = match rest.strip_prefix('@') {
        Some(rest) => rest.split_once(' ').map(|(one_of, kind)| (Some(one_of), kind))?,
        None => (None, rest),
    };
    let (number, repeated) =
        number.strip_suffix('*').map_or((number, false), |number| (number, true));
    Some(Field { name, number: number.parse().ok()?, repeated, one_of, kind: Kind::parse(kind) })
}

impl Message {
    /// A field by its name, in snake case or as JSON has it.
    pub fn field(&self, key: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == key || is_json_name(key, field.name))
    }
}

/// Whether a key is a field's name in lower camel case.
fn is_json_name(key: &str, name: &str) -> bool {
    let mut upper = false;
    let mut key = key.chars();
    for letter in name.chars() {
        if letter == '_' {
            upper = true;
            continue;
        }
        let wanted = if upper { letter.to_ascii_uppercase() } else { letter };
        upper = false;
        if key.next() != Some(wanted) {
            return false;
        }
    }
    key.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_schema_is_understood() {
        let schema = Schema::default();
        let (mut messages, mut enums) = (0, 0);
        for block in TEXT.split("\n\n").skip(1) {
            let (title, body) = block.split_once('\n').unwrap_or((block, ""));
            let lines = body.lines().count();
            if let Some(name) = title.strip_prefix("message ") {
                let message = schema.message(name).unwrap();
                assert_eq!(message.fields.len(), lines, "{name}");
                for field in &message.fields {
                    let known = match field.kind {
                        Kind::Message(of) => schema.message(of).is_some(),
                        Kind::Enum(of) => super::lines("enum", of).is_some(),
                        Kind::Map(of) => match Kind::of_map(of) {
                            Kind::Message(of) => schema.message(of).is_some(),
                            kind => matches!(
                                kind,
                                Kind::WellKnown(_) | Kind::String | Kind::Unsupported | Kind::Bool
                            ),
                        },
                        _ => true,
                    };
                    assert!(known, "{name}.{}", field.name);
                }
                messages += 1;
            } else {
                assert!(title.starts_with("enum "), "{title}");
                enums += 1;
            }
        }
        assert!(messages > 300 && enums > 50, "{messages} {enums}");
    }

    #[test]
    fn fields_have_two_names() {
        let message = Schema::default().message("envoy.config.bootstrap.v3.Bootstrap").unwrap();
        for key in ["static_resources", "staticResources"] {
            assert_eq!(message.field(key).unwrap().name, "static_resources", "{key}");
        }
        for key in ["StaticResources", "static_Resources", "staticResource", "staticResources2"] {
            assert!(message.field(key).is_none(), "{key}");
        }
    }
}
