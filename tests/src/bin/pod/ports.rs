//! Checks that the ports that the flags fix are free, and has the addresses of the running pod.
//!
//! Each program would itself fail at a port in use, but only after all are built and started.
//! Checked here, the error is one line that names the flag. If a port is 0, its program chooses it
//! when it binds it, never before.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use crate::flags::Flags;

/// The addresses of the running pod.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// dnscache, DNS.
    pub dns: SocketAddr,
    /// kubedns, HTTP.
    pub kubedns_http: SocketAddr,
    /// healthz, HTTP.
    pub healthz: SocketAddr,
}

/// A port that is not free.
#[derive(Debug, thiserror::Error)]
#[error("{program} cannot have port {port} of 127.0.0.1 ({transport}); choose another with {flag}")]
pub struct Error {
    program: &'static str,
    port: u16,
    transport: &'static str,
    flag: &'static str,
    source: io::Error,
}

/// Checks that all ports that are not 0 are free and different, by holding them at the same time.
pub fn check(flags: &Flags) -> Result<(), Error> {
    let _held = [
        take("dnscache", flags.dns_port, "--dns-port", Transport::UdpAndTcp)?,
        take("dnscache", flags.dnscache_http_port, "--dnscache-http-port", Transport::Tcp)?,
        take("kubedns", flags.kubedns_port, "--kubedns-port", Transport::UdpAndTcp)?,
        take("kubedns", flags.kubedns_http_port, "--kubedns-http-port", Transport::Tcp)?,
        take("healthz", flags.healthz_port, "--healthz-port", Transport::Tcp)?,
    ];
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp,
    UdpAndTcp,
}

/// Binds the port for the transports that it is used for. Returns `None` for port 0.
fn take(
    program: &'static str,
    port: u16,
    flag: &'static str,
    transport: Transport,
) -> Result<Option<(TcpListener, Option<UdpSocket>)>, Error> {
    if port == 0 {
        return Ok(None);
    }
    let refused = |transport| move |source| Error { program, port, transport, flag, source };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let tcp = TcpListener::bind(address).map_err(refused("TCP"))?;
    let udp = (transport == Transport::UdpAndTcp).then(|| UdpSocket::bind(address)).transpose();
    Ok(Some((tcp, udp.map_err(refused("UDP"))?)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// Returns flags with port 0 for all ports except those in `arguments`.
    fn flags(arguments: &[&str]) -> Flags {
        let free = ["dns", "dnscache-http", "kubedns", "kubedns-http", "healthz"]
            .map(|name| format!("--{name}-port=0"));
        let mut all = vec!["cargo pod".to_owned()];
        all.extend(free.into_iter().filter(|flag| {
            let name = flag.split('=').next().unwrap();
            !arguments.iter().any(|given| given.starts_with(name))
        }));
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        Flags::parse_from(all)
    }

    #[test]
    fn a_taken_port_is_named_with_the_flag_that_changes_it() {
        check(&flags(&[])).unwrap();
        let say = |flag: &str, address: SocketAddr| {
            let port = address.port();
            let error = check(&flags(&[&format!("{flag}={port}")])).unwrap_err().to_string();
            for part in [flag, &port.to_string()] {
                assert!(error.contains(part), "{part:?} is not in {error:?}");
            }
            error
        };
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let all = ["--dns-port", "--healthz-port", "--kubedns-http-port", "--dnscache-http-port"];
        for flag in all {
            let error = say(flag, tcp.local_addr().unwrap());
            assert!(error.contains("TCP"), "{error:?}");
        }
        for flag in ["--dns-port", "--kubedns-port"] {
            // Another process may use the port over TCP, which is checked first. The test then
            // tries another port.
            let is_named = (0..TRIES_MAX).any(|_| {
                let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
                say(flag, udp.local_addr().unwrap()).contains("UDP")
            });
            assert!(is_named, "{flag}");
        }
    }

    const TRIES_MAX: u32 = 100;
}
