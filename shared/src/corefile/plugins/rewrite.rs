//! The plugins `rewrite` and `template`: rules of dnscache.
//!
//! Core. Keeps the words; dnscache reads the rules in them, and judges them for the plan.

use super::super::keys::Zone;
use super::super::parser::{Directive, Line};
use super::arguments::{one, zones};
use super::{Fate, Said, Server, settle, unknown_option};
use crate::corefile::plan::Rows;

/// A line `rewrite`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// The index of the line.
    pub index: usize,
    /// The words of the rule.
    pub words: Vec<String>,
}

/// A line `template`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The index of the line.
    pub index: usize,
    /// The type that it answers; `None` for every type.
    pub qtype: Option<String>,
    /// The zones that it answers for; those of the block if there are none.
    pub zones: Vec<Zone>,
    /// Patterns of names.
    pub matches: Vec<String>,
    /// The records: the section, 0 to 2, and the text of each.
    pub records: Vec<(usize, String)>,
    /// The response code.
    pub rcode: Option<String>,
    /// The Extended DNS Error: its code and text.
    pub error: Option<(u16, String)>,
    /// The zones in which names that match no pattern are left to the next plugin; the root stands
    /// for all.
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
    let field = words.iter().find(|word| !["continue", "stop"].contains(&word.as_str()));
    match field.map(String::as_str) {
        None => rows.refuse(line.index, "expected a rule, such as name exact a.example b.example"),
        Some("name" | "type" | "ttl" | "rcode") => {
            rows.rule(line.index, "rewrite rules, in the order of the file");
            server.rewrites.push(Rewrite { index: line.index, words });
        }
        Some("class") => rows.refuse(line.index, "only class IN is answered; remove the line"),
        Some("edns0") => {
            rows.refuse(line.index, "queries to upstreams have no options; remove the line");
        }
        Some("cname") => {
            rows.refuse(line.index, "aliases are not asked for; write a rule for name");
        }
        Some(other) => {
            let reason = format!("{other:?} is not allowed; expected name, type, ttl or rcode");
            rows.refuse(line.index, reason);
        }
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
    let mut template = Template {
        index: line.index,
        qtype: (!is_any).then(|| qtype.text.to_ascii_uppercase()),
        zones,
        matches: Vec::new(),
        records: Vec::new(),
        rcode: None,
        error: None,
        fallthrough: Vec::new(),
    };
    for option in &directive.options {
        match template_option(option, &mut template) {
            Ok(Fate::Kept) => rows.rule(option.index, "template above"),
            said => settle(option, said, rows),
        }
    }
    rows.rule(line.index, "templates, in the order of the file");
    server.templates.push(template);
}

fn template_option(option: &Line, template: &mut Template) -> Said {
    let words = || option.arguments.iter().map(|token| token.text.clone());
    if option.arguments.is_empty() && !["fallthrough", "upstream"].contains(&&*option.name.text) {
        return Err("no argument; expected the value of the option".to_owned());
    }
    match option.name.text.as_str() {
        "match" => template.matches.extend(words()),
        "answer" => template.records.extend(words().map(|text| (0, text))),
        "authority" => template.records.extend(words().map(|text| (1, text))),
        "additional" => template.records.extend(words().map(|text| (2, text))),
        "rcode" => template.rcode = Some(one(option, "a response code")?.to_ascii_uppercase()),
        "ederror" => {
            let code = option.arguments[0].text.parse();
            let code = code.map_err(|_| "expected a number from 0 to 65535, and a text")?;
            template.error = Some((code, words().skip(1).collect::<Vec<_>>().join(" ")));
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
