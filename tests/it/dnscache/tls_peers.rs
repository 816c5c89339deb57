//! Upstreams over TLS that are other implementations: Unbound and Knot Resolver. If they are not
//! installed, the tests print that they were skipped.
//!
//! Both answer from their configuration, and ask no other server.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::{FAR, Running};
use crate::fixture::dns;

/// A server that answers every name below `peer.example` with 192.0.2.7, and refuses all others.
struct Peer {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

impl Peer {
    /// Starts `program`. If it is not installed, prints a line and returns `None`.
    async fn start(program: &str) -> Option<Self> {
        for _ in 0..5 {
            let directory = TempDir::new().unwrap();
            // The port was free a moment ago. If another program uses it now, the server ends.
            let address = TcpListener::bind((FAR, 0)).unwrap().local_addr().unwrap();
            write_certificates(directory.path());
            let (file, text, flags) = configuration(program, address, directory.path());
            fs::write(directory.path().join(file), text).unwrap();
            let mut command = Command::new(program);
            command.args(flags).current_dir(directory.path());
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let Ok(child) = command.spawn() else {
                println!("skipped: {program} is not installed");
                return None;
            };
            let mut peer = Self { child, address, directory };
            if peer.is_up().await {
                return Some(peer);
            }
        }
        panic!("{program} does not start");
    }

    /// Waits until it listens. Returns `false` if it ends before.
    async fn is_up(&mut self) -> bool {
        for _ in 0..600 {
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it neither listens nor ends");
    }

    fn flags(&self, name: &str) -> [String; 2] {
        let ca = self.directory.path().join("ca.pem");
        let server = format!("--server=tls://{}#{}@{name}", FAR, self.address.port());
        [server, format!("--tls-ca={}", ca.display())]
    }
}

fn write_certificates(directory: &Path) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    fs::write(directory.join("ca.pem"), params.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["dns.example".to_owned()]).unwrap();
    fs::write(directory.join("cert.pem"), leaf.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
}

/// Returns the name and the text of its configuration file, and its flags.
fn configuration(
    program: &str,
    address: SocketAddr,
    directory: &Path,
) -> (&'static str, String, Vec<String>) {
    let (ip, port, directory) = (address.ip(), address.port(), directory.display());
    if program == "unbound" {
        let text = format!(
            "server:\n interface: {ip}@{port}\n tls-port: {port}\n \
             tls-service-key: \"{directory}/key.pem\"\n \
             tls-service-pem: \"{directory}/cert.pem\"\n username: \"\"\n chroot: \"\"\n \
             directory: \"{directory}\"\n pidfile: \"\"\n use-syslog: no\n do-daemonize: no\n \
             module-config: \"iterator\"\n access-control: 127.0.0.0/8 allow\n \
             local-zone: \".\" refuse\n local-zone: \"peer.example.\" redirect\n \
             local-data: \"peer.example. 60 A 192.0.2.7\"\n\
             remote-control:\n control-enable: no\n"
        );
        let flags = ["-d", "-c", "unbound.conf"].map(str::to_owned);
        ("unbound.conf", text, flags.to_vec())
    } else {
        let unload = ["priming", "ta_update", "ta_signal_query", "ta_sentinel"];
        let unload: String =
            unload.iter().map(|module| format!("modules.unload('{module}')\n")).collect();
        let text = format!(
            "net.listen('{ip}', {port}, {{ kind = 'tls' }})\n\
             net.tls('{directory}/cert.pem', '{directory}/key.pem')\n{unload}\
             trust_anchors.remove('.')\n\
             policy.add(policy.suffix(policy.ANSWER({{ [kres.type.A] = \
             {{ rdata = kres.str2ip('192.0.2.7'), ttl = 60 }} }}), \
             {{ todname('peer.example.') }}))\n\
             policy.add(policy.all(policy.REFUSE))\n"
        );
        let flags = ["-n", "-q", "-c", "kresd.conf"].map(str::to_owned);
        let flags = flags.into_iter().chain([directory.to_string()]);
        ("kresd.conf", text, flags.collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unbound_and_knot_resolver_answer_over_tls_if_their_name_is_right() {
    for program in ["unbound", "kresd"] {
        let Some(peer) = Peer::start(program).await else { continue };
        let cache = Running::start(&peer.flags("dns.example")).await;
        // Many at once, then one by one: over shared connections, and over resumed ones.
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..100 {
            let dns = cache.dns;
            asked.spawn(
                async move { dns::ask_udp(dns, &format!("n{number}.peer.example. A")).await },
            );
        }
        let mut answers = asked.join_all().await;
        for number in 0..20 {
            answers.push(dns::ask_tcp(cache.dns, &format!("m{number}.peer.example. A")).await);
        }
        for answer in answers {
            assert_eq!(answer.status, "NOERROR", "{program}: {answer:?}");
        }
        cache.stop().await;
        let cache = Running::start(&peer.flags("other.example")).await;
        let answer = dns::ask_tcp(cache.dns, "a.peer.example. A").await;
        assert_eq!(answer.status, "SERVFAIL", "{program}: {answer:?}");
        cache.stop().await;
    }
}
