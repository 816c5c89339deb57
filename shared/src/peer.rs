//! Checks which addresses can be DNS clients or servers, and parses addresses of servers.
//!
//! Core. The caller looks up network interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Returns the index of the network interface with this name, if there is one.
pub type Interfaces<'a> = &'a dyn Fn(&str) -> Option<u32>;

/// Returns whether `address` can send queries or replies. RFC 1122 section 3.2.1.3 and RFC 4291
/// section 2.7 exclude addresses that do not belong to one host, and DNS clients and servers do not
/// use the ports of services that answer any data.
#[inline] // called for every datagram
pub fn is_peer(address: &SocketAddr) -> bool {
    let ip_fits = match address {
        SocketAddr::V4(address) => is_host_v4(*address.ip()),
        SocketAddr::V6(address) => is_host_v6(address.ip()),
    };
    ip_fits && !is_reflector(address.port())
}

/// Returns whether `ip` belongs to one host. 240.0.0.0/4 is reserved, but some clusters use it for
/// their pods.
fn is_host_v4(ip: Ipv4Addr) -> bool {
    matches!(u32::from(ip), 1..=0xdfff_ffff | 0xf000_0000..=0xffff_fffe)
}

#[inline(never)] // inline, it splits addresses of both families into bytes
fn is_host_v6(ip: &Ipv6Addr) -> bool {
    match ip.to_ipv4_mapped() {
        Some(ip) => is_host_v4(ip),
        None => !ip.is_unspecified() && !ip.is_multicast(),
    }
}

/// Returns whether `port` is 0 or belongs to a service that answers any data (echo, discard,
/// daytime, quotd, chargen, time). A query from such a port is forged to make two servers talk to
/// each other.
fn is_reflector(port: u16) -> bool {
    matches!(port, 0 | 7 | 9 | 13 | 17 | 19 | 37)
}

/// Why a text is not the address of a DNS server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is neither an address nor an address with a port.
    #[error("expected IP or IP:PORT, such as 10.0.0.10, 10.0.0.10:5353, fd00::a or [fd00::a]:53")]
    Server,
    /// Port 0 cannot be used.
    #[error("port 0 is not allowed, expected 1 to 65535")]
    PortZero,
    /// The port belongs to a service that answers any data.
    #[error("port {0} belongs to a service that is not DNS; expected the port of a DNS server")]
    Port(u16),
    /// The unspecified address, the broadcast address or a multicast address.
    #[error("{0} is not the address of one host; expected the address of a DNS server")]
    NotHost(IpAddr),
    /// A link-local address needs its link (RFC 4007 section 6).
    #[error("{0} is a link-local address and needs its interface, such as {0}%eth0")]
    Unscoped(Ipv6Addr),
    /// The interface of a link-local address does not exist.
    #[error("this machine has no network interface {0:?}")]
    Interface(String),
}

/// Parses the address of a server: `IP`, `IP:PORT`, `[IP]` or `[IP]:PORT`; without a port, `port`.
/// An IPv6 address can end in `%` and its interface, by name or index (RFC 4007 section 11).
///
/// Brackets are for IPv6 (RFC 3986 section 3.2.2), but flags of kube-dns also have them around
/// IPv4. Fails if the text has another form, or if a DNS server cannot have the address.
pub fn server_address(
    text: &str,
    port: u16,
    interfaces: Interfaces<'_>,
) -> Result<SocketAddr, AddressError> {
    let (host, given) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(AddressError::Server)?;
            let given = after.strip_prefix(':');
            if given.is_none() && !after.is_empty() {
                return Err(AddressError::Server);
            }
            (host, given)
        }
        None => match text.split_once(':') {
            Some((host, given)) if !given.contains(':') => (host, Some(given)),
            _ => (text, None),
        },
    };
    let digits = |given: &&str| given.bytes().all(|byte| byte.is_ascii_digit());
    let number = |given: &str| given.parse().map_err(|_| AddressError::Server);
    let port = match given {
        None => port,
        Some(given) => Some(given).filter(digits).ok_or(AddressError::Server).and_then(number)?,
    };
    host_address(host, port, interfaces)
}

/// Parses the address of the server `IP` or `IP%INTERFACE` at `port`.
///
/// Fails as [`server_address`] does.
pub fn host_address(
    host: &str,
    port: u16,
    interfaces: Interfaces<'_>,
) -> Result<SocketAddr, AddressError> {
    let (ip, zone) = match host.split_once('%') {
        Some((ip, zone)) => (ip, Some(zone)),
        None => (host, None),
    };
    let address = match (ip.parse::<IpAddr>(), zone) {
        (Ok(IpAddr::V6(ip)), zone) => {
            SocketAddrV6::new(ip, port, 0, scope(ip, zone, interfaces)?).into()
        }
        (Ok(ip), None) => SocketAddr::new(ip, port),
        _ => return Err(AddressError::Server),
    };
    match port {
        _ if is_peer(&address) => Ok(address),
        0 => Err(AddressError::PortZero),
        port if is_reflector(port) => Err(AddressError::Port(port)),
        _ => Err(AddressError::NotHost(address.ip())),
    }
}

/// Returns the scope ID of `ip` in `zone`. Only link-local addresses have one; for other addresses,
/// which are the same on every interface, the zone is ignored.
fn scope(
    ip: Ipv6Addr,
    zone: Option<&str>,
    interfaces: Interfaces<'_>,
) -> Result<u32, AddressError> {
    if !ip.is_unicast_link_local() {
        return if zone == Some("") { Err(AddressError::Server) } else { Ok(0) };
    }
    let zone = zone.filter(|&zone| !zone.is_empty() && zone != "0");
    let zone = zone.ok_or(AddressError::Unscoped(ip))?;
    let index = zone.parse().ok().or_else(|| interfaces(zone));
    index.ok_or_else(|| AddressError::Interface(zone.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_one_host_at_a_port_of_its_own() {
        let rows = [
            ("10.0.0.1:53", true),
            ("127.0.0.1:1053", true),
            ("0.0.0.1:53", true),
            ("240.0.0.1:53", true), // pods of some clusters
            ("[::1]:53", true),
            ("[fd00::1]:53", true),
            ("[fe80::1%2]:53", true),
            ("[::ffff:10.0.0.1]:53", true),
            ("0.0.0.0:53", false),
            ("255.255.255.255:53", false),
            ("224.0.0.1:53", false),
            ("224.0.0.251:5353", false),
            ("239.255.255.255:53", false),
            ("[::]:53", false),
            ("[ff02::fb]:5353", false),
            ("[::ffff:0.0.0.0]:53", false),
            ("[::ffff:224.0.0.1]:53", false),
        ];
        for (address, expected) in rows {
            assert_eq!(is_peer(&address.parse().unwrap()), expected, "{address}");
        }
        for port in 0..=u16::MAX {
            let expected = ![0, 7, 9, 13, 17, 19, 37].contains(&port);
            for ip in ["10.0.0.1", "fd00::1"] {
                let address = SocketAddr::new(ip.parse().unwrap(), port);
                assert_eq!(is_peer(&address), expected, "{address}");
            }
        }
    }

    #[test]
    fn a_server_may_leave_out_its_port_and_have_an_interface() {
        let server = Err(AddressError::Server);
        let unscoped = Err(AddressError::Unscoped("fe80::1".parse().unwrap()));
        let not_host = |ip: &str| Err(AddressError::NotHost(ip.parse().unwrap()));
        let rows = [
            ("10.0.0.1", Ok("10.0.0.1:53")),
            ("10.0.0.1:5353", Ok("10.0.0.1:5353")),
            ("fd00::1", Ok("[fd00::1]:53")),
            ("::1", Ok("[::1]:53")),
            ("[fd00::1]", Ok("[fd00::1]:53")),
            ("[fd00::1]:5353", Ok("[fd00::1]:5353")),
            ("[10.0.0.1]", Ok("10.0.0.1:53")),
            ("[10.0.0.1]:5353", Ok("10.0.0.1:5353")),
            ("fe80::1%eth0", Ok("[fe80::1%7]:53")),
            ("fe80::1%3", Ok("[fe80::1%3]:53")),
            ("[fe80::1%eth0]:5353", Ok("[fe80::1%7]:5353")),
            ("[fe80::1%eth0]", Ok("[fe80::1%7]:53")),
            ("::1%lo", Ok("[::1]:53")),
            ("[fd00::1%eth0]:53", Ok("[fd00::1]:53")),
            ("[10.0.0.1]5353", server.clone()),
            ("[fd00::1]x", server.clone()),
            ("[fd00::1", server.clone()),
            ("[]", server.clone()),
            ("10.0.0.1:65536", server.clone()),
            ("10.0.0.1:+53", server.clone()),
            ("10.0.0.1:", server.clone()),
            ("[::1]:", server.clone()),
            ("10.0.0.256", server.clone()),
            ("10.0.0.1%eth0", server.clone()),
            ("::1%", server.clone()),
            ("%eth0", server.clone()),
            ("dns.example", server.clone()),
            ("", server),
            ("10.0.0.1:0", Err(AddressError::PortZero)),
            ("[::1]:0", Err(AddressError::PortZero)),
            ("192.0.2.1:19", Err(AddressError::Port(19))),
            ("fe80::1", unscoped.clone()),
            ("fe80::1%", unscoped.clone()),
            ("fe80::1%0", unscoped),
            ("fe80::1%eth9", Err(AddressError::Interface("eth9".to_owned()))),
            ("0.0.0.0", not_host("0.0.0.0")),
            ("::", not_host("::")),
            ("255.255.255.255", not_host("255.255.255.255")),
            ("224.0.0.251:5353", not_host("224.0.0.251")),
            ("ff02::fb", not_host("ff02::fb")),
        ];
        let interfaces = |name: &str| (name == "eth0").then_some(7);
        for (text, expected) in rows {
            let expected = expected.map(|address| address.parse().unwrap());
            assert_eq!(server_address(text, 53, &interfaces), expected, "{text}");
        }
    }
}
