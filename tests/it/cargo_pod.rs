//! `cargo pod` as a process: its output, the programs that it starts, and that all of them end.
//!
//! The tests use only its standard output and exit code, and its children by their process ids.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::dns::{self, PATIENCE};

/// Lets the system choose all five ports.
const PORTS: [&str; 5] = [
    "--dns-port=0",
    "--dnscache-http-port=0",
    "--kubedns-port=0",
    "--kubedns-http-port=0",
    "--healthz-port=0",
];
/// Long enough to build the programs first.
const BUILD_MAX: Duration = Duration::from_secs(600);

fn pod() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pod"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running `cargo pod`, and its output so far.
struct Running {
    child: Child,
    said: Vec<String>,
    lines: mpsc::Receiver<String>,
    /// The standard error of it and of cargo so far.
    errors: Arc<Mutex<String>>,
    logs: PathBuf,
}

impl Running {
    fn start(log_directory: &Path) -> Self {
        let logs = format!("--log-dir={}", log_directory.display());
        let mut child = pod().args(PORTS).arg(logs).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let errors = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&errors);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                *sink.lock().unwrap() += &(line + "\n");
            }
        });
        Self { child, said: Vec::new(), lines, errors, logs: log_directory.to_owned() }
    }

    /// Reads until a line starts with `start`. Panics if there is no such line, with all output of
    /// the pod and its programs.
    fn until(&mut self, start: &str) {
        let deadline = Instant::now() + BUILD_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                let written = self.written();
                panic!("never said {start:?}: {:#?}\n{written}", self.said);
            };
            self.said.push(line);
            if self.said.last().is_some_and(|line| line.starts_with(start)) {
                return;
            }
        }
    }

    /// Returns its exit status, its standard error, and the log of each program.
    fn written(&mut self) -> String {
        let status = self.child.try_wait();
        let mut text = format!("status: {status:?}\n{}", self.errors.lock().unwrap());
        for name in ["kubedns", "dnscache", "healthz"] {
            let log = std::fs::read_to_string(self.logs.join(format!("{name}.log")));
            text += &format!("== {name}.log\n{}", log.unwrap_or_else(|error| error.to_string()));
        }
        text
    }

    /// Returns the process ids in the table of programs.
    fn programs(&self) -> Vec<u32> {
        let id = |line: &String| line.split_once(" pid ")?.1.split(' ').next()?.parse().ok();
        self.said.iter().filter_map(id).collect()
    }

    /// Returns each command and the lines of its answer.
    fn examples(&self) -> Vec<(&str, Vec<&str>)> {
        let mut examples: Vec<(&str, Vec<&str>)> = Vec::new();
        for line in &self.said {
            if let Some(answer) = line.strip_prefix("      ") {
                examples.last_mut().expect("an answer follows its command").1.push(answer);
            } else if let Some(command) = line.strip_prefix("  ") {
                examples.push((command, Vec::new()));
            }
        }
        examples
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // If the test has passed, it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait(); // likewise
    }
}

fn signal(id: u32, signal: Signal) {
    let id = Pid::from_raw(id.try_into().unwrap()).unwrap();
    kill_process(id, signal).unwrap();
}

/// Waits until all of `programs` have ended.
fn all_gone(programs: &[u32]) {
    let start = Instant::now();
    // A zombie has no command line. The process that reaps orphans may be slow.
    let runs = |id: &&u32| {
        std::fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|words| !words.is_empty())
    };
    while let Some(id) = programs.iter().find(runs) {
        assert!(start.elapsed() < PATIENCE, "{id} is left behind");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn the_pod_gets_ready_shows_what_is_true_and_leaves_nothing_behind() {
    let logs = tempfile::tempdir().unwrap();
    let mut pod = Running::start(logs.path());
    pod.until("ready");
    pod.until("Ctrl-C");
    let programs = pod.programs();
    assert_eq!(programs.len(), 3, "{:#?}", pod.said);

    let examples = pod.examples();
    assert_eq!(examples.len(), 6, "{:#?}", pod.said);
    for (command, shown) in &examples[..4] {
        let words: Vec<&str> = command.split(' ').collect();
        let question = match words[..] {
            ["dig", _, "-p", _, "+short", "-x", address] => {
                format!("{} PTR", hickory_proto::rr::Name::from(parse::<std::net::IpAddr>(address)))
            }
            ["dig", _, "-p", _, "+short", name, rtype] => format!("{name}. {rtype}"),
            _ => panic!("{command} is no question"),
        };
        let server = SocketAddr::new(parse(&words[1][1..]), parse(words[3]));
        let answer = dns::ask(server, &question).await;
        let mut data: Vec<String> = answer.answers.iter().map(|record| rdata(record)).collect();
        let mut shown = shown.clone();
        data.sort();
        shown.sort_unstable();
        assert_eq!(data, shown, "{command}");
    }
    let (explain, why) = &examples[4];
    assert!(explain.contains("/explain?name=cart.shop.svc.cluster.local&type=A'"), "{explain}");
    assert!(why[0].ends_with(" A: NOERROR") && why[3] == "from Service shop/cart", "{why:?}");
    assert!(examples[5].0.starts_with("curl -i http://127.0.0.1:"), "{:#?}", pod.said);
    assert_eq!(examples[5].1[..2], ["HTTP/1.1 200 OK", "ok"]);
    let url = examples[5].0.trim_start_matches("curl -i ");
    programs.iter().for_each(|&program| probes(program, url));

    signal(pod.child.id(), Signal::TERM);
    assert!(pod.child.wait().unwrap().success(), "it ends in order");
    all_gone(&programs);

    // A second time, with SIGKILL, so that the pod cannot end its programs.
    let mut pod = Running::start(logs.path());
    pod.until("ready");
    let programs = pod.programs();
    signal(pod.child.id(), Signal::KILL);
    all_gone(&programs);
}

/// Runs the program of this process id with `probe`, for `url`, which is healthy, and for wrong
/// URLs.
fn probes(program: u32, url: &str) {
    let program = std::fs::read_link(format!("/proc/{program}/exe")).unwrap();
    let unknown = format!("{url}/no-such-label");
    let rows = [
        (vec!["probe", url], 0, ""),
        (vec!["probe", &unknown], 1, "/healthz/no-such-label: 404 Not Found"),
        (
            vec!["probe", "--timeout=3", "http://127.0.0.1:1/"],
            1,
            "http://127.0.0.1:1/: cannot connect",
        ),
        (vec!["probe", "https://127.0.0.1/"], 2, "'https://127.0.0.1/'"),
        (vec!["probe", "--timeout=0", url], 2, "expected whole seconds, 1 to 60"),
        (vec!["probe"], 2, "<URL>"),
    ];
    for (arguments, code, part) in rows {
        let output = Command::new(&program).args(&arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{program:?} {arguments:?}: {said}");
        assert_eq!(said.lines().count(), usize::from(code > 0), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {part} is missing in {said}");
    }
}

/// Returns a record's data in master-file form.
fn rdata(record: &str) -> String {
    record.splitn(5, ' ').last().unwrap_or_default().to_owned()
}

fn parse<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is not what it should be"))
}

#[test]
fn what_cannot_be_is_said_before_anything_is_built() {
    // The test uses TCP, which is checked first. If it held the port for UDP, another process could
    // use it over TCP.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap(); // held until the test ends
    let taken = format!("--dns-port={}", taken.local_addr().unwrap().port());
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    std::fs::write(&kubeconfig, "apiVersion: v1\nkind: Config\n").unwrap();
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let check = |arguments: &[&str], code: i32, parts: &[&str]| {
        // This cargo does not exist, so a build would be the error.
        let mut command = pod();
        command.args(PORTS.iter().filter(|port| {
            let flag = port.trim_end_matches('0');
            !arguments.iter().any(|argument| argument.starts_with(flag))
        }));
        command.args(arguments).env("CARGO", "/nonexistent/cargo");
        let Output { status, stderr, .. } = command.output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for part in parts {
            assert!(said.contains(part), "{part:?} is missing in {said:?}");
        }
    };
    check(&[&taken], 1, &["dnscache", "TCP", "--dns-port", "in use"]);
    check(&["--dns-port=70000"], 2, &["--dns-port", "70000", "65535"]);
    check(&["--no-such-flag"], 2, &["--no-such-flag"]);
    check(&["--context=a"], 2, &["--kubeconfig"]);
    check(&["--kubeconfig=a", "--objects=b"], 2, &["--kubeconfig", "--objects"]);
    check(&["--domain=bad..name"], 2, &["--domain", "bad..name"]);
    check(&["--clusterset-domain=a..b"], 2, &["--clusterset-domain", "a..b"]);
    check(&["--clusterset-domain=x.cluster.local"], 2, &["x.cluster.local", "cluster.local"]);
    check(&["--server=nowhere"], 2, &["--server", "nowhere"]);
    check(&["--server=/svc.cluster.local/192.0.2.1"], 2, &["svc.cluster.local", "--server"]);
    check(&["--log=loud"], 2, &["--log", "loud", "error, warn, info"]);
    check(&["--objects=/nonexistent/objects"], 2, &["--objects", "/nonexistent/objects"]);
    check(&["--kubeconfig=/nonexistent/config"], 2, &["--kubeconfig", "/nonexistent/config"]);
    check(&[&kubeconfig, "--context=a"], 2, &["--kubeconfig", &kubeconfig[13..]]);
    // If all flags are correct, the build is next.
    check(&[], 1, &["cannot start /nonexistent/cargo"]);
}

#[test]
fn the_aliases_of_cargo_show_progress_while_they_build() {
    let aliases = include_str!("../../.cargo/config.toml");
    for alias in
        ["pod = \"run --package tests --bin pod ", "load = \"run --package tests --bin load "]
    {
        assert!(aliases.contains(alias), "{alias} is missing in {aliases}");
    }
    assert!(!aliases.contains("quiet"), "{aliases}");
}
