//! `cargo pod`: builds the three programs and runs them on loopback as the pod would, until Ctrl-C.
//!
//! Edge. It uses the programs' command lines and what any client can see of them. It must not
//! depend on their internals.
//!
//! ```text
//! flags ─▶ check (values, ports) ─▶ build (cargo) ─▶ programs (children, logs), each started with
//!          plan (arguments)                          the addresses of those before it
//!                                    healthz returns 200 ─▶ examples, asked first ─▶ status line
//! ```

mod ask;
mod check;
mod examples;
mod flags;
mod objects;
mod plan;
mod ports;
mod programs;
mod status;

use std::io::IsTerminal;
use std::path::Path;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use flags::Flags;
use ports::Ports;
use programs::{Ended, Programs};
use shared::addresses::Addresses;
use tests::{build, tether};

fn main() -> ExitCode {
    if let Some(refusal) = tether::exec_if_asked() {
        eprintln!("cargo pod: {refusal}");
        return ExitCode::FAILURE;
    }
    let flags = flags::parse();
    // The runtime has one thread, because the children's death signal is tied to the thread that
    // starts them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs an epoll instance and a pipe");
    let Err(error) = runtime.block_on(run(flags)) else {
        return ExitCode::SUCCESS;
    };
    if let Error::Flags(wrong) = &error {
        eprintln!("{}", shared::flags::chain(wrong));
        return ExitCode::from(2);
    }
    eprint!("cargo pod: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
    ExitCode::FAILURE
}

/// Why the pod cannot run.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot listen for SIGTERM and SIGINT")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Flags(#[from] check::Error),
    #[error(transparent)]
    Ports(#[from] ports::Error),
    #[error(transparent)]
    Build(#[from] build::Error),
    #[error(transparent)]
    Programs(#[from] programs::Error),
    #[error("{0}")]
    Died(Ended),
    #[error("not healthy after {} s: {reason}", HEALTHY_MAX.as_secs())]
    Unhealthy { reason: String },
}

/// Builds and starts the programs, waits until they are healthy, shows examples, and ends all
/// programs at a signal.
async fn run(flags: Flags) -> Result<(), Error> {
    let mut stop = pin!(shared::shutdown::signal().map_err(Error::Signals)?);
    // Checked before the build, so that an error is reported at once.
    check::flags(&flags).await?;
    ports::check(&flags)?;
    let built = tokio::select! {
        built = build::programs() => built?,
        () = &mut stop => return Ok(()),
    };
    let services = flags.objects().map(objects::services).unwrap_or_default();
    let directory = flags.log_directory(&built);
    let resolv_file = programs::prepare(&directory)?;
    let mut programs = Programs::new(built, directory);
    let started = tokio::select! {
        started = start(&flags, &services, &resolv_file, &mut programs) => started.map(Some),
        () = &mut stop => Ok(None),
    };
    let shown = match started {
        Ok(Some(ports)) => {
            println!("{}", programs.table());
            show(&flags, &ports, &services, &mut programs, stop.as_mut()).await
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    programs.stop().await;
    shown
}

/// Starts the three programs, each after the programs that it queries have bound their ports.
/// Returns their addresses.
async fn start(
    flags: &Flags,
    services: &[objects::Service],
    resolv_file: &Path,
    programs: &mut Programs,
) -> Result<Ports, Error> {
    let Addresses { dns, http: kubedns_http } =
        programs.start("kubedns", plan::kubedns(flags)).await?;
    let kubedns = dns[0];
    let arguments = plan::dnscache(flags, kubedns, kubedns_http, resolv_file);
    let Addresses { dns, http: dnscache_http } = programs.start("dnscache", arguments).await?;
    let dns = dns[0];
    let mut arguments = plan::healthz(flags, kubedns, dns, services);
    arguments.extend(plan::pages(dnscache_http, kubedns_http));
    let healthz = programs.start("healthz", arguments).await?.http;
    Ok(Ports { dns, kubedns_http, healthz })
}

/// Shows examples and status until the signal to stop. Ends early if the pod does not become
/// healthy, or if all programs have ended.
async fn show(
    flags: &Flags,
    ports: &Ports,
    services: &[objects::Service],
    programs: &mut Programs,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), Error> {
    tokio::select! {
        healthy = until_healthy(ports) => healthy?,
        ended = programs.next_end() => return Err(Error::Died(ended)),
        () = &mut stop => return Ok(()),
    }
    println!("ready\n\nTry, in another shell:");
    for example in examples::find(ports, services, &flags.domain).await {
        println!("{example}");
    }
    println!("{}", examples::hints(flags, programs.process_id("kubedns")));

    let mut line = status::Line::new(ports, std::io::stdout().is_terminal());
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while programs.running() > 0 {
        tokio::select! {
            _ = second.tick() => line.refresh().await,
            ended = programs.next_end() => {
                line.clear();
                eprintln!("{ended}");
            }
            () = &mut stop => {
                line.clear();
                return Ok(());
            }
        }
    }
    eprintln!("no program is left");
    Ok(())
}

/// Asks healthz until it answers 200. Prints every few seconds what is still wrong.
async fn until_healthy(ports: &Ports) -> Result<(), Error> {
    let deadline = Instant::now() + HEALTHY_MAX;
    let mut said = Instant::now();
    let mut reason = "healthz has not answered".to_owned();
    loop {
        match timeout_at(deadline, ask::http(ports.healthz, "/healthz")).await {
            Ok(Ok((hyper::StatusCode::OK, _))) => return Ok(()),
            Ok(Ok((_, body))) => reason = body.trim().replace('\n', "; "),
            Ok(Err(_)) => {} // not listening yet
            Err(_) => return Err(Error::Unhealthy { reason }),
        }
        if Instant::now() >= deadline {
            return Err(Error::Unhealthy { reason });
        }
        if said.elapsed() >= SAY_AFTER {
            said = Instant::now();
            println!("waiting: {reason}");
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// How long the pod may take to become healthy, even with a large cluster over a slow line.
const HEALTHY_MAX: Duration = Duration::from_secs(60);
/// After how long to print why the pod is not healthy yet.
const SAY_AFTER: Duration = Duration::from_secs(3);
