//! The flags of a DNS listener, the same in every program that has one.
//!
//! Parses texts into checked values, which [`Limits`] and [`crate::shutdown::Tasks`] use.

use std::path::PathBuf;
use std::time::Duration;

use super::Limits;
use crate::flags;

/// The limits for clients of a DNS listener, and how it ends.
#[derive(Clone, Debug, clap::Args)]
pub struct ListenerFlags {
    /// TCP connections at the same time, over all addresses, 1 to 1000000; if there are more, the
    /// longest idle ones are closed
    #[arg(long, value_name = "COUNT", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub tcp_connections: u32,
    /// TCP connections of one client address, 1 to 1000000; if there are more, its longest idle one
    /// is closed, and if each has a query in flight, the new one
    #[arg(long, value_name = "COUNT", default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub tcp_connections_per_client: u32,
    /// Bytes held for all TCP clients together, 1MiB to 64GiB: replies that they have not taken and
    /// queries that have not arrived completely; suffixes KiB, MiB, GiB
    #[arg(long, value_name = "BYTES", default_value = "32MiB",
        value_parser = flags::bytes(TCP_BYTES_MIN, TCP_BYTES_MAX))]
    pub tcp_unsent_bytes: usize,
    /// The largest reply over UDP in bytes, 512 to 4096, for clients that take as much
    #[arg(long, value_name = "BYTES", default_value_t = crate::wire::UDP_SIZE_MAX as u16,
        value_parser = clap::value_parser!(u16).range(512..=4_096))]
    pub udp_size: u16,
    /// After SIGTERM, /readyz fails at once and queries are answered for this many seconds more, 0
    /// to 120, before the program drains
    #[arg(long, value_name = "SECONDS", default_value = "0",
        value_parser = flags::seconds(0, 120))]
    pub lameduck: Duration,
    /// Unix socket of the healthz of this pod (its flag --keep-sockets). healthz keeps copies of
    /// the DNS sockets. If this program dies or is restarted, queries wait in them and are answered
    /// after the next start. Without healthz the addresses are bound [default: none]
    #[arg(long, value_name = "PATH")]
    pub keep_sockets: Option<PathBuf>,
}

impl ListenerFlags {
    /// Returns the limits of the listener.
    pub fn limits(&self) -> Limits {
        Limits {
            connections_max: self.tcp_connections as usize,
            connections_per_client_max: self.tcp_connections_per_client as usize,
            unsent_bytes_max: self.tcp_unsent_bytes,
            udp_size_max: usize::from(self.udp_size),
            ..Limits::default()
        }
    }
}

/// With fewer bytes, the replies of a few clients would fill the budget.
const TCP_BYTES_MIN: usize = 1 << 20;
/// More than a machine that runs pods has.
const TCP_BYTES_MAX: usize = 64 << 30;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::flags::{Stop, parse_from};

    #[derive(Debug, Parser)]
    #[command(name = "prog")]
    struct Config {
        #[command(flatten)]
        listener: ListenerFlags,
    }

    #[test]
    fn the_defaults_are_those_of_the_listener() {
        let flags = parse_from::<Config>(["prog"]).unwrap().listener;
        assert_eq!(format!("{:?}", flags.limits()), format!("{:?}", Limits::default()));
        assert_eq!(flags.lameduck, Duration::ZERO);
    }

    #[test]
    fn values_are_read_and_wrong_ones_are_named_with_what_is_allowed() {
        let flags = "--tcp-connections 7 --tcp-connections-per-client 3 --tcp-unsent-bytes 2MiB \
                     --udp-size 4096 --lameduck 120";
        let flags = std::iter::once("prog").chain(flags.split_whitespace());
        let flags = parse_from::<Config>(flags).unwrap().listener;
        let limits = flags.limits();
        assert_eq!((limits.connections_max, limits.connections_per_client_max), (7, 3));
        assert_eq!((limits.unsent_bytes_max, limits.udp_size_max), (2 << 20, 4_096));
        assert_eq!(flags.lameduck, Duration::from_secs(120));
        for (flag, value, allowed) in [
            ("--tcp-connections", "0", "1..=1000000"),
            ("--tcp-connections-per-client", "-1", "1..=1000000"),
            ("--tcp-connections-per-client", "some", "invalid digit"),
            ("--tcp-unsent-bytes", "1023KiB", "1MiB to 64GiB"),
            ("--tcp-unsent-bytes", "65GiB", "1MiB to 64GiB"),
            ("--tcp-unsent-bytes", "32MB", "1MiB to 64GiB"),
            ("--udp-size", "511", "512..=4096"),
            ("--udp-size", "4097", "512..=4096"),
            ("--lameduck", "121", "0 to 120"),
            ("--lameduck", "5s", "0 to 120"),
        ] {
            let Err(Stop::Wrong(line)) = parse_from::<Config>(["prog", &format!("{flag}={value}")])
            else {
                panic!("{flag}={value} was taken");
            };
            for part in [flag, value, allowed] {
                assert!(line.contains(part), "{part:?} is missing in {line:?}");
            }
        }
    }
}
