//! dnscache as a process: behaviour that depends on the limits of a process. Other tests cover its
//! internals.
#![allow(clippy::unwrap_used)] // in a test a panic is the message

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Ends the program with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Returns a query for A of `nNUMBER.example` with OPT.
fn query(number: u16) -> Vec<u8> {
    let label = format!("n{number}");
    let mut message = number.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1, label.len() as u8]);
    message.extend_from_slice(label.as_bytes());
    message.extend_from_slice(b"\x07example\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0");
    message
}

/// Descriptors for some 20 sockets to upstreams, and 200 questions at once to one that is silent.
/// Each must be answered, and a query that was never sent must not count against the server.
#[test]
fn without_a_descriptor_for_a_socket_the_client_is_told_and_no_server_blamed() {
    let silent = UdpSocket::bind("127.0.0.2:0").unwrap();
    let server = format!("--server=127.0.0.2#{}", silent.local_addr().unwrap().port());
    let program = env!("CARGO_BIN_EXE_dnscache");
    let script = format!("ulimit -n 48 && exec {program} \"$@\"");
    let flags = ["--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", "--log-format=json"];
    let mut child = Command::new("sh")
        .args(["-c", &script, "sh", &server])
        .args(flags)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let _running = Running(child);
    let warning = log.next().unwrap();
    assert!(warning.contains("few descriptors") && warning.contains("48"), "{warning}");
    let serving = log.find(|line| line.contains("\"serving\"")).unwrap();
    let address = serving.split("127.0.0.1:").nth(1).unwrap();
    let port: u16 = address.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();

    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    (0..200).for_each(|number| assert!(client.send(&query(number)).is_ok()));
    let mut buffer = [0; 1_500];
    let mut told = 0;
    for _ in 0..200 {
        let len = client.recv(&mut buffer).unwrap();
        assert_eq!(buffer[3] & 0x0f, 2, "SERVFAIL");
        told += usize::from(buffer[..len].windows(13).any(|text| text == b"no descriptor"));
    }
    assert!((100..200).contains(&told), "{told} of 200 were told that no descriptor was left");
}

/// One flag must not route names elsewhere that another flag routes to kubedns.
#[test]
fn a_flag_that_takes_the_clusters_names_away_is_refused_in_one_line() {
    let flags = ["--server=/cluster.local/127.0.0.1#10053", "--server=/svc.cluster.local/10.0.0.1"];
    let output = Command::new(env!("CARGO_BIN_EXE_dnscache")).args(flags).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    for part in ["--server", "svc.cluster.local", "/cluster.local/", "expected another domain"] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
}
