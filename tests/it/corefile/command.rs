//! `corefile check` and starts with a Corefile, in the real programs.

use std::path::Path;
use std::process::Output;

use tempfile::TempDir;
use tests::PATIENCE;
use tokio::process::Command;
use tokio::time::timeout;

use super::KUBEADM;

async fn run(program: &str, arguments: &[&str]) -> Output {
    let pod = Path::new(env!("CARGO_BIN_EXE_pod"));
    let folder = tests::build::programs_beside(pod).await.unwrap();
    let mut command = Command::new(folder.join(program));
    command.args(arguments).env_clear();
    timeout(PATIENCE, command.output()).await.unwrap().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_check_prints_what_each_line_becomes() {
    let directory = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = file("good", KUBEADM);
    let bad = file("bad", ".:53 {\n forward . NAMESERVERS\n whoami\n}\n");
    let rules = ".:53 {\n rewrite name regex (a b\n template IN A {\n answer x\n }\n}\n";
    let rules = file("rules", rules);
    let broken = file("broken", ".:53 {\n errors\n");
    let mut tables = Vec::new();
    for program in ["kubedns", "dnscache"] {
        let output = run(program, &["corefile", "check", &good]).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let table = text(&output.stdout);
        for part in [
            "good:1 ",
            "mapped to dnscache --listen=0.0.0.0:53 (*) --listen=[::]:53 (*)",
            "mapped to kubedns --domain=cluster.local (*)",
            "--server=/cluster.local/127.0.0.1#10053 ",
            "mapped to dnscache --resolv-file=/etc/resolv.conf\n",
            "built in: forwarding loops end with SERVFAIL",
            "nothing is refused",
        ] {
            assert!(table.contains(part), "{part:?} is missing in\n{table}");
        }
        tables.push(table.to_owned());

        let output = run(program, &["corefile", "check", "-o", "json", &bad]).await;
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["refused"], 2, "{report}");
        let line = &report["lines"][1];
        assert_eq!((&line["line"], &line["result"]), (&2.into(), &"refused".into()), "{line}");
        assert!(line["reasons"][0].as_str().unwrap().contains("NAMESERVERS"), "{line}");

        // Both programs must check rules that only dnscache applies.
        let output = run(program, &["corefile", "check", &rules]).await;
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let table = text(&output.stdout);
        for part in ["\"(a\" is not a regular expression", "\"x\" is not a record", "2 lines"] {
            assert!(table.contains(part), "{part:?} is missing in\n{table}");
        }

        for missing in [&broken, "/nonexistent/Corefile"] {
            let output = run(program, &["corefile", "check", missing]).await;
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            assert!(said.starts_with(&format!("error: {missing}:")), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
        let output = run(program, &["corefile", "check"]).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");

        // At the start, each reason has a line.
        let output = run(program, &[&format!("--corefile={bad}")]).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert!(
            lines[0].starts_with(&format!("error: {bad}:2: forward . NAMESERVERS: ")),
            "{said}"
        );
        assert!(lines[1].starts_with(&format!("error: {bad}:3: whoami: ")), "{said}");
    }
    assert_eq!(tables[0], tables[1], "both programs read the file alike");
}
