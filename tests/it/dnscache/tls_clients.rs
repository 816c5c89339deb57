//! Clients over TLS: which certificate they get, and that the limits of TCP apply to them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use dnscache::Config;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{FAR, Running, server, until};
use crate::fixture::dns::{self, PATIENCE};
use crate::fixture::upstream::Upstream;

/// An authority, and a folder with a certificate and a key that it signed.
struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(params, key);
        let authority = Self { certificate, issuer, directory: TempDir::new().unwrap() };
        authority.issue("one.example");
        authority
    }

    /// Replaces the files by those of a certificate for `name`.
    fn issue(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        self.write("key.pem", &key.serialize_pem());
        self.write("cert.pem", &leaf.pem());
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.directory.path().join(file);
        std::fs::write(path.with_extension("new"), text).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    }

    fn flags(&self) -> [String; 3] {
        let file = |name: &str| self.directory.path().join(name).display().to_string();
        let files = [("cert", "cert.pem"), ("key", "key.pem")];
        let [cert, key] = files.map(|(flag, name)| format!("--tls-{flag}={}", file(name)));
        [cert, key, "--tls-listen=127.0.0.1:0".to_owned()]
    }

    /// Connects to `server`, whose certificate must be valid for `name`.
    async fn connect(
        &self,
        server: SocketAddr,
        name: &str,
        protocol: &[u8],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(server).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream);
        timeout(PATIENCE, connected).await.expect("an answer in time")
    }
}

/// A running dnscache and its address for TLS.
struct Secure {
    tls: SocketAddr,
    cache: Running,
}

async fn start(upstream: &Upstream, authority: &Authority, more: &[&str]) -> Secure {
    let more = more.iter().map(|&flag| flag.to_owned());
    let flags: Vec<String> = authority.flags().into_iter().chain(more).collect();
    let (cache, tls) = Running::start_tls(&[&[server(upstream)], &flags[..]].concat()).await;
    Secure { tls, cache }
}

/// Sends `questions` at once, and returns the answers in the order of their IDs.
async fn ask(stream: &mut TlsStream<TcpStream>, questions: &[String]) -> Vec<dns::Answer> {
    for (id, question) in questions.iter().enumerate() {
        let mut query = dns::query(question, Some(1_232));
        query[..2].copy_from_slice(&(id as u16).to_be_bytes());
        stream.write_u16(query.len() as u16).await.unwrap();
        stream.write_all(&query).await.unwrap();
    }
    stream.flush().await.unwrap();
    let mut answers: Vec<Option<dns::Answer>> = questions.iter().map(|_| None).collect();
    for _ in questions {
        let len = timeout(PATIENCE, stream.read_u16()).await.unwrap().unwrap();
        let mut reply = vec![0; usize::from(len)];
        stream.read_exact(&mut reply).await.unwrap();
        let id = usize::from(u16::from_be_bytes([reply[0], reply[1]]));
        assert!(answers[id].replace(dns::read(&reply)).is_none(), "{id} twice");
    }
    answers.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_answered_over_tls() {
    let (upstream, authority) = (Upstream::start(FAR).await, Authority::new());
    upstream.answer("a.example. A", &["a.example. 30 A 192.0.2.1"]);
    // Replies longer than a record of TLS, and more of them than a client takes at once.
    let records: Vec<String> =
        (0..2_000).map(|n| format!("big.example. 300 A 10.{}.{}.1", n / 250, n % 250)).collect();
    upstream.answer("big.example. A", &records.iter().map(String::as_str).collect::<Vec<_>>());
    let secure = start(&upstream, &authority, &[]).await;
    let mut stream = authority.connect(secure.tls, "one.example", b"dot").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"dot"[..]));
    for _ in 0..2 {
        let questions = ["a.example. A", "no.example. A", "a.example. A"].map(str::to_owned);
        let answers = ask(&mut stream, &questions).await;
        assert_eq!(answers[0].answers, ["a.example. 30 IN A 192.0.2.1"]);
        assert_eq!(answers[1].status, "NXDOMAIN");
    }
    for answer in ask(&mut stream, &vec!["big.example. A".to_owned(); 40]).await {
        assert_eq!(answer.answers.len(), 2_000);
    }
    // A client that offers another protocol alone is refused (RFC 7301 section 3.2).
    assert!(authority.connect(secure.tls, "one.example", b"h2").await.is_err());
    // DNS without TLS is not answered there.
    let mut plain = TcpStream::connect(secure.tls).await.unwrap();
    plain.write_all(&[0, 12, 0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
    let mut rest = Vec::new();
    // It gets an alert of TLS at most, and the end.
    let read = timeout(PATIENCE, plain.read_to_end(&mut rest)).await.expect("an end");
    assert!(read.is_err() || rest.len() < 12, "{rest:?}");
    secure.cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_for_new_connections() {
    let (upstream, authority) = (Upstream::start(FAR).await, Authority::new());
    upstream.answer("a.example. A", &["a.example. 30 A 192.0.2.1"]);
    let secure = start(&upstream, &authority, &[]).await;
    let question = ["a.example. A".to_owned()];
    let mut old = authority.connect(secure.tls, "one.example", b"dot").await.unwrap();
    ask(&mut old, &question).await;
    let shows = |name: &'static str| authority.connect(secure.tls, name, b"dot");
    authority.issue("two.example");
    until("the new certificate", || async { shows("two.example").await.is_ok() }).await;
    assert!(shows("one.example").await.is_err());
    // A file that is not a certificate changes nothing, and a good one after it is used.
    authority.write("cert.pem", "nonsense");
    assert!(shows("two.example").await.is_ok());
    authority.issue("three.example");
    until("the third certificate", || async { shows("three.example").await.is_ok() }).await;
    assert_eq!(ask(&mut old, &question).await[0].status, "NOERROR", "it stays open");
    secure.cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_tcp_are_for_tls_as_well() {
    let (upstream, authority) = (Upstream::start(FAR).await, Authority::new());
    upstream.answer("a.example. A", &["a.example. 30 A 192.0.2.1"]);
    let secure = start(&upstream, &authority, &["--tcp-connections-per-client=2"]).await;
    let question = ["a.example. A".to_owned()];
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = authority.connect(secure.tls, "one.example", b"dot").await.unwrap();
        ask(&mut stream, &question).await;
        streams.push(stream);
    }
    // The connection that was idle for longest made room, and its client sees the end of TLS.
    let ended = timeout(PATIENCE, streams[0].read_u16()).await.expect("an end");
    assert!(ended.is_err());
    for stream in &mut streams[1..] {
        assert_eq!(ask(stream, &question).await[0].status, "NOERROR");
    }
    // A plain connection is one more of the same client.
    let answer = dns::ask_tcp(secure.cache.dns, "a.example. A").await;
    assert_eq!(answer.status, "NOERROR");
    let ended = timeout(PATIENCE, streams[1].read_u16()).await.expect("an end");
    assert!(ended.is_err());
    secure.cache.stop().await;
}

#[test]
fn a_certificate_that_cannot_be_used_is_one_error_at_the_start() {
    let (authority, other) = (Authority::new(), Authority::new());
    let in_folder = |authority: &Authority, file: &str| authority.directory.path().join(file);
    let (cert, key) = (in_folder(&authority, "cert.pem"), in_folder(&authority, "key.pem"));
    let rows: [(&Path, &Path, &str); 4] = [
        (Path::new("/nonexistent"), &key, "cannot read /nonexistent: "),
        (&cert, Path::new("/nonexistent"), "cannot read /nonexistent: "),
        (&key, &key, "cannot be used: "),
        (&cert, &in_folder(&other, "key.pem"), "cannot be used: "),
    ];
    for (cert, key, expected) in rows {
        let flags =
            [format!("--tls-cert={}", cert.display()), format!("--tls-key={}", key.display())];
        let flags =
            ["dnscache", "--tls-listen=127.0.0.1:0"].map(str::to_owned).into_iter().chain(flags);
        let error = Config::read(flags.map(Into::into)).unwrap().check().unwrap_err().to_string();
        let is_one_line = error.starts_with("invalid value for '--tls-cert': ");
        assert!(is_one_line && error.contains(expected) && !error.contains('\n'), "{error}");
    }
}
