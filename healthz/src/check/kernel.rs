//! What the kernel has counted on this machine: datagrams that did not fit, tracked connections.
//!
//! Core. Reads the text of files below `/proc`; does not know where they are.

use std::collections::BTreeMap;

/// The figures of one moment. `None` if the file could not be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kernel {
    /// `RcvbufErrors` of UDP: datagrams dropped because a socket's receive buffer was full.
    pub full_buffers: Option<u64>,
    /// Connections refused because a listener's queue was full.
    pub listen_overflows: Option<u64>,
    /// Entries in the table of tracked connections, and its size.
    pub tracked: Option<(u64, u64)>,
    /// Packets that connection tracking dropped.
    pub tracking_drops: Option<u64>,
    /// Entries that could not be inserted, because another packet of the same flow was faster.
    pub insert_failures: Option<u64>,
    /// There is a default route for IPv6.
    pub has_ipv6_route: Option<bool>,
    /// Periods in which the processes of this control group had to wait for CPU time, and all.
    pub throttled: Option<(u64, u64)>,
}

impl Kernel {
    /// Reads the figures; `read` returns the text of a file below `/proc` or `/sys`.
    pub fn read(read: impl Fn(&str) -> Option<String>) -> Self {
        let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
        let table = |path: &str| Some(pairs(&read(path)?));
        let of =
            |table: &Option<BTreeMap<String, u64>>, key: &str| table.as_ref()?.get(key).copied();
        let (snmp, netstat) = (table("proc/net/snmp"), table("proc/net/netstat"));
        let count = number("proc/sys/net/netfilter/nf_conntrack_count");
        let max = number("proc/sys/net/netfilter/nf_conntrack_max").filter(|max| *max > 0);
        let tracking = read("proc/net/stat/nf_conntrack").map(|text| columns(&text));
        let drops = |columns: &BTreeMap<String, u64>| {
            let of = |key: &str| columns.get(key).copied().unwrap_or(0);
            of("drop") + of("early_drop")
        };
        let cpu = read("sys/fs/cgroup/cpu.stat").map(|text| words(&text));
        let routes = read("proc/net/ipv6_route");
        Self {
            full_buffers: of(&snmp, "Udp.RcvbufErrors"),
            listen_overflows: of(&netstat, "TcpExt.ListenOverflows"),
            tracked: count.zip(max),
            tracking_drops: tracking.as_ref().map(drops),
            insert_failures: tracking.as_ref().and_then(|it| it.get("insert_failed").copied()),
            has_ipv6_route: routes.map(|text| text.lines().any(is_default_route)),
            throttled: of(&cpu, "nr_throttled").zip(of(&cpu, "nr_periods")),
        }
    }
}

/// Two lines each: `Udp: A B` and `Udp: 1 2`.
fn pairs(text: &str) -> BTreeMap<String, u64> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = BTreeMap::new();
    for pair in lines.chunks_exact(2) {
        let group = pair[0].split(':').next().unwrap_or_default();
        let keys = pair[0].split_whitespace().skip(1);
        for (key, value) in keys.zip(pair[1].split_whitespace().skip(1)) {
            found.extend(value.parse().ok().map(|value| (format!("{group}.{key}"), value)));
        }
    }
    found
}

/// A line of names, then one line of hexadecimal numbers for each CPU; the sums.
fn columns(text: &str) -> BTreeMap<String, u64> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let mut sums = BTreeMap::new();
    for line in lines {
        for (name, value) in names.iter().zip(line.split_whitespace()) {
            let value = u64::from_str_radix(value, 16).unwrap_or(0);
            *sums.entry((*name).to_owned()).or_insert(0) += value;
        }
    }
    sums
}

/// One `name number` in each line.
fn words(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// Whether a line of `/proc/net/ipv6_route` is a default route by an interface other than loopback.
fn is_default_route(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_any = |text: &str| text.bytes().all(|byte| byte == b'0');
    words.len() == 10 && is_any(words[0]) && words[1] == "00" && words[9] != "lo"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        let files = [
            ("proc/net/snmp", "Tcp: A\nTcp: 1\nUdp: InDatagrams RcvbufErrors\nUdp: 10 4812\n"),
            ("proc/net/netstat", "TcpExt: ListenOverflows X\nTcpExt: 3 4\n"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "200\n"),
            ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
            (
                "proc/net/stat/nf_conntrack",
                "entries insert_failed drop early_drop\n000000c8 0000000a 1 2\n000000c8 00000002 \
                 0 1\n",
            ),
            ("sys/fs/cgroup/cpu.stat", "usage_usec 5\nnr_periods 100\nnr_throttled 40\n"),
            (
                "proc/net/ipv6_route",
                "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                 fe800000000000000000000000000001 00000400 0 0 00000003 eth0\n",
            ),
        ];
        let read = |path: &str| {
            files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
        };
        let kernel = Kernel::read(read);
        let expected = Kernel {
            full_buffers: Some(4_812),
            listen_overflows: Some(3),
            tracked: Some((200, 262_144)),
            tracking_drops: Some(4),
            insert_failures: Some(12),
            has_ipv6_route: Some(true),
            throttled: Some((40, 100)),
        };
        assert_eq!(kernel, expected);
        assert_eq!(Kernel::read(|_| None), Kernel::default());
    }
}
