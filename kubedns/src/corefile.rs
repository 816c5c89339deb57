//! The Corefile of a running kubedns. If the part for kubedns changes, a restart is needed, which
//! the log and `/readyz?verbose` report.
//!
//! Edge. [`shared::corefile`] knows what a Corefile means.

use shared::corefile::{self, Merged, Plan, State};
use shared::flags::chain;
use shared::shutdown::Tasks;
use tokio::sync::watch;

use crate::config::Config;

/// Follows the Corefile of `config`. Returns its state.
pub fn start(config: &Config, tasks: &mut Tasks) -> watch::Receiver<State> {
    let source = config.loaded.as_ref().map(|loaded| loaded.source.clone());
    let apply = move |plan: &Plan, _: &Merged| {
        let Some(source) = &source else { return Ok(()) };
        let (config, _) = source.config::<Config>(plan)?;
        let path = source.path.display();
        config.check().map_err(|error| vec![format!("{path}: {}", chain(&error))])
    };
    let (state, follower) = corefile::open(config.loaded.clone(), Box::new(apply));
    tasks.spawn("corefile", follower.run(tasks.stopping()));
    state
}
