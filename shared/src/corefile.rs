//! CoreDNS's configuration language, the Corefile, which kubedns and dnscache can read instead of
//! flags.
//!
//! ```text
//! files ─ source ─▶ lexer ─▶ parser ─▶ Corefile ─ plan, plugins ─▶ Plan ─▶ flags of each program
//!         edge      core     core     lines, words   core            │
//!                                                                    └─▶ report: a table or JSON
//! ```
//!
//! * `lexer`, `variables`, `parser`: core. The language, independent of plugins. A function reads
//!   the files.
//!   function.
//! * `keys`, `plugins`, `plan`: core. The only place that defines the meaning of directives. Both
//!   programs use the same plan, so either both accept a file or both refuse it.
//!   read the same plan, so that both accept a file or both refuse it.
//! * `source`, `follow`, `command`: edges. They read files, watch them, and print.

mod command;
mod follow;
mod keys;
mod lexer;
mod metrics;
mod parser;
pub mod plan;
pub mod plugins;
mod source;
mod variables;

pub use command::from_arguments;
pub use follow::{Apply, Follower, State, open};
pub use keys::{Key, KeyError, Scheme, Zone};
pub use lexer::{Place, Token};
pub use metrics::Metrics;
pub use parser::{Block, Corefile, Directive, Error, Line, Outside, Text, parse};
pub use plan::{Merged, Plan, Program, Surroundings};
pub use source::{Loaded, Look, Source, stop};
