//! The laws of Rust files.

use super::Breach;
use super::source::Source;
use super::tree::File;

/// Returns the places where `source` breaks a law.
pub fn breaches(source: &Source) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for law in LAWS {
        let found = law(source);
        breaches.extend(found.into_iter().map(|(line, law)| Breach::new(source.path, line, law)));
    }
    breaches
}

/// Returns the core files of the list that do not exist.
pub fn missing_core_files(files: &[File]) -> Vec<Breach> {
    CORE.iter()
        .filter(|core| !files.iter().any(|file| covers(core, &file.path)))
        .map(|core| Breach::new(file!(), line!() as usize, format!("core file {core} is gone")))
        .collect()
}

type Law = fn(&Source) -> Vec<(usize, String)>;

const LAWS: [Law; 10] = [
    opens_with_a_page,
    file_fits,
    functions_fit,
    nothing_unfinished,
    no_unwrap,
    unsafe_in_one_place,
    exceptions_have_reasons,
    discarded_results_have_reasons,
    core_is_pure,
    one_reader_of_clocks,
];

fn opens_with_a_page(source: &Source) -> Vec<(usize, String)> {
    if source.text.starts_with("//!") {
        return Vec::new();
    }
    vec![(1, "a file opens with `//!`: what it is, what it must not know".to_owned())]
}

fn file_fits(source: &Source) -> Vec<(usize, String)> {
    if source.tokens.first().is_some_and(|token| token.is_test) {
        return Vec::new();
    }
    let lines = source.text.lines().count() - source.test_lines();
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![(1, format!("{lines} lines without tests, {FILE_LINES_MAX} at most: find the seam"))]
}

fn functions_fit(source: &Source) -> Vec<(usize, String)> {
    let mut breaches = Vec::new();
    for function in source.functions().into_iter().filter(|function| !function.is_test) {
        let max = match function.name {
            "main" => MAIN_LINES_MAX,
            "run" => RUN_LINES_MAX,
            _ => FUNCTION_LINES_MAX,
        };
        let (name, lines) = (function.name, function.lines.len());
        if lines > max {
            breaches
                .push((function.lines.start, format!("`{name}` has {lines} lines, {max} at most")));
        }
        if function.arguments > ARGUMENTS_MAX {
            let arguments = function.arguments;
            let law = format!("`{name}` takes {arguments} arguments, {ARGUMENTS_MAX} at most");
            breaches.push((function.lines.start, law));
        }
    }
    breaches
}

fn nothing_unfinished(source: &Source) -> Vec<(usize, String)> {
    let left = |name: &'static str| {
        let line = move |at: usize| (source.tokens[at].line, format!("`{name}!` is left"));
        source.find(&[name, "!"]).map(line).collect::<Vec<_>>()
    };
    ["todo", "dbg", "unimplemented"].into_iter().flat_map(left).collect()
}

fn no_unwrap(source: &Source) -> Vec<(usize, String)> {
    let law = "`unwrap` outside tests: handle it, or `expect(\"why this holds\")`";
    source
        .find(&[".", "unwrap", "(", ")"])
        .filter(|&at| !source.tokens[at].is_test)
        .map(|at| (source.tokens[at + 1].line, law.to_owned()))
        .collect()
}

fn unsafe_in_one_place(source: &Source) -> Vec<(usize, String)> {
    let beneath = UNSAFE.trim_end_matches(".rs");
    let is_there =
        source.path.strip_prefix(beneath).is_some_and(|rest| rest.starts_with(['.', '/']));
    if is_there {
        return Vec::new();
    }
    source
        .find(&["unsafe"])
        .map(|at| (source.tokens[at].line, format!("`unsafe` belongs to {UNSAFE} alone")))
        .collect()
}

/// Checks that `allow` and `expect` have a reason: as `reason = ".."`, or in a comment on or above
/// the line.
fn exceptions_have_reasons(source: &Source) -> Vec<(usize, String)> {
    let mut breaches = Vec::new();
    for name in ["allow", "expect"] {
        for at in source.find(&["[", name, "("]) {
            let end = source.closing(at).unwrap_or(at);
            let says = source.tokens[at..end].iter().any(|token| token.text == "reason");
            let line = source.tokens[at].line;
            if !says && !has_comment(source, line) {
                breaches.push((line, format!("`{name}` needs a reason")));
            }
        }
    }
    breaches
}

fn discarded_results_have_reasons(source: &Source) -> Vec<(usize, String)> {
    source
        .find(&["let", "_", "="])
        .map(|at| source.tokens[at].line)
        .filter(|&line| !has_comment(source, line))
        .map(|line| (line, "`let _ =` needs a comment that says why".to_owned()))
        .collect()
}

fn core_is_pure(source: &Source) -> Vec<(usize, String)> {
    let mut page = source.text.lines().take_while(|line| line.starts_with("//!"));
    let says_core = page.any(|line| line.contains("Core."));
    if !says_core && !CORE.iter().any(|core| covers(core, source.path)) {
        return Vec::new();
    }
    let mut breaches = Vec::new();
    for words in IMPURE {
        for at in source.find(words).filter(|&at| !source.tokens[at].is_test) {
            let law = format!("`{}` in a core file: its caller's work", words.concat());
            breaches.push((source.tokens[at].line, law));
        }
    }
    breaches
}

fn one_reader_of_clocks(source: &Source) -> Vec<(usize, String)> {
    let is_tool = source.path.split('/').any(|part| part == "tests" || part == "benches");
    if is_tool || source.path == CLOCK || TIMERS.contains(&source.path) {
        return Vec::new();
    }
    let mut breaches = Vec::new();
    for words in CLOCKS {
        for at in source.find(words).filter(|&at| !source.tokens[at].is_test) {
            let law = format!("`{}` outside {CLOCK}", words.concat());
            breaches.push((source.tokens[at].line, law));
        }
    }
    breaches
}

/// Whether `core`, of the list, is the file at `path` or a folder above it.
fn covers(core: &str, path: &str) -> bool {
    path == core || core.ends_with('/') && path.starts_with(core)
}

/// Returns whether line `line` ends with a comment, or the one above is a comment.
fn has_comment(source: &Source, line: usize) -> bool {
    let text = |line: usize| source.text.lines().nth(line - 1).unwrap_or_default().trim_start();
    text(line).contains("// ") || line > 1 && text(line - 1).starts_with("// ")
}

/// Values in, values out: no socket, clock, lock, random source or `async`. These files must stay
/// core. Other files are core as long as their documentation has "Core." A name that ends with a
/// slash is a folder, and means every file below it.
const CORE: &[&str] = &[
    "dnscache/src/cache/",
    "dnscache/src/chaos.rs",
    "dnscache/src/doors.rs",
    "dnscache/src/doors/",
    "dnscache/src/handler.rs",
    "dnscache/src/lifetime.rs",
    "dnscache/src/local.rs",
    "dnscache/src/local/autopath.rs",
    "dnscache/src/local/dns64.rs",
    "dnscache/src/local/hosts.rs",
    "dnscache/src/local/made.rs",
    "dnscache/src/local/pending.rs",
    "dnscache/src/local/rewrite.rs",
    "dnscache/src/local/rewrite/",
    "dnscache/src/local/template.rs",
    "dnscache/src/local/template/",
    "dnscache/src/local/zone.rs",
    "dnscache/src/local/zone/",
    "dnscache/src/normalise.rs",
    "dnscache/src/normalise/",
    "dnscache/src/route.rs",
    "dnscache/src/route/",
    "kubedns/src/answer/wildcard.rs",
    "kubedns/src/name.rs",
    "kubedns/src/project.rs",
    "kubedns/src/project/",
    "kubedns/src/records.rs",
    "kubedns/src/records/",
    "kubedns/src/snapshot/",
    "kubedns/src/store/",
    "kubedns/src/transfer.rs",
    "kubedns/src/transfer/",
    "shared/src/changes.rs",
    "shared/src/mnemonics.rs",
    "shared/src/name.rs",
    "shared/src/prefix.rs",
    "shared/src/reverse.rs",
    "shared/src/rules.rs",
    "shared/src/rules/",
    "shared/src/wire.rs",
    "shared/src/wire/",
];

/// Tokens that core files must not contain.
const IMPURE: &[&[&str]] = &[
    &["async"],
    &["tokio"],
    &["Mutex"],
    &["RwLock"],
    &["now", "("],
    &["boot_time"],
    &["unix_ms"],
    &["rand"],
    &["UdpSocket"],
    &["TcpStream"],
    &["debug", "!"],
    &["info", "!"],
    &["warn", "!"],
    &["error", "!"],
];

/// The only file that reads clocks.
const CLOCK: &str = "shared/src/clock.rs";
/// Files that set timers of tokio, which have a clock of their own, or the deadline of a read that
/// blocks.
const TIMERS: [&str; 6] = [
    "dnscache/src/changes/follower.rs",
    "dnscache/src/forward/tcp.rs",
    "healthz/src/probe.rs",
    "shared/src/probe.rs",
    "shared/src/serve/tcp/connection.rs",
    "shared/src/shutdown.rs",
];
/// What reads a clock.
const CLOCKS: &[&[&str]] =
    &[&["Instant", ":", ":", "now"], &["SystemTime", ":", ":", "now"], &["clock_gettime"]];

/// System calls without a safe crate; the files of its submodules belong to it.
const UNSAFE: &str = "shared/src/serve/mmsg.rs";
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const MAIN_LINES_MAX: usize = 40;
const RUN_LINES_MAX: usize = 60;
const ARGUMENTS_MAX: usize = 5;
