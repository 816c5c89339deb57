//! The laws of this repository, each with a message that names the place where it is broken.
//!
//! It reads files, text and tokens, and must not depend on what the code does. rustc, clippy and
//! rustfmt check what they can. If a law makes a file harder to read, it is a bad law: change it
//! here, so that it changes for all files.
//!
//! ```text
//! tree     which folders and files there are, and that every .rs file is part of a crate
//! text     every text file: line by line
//! rust     every .rs file: its tokens
//! prose    comments and Markdown: banned words
//! manifests  flags, ports and probes against the programs' own command lines
//! ```

pub mod manifests;
mod prose;
mod rust;
mod source;
mod text;
pub mod tree;

use std::fmt;

use source::Source;

/// A law broken at a place.
#[derive(Debug, PartialEq, Eq)]
pub struct Breach {
    path: String,
    line: usize,
    law: String,
}

impl Breach {
    fn new(path: &str, line: usize, law: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, law: law.into() }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.law)
    }
}

#[test]
fn the_tree_has_the_shape_that_was_agreed() {
    let files = tree::files();
    let mut breaches = tree::folders();
    breaches.extend(tree::names(&files));
    breaches.extend(tree::unreachable(&files));
    breaches.extend(tree::binary_breaches(&tree::binaries()));
    breaches.extend(rust::missing_core_files(&files));
    keep(breaches);
}

#[test]
fn every_text_file_keeps_the_laws() {
    keep(tree::files().iter().flat_map(|file| text::breaches(&file.path, &file.text)).collect());
}

#[test]
fn comments_and_pages_are_plain_english() {
    keep(prose::breaches(&tree::files()));
}

#[test]
fn every_rust_file_keeps_the_laws() {
    let files = tree::files();
    let sources = files.iter().filter(|file| file.path.ends_with(".rs"));
    keep(sources.flat_map(|file| rust::breaches(&Source::read(&file.path, &file.text))).collect());
}

#[test]
fn what_is_no_text_is_a_small_picture() {
    let rows = [("a.png", 60_000, 0), ("a.png", 60_001, 1), ("a.zip", 1, 1)];
    for (path, bytes, expected) in rows {
        assert_eq!(tree::binary_breaches(&[(path.to_owned(), bytes)]).len(), expected, "{path}");
    }
}

/// Panics with every breach, one per line.
pub fn keep(breaches: Vec<Breach>) {
    let list: Vec<String> = breaches.iter().map(Breach::to_string).collect();
    assert!(list.is_empty(), "{} broken:\n{}\n", list.len(), list.join("\n"));
}

/// Checks that `text`, a file at `path`, breaks exactly one law, whose message contains `law`. If
/// `law` is empty, it must not break any.
#[cfg(test)]
fn check(path: &str, text: &str, law: &str) {
    let mut breaches = text::breaches(path, text);
    if path.ends_with(".rs") {
        breaches.extend(rust::breaches(&Source::read(path, text)));
    }
    let list: Vec<String> = breaches.iter().map(Breach::to_string).collect();
    match (law, &list[..]) {
        ("", []) => {}
        ("", _) => panic!("{path} with {text:?} should keep the laws, breaks {list:#?}"),
        (law, [only]) if only.contains(law) => {}
        _ => panic!("{path} with {text:?} should break {law:?} alone, breaks {list:#?}"),
    }
}

#[test]
fn a_law_catches_who_breaks_it_and_spares_who_keeps_it() {
    let lib = "shared/src/lib.rs";
    let core = "dnscache/src/lifetime.rs";
    let page = "//! A page.\n";
    let good = |text: &str| check(lib, &format!("{page}{text}"), "");
    let bad = |text: &str, law: &str| check(lib, &format!("{page}{text}"), law);

    check(lib, page, "");
    check(lib, "// no page\n", "opens with");
    check(lib, &format!("{page}// {}\n", "x".repeat(97)), "");
    check(lib, &format!("{page}// {}\n", "x".repeat(98)), "101 characters");
    check(lib, &format!("{page}// {}\n", "ä".repeat(97)), "");
    check(lib, &format!("{page}{}", "const A: u8 = 0;\n".repeat(499)), "");
    check(lib, &format!("{page}{}", "const A: u8 = 0;\n".repeat(500)), "501 lines");
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "const A: u8 = 0;\n".repeat(600));
    good(&tests);

    let body = |lines: usize| "    work();\n".repeat(lines);
    good(&format!("fn f() {{\n{}}}\n", body(68)));
    bad(&format!("fn f() {{\n{}}}\n", body(69)), "`f` has 71 lines");
    good(&format!("#[cfg(test)]\nmod tests {{\nfn f() {{\n{}}}\n}}\n", body(90)));
    bad(&format!("async fn run() {{\n{}}}\n", body(59)), "`run` has 61 lines");
    bad(&format!("fn main() {{\n{}}}\n", body(39)), "`main` has 41 lines");
    good("fn f(a: A<B, C>, b: (D, E), c: impl Fn(F, G) -> (H, K), d: I) {}\n");
    good("fn f((a, b): (A, B), c: A<(B, C)>, d: [A; 3], e: ()) {}\n");
    bad("fn f(a: A, (b, c): (B, C), d: &mut (D, E), f: F) {}\n", "6 arguments");
    good("impl A { fn f(&self, a: B, b: B, c: B, d: B, e: B) {} }\n");
    bad("fn f<T: Fn(A) -> B>(a: A, b: A, c: A, d: A, e: A, f: T) {}\n", "6 arguments");
    good("type F = fn(A, A, A, A, A, A, A);\n");

    good("fn f() { a.unwrap_or(b); let unwrap = 1; }\n");
    good("/// Never `todo!()` nor `.unwrap()`.\nconst A: &str = \".unwrap() dbg!(a)\";\n");
    good("#[cfg(test)]\nmod tests { fn f() { a.unwrap(); } }\n");
    bad("fn f() { a.unwrap(); }\n", "unwrap");
    bad("fn f() { assert!(a\n.unwrap()); }\n", ":3: `unwrap");
    bad("fn f() { todo!() }\n", "todo!");
    bad("#[cfg(test)]\nmod tests { fn f() { dbg!(a); } }\n", "dbg!");
    bad("fn f() { unimplemented!(\"a\") }\n", "unimplemented!");
    bad("fn f() { unsafe { g() } }\n", "unsafe");
    check("shared/src/serve/mmsg.rs", &format!("{page}fn f() {{ unsafe {{ g() }} }}\n"), "");
    check("shared/src/serve/mmsg/a.rs", &format!("{page}fn f() {{ unsafe {{ g() }} }}\n"), "");
    check("shared/src/serve/mmsg2.rs", &format!("{page}fn f() {{ unsafe {{ g() }} }}\n"), "unsafe");
    good("#[allow(dead_code)] // because\nfn f() {}\n#[allow(a, reason = \"b\")]\nfn g() {}\n");
    bad("#[allow(dead_code)]\nfn f() {}\n", "reason");
    bad("#![expect(dead_code)]\nfn f() {}\n", "reason");
    good("fn f() { let _ = g(); // sure\n// sure\nlet _ = g();\n}\n");
    bad("fn f() {\n    let _ = g();\n}\n", "let _");

    let core_good = "/// Not async, no Mutex.\nfn f(now: Moment) { known(now); trace!(\"a\"); }\n";
    check(core, &format!("{page}{core_good}"), "");
    let tested = "#[cfg(test)]\nmod tests { use std::sync::Mutex; }\n";
    check(core, &format!("{page}{tested}"), "");
    check(lib, "//! A page.\n//!\n//! Core. No sockets.\nuse tokio::time;\n", "core file");
    for word in ["async fn f() {}", "fn f() { boot_time(); }", "use tokio::time;"] {
        check(core, &format!("{page}{word}\n"), "core file");
        check(lib, &format!("{page}{word}\n"), "");
    }
    for word in ["Mutex", "RwLock", "UdpSocket", "rand"] {
        check(core, &format!("{page}use a::{word};\n"), "core file");
    }
    check(core, &format!("{page}fn f() {{ tracing::warn!(\"a\"); }}\n"), "core file");

    bad("fn f() { let a = std::time::Instant::now(); }\n", "clock");
    bad("fn f() { SystemTime::now(); }\n", "clock");
    good("fn f() { boot_time(); }\n#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }\n");

    check("README.md", "Runs anywhere.\n", "");
    check("README.md", &["See /", "work/x\n"].concat(), "path of one machine");
    check("README.md", &["See /", "root/x\n"].concat(), "path of one machine");
    check("manifests/a.yaml", &["image: gcr", ".io/a\n"].concat(), "registry");
    check("manifests/a.yaml", &format!("# {}\n", "x".repeat(99)), "101 characters");
    check(
        "Cargo.toml",
        "[dependencies]\na = \"1\"\n[workspace.dependencies]\na = \"1\" # why\n",
        "",
    );
    check("Cargo.toml", "[workspace.dependencies]\nb = { path = \"b\" }\na = \"1\"\n", ":3: `a`");
    check("a.md", "no end", "newline");
    check("a.md", "space \n", "space");
}
