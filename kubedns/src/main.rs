//! The kubedns program: reads flags, starts the log, runs until it gets a signal to stop.

use std::process::ExitCode;

use kubedns::{Config, Error};
use shared::{descriptors, flags, log, probe, shutdown};

fn main() -> ExitCode {
    if let Some(code) = probe::from_arguments("kubedns") {
        return code;
    }
    if let Some(code) = shared::corefile::from_arguments("kubedns", Default::default()) {
        return code;
    }
    let config = flags::or_exit(Config::read(std::env::args_os()));
    if let Err(error) = config.check() {
        return flags::wrong::<Config>(&error);
    }
    log::start(&config.log);
    descriptors::raise();
    log::exit_code(run(config))
}

/// Runs watching, TCP and HTTP on one thread, so that their memory comes from one place. UDP has
/// threads of its own.
fn run(config: Config) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::Runtime)?;
    runtime.block_on(async {
        let stop = shutdown::signal().map_err(Error::Signals)?;
        kubedns::run(config, stop).await
    })
}
