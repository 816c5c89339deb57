//! Keeps the rules in step with the flags and the files: reads the files, watches them, replaces
//! the rules, and removes changed names from the cache.
//!
//! Edge. Does not parse the lines of a file.

mod zones;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use shared::plain_file;
use shared::ready::Check;
use shared::watcher::Watcher;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::autopath::{self, Autopath};
use super::hosts::{Builder, Hosts, Options, Table};
use super::name::Zones;
use super::{Block, Local};
use crate::cache::Cache;
use zones::LoadedZone;
pub use zones::{ZoneFileError, ZonePlan};

/// The sources of the rules.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The rules of each zone.
    pub blocks: Vec<BlockPlan>,
}

/// The sources of the rules of some zones.
#[derive(Clone, Debug, Default)]
pub struct BlockPlan {
    /// The rules that need no file. Its `hosts` are asked after those of the files.
    pub rules: Block,
    /// The search lists of pods.
    pub autopath: Vec<AutopathPlan>,
    /// The hosts files, in the order in which they are asked.
    pub hosts: Vec<HostsPlan>,
    /// The zone files, in the order in which they are asked.
    pub zone_files: Vec<ZonePlan>,
}

/// The search lists of the pods of a cluster.
#[derive(Clone, Debug)]
pub struct AutopathPlan {
    /// The cluster domain in wire form and lower case.
    pub domain: Box<[u8]>,
    /// The resolv.conf with the search domains that kubelet appends to those of the cluster.
    pub resolv_file: PathBuf,
    /// The zones in which a walk begins.
    pub zones: Zones,
}

/// A table of hosts.
#[derive(Clone, Debug, Default)]
pub struct HostsPlan {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Lines that are read after those of the file.
    pub lines: String,
    /// How the table is used.
    pub options: Options,
    /// Whether the file is read only at the start.
    pub is_fixed: bool,
}

impl HostsPlan {
    /// Returns a table of `file` alone, with default options.
    pub fn file(file: PathBuf) -> Self {
        Self { file: Some(file), ..Self::default() }
    }
}

/// The state of the files, for display.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Names in all tables.
    names: usize,
    /// Lines that are refused, in all files.
    refusals: usize,
    /// Problems of hosts files, in one line each.
    reasons: Vec<String>,
    /// Problems of zone files, in one line each.
    zone_reasons: Vec<String>,
}

impl State {
    /// Returns the lines `hosts` and `zone-files` of `/readyz?verbose`. A problem of a file is a
    /// warning.
    pub fn checks(&self) -> [Check; 2] {
        [("hosts", &self.reasons), ("zone-files", &self.zone_reasons)].map(|(name, reasons)| {
            match &reasons[..] {
                [] => Check::passed(name),
                reasons => Check::warning(name, reasons.join("; ")),
            }
        })
    }
}

/// The metrics of the files.
pub struct Metrics(pub Arc<ArcSwap<State>>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let state = self.0.load();
        let gauges = [
            ("hosts_names", "Names in the hosts files", state.names),
            (
                "hosts_refused_lines",
                "Lines of hosts files that cannot be used, and files that cannot be read",
                state.refusals,
            ),
            ("zone_files_refused", "Zone files that cannot be used", state.zone_reasons.len()),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value as i64);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

/// Whether there are rules that apply to hits.
#[derive(Debug, Default)]
pub struct Marks {
    /// Rules about clients.
    pub acl: AtomicBool,
    /// Flags of replies.
    pub header: AtomicBool,
}

/// Keeps the rules.
pub struct Keeper {
    plans: watch::Receiver<Arc<Plan>>,
    plan: Arc<Plan>,
    /// The tables of the hosts files of the plan, in order.
    files: Vec<Loaded>,
    /// The zones of the zone files of the plan, in order.
    zones: Vec<LoadedZone>,
    /// The search domains of the node for each autopath of the plan, in order.
    searches: Vec<Vec<Box<[u8]>>>,
    /// What a hit looks at instead of the rules.
    pub marks: Arc<Marks>,
    /// The rules in force.
    pub local: Arc<ArcSwap<Local>>,
    /// The state of the files.
    pub state: Arc<ArcSwap<State>>,
}

/// A table as it was last read.
#[derive(Clone, Debug, Default)]
struct Loaded {
    table: Arc<Table>,
    /// The hash of the contents; `None` before the file could be read.
    hash: Option<u64>,
    refusals: usize,
    reasons: Vec<String>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Reads the files of the plan for the first time. The table of a missing file is empty.
    pub fn new(plans: watch::Receiver<Arc<Plan>>) -> Self {
        let plan = Arc::clone(&plans.borrow());
        let (local, state) = (Arc::default(), Arc::default());
        let zones = zones::read(&plan, Vec::new());
        let searches = Vec::new();
        let marks = Arc::default();
        let mut keeper =
            Self { plans, plan, files: Vec::new(), zones, searches, marks, local, state };
        keeper.files = read_all(&keeper.plan, Vec::new());
        keeper.searches = read_searches(&keeper.plan, &[]);
        keeper.publish();
        keeper
    }

    /// Follows the files and the plans until `stopping`.
    pub async fn run(
        mut self,
        cache: Arc<Cache>,
        stopping: CancellationToken,
    ) -> Result<(), Infallible> {
        let changed = Arc::new(Notify::new());
        let mut watches = watch_directories(&self.plan, &changed);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                () = changed.notified() => {
                    tokio::time::sleep(SETTLE).await;
                    self.read(&cache).await;
                }
                plan = next(&mut self.plans) => {
                    self.plan = plan;
                    self.files.clear();
                    self.zones.clear();
                    self.searches.clear();
                    self.read(&cache).await;
                    self.publish();
                    // Any name can have another answer now.
                    cache.remove_below(&[0]);
                    watches.shutdown().await;
                    watches = watch_directories(&self.plan, &changed);
                }
            }
        }
    }

    /// Reads the files, and replaces the rules if a table has changed.
    async fn read(&mut self, cache: &Cache) {
        let before = std::mem::take(&mut self.files);
        let (plan, known) = (Arc::clone(&self.plan), before.clone());
        let read = tokio::task::spawn_blocking(move || read_all(&plan, known)).await;
        self.files = read.unwrap_or_else(|error| {
            tracing::error!(%error, "reading the hosts files panicked");
            before.clone()
        });
        let searches = read_searches(&self.plan, &self.searches);
        if std::mem::replace(&mut self.searches, searches) != self.searches {
            self.publish();
            // Any walk can end elsewhere now.
            cache.remove_below(&[0]);
            tracing::info!("the search domains of the node changed");
        }
        self.read_zones(cache);
        let is_new = before.len() != self.files.len();
        let tables = before.iter().zip(&self.files).map(|(a, b)| (&a.table, &b.table));
        let changed: Vec<Box<[u8]>> = tables
            .filter(|(before, after)| !Arc::ptr_eq(before, after))
            .flat_map(|(before, after)| before.changed(after))
            .collect();
        self.publish_state();
        if is_new || !changed.is_empty() {
            self.publish();
            cache.remove_below_any(&changed);
            tracing::info!(names = changed.len(), "hosts files changed");
        }
    }

    /// Reads the zone files, and replaces the rules if a zone has changed.
    fn read_zones(&mut self, cache: &Cache) {
        let zones = zones::read(&self.plan, self.zones.clone());
        let before = std::mem::replace(&mut self.zones, zones);
        let plans = self.plan.blocks.iter().flat_map(|block| &block.zone_files);
        let states = before.iter().zip(&self.zones).zip(plans);
        let is_same = |one: &LoadedZone, two: &LoadedZone| match (&one.zone, &two.zone) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (one, two) => one.is_none() && two.is_none(),
        };
        let changed = states.filter(|((one, two), _)| !is_same(one, two));
        let changed: Vec<Box<[u8]>> = changed.map(|(_, plan)| plan.origin.clone()).collect();
        if !changed.is_empty() {
            self.publish();
            cache.remove_below_any(&changed);
            tracing::info!(zones = changed.len(), "zone files changed");
        }
    }

    /// Puts the rules in force.
    fn publish(&mut self) {
        let mut files = self.files.iter();
        let mut searches = self.searches.iter();
        let mut zones = self.zones.iter();
        let blocks = self.plan.blocks.iter().map(|plan| {
            let tables = plan.hosts.iter().zip(&mut files).map(|(plan, loaded)| Hosts {
                options: plan.options.clone(),
                table: Arc::clone(&loaded.table),
            });
            let mut block = plan.rules.clone();
            block.hosts.splice(0..0, tables);
            let walks = plan.autopath.iter().zip(&mut searches);
            block.autopath.extend(walks.map(|(plan, search)| Autopath {
                domain: plan.domain.clone(),
                search: search.clone(),
                zones: plan.zones.clone(),
            }));
            block.zone_files.extend(zones::files(&plan.zone_files, &mut zones));
            block
        });
        let local = Local::new(blocks.collect());
        // The rules come before the marks and go after them.
        let (has_acl, has_header) = (local.has_acl(), local.has_header());
        self.local.store(Arc::new(local));
        self.marks.acl.store(has_acl, Ordering::Release);
        self.marks.header.store(has_header, Ordering::Release);
        self.publish_state();
    }

    fn publish_state(&self) {
        let state = State {
            names: self.files.iter().map(|file| file.table.len()).sum(),
            refusals: self.files.iter().map(|file| file.refusals).sum(),
            reasons: self.files.iter().flat_map(|file| file.reasons.clone()).collect(),
            zone_reasons: self.zones.iter().filter_map(|zone| zone.reason.clone()).collect(),
        };
        let before = self.state.load();
        let is_new = |reason: &&String| {
            !before.reasons.contains(reason) && !before.zone_reasons.contains(reason)
        };
        for reason in state.reasons.iter().chain(&state.zone_reasons).filter(is_new) {
            tracing::warn!("{reason}");
        }
        if **before != state {
            self.state.store(Arc::new(state));
        }
    }
}

/// Waits for the next plan; forever if there will be none.
async fn next(plans: &mut watch::Receiver<Arc<Plan>>) -> Arc<Plan> {
    if plans.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    Arc::clone(&plans.borrow_and_update())
}

/// Notifies `changed` whenever the directory of a file changes, and from time to time.
fn watch_directories(plan: &Plan, changed: &Arc<Notify>) -> JoinSet<Infallible> {
    let plans = plan.blocks.iter().flat_map(|block| &block.hosts);
    let hosts = plans.filter(|plan| !plan.is_fixed).filter_map(|plan| plan.file.as_deref());
    let walks = plan.blocks.iter().flat_map(|block| &block.autopath);
    let zones = plan.blocks.iter().flat_map(|block| &block.zone_files);
    let zones = zones.filter(|plan| !plan.is_fixed).map(|plan| plan.file.as_path());
    let files = hosts.chain(zones).chain(walks.map(|plan| plan.resolv_file.as_path()));
    let parent = |file: &Path| match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let directories: BTreeSet<PathBuf> = files.map(parent).collect();
    let mut watches = JoinSet::new();
    for directory in directories {
        let changed = Arc::clone(changed);
        watches.spawn(async move {
            let mut watcher = Watcher::new(&directory);
            loop {
                // Armed before each look, so that a change after the look is noticed.
                watcher.arm();
                changed.notify_one();
                watcher.changed().await;
            }
        });
    }
    watches
}

/// Reads every hosts file of `plan`. `known` are the tables read before, or empty.
fn read_all(plan: &Plan, known: Vec<Loaded>) -> Vec<Loaded> {
    let mut known = known.into_iter();
    let hosts = plan.blocks.iter().flat_map(|block| &block.hosts);
    hosts
        .map(|hosts| match known.next() {
            Some(known) if hosts.is_fixed => known,
            known => read(hosts, known.unwrap_or_default()),
        })
        .collect()
}

/// Reads the search domains for every autopath of `plan`. If a file cannot be read, those in
/// `known` are kept.
fn read_searches(plan: &Plan, known: &[Vec<Box<[u8]>>]) -> Vec<Vec<Box<[u8]>>> {
    let walks = plan.blocks.iter().flat_map(|block| &block.autopath);
    walks
        .enumerate()
        .map(|(index, plan)| match plain_file::read(&plan.resolv_file, RESOLV_LEN_MAX) {
            Ok(bytes) => autopath::search_domains(&String::from_utf8_lossy(&bytes)),
            Err(_) => known.get(index).cloned().unwrap_or_default(),
        })
        .collect()
}

/// Reads the file of `plan`. If it cannot be read, the table of `known` is kept.
fn read(plan: &HostsPlan, known: Loaded) -> Loaded {
    let contents = match &plan.file {
        Some(path) => plain_file::read(path, FILE_LEN_MAX).map_err(|error| {
            let kept = match known.hash {
                Some(_) => "its last lines stay",
                None => "it has no names until it can be read",
            };
            format!("hosts file {} cannot be read: {error}; {kept}", path.display())
        }),
        None => Ok(Vec::new()),
    };
    let contents = match contents {
        Ok(contents) => contents,
        Err(reason) if known.hash.is_some() => {
            return Loaded { refusals: 1, reasons: vec![reason], ..known };
        }
        Err(reason) => {
            let mut builder = Builder::default();
            builder.add(&plan.lines);
            let table = Arc::new(builder.build().0);
            let table = if *table == *known.table { known.table } else { table };
            return Loaded { table, hash: None, refusals: 1, reasons: vec![reason] };
        }
    };
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&contents);
    if known.hash == Some(hash) && !known.reasons.iter().any(|it| it.contains("cannot be read")) {
        return known;
    }
    let mut builder = Builder::default();
    builder.add(&String::from_utf8_lossy(&contents));
    builder.add(&plan.lines);
    let (table, refused, refusals) = builder.build();
    let file = plan.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
    let reasons = refused.iter().map(|it| format!("{file} line {}: {}", it.line, it.reason));
    let mut reasons: Vec<String> = reasons.collect();
    if refusals > reasons.len() {
        reasons.push(format!("{file}: and {} more lines", refusals - reasons.len()));
    }
    let table = if table == *known.table { known.table } else { Arc::new(table) };
    Loaded { table, hash: Some(hash), refusals, reasons }
}

/// The maximum of bytes, far more than a million lines have.
const FILE_LEN_MAX: u64 = 64 << 20;
/// The maximum of bytes, far more than a resolv.conf has.
const RESOLV_LEN_MAX: u64 = 1 << 20;
/// How long an editor can take from its first to its last write.
const SETTLE: Duration = Duration::from_millis(50);
