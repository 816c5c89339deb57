//! Flags from the environment, in the real programs.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use clap::CommandFactory;
use tokio::process::Command;
use tokio::time::timeout;

/// Returns the variables of all flags of `C`.
fn variables<C: CommandFactory>() -> Vec<String> {
    let command = C::command();
    let prefix = command.get_name().to_uppercase();
    let flags = command.get_arguments().filter_map(|argument| argument.get_long());
    flags.map(|flag| format!("{prefix}_{flag}").to_uppercase().replace('-', "_")).collect()
}

/// Runs `program` with an address for HTTP that this machine does not have, so that it ends after
/// it has parsed its flags.
async fn run(program: &str, environment: &[(String, &str)]) -> Output {
    let pod = Path::new(env!("CARGO_BIN_EXE_pod"));
    let folder = tests::build::programs_beside(pod).await.unwrap();
    let mut command = Command::new(folder.join(program));
    command.arg("--http-listen=192.0.2.1:1").env_clear().envs(environment.iter().cloned());
    if program != "healthz" {
        command.arg("--listen=127.0.0.1:0");
    }
    timeout(Duration::from_secs(60), command.output()).await.unwrap().unwrap()
}

#[tokio::test]
async fn empty_variables_are_not_set_and_wrong_ones_are_named() {
    let programs = [
        ("kubedns", variables::<kubedns::Config>(), "KUBEDNS_TTL"),
        ("dnscache", variables::<dnscache::Config>(), "DNSCACHE_CACHE_BYTES"),
        ("healthz", variables::<healthz::Config>(), "HEALTHZ_PROBE"),
    ];
    for (program, variables, one) in programs {
        assert!(variables.len() > 3 && variables.iter().any(|name| name == one), "{variables:?}");
        let empty: Vec<_> = variables.into_iter().map(|name| (name, "")).collect();
        let output = run(program, &empty).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{program}: {said}");
        assert!(said.contains("192.0.2.1:1"), "{program}: {said}");

        let output = run(program, &[(one.to_owned(), "nonsense")]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{program}: {said}");
        let named = format!("for the environment variable {one}");
        assert!(said.contains(&named) && said.lines().count() == 1, "{program}: {said}");
    }
}
