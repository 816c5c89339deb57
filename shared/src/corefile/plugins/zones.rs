//! Zones beside the cluster: `transfer`.
//!
//! Core.

use super::super::parser::Directive;
use super::arguments::{prefix, zones};
use super::{Server, unknown_option};
use crate::corefile::plan::{Program, Rows};

/// `transfer [ZONES...] { to ADDRESS...|* }`
pub fn transfer(directive: &Directive, _: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    match zones(&line.arguments) {
        Ok(_) => rows.build_in(line.index, "NOTIFY is not sent, secondaries ask when they refresh"),
        Err(reason) => rows.refuse(line.index, reason),
    }
    if !directive.options.iter().any(|option| option.name.text == "to") {
        rows.refuse(line.index, "no line `to`; expected to with addresses, or *");
    }
    for option in &directive.options {
        match option.name.text.as_str() {
            "to" if option.arguments.is_empty() => {
                rows.refuse(option.index, "no argument; expected addresses, or *");
            }
            "to" => {
                for token in &option.arguments {
                    let values = match token.text.as_str() {
                        "*" => Ok(vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()]),
                        text => prefix(
                            text.rsplit_once(':')
                                .filter(|_| text.contains('.'))
                                .map_or(text, |(host, _)| host),
                        )
                        .map(|prefix| vec![prefix.to_string()]),
                    };
                    match values {
                        Ok(values) => {
                            for value in values {
                                rows.set(option.index, (Program::Kubedns, "transfer"), value);
                            }
                        }
                        Err(reason) => rows.refuse(option.index, reason),
                    }
                }
            }
            "source" => rows.refuse(option.index, "NOTIFY is not sent; remove the line"),
            _ => rows.refuse(option.index, unknown_option(option, "to")),
        }
    }
}
