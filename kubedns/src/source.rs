//! Where objects come from: an API server, or files in its place; and the keys of etcd. Each source
//! sends its [`update`]s to the publisher.
//!
//! Edge, except the decoders of the watch. A source does not know records, zones or answers.

pub mod etcd;
pub mod federation;
pub mod files;
pub mod update;
pub mod watch;
