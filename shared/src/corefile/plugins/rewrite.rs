//! The plugins `rewrite` and `template`: rules of dnscache.
//!
//! Core. [`rules`](crate::rules) defines the syntax of the rules; dnscache applies them.

use super::super::keys::Zone;
use super::super::parser::{Directive, Line};
use super::arguments::{one, zones};
use super::{Fate, Said, Server, settle, unknown_option};
use crate::corefile::plan::Rows;
use crate::flags::chain;
use crate::mnemonics::{rcode_number, type_number};
use crate::rules::rewrite::Rewrite;
use crate::rules::text::{Pattern, Text};
use crate::wire::{ErrorCode, rcode};

/// A line `template`.
#[derive(Clone, Debug)]
pub struct Template {
    /// The type that it answers; `None` for every type.
    pub qtype: Option<u16>,
    /// The zones for which it answers; those of the block if empty.
    pub zones: Vec<Zone>,
    /// Patterns of names.
    pub patterns: Vec<Pattern>,
    /// The records: the section, 0 to 2, and the text of each.
    pub records: Vec<(usize, Text)>,
    /// The response code.
    pub rcode: u16,
    /// The Extended DNS Error: its code and text.
    pub error: Option<(ErrorCode, String)>,
    /// The zones in which names that match no pattern are passed to the next plugin; the root means
    /// all zones.
    pub fallthrough: Vec<Zone>,
}

/// `rewrite [continue|stop] FIELD ...`, or `rewrite [continue|stop] { FIELD ... }`
pub fn rewrite(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    let mut words: Vec<String> = line.arguments.iter().map(|token| token.text.clone()).collect();
    for option in &directive.options {
        let tokens = std::iter::once(&option.name).chain(&option.arguments);
        words.extend(tokens.map(|token| token.text.clone()));
        rows.rule(option.index, "rewrite rule above");
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match Rewrite::parse(&words) {
        Ok(rule) => {
            rows.rule(line.index, "rewrite rules, in the order of the file");
            server.rewrites.push(rule);
        }
        Err(error) => rows.refuse(line.index, chain(&error)),
    }
}

/// `template CLASS TYPE [ZONES...] { ... }`
pub fn template(directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    let [class, qtype, names @ ..] = &line.arguments[..] else {
        return rows.refuse(line.index, "expected CLASS TYPE [ZONES...], such as IN AAAA");
    };
    if !["IN", "ANY"].contains(&class.text.to_ascii_uppercase().as_str()) {
        rows.refuse(line.index, format!("{:?}: only class IN is answered", class.text));
    }
    let zones = match zones(names) {
        Ok(zones) => zones,
        Err(reason) => return rows.refuse(line.index, reason),
    };
    let is_any = qtype.text.eq_ignore_ascii_case("ANY");
    let number = type_number(&qtype.text);
    if number.is_none() {
        return rows.refuse(line.index, format!("{:?} is not a type, such as A", qtype.text));
    }
    let mut template = Template {
        qtype: number.filter(|_| !is_any),
        zones,
        patterns: Vec::new(),
        records: Vec::new(),
        rcode: rcode::NOERROR,
        error: None,
        fallthrough: Vec::new(),
    };
    for option in &directive.options {
        match template_option(option, &mut template) {
            Ok(Fate::Kept) => rows.rule(option.index, "template above"),
            said => settle(option, said, rows),
        }
    }
    let mut texts = template.records.iter().map(|(_, text)| text.check(&template.patterns));
    if let Some(error) = texts.find_map(Result::err) {
        rows.refuse(line.index, chain(&error));
    }
    rows.rule(line.index, "templates, in the order of the file");
    server.templates.push(template);
}

fn template_option(option: &Line, template: &mut Template) -> Said {
    let words = || option.arguments.iter().map(|token| token.text.as_str());
    if option.arguments.is_empty() && !["fallthrough", "upstream"].contains(&&*option.name.text) {
        return Err("no argument; expected the value of the option".to_owned());
    }
    let mut records = |section| {
        words().try_for_each(|text| {
            let text = text.parse().map_err(|error| chain(&error))?;
            template.records.push((section, text));
            Ok::<(), String>(())
        })
    };
    match option.name.text.as_str() {
        "match" => {
            for text in words() {
                template.patterns.push(text.parse().map_err(|error| chain(&error))?);
            }
        }
        "answer" => records(0)?,
        "authority" => records(1)?,
        "additional" => records(2)?,
        "rcode" => {
            let text = one(option, "a response code")?;
            let number = rcode_number(text);
            template.rcode = number.ok_or_else(|| format!("{text:?} is not a response code"))?;
        }
        "ederror" => {
            let text = option.arguments[0].text.as_str();
            let number: u16 =
                text.parse().map_err(|_| "expected a number from 0 to 65535, and a text")?;
            let known = ERROR_CODES.iter().find(|code| **code as u16 == number);
            let code = known.ok_or_else(|| format!("{text:?} is not an Extended DNS Error"))?;
            template.error = Some((*code, words().skip(1).collect::<Vec<_>>().join(" ")));
        }
        "fallthrough" => {
            let mut zones = zones(&option.arguments)?;
            if zones.is_empty() {
                zones.push(Zone::root());
            }
            template.fallthrough.extend(zones);
        }
        "upstream" => return Ok(Fate::BuiltIn("targets of aliases are always looked up")),
        "var" | "expr" => return Err("expressions are not read; remove the template".to_owned()),
        _ => return Err(unknown_option(option, TEMPLATE_OPTIONS)),
    }
    Ok(Fate::Kept)
}

const TEMPLATE_OPTIONS: &str =
    "match, answer, authority, additional, rcode, ederror, fallthrough, upstream";
/// The errors that a template can add to its answer (RFC 8914 section 4).
const ERROR_CODES: [ErrorCode; 8] = [
    ErrorCode::Other,
    ErrorCode::Blocked,
    ErrorCode::Censored,
    ErrorCode::Filtered,
    ErrorCode::Prohibited,
    ErrorCode::NotAuthoritative,
    ErrorCode::NotSupported,
    ErrorCode::NetworkError,
];
