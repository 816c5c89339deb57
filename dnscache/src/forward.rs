//! Questions that the cache cannot answer, asked of the servers that can.

pub mod flights;
mod message;
mod probes;
mod servers;
mod table;
mod tries;
