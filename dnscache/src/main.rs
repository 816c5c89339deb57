//! The dnscache program: reads flags, starts the log, runs until told to stop.

use std::process::ExitCode;

use dnscache::{Config, Error};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn main() -> ExitCode {
    let config = shared::flags::parse::<Config>();
    shared::log::start(&config.log);
    raise_descriptor_limit();
    shared::log::exit_code(serve(config))
}

// UDP has threads of its own: the runtime carries TCP, HTTP and files.
#[tokio::main(worker_threads = 2)]
async fn serve(config: Config) -> Result<(), Error> {
    let stop = shared::shutdown::signal().map_err(Error::Signal)?;
    dnscache::run(config, stop).await
}

/// Allows as many descriptors as the system does: each TCP client takes one, and each try at an
/// upstream. The usual soft limit of 1,024 is there for programs that use `select`.
fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, ?current, "the limit on descriptors stays");
    }
}
