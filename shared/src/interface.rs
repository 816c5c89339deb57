//! The network interfaces of this machine, by name.
//!
//! Edge: queries the kernel.

use std::net::UdpSocket;

/// Returns the index of the interface `name`, which is the scope ID of link-local addresses on it;
/// `None` if there is no such interface.
pub fn index(name: &str) -> Option<u32> {
    // Any socket works. A machine may have only one family.
    let socket = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0")).ok()?;
    rustix::net::netdevice::name_to_index(&socket, name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_a_loopback_interface() {
        assert_eq!(index("lo"), Some(1));
        for name in ["", "no-such-interface", "a name longer than any interface has"] {
            assert_eq!(index(name), None, "{name:?}");
        }
    }
}
