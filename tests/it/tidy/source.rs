//! A Rust file as tokens. Comments and strings cannot be mistaken for code, and the tokens in
//! macros are included.

use std::ops::Range;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A file of Rust.
pub struct Source<'a> {
    /// The path relative to the root of the workspace.
    pub path: &'a str,
    /// The text of the file.
    pub text: &'a str,
    /// Every token in order, delimiters too.
    pub tokens: Vec<Token>,
}

/// A word, a punctuation character, a literal or a delimiter.
#[derive(Debug)]
pub struct Token {
    /// The text of the token.
    pub text: String,
    /// Its line, counted from one.
    pub line: usize,
    /// Whether it belongs to tests.
    pub is_test: bool,
}

/// A function with a body.
pub struct Function<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its lines, from `fn` to the last brace.
    pub lines: Range<usize>,
    /// The number of its arguments, without `self`.
    pub arguments: usize,
    /// Whether it belongs to tests.
    pub is_test: bool,
}

impl<'a> Source<'a> {
    /// Parses `text`. Panics with the place if it is not Rust.
    pub fn read(path: &'a str, text: &'a str) -> Self {
        let stream: TokenStream =
            text.parse().unwrap_or_else(|error| panic!("{path} is not Rust: {error}"));
        let (_, within) = path.split_once('/').unwrap_or(("", path));
        let is_test = path.starts_with("tests/it/") || within.split(['/', '.']).any(|p| p == TESTS);
        let mut tokens = Vec::new();
        flatten(stream, is_test, &mut tokens);
        Self { path, text, tokens }
    }

    /// Returns the places of the sequence `words`, as the index of the first.
    pub fn find<'s>(&'s self, words: &'s [&str]) -> impl Iterator<Item = usize> + 's {
        (0..self.tokens.len()).filter(move |&start| {
            let found = self.tokens[start..].iter().map(|token| token.text.as_str());
            found.take(words.len()).eq(words.iter().copied())
        })
    }

    /// Returns the number of lines that belong to tests.
    pub fn test_lines(&self) -> usize {
        let mut lines: Vec<usize> =
            self.tokens.iter().filter(|token| token.is_test).map(|token| token.line).collect();
        lines.dedup();
        // Blank lines and comments between two lines of tests count as tests, too.
        lines.first().zip(lines.last()).map_or(0, |(first, last)| last - first + 1)
    }

    /// Returns every function that has a body.
    pub fn functions(&self) -> Vec<Function<'_>> {
        self.find(&["fn"]).filter_map(|start| self.function(start)).collect()
    }

    fn function(&self, start: usize) -> Option<Function<'_>> {
        let name = self.tokens.get(start + 1)?;
        if name.text == "(" {
            return None; // the type of a function
        }
        let open = self.next_outside_angles(start + 2, "(")?;
        let close = self.closing(open)?;
        let mut at = close + 1;
        while self.tokens.get(at)?.text != "{" {
            match self.tokens[at].text.as_str() {
                ";" => return None, // no body
                "(" | "[" => at = self.closing(at)?,
                _ => {}
            }
            at += 1;
        }
        let end = self.tokens[self.closing(at)?].line;
        Some(Function {
            name: &name.text,
            lines: self.tokens[start].line..end + 1,
            arguments: self.arguments(open, close),
            is_test: self.tokens[start].is_test,
        })
    }

    /// Counts the arguments by their commas, without those in types, except that a tuple counts as
    /// its elements. The last one may not have a comma.
    fn arguments(&self, open: usize, close: usize) -> usize {
        let (mut count, mut angles, mut at, mut is_empty) = (0, 0, open + 1, true);
        while at < close {
            match self.tokens[at].text.as_str() {
                "(" if angles == 0 && self.begins_type(at) => {
                    let end = self.closing(at).unwrap_or(close);
                    count += self.arguments(at, end).saturating_sub(1);
                    at = end;
                }
                "(" | "[" | "{" => at = self.closing(at).unwrap_or(close),
                "<" => angles += 1,
                ">" if self.tokens[at - 1].text != "-" => angles -= 1,
                "," if angles == 0 => {
                    count += usize::from(!is_empty);
                    is_empty = true;
                    at += 1;
                    continue;
                }
                "self" => {
                    // `&mut self`: the token that was counted as the start of an argument is not
                    // one.
                    is_empty = true;
                    at += 1;
                    continue;
                }
                "&" | "mut" => {
                    at += 1;
                    continue;
                }
                _ => {}
            }
            is_empty = false;
            at += 1;
        }
        count + usize::from(!is_empty)
    }

    /// Returns whether a type begins at `at`: behind a colon, or behind a reference behind one.
    fn begins_type(&self, at: usize) -> bool {
        let before = self.tokens[..at].iter().rev().map(|token| token.text.as_str());
        let mut before = before.skip_while(|text| *text == "&" || *text == "mut" || *text == "'");
        before.next() == Some(":")
    }

    fn next_outside_angles(&self, from: usize, text: &str) -> Option<usize> {
        let mut angles = 0;
        for at in from..self.tokens.len() {
            match self.tokens[at].text.as_str() {
                found if found == text && angles == 0 => return Some(at),
                "<" => angles += 1,
                ">" if self.tokens[at - 1].text != "-" => angles -= 1,
                _ => {}
            }
        }
        None
    }

    /// Returns the delimiter that closes the one at `open`.
    pub fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0;
        for (at, token) in self.tokens.iter().enumerate().skip(open) {
            match token.text.as_str() {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(at);
            }
        }
        None
    }
}

fn flatten(stream: TokenStream, is_test: bool, tokens: &mut Vec<Token>) {
    let mut item_is_test = is_test;
    let mut previous_is_hash = false;
    for tree in stream {
        let is_hash = matches!(&tree, TokenTree::Punct(punct) if punct.as_char() == '#');
        let line = tree.span().start().line;
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                item_is_test |= previous_is_hash && is_cfg_test(&group.stream());
                let last = group.span_close().end().line;
                tokens.push(Token { text: open.to_owned(), line, is_test: item_is_test });
                flatten(group.stream(), item_is_test, tokens);
                tokens.push(Token { text: close.to_owned(), line: last, is_test: item_is_test });
                item_is_test &= is_test || open != "{"; // the item ended with its body
            }
            other => {
                let text = other.to_string();
                let is_end = text == ";";
                tokens.push(Token { text, line, is_test: item_is_test });
                item_is_test &= is_test || !is_end;
            }
        }
        previous_is_hash = is_hash;
    }
}

/// Returns whether it is `cfg(test)`, alone or with other conditions.
fn is_cfg_test(attribute: &TokenStream) -> bool {
    let text: String = attribute.to_string().split_whitespace().collect();
    text.starts_with("cfg(") && text.contains("test") && !text.contains("not(test")
}

/// The name of a module or file of tests.
const TESTS: &str = "tests";
