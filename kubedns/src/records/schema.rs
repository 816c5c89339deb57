//! The specifications that the names of zones follow.
//!
//! Core.

/// The specification that the names of a zone follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// That of a cluster: `kubernetes/dns`, `docs/specification.md`.
    Cluster,
    /// That of a clusterset: KEP-1645, `specification.md`. The Services are imported ones, and the
    /// name of an endpoint has the label of its cluster after its own.
    Clusterset,
    /// That of external addresses: CoreDNS's plugin `k8s_external`.
    External {
        /// Whether headless Services have the addresses of their endpoints.
        headless: bool,
    },
    /// That of SkyDNS: names are keys of etcd.
    Skydns {
        /// Whether the label `*` of a key stands for names that do not exist.
        wildcards: bool,
    },
}

impl Schema {
    /// Returns its version, as rdata of TXT.
    pub fn version(self) -> &'static [u8] {
        match self {
            Self::Cluster | Self::External { .. } | Self::Skydns { .. } => b"\x051.1.0",
            Self::Clusterset => b"\x051.0.0",
        }
    }
}
