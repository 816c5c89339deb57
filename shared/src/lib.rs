//! What at least two of kubedns, dnscache and healthz use today. "Maybe later" does not get in.
//!
//! ```text
//! wire      core   bytes <-> query view and reply, size limits, truncation, refusals
//! clock     core   points in time, read at the edge and passed in
//! serve     edge   DNS over UDP and TCP: batches, bounds, framing, drain; calls one handler
//! ready     seam   named blockers; ready when the last is dropped
//! shutdown  edge   signals, one set of tasks, the drain
//! ```

pub mod clock;
pub mod serve;
pub mod shutdown;
pub mod wire;
