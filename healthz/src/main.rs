//! The healthz program: reads flags, starts the log, runs until told to stop.

use std::process::ExitCode;

use healthz::{Config, Error};

fn main() -> ExitCode {
    if let Some(code) = shared::probe::from_arguments("healthz") {
        return code;
    }
    if let Some(code) = healthz::ask::from_arguments() {
        return code;
    }
    if let Some(code) = healthz::check::from_arguments() {
        return code;
    }
    let config = shared::flags::parse::<Config>();
    if let Err(error) = config.check() {
        return shared::flags::wrong::<Config>(&error);
    }
    shared::log::start(&config.log);
    shared::log::exit_code(serve(config))
}

#[tokio::main(flavor = "current_thread")]
async fn serve(config: Config) -> Result<(), Error> {
    let stop = shared::shutdown::signal().map_err(Error::Signal)?;
    healthz::run(config, stop).await
}
