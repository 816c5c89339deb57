//! The servers to compare: which are installed, how each is started, and what it costs.
//!
//! Edge. Every server listens on 127.0.0.1, forwards everything to its upstreams, does not
//! validate, and runs one thread. All other settings are in this file, and are printed with the
//! table. The upstreams are at 127.0.0.1, which dnscache treats as the pod, or at [`OUTSIDE`].
//! There, servers that can guard answers against forgery do so.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ::tests::tether;
use rustix::process::{Pid, Signal, kill_process};
use shared::addresses::Addresses;
use tempfile::TempDir;

use crate::{proc, workload};

/// A server that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The cheapest possible server: `cargo load floor`.
    Floor,
    /// dnscache of this workspace.
    Dnscache,
    /// NLnet Labs Unbound.
    Unbound,
    /// dnsmasq.
    Dnsmasq,
    /// CoreDNS.
    Coredns,
    /// ISC BIND.
    Named,
    /// Knot Resolver.
    Kresd,
}

impl Kind {
    const OTHERS: [Self; 5] =
        [Self::Unbound, Self::Dnsmasq, Self::Coredns, Self::Named, Self::Kresd];

    /// Returns the name that the table shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Dnscache => "dnscache",
            Self::Unbound => "Unbound",
            Self::Dnsmasq => "dnsmasq",
            Self::Coredns => "CoreDNS",
            Self::Named => "BIND",
            Self::Kresd => "Knot Resolver",
        }
    }

    /// Returns the server if it is on the PATH.
    pub fn installed(self) -> Option<Server> {
        found(self, self.program().0.as_ref())
    }

    /// Returns its program on the PATH, and the flag that prints its version.
    fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Floor => ("", ""),
            Self::Dnscache => ("dnscache", "--version"),
            Self::Unbound => ("unbound", "-V"),
            Self::Dnsmasq => ("dnsmasq", "--version"),
            Self::Coredns => ("coredns", "-version"),
            Self::Named => ("named", "-v"),
            Self::Kresd => ("kresd", "--version"),
        }
    }
}

/// A server that is installed.
#[derive(Debug)]
pub struct Server {
    /// Its kind.
    pub kind: Kind,
    /// The version that it prints. Empty for the floor.
    pub version: String,
    program: PathBuf,
}

/// The settings that all servers share.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// Their upstreams.
    pub upstreams: &'a [SocketAddr],
    /// How many entries they may cache, if they count entries.
    pub cache_entries: usize,
    /// Whether the floor denies every name.
    pub nxdomain: bool,
    /// Whether they have a hosts file and rules, none of which is about the names.
    pub has_rules: bool,
    /// The core they run on.
    pub server_core: Option<usize>,
}

/// Why a server was not measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It needs a directory for its configuration.
    #[error("no temporary directory: {0}")]
    Directory(#[source] io::Error),
    /// It did not start.
    #[error("does not start: {0}")]
    Start(#[source] io::Error),
    /// It cannot have a hosts file and rules from a Corefile.
    #[error("has no Corefile")]
    NoCorefile,
    /// It started, but does not answer.
    #[error("does not answer")]
    Silent,
    /// A socket broke.
    #[error("asking it failed: {0}")]
    Ask(#[source] io::Error),
    /// Its CPU time or memory cannot be read.
    #[error("the system does not tell what it costs: {0}")]
    Cost(#[source] io::Error),
}

/// Returns the floor, dnscache, and all servers that are on the PATH.
pub fn present(own: &Path, dnscache: &Path) -> Vec<Server> {
    let floor = Server { kind: Kind::Floor, version: String::new(), program: own.to_owned() };
    let others = Kind::OTHERS.into_iter().filter_map(Kind::installed);
    [floor].into_iter().chain(found(Kind::Dnscache, dnscache)).chain(others).collect()
}

/// Returns the server that `program` starts, or `None` if `program` does not print a version.
pub fn found(kind: Kind, program: &Path) -> Option<Server> {
    let output = Command::new(program).arg(kind.program().1).stdin(Stdio::null()).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let version = version(&String::from_utf8_lossy(&text))?;
    Some(Server { kind, version, program: program.to_owned() })
}

/// Returns the first word of `text` that looks like a version: digits and dots.
fn version(text: &str) -> Option<String> {
    let mut parts = text.split(|c: char| c.is_whitespace() || ",;-".contains(c));
    let is_version =
        |part: &&str| part.starts_with(|first: char| first.is_ascii_digit()) && part.contains('.');
    parts.find(is_version).map(str::to_owned)
}

/// Starts a floor at `ip` on `core`. If `nxdomain` is set, it denies every name.
pub fn floor(ip: Ipv4Addr, nxdomain: bool, core: Option<usize>) -> Result<Running, Error> {
    let mut command = tether::command(OWN_PROGRAM.as_ref(), core);
    command.args(["floor", "--listen", &format!("{ip}:0")]);
    if nxdomain {
        command.arg("--nxdomain");
    }
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(Error::Start)?;
    let output = child.stdout.take().expect("it is piped");
    // Created before anything can fail, so that the child is always ended.
    let mut running = Running { child, address: ([127, 0, 0, 1], 0).into(), _directory: None };
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).map_err(Error::Start)?;
    running.address = line.trim().parse().map_err(|_| Error::Silent)?;
    Ok(running)
}

impl Server {
    /// Returns its command line, followed by its configuration, in one line.
    pub fn settings(&self) -> String {
        let (address, upstream) = (([127, 0, 0, 1], 53).into(), ([127, 0, 0, 1], 5_300).into());
        let setting = Setting {
            upstreams: &[upstream],
            cache_entries: CACHE_ENTRIES,
            nxdomain: false,
            has_rules: false,
            server_core: None,
        };
        let place = Place { directory: ".".as_ref(), address, setting: &setting };
        let program = self.kind.name().to_owned();
        let files = place.files(self.kind).into_iter().map(|(_, text)| text);
        let words: Vec<String> =
            [program].into_iter().chain(place.arguments(self.kind)).chain(files).collect();
        words.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Starts it at a free address, and waits until it answers.
    pub fn start(&self, setting: &Setting<'_>) -> Result<Running, Error> {
        let running = self.start_at(None, setting)?;
        running.wait()?;
        Ok(running)
    }

    /// Starts it at `address`, if given, and does not wait.
    pub fn start_at(
        &self,
        address: Option<SocketAddr>,
        setting: &Setting<'_>,
    ) -> Result<Running, Error> {
        if self.kind == Kind::Floor {
            return floor(Ipv4Addr::LOCALHOST, setting.nxdomain, setting.server_core);
        }
        if setting.has_rules && !matches!(self.kind, Kind::Dnscache | Kind::Coredns) {
            return Err(Error::NoCorefile);
        }
        let directory = TempDir::new().map_err(Error::Directory)?;
        // dnscache can choose a free port. The others must be given one.
        let address = match (address, self.kind) {
            (Some(address), _) => address,
            (None, Kind::Dnscache) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            (None, _) => free_address().map_err(Error::Start)?,
        };
        let place = Place { directory: directory.path(), address, setting };
        for (name, text) in place.files(self.kind) {
            fs::write(directory.path().join(name), text).map_err(Error::Directory)?;
        }
        let child = tether::command(&self.program, setting.server_core)
            .args(place.arguments(self.kind))
            .current_dir(directory.path())
            .env("GOMAXPROCS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::Start)?;
        let addresses = directory.path().join(ADDRESSES);
        let mut running = Running { child, address, _directory: Some(directory) };
        if self.kind == Kind::Dnscache {
            running.address = listens(&addresses)?;
        }
        Ok(running)
    }
}

/// The directory, address and settings of a server.
struct Place<'a> {
    directory: &'a Path,
    address: SocketAddr,
    setting: &'a Setting<'a>,
}

impl Place<'_> {
    /// Returns the text of `each` upstream, joined.
    fn upstreams(&self, each: impl Fn(&SocketAddr) -> String) -> String {
        self.setting.upstreams.iter().map(each).collect()
    }

    fn arguments(&self, kind: Kind) -> Vec<String> {
        let cache_entries = self.setting.cache_entries;
        let servers = self.upstreams(|to| format!(" --server={}#{}", to.ip(), to.port()));
        let (port, directory) = (self.address.port(), self.directory.display());
        let text = match kind {
            Kind::Floor => String::new(),
            Kind::Dnscache => format!(
                "--listen {} --http-listen 127.0.0.1:0 --addresses-file {ADDRESSES} \
                 --cache-size {cache_entries} --resolv-file /dev/null --log error{servers}{}",
                self.address,
                if self.setting.has_rules { " --corefile Corefile" } else { "" },
            ),
            // -k keeps it in the foreground. 10,000 is the highest value that its manual
            // recommends.
            Kind::Dnsmasq => format!(
                "-k -C /dev/null -p {port} --listen-address=127.0.0.1 --bind-interfaces \
                 --no-resolv --no-hosts --cache-size={cache_entries} \
                 --dns-forward-max=10000 --pid-file= --user= --group={servers}"
            ),
            Kind::Unbound => "-d -c unbound.conf".to_owned(),
            Kind::Coredns => "-conf Corefile -quiet".to_owned(),
            Kind::Named => format!("-f -c {directory}/named.conf -n 1 -U 1"),
            Kind::Kresd => format!("-n -q -c {directory}/kresd.conf {directory}"),
        };
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// Returns the configuration files by name. Servers that count bytes get more than 10,000
    /// entries need.
    fn files(&self, kind: Kind) -> Vec<(&'static str, String)> {
        let cache_entries = self.setting.cache_entries;
        let (port, directory) = (self.address.port(), self.directory.display());
        let is_outside = self.setting.upstreams.iter().any(|to| to.ip() == OUTSIDE);
        let caps_for_id = if is_outside { " use-caps-for-id: yes\n" } else { "" };
        match kind {
            Kind::Dnscache if self.setting.has_rules => {
                let [corefile, hosts] = rules();
                // The flags set the address and the upstreams.
                vec![("Corefile", format!(".:53 {{\n{corefile}}}\n")), ("hosts", hosts)]
            }
            Kind::Floor | Kind::Dnscache | Kind::Dnsmasq => Vec::new(),
            Kind::Unbound => vec![(
                "unbound.conf",
                format!(
                    "server:\n interface: 127.0.0.1@{port}\n username: \"\"\n chroot: \"\"\n \
                     directory: \"{directory}\"\n pidfile: \"\"\n use-syslog: no\n \
                     logfile: \"/dev/null\"\n num-threads: 1\n so-reuseport: yes\n \
                     do-daemonize: no\n module-config: \"iterator\"\n \
                     access-control: 127.0.0.0/8 allow\n do-not-query-localhost: no\n \
                     msg-cache-size: 256m\n rrset-cache-size: 256m\n outgoing-range: 4096\n \
                     num-queries-per-thread: 2048\n minimal-responses: yes\n \
                     local-zone: \"test.\" nodefault\n{caps_for_id}\
                     forward-zone:\n name: \".\"\n{}\
                     remote-control:\n control-enable: no\n",
                    self.upstreams(|to| format!(" forward-addr: {}@{}\n", to.ip(), to.port()))
                ),
            )],
            Kind::Coredns => {
                let [rules, hosts] =
                    if self.setting.has_rules { rules() } else { Default::default() };
                let corefile = format!(
                    ".:{port} {{\n bind 127.0.0.1\n forward .{}\n cache 3600 {{\n \
                     success {cache_entries}\n denial {cache_entries}\n }}\n{rules}}}\n",
                    self.upstreams(|to| format!(" {to}"))
                );
                vec![("Corefile", corefile), ("hosts", hosts)]
            }
            Kind::Named => vec![(
                "named.conf",
                format!(
                    "options {{ directory \"{directory}\"; pid-file none; \
                     session-keyfile none; lock-file none; \
                     listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; \
                     forward only; forwarders {{{} }}; \
                     dnssec-validation no; recursion yes; allow-query {{ any; }}; \
                     max-cache-size 256m; minimal-responses yes; empty-zones-enable no; }};\n\
                     controls {{ }};\n",
                    self.upstreams(|to| format!(" {} port {};", to.ip(), to.port()))
                ),
            )],
            Kind::Kresd => vec![(
                "kresd.conf",
                format!(
                    "net.listen('127.0.0.1', {port}, {{ kind = 'dns' }})\n\
                     modules.unload('ta_update')\nmodules.unload('priming')\n\
                     trust_anchors.remove('.')\ncache.size = 256 * MB\n\
                     policy.add(policy.all(policy.STUB({{{} }})))\n",
                    self.upstreams(|to| format!(" '{}@{}',", to.ip(), to.port()))
                ),
            )],
        }
    }
}

/// Returns lines of a Corefile, and the hosts file that they name.
fn rules() -> [String; 2] {
    let rule = |n: usize| match n % 2 {
        0 => format!(" rewrite name exact s{n}.corp.example s{n}.shop.svc.cluster.local\n"),
        _ => {
            format!(" rewrite name suffix .z{n}.corp.example .n{n}.svc.cluster.local answer auto\n")
        }
    };
    let rules: String = (0..RULES).map(rule).collect();
    let host =
        |n: usize| format!("10.{}.{}.{} h{n}.corp.example\n", n >> 16, n >> 8 & 255, n & 255);
    let hosts = (0..HOSTS).map(host).collect();
    [format!(" hosts hosts {{\n fallthrough\n }}\n{rules}"), hosts]
}

/// A running server. It is ended when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// The address that it answers at.
    pub address: SocketAddr,
    _directory: Option<TempDir>,
}

impl Running {
    /// Waits until it answers.
    fn wait(&self) -> Result<(), Error> {
        let start = Instant::now();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::Ask)?;
        socket.set_read_timeout(Some(READY_PAUSE)).map_err(Error::Ask)?;
        socket.connect(self.address).map_err(Error::Ask)?;
        let mut reply = [0; 512];
        while start.elapsed() < READY_MAX {
            // The send fails until the server listens.
            if socket.send(&workload::question("h1.example.test", 1)).is_ok()
                && socket.recv(&mut reply).is_ok()
            {
                return Ok(());
            }
            std::thread::sleep(READY_PAUSE);
        }
        Err(Error::Silent)
    }

    /// Ends it by `signal`, and waits for its end.
    pub fn end(mut self, signal: Signal) -> Result<(), Error> {
        // If it has ended already, it cannot be ended.
        kill_process(Pid::from_child(&self.child), signal).unwrap_or_default();
        self.child.wait().map(drop).map_err(Error::Start)
    }

    /// Returns the user and system time that it has used so far.
    pub fn cpu(&self) -> Result<Duration, Error> {
        proc::cpu(self.child.id()).map_err(Error::Cost)
    }

    /// Returns the resident memory in MiB.
    pub fn rss_mib(&self) -> Result<f64, Error> {
        let memory = proc::memory(self.child.id()).map_err(Error::Cost)?;
        Ok(memory.resident as f64 / f64::from(1 << 20))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already. The error can then be ignored.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

/// Returns the address of dnscache, read from the `file` that it writes once it listens.
fn listens(file: &Path) -> Result<SocketAddr, Error> {
    let start = Instant::now();
    while start.elapsed() < READY_MAX {
        if let Some(addresses) = Addresses::read(file) {
            return addresses.dns.first().copied().ok_or(Error::Silent);
        }
        std::thread::sleep(READY_PAUSE);
    }
    Err(Error::Silent)
}

/// Returns a port of 127.0.0.1 that was free for UDP and TCP a moment ago.
pub fn free_address() -> io::Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = socket.local_addr()?;
    match TcpListener::bind(address) {
        Ok(_) => Ok(address),
        Err(_) => free_address(),
    }
}

/// An upstream outside the pod. It is on loopback, but is not the address that programs of a pod
/// share.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// The file with dnscache's addresses, in its directory.
const ADDRESSES: &str = "addresses";
/// The entries that every server may cache, if it counts entries.
pub const CACHE_ENTRIES: usize = 10_000;
/// The running program, even if a build has replaced its file.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Longer than the slowest server here takes to start.
const READY_MAX: Duration = Duration::from_secs(30);
const READY_PAUSE: Duration = Duration::from_millis(50);
/// Names in the hosts file.
const HOSTS: usize = 100_000;
/// Rules for rewriting, half of them for exact names and half for suffixes.
const RULES: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_asks_the_upstream_where_it_is() {
        let servers = [Kind::OTHERS.as_slice(), &[Kind::Dnscache]].concat();
        for ip in [Ipv4Addr::LOCALHOST, OUTSIDE] {
            let upstream = SocketAddr::from((ip, 5_300));
            let setting = Setting {
                upstreams: &[upstream],
                cache_entries: 1,
                nxdomain: false,
                has_rules: false,
                server_core: None,
            };
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
            let place = Place { directory: ".".as_ref(), address, setting: &setting };
            for &kind in &servers {
                let files = place.files(kind).into_iter().map(|(_, text)| text);
                let told = place.arguments(kind).into_iter().chain(files).collect::<Vec<_>>();
                let told = told.join(" ");
                let ways =
                    ["#5300", "@5300", " port 5300", ":5300"].map(|port| format!("{ip}{port}"));
                assert!(ways.iter().any(|way| told.contains(way)), "{kind:?}: {told}");
                let random_case = told.contains("use-caps-for-id");
                assert_eq!(random_case, kind == Kind::Unbound && ip == OUTSIDE, "{kind:?}");
            }
        }
    }

    #[test]
    fn a_version_is_found_in_what_programs_say() {
        let rows = [
            ("dnscache 0.1.0\n", "0.1.0"),
            ("Version 1.17.1\n\nConfigure line: --x=2.1", "1.17.1"),
            ("Dnsmasq version 2.90  Copyright (c) 2000-2024 Simon Kelley", "2.90"),
            ("CoreDNS-1.13.1\nlinux/amd64, go1.25.2", "1.13.1"),
            ("BIND 9.18.41-1~deb12u1-Debian (Extended Support Version) <id:>", "9.18.41"),
            ("Knot Resolver, version 5.6.0\n", "5.6.0"),
        ];
        for (text, expected) in rows {
            assert_eq!(version(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(version("unknown flag"), None);
    }
}
