//! healthz as a process: exit codes, error messages, variables, signals. Other tests cover its
//! internals.
#![allow(clippy::unwrap_used)] // in a test a panic is the message

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

fn healthz() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_healthz"));
    command.env_clear().stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_mistake_is_one_line_on_stderr_and_exit_code_2() {
    let rows: [(&[&str], &str, &str); 6] = [
        (&["--http-listen", "nowhere"], "", "--http-listen"),
        (&["--probe", "a,127.0.0.1,x,0"], "", "1 to 3600"),
        (&["--probe", "a,::1,x", "--probe", "a,::1,y"], "", "label 'a'"),
        (&["--log", "loud"], "", "error, warn, info"),
        (&["--no-such-flag"], "", "--no-such-flag"),
        (&[], "b,::1,x c,::1", "2 parts"),
    ];
    for (arguments, probes, part) in rows {
        let mut command = healthz();
        if !probes.is_empty() {
            command.env("HEALTHZ_PROBE", probes);
        }
        let Output { status, stdout, stderr } = command.args(arguments).output().unwrap();
        let line = text(&stderr);
        assert_eq!(status.code(), Some(2), "{line}");
        assert_eq!((stdout.len(), line.lines().count()), (0, 1), "{line}");
        assert!(line.contains(part), "{part} is missing in {line}");
    }
}

#[test]
fn help_goes_to_stdout_and_is_no_mistake() {
    let Output { status, stdout, stderr } = healthz().arg("--help").output().unwrap();
    assert!(status.success() && stderr.is_empty());
    assert!(text(&stdout).contains("[env: HEALTHZ_HTTP_LISTEN]"), "{}", text(&stdout));
}

#[test]
fn an_address_in_use_is_named_and_exit_code_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = healthz().args(["--http-listen", &address, "--log-format=text"]).output().unwrap();
    let line = text(&output.stderr);
    assert_eq!((output.status.code(), line.lines().count()), (Some(1), 1), "{line}");
    assert!(line.contains(&address) && !line.contains('\u{1b}'), "{line}");
}

#[test]
fn check_and_ask_end_with_the_code_of_their_finding() {
    let nobody = "127.0.0.1:1";
    let check = ["check", "--timeout=1", "--dnscache", nobody, "--kubedns", nobody];
    let server = ["--server", nobody];
    let rows: [(&[&str], &[&str], i32, &str); 5] = [
        (&check, &["--server", nobody, "--category=transport"], 1, "does not answer on port 53"),
        (&check, &["--server", nobody, "--category=programs"], 0, "not checked"),
        (&["check", "--list"], &[], 0, "transport: UDP"),
        (&["check", "--category=all"], &[], 2, "client, service"),
        (&["ask", "x."], &server, 1, "glibc: x gets no answer"),
    ];
    for (first, rest, code, part) in rows {
        let Output { status, stdout, stderr } = healthz().args(first).args(rest).output().unwrap();
        let said = text(&stdout) + &text(&stderr);
        assert_eq!(status.code(), Some(code), "{first:?}: {said}");
        assert!(said.contains(part), "{part} is missing in {said}");
    }
}

#[test]
fn a_signal_ends_it_with_exit_code_0() {
    let mut child = healthz()
        .args(["--http-listen", "127.0.0.1:0", "--probe", "a,127.0.0.1:1,x"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Signals must be caught before the first line is logged.
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = log.next().unwrap().unwrap();
    assert!(first.starts_with('{') && first.contains("\"message\":\"probing\""), "{first}");
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let rest = log.map(Result::unwrap).collect::<Vec<_>>().join("\n");
    assert!(rest.contains("SIGTERM"), "{rest}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
