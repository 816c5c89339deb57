//! The parts that the whole-program tests and the development tools share: the outside of the
//! programs.
//!
//! It implements the Kubernetes API as its server does, DNS as an upstream does, and the build and
//! start of programs. It must not depend on the internals of the programs.
//!
//! ```text
//! objects ─▶ api_server ◀─ lists, watches ─ kubedns     tests/it, cargo load scale
//!         └▶ real_api   ◀─ likewise ────────┘           if its programs are available
//! etcd ◀─ range, watch ─ kubedns                        tests/it
//! build ─▶ tether ─▶ children, each on its core         cargo pod, cargo load
//! upstream ◀─ UDP, TCP ─ dnscache                       tests/it, cargo load upstreams
//! ```

pub mod api_server;
pub mod build;
pub mod etcd;
pub mod objects;
pub mod protobuf;
pub mod real_api;
pub mod tether;
pub mod upstream;

use std::time::Duration;

/// How long a state or an exchange may take before a test fails. It is far longer than either
/// needs, because the machine may be busy with other work.
pub const PATIENCE: Duration = Duration::from_secs(60);
