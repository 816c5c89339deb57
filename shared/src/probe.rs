//! The subcommand `probe URL`: sends one HTTP request and turns the answer into an exit code, for
//! images that contain only the program.
//!
//! Edge: opens one connection and reads a bounded answer. Does not resolve names, because the
//! programs that it checks are the resolvers.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::flags;

/// The paragraph of `--help` about this subcommand.
pub const HELP: &str = "\
Subcommands:
  probe URL  Ask an HTTP URL of the pod and exit with 0 if it answers with a status of 200 to 299,
             else with 1; `probe --help` says more";

/// Asks an HTTP URL. Exits with 0 if the answer has a status of 200 to 299, else with 1 and one
/// line on stderr that gives the reason.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "probe")]
pub struct Probe {
    /// What to ask: http://ADDRESS:PORT/PATH with an IP address, an IPv6 address in brackets, or
    /// localhost; without them the port is 80 and the path /
    #[arg(value_name = "URL")]
    pub url: Url,

    /// Time for the whole answer in seconds, 1 to 60
    #[arg(long, value_name = "SECONDS", value_parser = flags::seconds(1, 60), default_value = "2")]
    pub timeout: Duration,
}

/// Runs the probe if the arguments of this process begin with `probe`; `None` if they do not.
/// `program` is the name of this program, in lower case.
pub fn from_arguments(program: &str) -> Option<ExitCode> {
    let probe: Probe = flags::subcommand(program, "probe")?;
    match probe.ask() {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("{}: {}", probe.url, flags::chain(&error));
            Some(ExitCode::FAILURE)
        }
    }
}

impl Probe {
    /// Sends one request. Fails if no whole status line arrives in time, or if its status is not
    /// 200 to 299.
    pub fn ask(&self) -> Result<(), Error> {
        let deadline = Instant::now() + self.timeout;
        let mut stream = self.connect(deadline)?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: probe\r\nAccept: text/plain\r\n\
             Connection: close\r\n\r\n",
            self.url.path, self.url.authority
        );
        let left = self.left(deadline).map_err(Error::Send)?;
        stream.set_write_timeout(Some(left)).map_err(Error::Send)?;
        stream.write_all(request.as_bytes()).map_err(Error::Send)?;
        let answer = self.read(&mut stream, deadline)?;
        judge(&String::from_utf8_lossy(&answer))
    }

    fn connect(&self, deadline: Instant) -> Result<TcpStream, Error> {
        let mut failure = None;
        for address in &self.url.addresses {
            let left = self.left(deadline).map_err(Error::Connect)?;
            match TcpStream::connect_timeout(address, left) {
                Ok(stream) => return Ok(stream),
                Err(error) => failure.get_or_insert(error),
            };
        }
        Err(Error::Connect(failure.expect("a URL has at least one address")))
    }

    /// Reads until the server closes the connection, or [`ANSWER_BYTES_MAX`]. A server that sends
    /// only a status line has answered.
    fn read(&self, stream: &mut TcpStream, deadline: Instant) -> Result<Vec<u8>, Error> {
        let mut answer = Vec::new();
        let mut buffer = [0; 4_096];
        while answer.len() < ANSWER_BYTES_MAX {
            let left = self.left(deadline);
            let read = left.and_then(|left| {
                stream.set_read_timeout(Some(left))?;
                stream.read(&mut buffer)
            });
            match read {
                Ok(0) => break,
                Ok(count) => answer.extend(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if answer.contains(&b'\n') => break,
                Err(error) if is_late(&error) => return Err(Error::Late(self.timeout)),
                Err(error) => return Err(Error::Receive(error)),
            }
        }
        Ok(answer)
    }

    /// Returns the time until `deadline`. Fails if it has passed.
    fn left(&self, deadline: Instant) -> io::Result<Duration> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// Returns whether the timeout of a socket is over, which it can report as either kind.
fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address of the URL accepted the connection.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The request could not be written.
    #[error("cannot send the request")]
    Send(#[source] io::Error),
    /// The connection broke before the status line.
    #[error("cannot read the answer")]
    Receive(#[source] io::Error),
    /// No status line arrived in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// The answer does not begin with a status line of HTTP.
    #[error("the answer is not HTTP: {0:?}")]
    NotHttp(String),
    /// The status is not 200 to 299.
    #[error("{status}{reason}")]
    Status {
        /// The status as it was sent, with its phrase.
        status: String,
        /// The first line of the body that does not report success, after a colon.
        reason: String,
    },
}

/// Judges `answer`, which is the head and the beginning of the body.
fn judge(answer: &str) -> Result<(), Error> {
    let (line, rest) = answer.split_once('\n').unwrap_or((answer, ""));
    let line = line.trim_end();
    let status = line.strip_prefix("HTTP/1.").and_then(|line| line.split_once(' '));
    let Some((_, status)) = status else { return Err(Error::NotHttp(clip(line))) };
    let code = status.get(..3).and_then(|code| code.parse::<u16>().ok());
    match code {
        Some(200..=299) => return Ok(()),
        None => return Err(Error::NotHttp(clip(line))),
        Some(_) => {}
    }
    // Bodies that list several checks mark those that pass with "[+]".
    let body = rest.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let mut reasons = body.lines().filter(|line| !line.is_empty() && !line.starts_with("[+]"));
    let reason = reasons.next().map_or(String::new(), |line| format!(": {}", clip(line)));
    Err(Error::Status { status: clip(status), reason })
}

/// Returns the beginning of a line of another program, without control characters.
fn clip(line: &str) -> String {
    line.chars().filter(|char| !char.is_control()).take(REASON_CHARS_MAX).collect()
}

/// The target of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Addresses to try in this order.
    addresses: Vec<SocketAddr>,
    /// The host and port as written.
    authority: String,
    /// The path with its query, from the first slash.
    path: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// Why a text is not the URL of a probe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected http://ADDRESS[:PORT][/PATH] with an IP address or localhost")]
pub struct UrlError;

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let rest = text.strip_prefix("http://").ok_or(UrlError)?;
        let is_plain = |char: char| char.is_ascii_graphic() && char != '#';
        if !rest.chars().all(is_plain) {
            return Err(UrlError);
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let addresses = match authority.strip_prefix("localhost") {
            Some(port) => {
                let port = match port.strip_prefix(':') {
                    Some(port) => port.parse().map_err(|_| UrlError)?,
                    None if port.is_empty() => HTTP_PORT,
                    None => return Err(UrlError),
                };
                let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                vec![v4, SocketAddr::from((Ipv6Addr::LOCALHOST, port))]
            }
            None => {
                let with_port = || format!("{authority}:{HTTP_PORT}").parse();
                vec![authority.parse().or_else(|_| with_port()).map_err(|_| UrlError)?]
            }
        };
        Ok(Self { addresses, authority: authority.to_owned(), path })
    }
}

/// The port of a URL without a port.
const HTTP_PORT: u16 = 80;
/// The maximum of bytes that are read. The reason is in the first lines.
const ANSWER_BYTES_MAX: usize = 16 << 10;
/// The maximum of characters of a reason. The kubelet also truncates the output of a probe.
const REASON_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn urls_have_an_address_and_a_path() {
        let rows = [
            ("http://127.0.0.1:8081/livez", Some((&["127.0.0.1:8081"][..], "/livez"))),
            ("http://127.0.0.1:8081", Some((&["127.0.0.1:8081"], "/"))),
            ("http://127.0.0.1", Some((&["127.0.0.1:80"], "/"))),
            ("http://[::1]:9153/readyz?verbose", Some((&["[::1]:9153"], "/readyz?verbose"))),
            ("http://[::1]/", Some((&["[::1]:80"], "/"))),
            ("http://127.0.0.1:1?a", Some((&["127.0.0.1:1"], "/?a"))),
            ("http://localhost:8/", Some((&["127.0.0.1:8", "[::1]:8"], "/"))),
            ("http://localhost", Some((&["127.0.0.1:80", "[::1]:80"], "/"))),
            ("https://127.0.0.1/", None),
            ("127.0.0.1:8081", None),
            ("http://example.com/", None),
            ("http://localhost.example/", None),
            ("http://localhost:/", None),
            ("http://127.0.0.1:70000/", None),
            ("http://::1:80/", None),
            ("http://127.0.0.1/a b", None),
            ("http://127.0.0.1/a\r\nHost: b", None),
            ("http:///livez", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let url = text.parse::<Url>().ok();
            let found = url.map(|url| (url.addresses, url.path));
            let expected = expected.map(|(addresses, path)| {
                let addresses = addresses.iter().map(|text| text.parse().unwrap());
                (addresses.collect::<Vec<SocketAddr>>(), path.to_owned())
            });
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn only_a_status_of_200_to_299_is_success() {
        let rows = [
            ("HTTP/1.1 200 OK\r\n\r\nok", ""),
            ("HTTP/1.0 204 No Content\r\n\r\n", ""),
            ("HTTP/1.1 299\r\n\r\n", ""),
            ("HTTP/1.1 200 OK", ""),
            ("HTTP/1.1 199 X\r\n\r\n", "199 X"),
            ("HTTP/1.1 301 Moved\r\n\r\n", "301 Moved"),
            (
                "HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\n[+]a ok\n[-]b failed: c\nlast",
                "503 Service Unavailable: [-]b failed: c",
            ),
            ("HTTP/1.1 404 Not Found\r\n\r\n\r\n", "404 Not Found"),
            ("HTTP/1.1 20 X\r\n\r\n", "the answer is not HTTP: \"HTTP/1.1 20 X\""),
            ("HTTP/2 200\r\n", "the answer is not HTTP: \"HTTP/2 200\""),
            ("SSH-2.0-x\r\n", "the answer is not HTTP: \"SSH-2.0-x\""),
            ("", "the answer is not HTTP: \"\""),
        ];
        for (answer, expected) in rows {
            let found = judge(answer).err().map_or(String::new(), |error| error.to_string());
            assert_eq!(found, expected, "{answer:?}");
        }
    }

    #[test]
    fn a_silent_server_is_late_and_a_closed_port_refuses() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = |port| format!("http://127.0.0.1:{port}/livez").parse().unwrap();
        let port = silent.local_addr().unwrap().port();
        let probe = Probe { url: url(port), timeout: Duration::from_millis(20) };
        assert_eq!(probe.ask().unwrap_err().to_string(), "no answer within 20ms");
        drop(silent);
        let probe = Probe { url: url(port), timeout: Duration::from_secs(60) };
        assert!(matches!(probe.ask(), Err(Error::Connect(_))));
    }

    #[test]
    fn a_server_that_does_not_close_has_answered() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/a", server.local_addr().unwrap()).parse().unwrap();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
            // Open until the client leaves.
            drop(stream.read(&mut byte));
            String::from_utf8(head).unwrap()
        });
        let probe = Probe { url, timeout: Duration::from_secs(1) };
        probe.ask().unwrap();
        assert!(answering.join().unwrap().starts_with("GET /a HTTP/1.1\r\nHost: 127.0.0.1:"));
    }
}
