//! The plugins of CoreDNS: their names, how often a block can have them, and their arguments.
//!
//! Core. Lines that are independent of others get their row here. Lines that depend on others are
//! kept in [`Server`] for the plan.

mod acl;
mod answers;
mod arguments;
mod cache;
mod etcd;
mod forward;
mod hosts;
mod kubernetes;
mod listening;
mod observing;
mod replies;
mod rewrite;
mod zones;

use super::keys::{Key, Zone};
use super::parser::{Block, Directive, Line};
use super::plan::Rows;
use crate::rules::rewrite::Rewrite;

pub use acl::{Acl, Action, Policy};
pub use answers::{Autopath, Dns64};
pub use arguments::{duration, zones as parse_zones};
pub use cache::{Cache, Stale};
pub use etcd::Etcd;
pub use forward::{Forward, To};
pub use hosts::Hosts;
pub use kubernetes::{Kubernetes, Multicluster};
pub use listening::Listening;
pub use observing::Log;
pub use replies::Header;
pub use rewrite::Template;
pub use zones::{External, ZoneFile};

/// A server block with the settings of its lines.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// The [`index`](super::parser::Line::index) of its keys.
    pub index: usize,
    /// Its keys that can be served.
    pub keys: Vec<Key>,
    /// The addresses for DNS and HTTP.
    pub listening: Listening,
    /// The cluster.
    pub kubernetes: Option<Kubernetes>,
    /// The zones of external addresses.
    pub external: Option<External>,
    /// The zones in etcd.
    pub etcd: Option<Etcd>,
    /// The clusterset.
    pub multicluster: Option<Multicluster>,
    /// The upstreams, in the order of the file.
    pub forwards: Vec<Forward>,
    /// Rules that replace clients' questions, in the order of the file.
    pub rewrites: Vec<Rewrite>,
    /// Answers made from a text, in the order of the file.
    pub templates: Vec<Template>,
    /// The table of hosts.
    pub hosts: Option<Hosts>,
    /// The search lists that are walked.
    pub autopath: Option<Autopath>,
    /// The translation of IPv4 addresses.
    pub dns64: Option<Dns64>,
    /// Zones from master files, in the order of the file.
    pub files: Vec<ZoneFile>,
    /// Which clients may ask what, in the order of the file.
    pub acls: Vec<Acl>,
    /// Lifetimes.
    pub cache: Option<Cache>,
    /// The index of the line `local`.
    pub local: Option<usize>,
    /// Flags of messages.
    pub header: Option<Header>,
    /// Which queries are logged, in the order of the file.
    pub logs: Vec<Log>,
    /// The directory of relative file names.
    pub root: Option<String>,
}

impl Server {
    /// Returns all zones of the keys.
    pub fn zones(&self) -> impl Iterator<Item = &Zone> {
        self.keys.iter().flat_map(|key| &key.zones)
    }
}

/// A plugin.
pub struct Plugin {
    /// Its name.
    pub name: &'static str,
    /// Whether a block can have several lines of it.
    repeats: bool,
    /// Parses a directive.
    read: Read,
}

/// Parses the directive of a plugin into the server and the rows.
type Read = fn(&Directive, &mut Server, &mut Rows);

/// The result of a line that is independent of others.
type Said = Result<Fate, String>;

/// The meaning of a valid line.
enum Fate {
    /// The behavior is built in, or does not affect answers.
    BuiltIn(&'static str),
    /// The plan decides.
    Kept,
}

/// Parses a block.
pub fn read(block: &Block, rows: &mut Rows) -> Server {
    let mut server = Server { index: block.index, ..Server::default() };
    rows.add_block(block);
    for token in &block.keys {
        match Key::parse(&token.text) {
            Ok(key) => server.keys.push(key),
            Err(error) => rows.refuse(block.index, error.to_string()),
        }
    }
    for directive in &block.directives {
        rows.add_line(&directive.line, false);
        for option in &directive.options {
            rows.add_line(option, true);
        }
    }
    // Files are relative to the directory of the block's `root`, at any place in the block.
    let is_root = |directive: &&Directive| directive.line.name.text == "root";
    let roots = block.directives.iter().filter(is_root);
    for directive in roots.chain(block.directives.iter().filter(|it| !is_root(it))) {
        read_directive(block, directive, &mut server, rows);
    }
    server
}

fn read_directive(block: &Block, directive: &Directive, server: &mut Server, rows: &mut Rows) {
    let line = &directive.line;
    let name = line.name.text.as_str();
    let Some(plugin) = PLUGINS.iter().find(|plugin| plugin.name == name) else {
        rows.refuse(line.index, unknown(name));
        for option in &directive.options {
            rows.build_in(option.index, "part of the directive above");
        }
        return;
    };
    let first = block.directives.iter().find(|other| other.line.name.text == name);
    if !plugin.repeats && first.is_some_and(|first| first.line.index != line.index) {
        rows.refuse(line.index, format!("{name} can be used once in a block; remove one of them"));
    }
    (plugin.read)(directive, server, rows);
}

/// Returns why a directive is not a plugin.
fn unknown(name: &str) -> String {
    let refused = REFUSED.iter().find(|(refused, _)| *refused == name);
    match refused {
        Some((_, reason)) => (*reason).to_owned(),
        None => format!("there is no plugin {name:?} in CoreDNS; correct the name, or remove it"),
    }
}

/// Records the result of `line`.
fn settle(line: &Line, said: Said, rows: &mut Rows) {
    match said {
        Ok(Fate::BuiltIn(text)) => rows.build_in(line.index, text),
        Ok(Fate::Kept) => {}
        Err(reason) => rows.refuse(line.index, reason),
    }
}

/// Returns the error that `line` is not an option.
fn unknown_option(line: &Line, allowed: &str) -> String {
    format!("unknown option {:?}; expected one of: {allowed}", line.name.text)
}

/// Refuses every option, because the plugin has none.
fn refuse_options(directive: &Directive, rows: &mut Rows) {
    for option in &directive.options {
        let reason = format!("{} has no options; remove the block", directive.line.name.text);
        rows.refuse(option.index, reason);
    }
}

/// Returns `path` below the directory of the block.
fn file(path: &str, server: &Server) -> String {
    match &server.root {
        Some(root) if !path.starts_with('/') => format!("{}/{path}", root.trim_end_matches('/')),
        _ => path.to_owned(),
    }
}

const fn plugin(name: &'static str, repeats: bool, read: Read) -> Plugin {
    Plugin { name, repeats, read }
}

/// The supported plugins, in the order in which CoreDNS calls them. `proxy` is the old name of
/// `forward`.
pub const PLUGINS: &[Plugin] = &[
    plugin("root", true, listening::root),
    plugin("metadata", true, observing::without_effect),
    plugin("cancel", true, observing::cancel),
    plugin("timeouts", true, observing::timeouts),
    plugin("multisocket", true, observing::multisocket),
    plugin("reload", true, observing::reload),
    plugin("bufsize", true, replies::bufsize),
    plugin("bind", true, listening::bind),
    plugin("debug", true, observing::without_effect),
    plugin("ready", false, listening::ready),
    plugin("health", true, listening::health),
    plugin("pprof", false, observing::pprof),
    plugin("prometheus", false, listening::prometheus),
    plugin("errors", false, observing::errors),
    plugin("log", true, observing::log),
    plugin("local", true, replies::local),
    plugin("dns64", true, answers::dns64),
    plugin("any", true, replies::any),
    plugin("chaos", true, replies::chaos),
    plugin("loadbalance", true, replies::loadbalance),
    plugin("rewrite", true, rewrite::rewrite),
    plugin("autopath", true, answers::autopath),
    plugin("acl", true, acl::acl),
    plugin("cache", false, cache::read),
    plugin("header", true, replies::header),
    plugin("tls", false, listening::tls),
    plugin("minimal", true, observing::without_effect),
    plugin("template", true, rewrite::template),
    plugin("transfer", true, zones::transfer),
    plugin("hosts", false, hosts::read),
    plugin("k8s_external", true, zones::external),
    plugin("kubernetes", false, kubernetes::read),
    plugin("multicluster", false, kubernetes::multicluster),
    plugin("file", true, zones::file),
    plugin("etcd", true, etcd::read),
    plugin("loop", false, observing::without_loops),
    plugin("forward", true, forward::read),
    plugin("proxy", true, forward::proxy),
];

/// Known plugins that are not supported, and why.
const REFUSED: &[(&str, &str)] = &[
    ("auto", "zone files cannot be found by pattern; remove the line"),
    ("azure", "cloud zones are not read; forward the zone to a server that has it"),
    ("clouddns", "cloud zones are not read; forward the zone to a server that has it"),
    ("dnssec", "answers are not signed; forward the zone to a server that signs it"),
    ("dnstap", "there is no dnstap stream; remove the line"),
    ("erratic", "faults are not made on purpose; remove the line"),
    (
        "federation",
        "write the federations into the key `federations` of the ConfigMap kube-dns, \
        and remove the line",
    ),
    ("geoip", "places of clients are not known; remove the line"),
    ("grpc", "upstreams over gRPC are not asked; use forward"),
    ("grpc_server", "there is no listener for gRPC; remove the line"),
    ("https", "there is no listener for HTTPS; remove the line"),
    ("https3", "there is no listener for HTTP/3; remove the line"),
    ("nomad", "Nomad is not asked; forward the zone to a server that has it"),
    ("nsid", "replies do not name the server; remove the line"),
    ("on", "commands are not run; remove the line"),
    ("proxyproto", "the PROXY protocol is not read; remove the line"),
    ("quic", "there is no listener for QUIC; remove the line"),
    ("route53", "cloud zones are not read; forward the zone to a server that has it"),
    (
        "secondary",
        "zones are not transferred from others; forward the zone to a server that has \
        it",
    ),
    ("shed", "queries are dropped in the kernel if there are too many; remove the line"),
    ("sign", "answers are not signed; forward the zone to a server that signs it"),
    ("trace", "queries are not traced; remove the line"),
    ("tsig", "signed queries are not read; remove the line"),
    ("view", "all clients get the same answers; remove the line"),
    ("whoami", "clients are not told their address; remove the line"),
];

#[cfg(test)]
mod tests;
