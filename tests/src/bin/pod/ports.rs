//! Which loopback addresses the pod takes, and whether they are free.
//!
//! Each program would refuse a taken port by itself, but only once all are built and started: asked
//! here, the answer is one line that names the flag.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use crate::flags::Flags;

/// Where each program listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// dnscache, DNS.
    pub dns: SocketAddr,
    /// dnscache, HTTP.
    pub dnscache_http: SocketAddr,
    /// kubedns, DNS.
    pub kubedns: SocketAddr,
    /// kubedns, HTTP.
    pub kubedns_http: SocketAddr,
    /// healthz, HTTP.
    pub healthz: SocketAddr,
}

/// A port that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{program} cannot have port {port} of 127.0.0.1 ({transport}); choose another with {flag}")]
pub struct Error {
    program: &'static str,
    port: u16,
    transport: &'static str,
    flag: &'static str,
    source: io::Error,
}

/// Takes every port for a moment, all at the same time, and says what port 0 became.
pub fn claim(flags: &Flags) -> Result<Ports, Error> {
    let dns = take("dnscache", flags.dns_port, "--dns-port", Transport::UdpAndTcp)?;
    let dnscache_http =
        take("dnscache", flags.dnscache_http_port, "--dnscache-http-port", Transport::Tcp)?;
    let kubedns = take("kubedns", flags.kubedns_port, "--kubedns-port", Transport::UdpAndTcp)?;
    let kubedns_http =
        take("kubedns", flags.kubedns_http_port, "--kubedns-http-port", Transport::Tcp)?;
    let healthz = take("healthz", flags.healthz_port, "--healthz-port", Transport::Tcp)?;
    Ok(Ports {
        dns: dns.address,
        dnscache_http: dnscache_http.address,
        kubedns: kubedns.address,
        kubedns_http: kubedns_http.address,
        healthz: healthz.address,
    })
}

#[derive(Clone, Copy)]
enum Transport {
    Tcp,
    UdpAndTcp,
}

/// A port held until this is dropped.
struct Held {
    address: SocketAddr,
    _tcp: TcpListener,
    _udp: Option<UdpSocket>,
}

fn take(
    program: &'static str,
    port: u16,
    flag: &'static str,
    transport: Transport,
) -> Result<Held, Error> {
    let refused = |transport, source| Error { program, port, transport, flag, source };
    let mut tries = 0;
    loop {
        tries += 1;
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|source| refused("TCP", source))?;
        let address = tcp.local_addr().map_err(|source| refused("TCP", source))?;
        let Transport::UdpAndTcp = transport else {
            return Ok(Held { address, _tcp: tcp, _udp: None });
        };
        match UdpSocket::bind(address) {
            Ok(udp) => return Ok(Held { address, _tcp: tcp, _udp: Some(udp) }),
            // A port the kernel picked for TCP may be taken for UDP: it picks another.
            Err(_) if port == 0 && tries < TRIES_MAX => {}
            Err(source) => return Err(refused("UDP", source)),
        }
    }
}

const TRIES_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

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
    fn port_0_becomes_five_different_free_ports() {
        let ports = claim(&flags(&[])).unwrap();
        let mut all =
            [ports.dns, ports.dnscache_http, ports.kubedns, ports.kubedns_http, ports.healthz]
                .map(|address| address.port())
                .to_vec();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 5);
    }

    #[test]
    fn a_taken_port_is_named_with_the_flag_that_changes_it() {
        let say = |flag: &str, address: SocketAddr| {
            let port = address.port();
            let error = claim(&flags(&[&format!("{flag}={port}")])).unwrap_err().to_string();
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
            // Another process may have the port for TCP, which is looked at first: another, then.
            let is_named = (0..TRIES_MAX).any(|_| {
                let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
                say(flag, udp.local_addr().unwrap()).contains("UDP")
            });
            assert!(is_named, "{flag}");
        }
    }
}
