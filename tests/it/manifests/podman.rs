//! The standalone pod in podman: images as `cargo image` makes them, and the pod of the file, on
//! free ports.
//!
//! The test needs a podman that can start pods. Otherwise it prints that it was skipped. If the
//! machine needs other settings for that (another runtime, other limits), they are in a
//! `containers.conf`, which podman finds by the variable `CONTAINERS_CONF`.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::PATIENCE;
use tokio::time::sleep;

use crate::fixture::{dns, http};
use crate::tidy::tree::ROOT;

const POD: &str = "manifests/overlays/standalone/pod.yaml";
const QUESTION: &str = "web.shop.svc.cluster.local. A";
const ANSWER: &str = "web.shop.svc.cluster.local. 30 IN A 10.96.12.10";

/// Runs podman in the directory of the repository, for two minutes at most.
fn podman(arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["120", "podman"]).args(arguments).current_dir(ROOT).output().unwrap()
}

/// Runs podman in the same way, and returns its output. Panics if it fails.
fn done(arguments: &[&str]) -> String {
    let output = podman(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "podman {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Returns why podman cannot start a pod on this machine, or `None` if it can.
fn obstacle() -> Option<String> {
    if !Command::new("podman").arg("--version").output().is_ok_and(|said| said.status.success()) {
        return Some("there is no podman".to_owned());
    }
    let name = format!("kube-dns-try-{}", std::process::id());
    let created = podman(&["pod", "create", "--name", &name]);
    let started = podman(&["pod", "start", &name]);
    drop(podman(&["pod", "rm", "--force", &name]));
    let failed = [created, started].into_iter().find(|output| !output.status.success())?;
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    Some(format!("podman starts no pod here: {}", said.lines().last().unwrap_or_default()))
}

/// The pod with its image. Both are removed when it is dropped.
struct Pod {
    name: String,
    image: String,
    dns: SocketAddr,
    healthz: SocketAddr,
}

impl Drop for Pod {
    fn drop(&mut self) {
        drop(podman(&["pod", "rm", "--force", "--time", "0", &self.name]));
        drop(podman(&["rmi", "--force", &self.image]));
    }
}

impl Pod {
    /// Builds the image, loads it, and plays the pod on free ports. Its files are in `folder`.
    fn play(folder: &Path) -> Self {
        let tag = format!("test-{}", std::process::id());
        let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let mut build = Command::new(env!("CARGO_BIN_EXE_image"));
        build.args(["--profile", "dev", "--arch", arch, "--tag", &tag]).arg("--out").arg(folder);
        assert!(build.status().unwrap().success());
        let archive = folder.join(format!("kube-dns-{arch}.tar"));
        done(&["load", "--quiet", "--input", archive.to_str().unwrap()]);

        let name = format!("kube-dns-{tag}");
        let image = format!("kube-dns:{tag}");
        let (dns, healthz) = (free_port(), free_port());
        let text = std::fs::read_to_string(Path::new(ROOT).join(POD)).unwrap();
        let ports = [("hostPort: 1053,", dns), ("hostPort: 10054,", healthz)];
        let text = text.replace(&format!("kube-dns:{}", env!("CARGO_PKG_VERSION")), &image);
        let text = ports.iter().fold(text, |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, &format!("hostPort: {},", to.port()))
        });
        let text = text.replace("  name: kube-dns\n", &format!("  name: {name}\n"));
        let file = folder.join("pod.yaml");
        std::fs::write(&file, text).unwrap();
        let pod = Self { name, image, dns, healthz };
        done(&["kube", "play", file.to_str().unwrap()]);
        pod
    }

    fn container(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    fn pid(&self, container: &str) -> i32 {
        done(&["inspect", "--format", "{{.State.Pid}}", &self.container(container)])
            .parse()
            .unwrap()
    }

    /// Runs the liveness probe of `container` as it is in the file.
    fn probe(&self, container: &str) -> bool {
        let pod: Value =
            serde_saphyr::from_str(include_str!("../../../manifests/overlays/standalone/pod.yaml"))
                .unwrap();
        let mut containers = pod["spec"]["containers"].as_array().unwrap().iter();
        let found = containers.find(|found| found["name"] == container).unwrap();
        let command = found["livenessProbe"]["exec"]["command"].as_array().unwrap();
        let command: Vec<&str> = command.iter().map(|word| word.as_str().unwrap()).collect();
        let container = self.container(container);
        podman(&[&["exec", &*container][..], &command].concat()).status.success()
    }

    /// Waits until dnscache runs in another process than `before`, and the pod is healthy and
    /// answers.
    async fn recovers(&self, before: i32) {
        let start = Instant::now();
        while [0, before].contains(&self.pid("dnscache")) {
            assert!(start.elapsed() < PATIENCE, "dnscache was not restarted");
            sleep(Duration::from_millis(100)).await;
        }
        http::wait(self.healthz, "/healthz", 200, "ok", PATIENCE).await;
        for question in [QUESTION, &format!("tcp {QUESTION}")] {
            let answer = match question.strip_prefix("tcp ") {
                Some(question) => dns::ask_tcp(self.dns, question).await,
                None => dns::ask(self.dns, question).await,
            };
            assert_eq!(answer.answers, [ANSWER], "{question}");
        }
    }
}

/// Returns a port of loopback that was free for UDP and TCP a moment ago.
fn free_port() -> SocketAddr {
    loop {
        let stream = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = stream.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

#[tokio::test]
async fn the_standalone_pod_answers_and_recovers() {
    if let Some(obstacle) = obstacle() {
        println!("skipped: {obstacle}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pod = Pod::play(folder.path());
    pod.recovers(0).await;
    for container in ["kubedns", "dnscache", "healthz"] {
        assert!(pod.probe(container), "the probe of {container} fails");
    }

    let before = pod.pid("dnscache");
    kill_process(Pid::from_raw(before).unwrap(), Signal::KILL).unwrap();
    pod.recovers(before).await;

    let before = pod.pid("dnscache");
    kill_process(Pid::from_raw(before).unwrap(), Signal::STOP).unwrap();
    assert!(!pod.probe("dnscache"), "a stopped program passes its probe");
    liveness(&pod);
    pod.recovers(before).await;
    assert!(pod.probe("dnscache"));
}

/// Does what podman's timer does: runs the probe until it has failed often enough and dnscache is
/// restarted. podman before 4.4 runs probes with a shell, which the image does not have. In that
/// case, this function restarts dnscache.
fn liveness(pod: &Pod) {
    let container = pod.container("dnscache");
    let how = done(&["inspect", "--format", "{{json .Config.Healthcheck.Test}}", &container]);
    if how.starts_with("[\"CMD-SHELL\"") {
        println!("restarted by hand: this podman needs a shell for probes");
        done(&["restart", "--time", "0", &container]);
        return;
    }
    for _ in 0..10 {
        if podman(&["healthcheck", "run", &container]).status.success() {
            return;
        }
    }
}
