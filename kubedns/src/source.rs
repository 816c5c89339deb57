//! Where objects come from: an API server, or files in its place. Each source sends the same
//! [`update`]s to the publisher.
//!
//! Edge, except the decoders of the watch. A source does not know records, zones or answers.

pub mod federation;
pub mod files;
pub mod update;
pub mod watch;
