//! The dnscache program: reads flags, starts the log, runs until it gets a signal to stop.

use std::process::ExitCode;

use dnscache::{Config, Error};

fn main() -> ExitCode {
    if let Some(code) = shared::probe::from_arguments("dnscache") {
        return code;
    }
    if let Some(code) = shared::corefile::from_arguments("dnscache", dnscache::surroundings()) {
        return code;
    }
    let config = shared::flags::or_exit(Config::read(std::env::args_os()));
    if let Err(error) = config.check() {
        return shared::flags::wrong::<Config>(&error);
    }
    shared::log::start(&config.log);
    shared::descriptors::raise();
    shared::log::exit_code(serve(config))
}

// UDP has its own threads; the runtime carries TCP, HTTP and files.
#[tokio::main(worker_threads = 2)]
async fn serve(config: Config) -> Result<(), Error> {
    let stop = shared::shutdown::signal().map_err(Error::Signal)?;
    dnscache::run(config, stop).await
}
