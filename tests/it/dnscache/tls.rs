//! Upstreams over TLS and over TCP only: which certificates are trusted, and how many connections
//! are used.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::{FAR, Running};
use crate::fixture::dns;
use crate::fixture::upstream::Upstream;

/// A server over TLS that answers each question with 192.0.2.7.
struct Secure {
    address: SocketAddr,
    /// A file with the certificate of the authority that signed the server's.
    ca: tempfile::NamedTempFile,
    connections: Arc<AtomicUsize>,
    /// The lengths of its queries.
    lengths: Arc<std::sync::Mutex<Vec<usize>>>,
    task: JoinHandle<()>,
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Secure {
    /// Listens with a certificate for `names`: host names and addresses.
    async fn start(names: &[&str]) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca_certificate = params.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let chain = vec![CertificateDer::from(leaf.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), ca_certificate.pem()).unwrap();
        let listener = TcpListener::bind((FAR, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let lengths = Arc::new(std::sync::Mutex::new(Vec::new()));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (count, seen) = (Arc::clone(&connections), Arc::clone(&lengths));
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        count.fetch_add(1, Ordering::SeqCst);
                        // Returns an error once the client closes the connection.
                        converse(stream, &seen).await.unwrap_or_default();
                    }
                });
            }
        });
        Self { address, ca, connections, lengths, task }
    }

    fn flags(&self, name: &str) -> [String; 2] {
        let server = format!("--server=tls://{}#{}{name}", FAR, self.address.port());
        [server, format!("--tls-ca={}", self.ca.path().display())]
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &std::sync::Mutex<Vec<usize>>,
) -> std::io::Result<()> {
    loop {
        let mut query = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut query).await?;
        seen.lock().unwrap().push(query.len());
        let question_end = shared::wire::name_end(&query, 12).unwrap() + 4;
        let mut reply = query[..question_end].to_vec();
        reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
        stream.write_u16(reply.len() as u16).await?;
        stream.write_all(&reply).await?;
        stream.flush().await?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_over_tls_is_verified_by_name_or_address() {
    let rows = [
        ("by name", &["dns.example"][..], "@dns.example", "NOERROR"),
        ("by address", &[FAR], "", "NOERROR"),
        ("another name", &["dns.example"], "@other.example", "SERVFAIL"),
        ("a name, asked by address", &["dns.example"], "", "SERVFAIL"),
    ];
    for (case, names, flag, status) in rows {
        let upstream = Secure::start(names).await;
        let cache = Running::start(&upstream.flags(flag)).await;
        let answer = dns::ask_tcp(cache.dns, "a.example. A").await;
        assert_eq!(answer.status, status, "{case}: {answer:?}");
        cache.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_whose_authority_is_unknown_is_never_asked() {
    let (upstream, other) = (Secure::start(&[FAR]).await, Secure::start(&[FAR]).await);
    let [server, _] = upstream.flags("");
    let [_, ca] = other.flags("");
    let cache = Running::start(&[server, ca]).await;
    assert_eq!(dns::ask_tcp(cache.dns, "a.example. A").await.status, "SERVFAIL");
    assert!(upstream.lengths.lock().unwrap().is_empty(), "no query reaches it");
    cache.stop().await;
}

/// RFC 7858 section 3.4, RFC 8467 section 4.1.
#[tokio::test(flavor = "multi_thread")]
async fn questions_over_tls_share_connections_and_are_padded() {
    let upstream = Secure::start(&[FAR]).await;
    let cache = Running::start(&upstream.flags("")).await;
    for number in 0..50 {
        let answer = dns::ask_udp(cache.dns, &format!("n{number}.example. A")).await;
        assert_eq!(answer.status, "NOERROR", "{answer:?}");
    }
    assert!(upstream.connections.load(Ordering::SeqCst) <= 4);
    let lengths = upstream.lengths.lock().unwrap().clone();
    assert!(lengths.len() >= 50 && lengths.iter().all(|len| len % 128 == 0), "{lengths:?}");
    cache.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_over_tcp_gets_no_datagram() {
    let upstream = Upstream::start(FAR).await;
    upstream.answer("a.example. A", &["a.example. 30 A 10.0.0.1"]);
    let flag = format!("--server=tcp://{}#{}@127.0.0.9", FAR, upstream.address.port());
    let cache = Running::start(&[flag]).await;
    assert_eq!(dns::ask_udp(cache.dns, "a.example. A").await.status, "NOERROR");
    let seen = upstream.seen("");
    assert!(!seen.is_empty() && seen.iter().all(|seen| seen.tcp), "{seen:?}");
    assert!(seen.iter().all(|seen| seen.peer.ip().to_string() == "127.0.0.9"), "{seen:?}");
    cache.stop().await;
}
