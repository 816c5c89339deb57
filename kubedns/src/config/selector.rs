//! Label selectors as text, as `kubectl get --selector` accepts them.
//!
//! Knows the grammar of the API's label selectors; does not know which objects they select.

use std::collections::BTreeSet;

use kube::core::{Expression, Selector};

/// Parses requirements separated by commas: `key`, `!key`, `key=value`, `key==value`, `key!=value`,
/// `key in (a,b)` and `key notin (a,b)`.
///
/// Fails on anything else, naming the requirement.
pub fn parse(text: &str) -> Result<Selector, SelectorError> {
    split(text).map(|requirement| expression(requirement.trim())).collect()
}

/// Why a text is not a label selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{requirement:?} is no requirement: expected key, !key, key=value, key!=value, key in (a,b) or \
     key notin (a,b), separated by commas"
)]
pub struct SelectorError {
    requirement: String,
}

/// Splits at commas that are not in parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut in_parentheses = false;
    text.split(move |c| {
        match c {
            '(' => in_parentheses = true,
            ')' => in_parentheses = false,
            _ => {}
        }
        c == ',' && !in_parentheses
    })
}

fn expression(text: &str) -> Result<Expression, SelectorError> {
    let read = || {
        if let Some(key) = text.strip_prefix('!') {
            return Some(Expression::DoesNotExist(checked(key, is_key)?));
        }
        if let Some((key, value)) = text.split_once("!=") {
            return Some(Expression::NotEqual(checked(key, is_key)?, checked(value, is_value)?));
        }
        if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            return Some(Expression::Equal(checked(key, is_key)?, checked(value, is_value)?));
        }
        let Some((key, rest)) = text.split_once(char::is_whitespace) else {
            return Some(Expression::Exists(checked(text, is_key)?));
        };
        let key = checked(key, is_key)?;
        let rest = rest.trim_start();
        match rest.strip_prefix("notin") {
            Some(values) => Some(Expression::NotIn(key, set(values)?)),
            None => Some(Expression::In(key, set(rest.strip_prefix("in")?)?)),
        }
    };
    read().ok_or_else(|| SelectorError { requirement: text.to_owned() })
}

/// Parses `(a, b)`.
fn set(text: &str) -> Option<BTreeSet<String>> {
    let values = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    values.split(',').map(|value| checked(value, is_value)).collect()
}

fn checked(text: &str, is_allowed: fn(&str) -> bool) -> Option<String> {
    let text = text.trim();
    is_allowed(text).then(|| text.to_owned())
}

/// Returns whether `text` is `name` or `prefix/name`.
fn is_key(text: &str) -> bool {
    let (prefix, name) = text.rsplit_once('/').unwrap_or(("prefix", text));
    !name.is_empty() && is_value(name) && !prefix.is_empty() && prefix.bytes().all(is_label_byte)
}

/// Returns whether `text` is a label's value: at most 63 letters, digits, `-`, `_` and `.`.
fn is_value(text: &str) -> bool {
    text.len() <= 63 && text.bytes().all(is_label_byte)
}

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements() {
        let check = |text: &str, expected: Option<&str>| {
            let read = parse(text).map(|selector| selector.to_string()).ok();
            assert_eq!(read.as_deref(), expected, "{text}");
        };
        check("app=web", Some("app=web"));
        check("app == web", Some("app=web"));
        check("app!=web,tier", Some("app!=web,tier"));
        check("!app", Some("!app"));
        check("example.com/app in (web, api),tier", Some("example.com/app in (api,web),tier"));
        check("app notin (web)", Some("app notin (web)"));
        check("app=", Some("app="));
        check("", None);
        check("app=web,", None);
        check("app in", None);
        check("app in web", None);
        check("app in (web", None);
        check("app is (web)", None);
        check("app=we b", None);
        check("=web", None);
        check("/app", None);
        check("app=a=b", None);
    }
}
