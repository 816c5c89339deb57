//! What the lines of a change stream remove from the cache.
//!
//! Core. Independent of connections and of the cache.

use shared::changes::Line;
use shared::name::parse;

/// The names that several lines remove.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Drops {
    /// The names in lower-case wire form.
    pub names: Vec<Box<[u8]>>,
    /// Whether every name of the cluster is removed.
    pub everything: bool,
}

impl Drops {
    /// Adds the names of `line`.
    pub fn add(&mut self, line: &Line) {
        self.everything |= line.flush;
        for name in &line.names {
            match parse(name) {
                Some(name) if name.len() > 1 => self.names.push(name),
                // The root, or a name without a wire form.
                _ => self.everything = true,
            }
        }
        self.everything |= self.names.len() > NAMES_MAX;
    }
}

/// If there are more names than this, every name is removed.
const NAMES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_add_up() {
        let rows: [(&str, &[&str], bool); 5] = [
            (r#"{"generation":1}"#, &[], false),
            (r#"{"generation":1,"names":["a.b.","C."]}"#, &["a.b", "c"], false),
            (r#"{"generation":1,"names":["a..b."]}"#, &[], true),
            (r#"{"generation":1,"flush":true}"#, &[], true),
            (r#"{"generation":1,"cut":"too slow","new":{}}"#, &[], false),
        ];
        for (line, names, everything) in rows {
            let mut drops = Drops::default();
            drops.add(&Line::parse(line.as_bytes()).unwrap());
            let names = names.iter().map(|name| parse(name).unwrap()).collect();
            assert_eq!(drops, Drops { names, everything }, "{line}");
        }
    }
}
