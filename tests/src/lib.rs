//! What the whole-program tests and the development tools share: the outside of the programs.
//!
//! Knows the Kubernetes API as its server does, DNS as an upstream does, and how programs are built
//! and started; knows nothing of what is inside them.
//!
//! ```text
//! objects ─▶ api_server ◀─ lists, watches ─ kubedns     tests/it, cargo load scale
//!         └▶ real_api   ◀─ likewise ────────┘           where its programs are at hand
//! build ─▶ tether ─▶ children, each on its core         cargo pod, cargo load
//! upstream ◀─ UDP, TCP ─ dnscache                       tests/it, cargo load upstreams
//! ```

pub mod api_server;
pub mod build;
pub mod objects;
pub mod protobuf;
pub mod real_api;
pub mod tether;
pub mod upstream;

use std::time::Duration;

/// How long a state may take to come about, and an exchange to end, before a test fails: far longer
/// than either takes, because the machine may be busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(60);
