//! Code that at least two of kubedns, dnscache and healthz use today, and none that they may use
//! later.
//!
//! ```text
//! wire        core   bytes <-> query view and reply, size limits, truncation, refusals
//! name        core   domain names as flags and files write them
//! peer        core   which addresses can be the other end of DNS, and how servers are written
//! reverse     core   which addresses a reverse name stands for
//! prefix      core   ranges of addresses as text, and those that are not global
//! clock       core   points in time, passed in; the only reader of clocks
//! serve       edge   DNS over UDP and TCP: batches, bounds, framing, drain; calls one handler
//! keep        core   listening sockets left with a keeper while a program restarts
//! durations   plain  how long things took, counted without waiting
//! addresses   edge   the bound addresses in a file, for the program that started this one
//! flags       edge   command line and environment; a mistake is one line and exit code 2
//! log         edge   events on stderr, text or JSON
//! ready       seam   named blockers; ready when the last is dropped
//! http        edge   a bounded listener; liveness, readiness and metrics alike for all
//! metrics     edge   what all expose alike, in both text formats
//! interface   edge   the network interfaces by name
//! descriptors edge   as many as the system allows
//! saved       edge   files for the next start, complete or not used; core: frame and checksum
//! plain_file  edge   a file read without waiting, if it is one
//! probe       edge   the subcommand that asks an HTTP URL and exits with 0 or 1
//! watchdog    core   a serving thread that hangs ends the program
//! watcher     edge   changes of a directory, by inotify or every second
//! corefile    core   CoreDNS's configuration language, and what it means for both programs
//! config_dir  edge   the ConfigMap's files, watched; its core turns them into checked keys
//! shutdown    edge   signals, one set of tasks, the drain
//! ```

pub mod addresses;
pub mod changes;
pub mod clock;
pub mod config_dir;
pub mod corefile;
pub mod descriptors;
pub mod durations;
pub mod endpoint;
pub mod flags;
pub mod http;
pub mod interface;
pub mod keep;
pub mod log;
pub mod metrics;
pub mod mnemonics;
pub mod name;
pub mod peer;
pub mod plain_file;
pub mod prefix;
pub mod probe;
pub mod ready;
pub mod reverse;
pub mod rules;
pub mod saved;
pub mod serve;
pub mod shutdown;
pub mod watchdog;
pub mod watcher;
pub mod wire;
