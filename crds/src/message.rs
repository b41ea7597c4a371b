//! How resource types are written down: structs with protobuf's habits and enums with protobuf's names.
//!
//! A field that has its default value is the same as an absent one and is not written. Enum variants stand in the
//! order of their protobuf numbers, because the parser accepts a number in place of a name.

/// Whether a field needs no writing: protobuf has no difference between unset and default.
pub(crate) fn is_unset<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A struct whose fields are all optional in YAML, named in camel case.
macro_rules! message {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
    }) => {
        #[derive(
            Clone, Debug, Default, PartialEq,
            serde::Serialize, serde::Deserialize, schemars::JsonSchema,
        )]
        $(#[$meta])*
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "crate::message::is_unset")]
                pub $field: $type,
            )*
        }
    };
}
pub(crate) use message;

/// An enum of names. The first variant is the default; the order is that of the protobuf numbers.
macro_rules! enumeration {
    ($(#[doc = $doc:literal])+ pub enum $name:ident {
        $(#[doc = $first_doc:literal])+ $first:ident = $first_text:literal,
        $($(#[doc = $variant_doc:literal])+ $variant:ident = $text:literal,)*
    }) => {
        $(#[doc = $doc])+
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord,
            serde::Serialize, serde::Deserialize,
        )]
        pub enum $name {
            $(#[doc = $first_doc])+
            #[default]
            #[serde(rename = $first_text)]
            $first,
            $(
                $(#[doc = $variant_doc])+
                #[serde(rename = $text)]
                $variant,
            )*
        }

        impl $name {
            /// The name in YAML.
            pub const fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_text,
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let about = concat!($($doc, "\n",)+);
                let variants = [
                    ($first_text, concat!($($first_doc,)+)),
                    $(($text, concat!($($variant_doc,)+)),)*
                ];
                crate::message::enumeration_schema(about, &variants)
            }
        }
    };
}
pub(crate) use enumeration;

/// The schema of an enum: its names, and in `x-weft-values` what each means.
pub(crate) fn enumeration_schema(about: &str, variants: &[(&str, &str)]) -> schemars::Schema {
    let about = about.split_whitespace().collect::<Vec<_>>().join(" ");
    let meanings = variants.iter().map(|(name, doc)| format!("{name}: {}", doc.trim()));
    let names: Vec<&str> = variants.iter().map(|(name, _)| *name).collect();
    schemars::json_schema!({
        "type": "string",
        "description": about,
        "enum": names,
        "x-weft-values": meanings.collect::<Vec<_>>(),
    })
}
