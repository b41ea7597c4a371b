//! What routes and filters do to headers.

use http::{HeaderName, HeaderValue};
use weft_api::xds::envoy::config::core::v3::{
    HeaderValueOption, header_value_option::HeaderAppendAction,
};

use super::{
    format,
    invalid::{At, Invalid, each},
};
use crate::config::{
    access_log::FormatPart,
    route::{HeaderFormat, HeaderMutation},
};

/// A header's name; pseudo headers are none.
pub fn name(text: &str) -> Result<HeaderName, Invalid> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| Invalid::value(text, "a header name"))
}

/// A header's value.
pub fn value(text: &str) -> Result<HeaderValue, Invalid> {
    HeaderValue::from_str(text).map_err(|_| Invalid::value(text, "a header value"))
}

/// `*_headers_to_remove` and `*_headers_to_add`. Envoy removes first.
pub fn mutations(
    to_add: &[HeaderValueOption],
    add_field: &str,
    to_remove: &[String],
    remove_field: &str,
) -> Result<Vec<HeaderMutation>, Invalid> {
    let mut mutations =
        each(to_remove, remove_field, |text| name(text).map(HeaderMutation::Remove))?;
    mutations.extend(each(to_add, add_field, addition)?.into_iter().flatten());
    Ok(mutations)
}

/// One `HeaderValueOption`; an empty value adds nothing unless it is asked to.
fn addition(option: &HeaderValueOption) -> Result<Option<HeaderMutation>, Invalid> {
    let header = option.header.as_ref().ok_or_else(|| Invalid::missing("header"))?;
    let name = name(&header.key).at("header.key")?;
    let format = if header.raw_value.is_empty() {
        value_format(&header.value).at("header.value")?
    } else {
        let value = HeaderValue::from_bytes(&header.raw_value)
            .map_err(|_| Invalid::value("...", "a header value"))
            .at("header.raw_value")?;
        HeaderFormat::Literal(value)
    };
    if !option.keep_empty_value
        && matches!(&format, HeaderFormat::Literal(value) if value.is_empty())
    {
        return Ok(None);
    }
    // `append` is the older spelling of the first and the third action, and counts when it is there.
    if let Some(append) = &option.append {
        return Ok(Some(if append.value {
            HeaderMutation::Append(name, format)
        } else {
            HeaderMutation::Set(name, format)
        }));
    }
    match HeaderAppendAction::try_from(option.append_action) {
        Ok(HeaderAppendAction::AppendIfExistsOrAdd) => {
            Ok(Some(HeaderMutation::Append(name, format)))
        }
        Ok(HeaderAppendAction::AddIfAbsent) => Ok(Some(HeaderMutation::AddIfAbsent(name, format))),
        Ok(HeaderAppendAction::OverwriteIfExistsOrAdd) => {
            Ok(Some(HeaderMutation::Set(name, format)))
        }
        Ok(HeaderAppendAction::OverwriteIfExists) | Err(_) => {
            Err(Invalid::unsupported("append_action"))
        }
    }
}

fn value_format(text: &str) -> Result<HeaderFormat, Invalid> {
    let mut parsed = format::parse(text)?;
    match parsed.parts.as_slice() {
        [] => Ok(HeaderFormat::Literal(HeaderValue::from_static(""))),
        [FormatPart::Literal(literal)] => Ok(HeaderFormat::Literal(value(literal)?)),
        parts => {
            for part in parts {
                if let FormatPart::Literal(literal) = part {
                    value(literal)?;
                }
            }
            parsed.parts.shrink_to_fit();
            Ok(HeaderFormat::Format(parsed))
        }
    }
}
