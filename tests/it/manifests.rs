//! The objects that `kubectl apply -k` would send to a cluster: each overlay is rendered and
//! compared with what the programs accept, and sent to a real API server if there is one.
//!
//! The tests need `kubectl` or `kustomize` on the PATH. Otherwise they print that they were
//! skipped.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::tidy::manifests::{
    KUBEDNS_SERVICE_HOST, Object, POD_IP, arguments, fit_breaches, is_pod, objects, pod_breaches,
};
use crate::tidy::tree::{self, File};
use crate::tidy::{Breach, keep};

mod dashboard;
mod monitoring;
mod podman;
mod real;
mod schemas;

/// Renders the kustomization in `folder`. Panics if it is not valid.
pub fn render(tool: &Tool, folder: &Path) -> File {
    let mut command = Command::new(tool.program);
    let output = command.arg(tool.verb).arg(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", folder.display());
    let text = String::from_utf8(output.stdout).unwrap();
    File { path: format!("{}/rendered.yaml", folder.display()), text }
}

/// A program that renders kustomizations.
pub struct Tool {
    program: &'static str,
    verb: &'static str,
}

/// Returns the one that is installed. Prints that the test is skipped if neither is.
pub fn tool() -> Option<Tool> {
    let tools = [("kubectl", "kustomize"), ("kustomize", "build")];
    let is_there = |(program, verb): &(&str, &str)| {
        Command::new(program)
            .args([verb, "--help"])
            .output()
            .is_ok_and(|help| help.status.success())
    };
    let Some((program, verb)) = tools.into_iter().find(is_there) else {
        println!("skipped: there is neither kubectl nor kustomize");
        return None;
    };
    Some(Tool { program, verb })
}

/// Returns the folders below `manifests/` with a kustomization that makes a pod, without components
/// and monitoring.
fn kustomizations(root: &Path) -> Vec<PathBuf> {
    let files = tree::files();
    let folder = |file: &File| {
        let folder = file.path.strip_suffix("/kustomization.yaml")?;
        if folder.starts_with("manifests/monitoring") {
            return None;
        }
        file.text.contains("kind: Kustomization").then(|| root.join(folder))
    };
    let folders: Vec<PathBuf> = files.iter().filter_map(folder).collect();
    assert!(folders.len() >= 12, "{folders:?}");
    folders
}

/// Returns the places where the three programs of one pod do not fit each other. In `per-node` they
/// are not one pod, so another test compares them.
fn fit(folder: &Path, objects: &[Object]) -> Vec<Breach> {
    let is_of_node = ["per-node", "link-local"].iter().any(|overlay| folder.ends_with(overlay));
    if is_of_node { Vec::new() } else { fit_breaches(objects) }
}

fn root() -> PathBuf {
    Path::new(tree::ROOT).canonicalize().unwrap()
}

#[test]
fn each_overlay_renders_to_a_pod_that_the_programs_accept() {
    let Some(tool) = tool() else { return };
    let mut breaches: Vec<Breach> = Vec::new();
    for folder in kustomizations(&root()) {
        let files = [render(&tool, &folder)];
        let objects = objects(&files, "");
        assert!(objects.iter().any(is_pod), "{}", folder.display());
        let of_pod = objects.iter().flat_map(pod_breaches);
        // Liveness by healthz is asked of healthz; another test knows what.
        // The network of a node has other listeners on port 53, so that wildcards are no use.
        let exempt = [("liveness-by-healthz", "livenessProbe"), ("link-local", "serves DNS on")];
        let is_exempt = |breach: &Breach| {
            let mut exempt = exempt.iter().filter(|(overlay, _)| folder.ends_with(overlay));
            exempt.any(|(_, law)| breach.to_string().contains(law))
        };
        breaches.extend(of_pod.filter(|breach| !is_exempt(breach)));
        breaches.extend(fit(&folder, &objects));
        assert!(!files[0].text.contains("local-config"), "{}", folder.display());
    }
    keep(breaches);
}

/// Returns a copy of `manifests/` in which `from` in one file is replaced by `to`.
fn changed(file: &str, from: &str, to: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for manifest in tree::files().iter().filter(|file| file.path.starts_with("manifests/")) {
        let path = folder.path().join(&manifest.path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut text = manifest.text.clone();
        if manifest.path == file {
            assert!(text.contains(from), "{file} has no {from}");
            text = text.replace(from, to);
        }
        std::fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn the_cluster_domain_is_written_once() {
    let Some(tool) = tool() else { return };
    let settings = "manifests/base/settings.yaml";
    let folder = changed(settings, "domain: cluster.local", "domain: k8s.example.org");
    for folder in kustomizations(folder.path()) {
        let files = [render(&tool, &folder)];
        let text = &files[0].text;
        // A Corefile has the domain itself.
        let has =
            ["--domain=k8s.example.org", "--corefile="].iter().any(|flag| text.contains(flag));
        assert!(has, "{text}");
        assert!(!text.contains("cluster.local"), "{}: {text}", folder.display());
        keep(fit(&folder, &objects(&files, "")));
    }
}

#[test]
fn the_address_is_written_once_and_only_where_it_is_wanted() {
    let Some(tool) = tool() else { return };
    let overlay = "manifests/overlays/fixed-address/kustomization.yaml";
    let folder = changed(overlay, "value: \"10.96.0.10\"", "value: \"fd00:96::a\"");
    for folder in kustomizations(folder.path()) {
        let files = [render(&tool, &folder)];
        let objects = objects(&files, "");
        let services = objects.iter().filter(|object| object.kind() == "Service");
        let addresses: BTreeSet<&str> = services
            .filter_map(|service| service.value["spec"]["clusterIP"].as_str())
            .filter(|address| *address != "None")
            .collect();
        let expected = match folder.file_name().and_then(|name| name.to_str()) {
            Some("fixed-address") => &["fd00:96::a"][..],
            _ => &[],
        };
        assert_eq!(addresses, expected.iter().copied().collect(), "{}", folder.display());
        keep(fit(&folder, &objects));
    }
}

/// The caches of all nodes ask and follow every replica of kubedns, for the domain that it has, and
/// clients ask them.
#[test]
fn the_caches_of_nodes_follow_every_replica_of_kubedns() {
    let Some(tool) = tool() else { return };
    let folder = changed("manifests/base/settings.yaml", "cluster.local", "k8s.example.org");
    for overlay in ["per-node", "link-local"] {
        let files = [render(&tool, &folder.path().join("manifests/overlays").join(overlay))];
        let objects = objects(&files, "");
        let one = |kind: &str, name: &str| {
            let is_it = |object: &&Object| object.kind() == kind && object.name().1 == name;
            &objects.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}")).value["spec"]
        };
        let (caches, kubedns) = (one("DaemonSet", "kube-dns-node"), one("Deployment", "kubedns"));
        let labels = |pod: &Value| pod["template"]["metadata"]["labels"].clone();
        let front = one("Service", "kube-dns");
        assert_eq!(front["selector"], labels(caches));
        assert_eq!(front["trafficDistribution"], "PreferSameNode");
        assert_eq!(
            one("PodDisruptionBudget", "kubedns")["selector"]["matchLabels"],
            labels(kubedns)
        );
        let spread = &kubedns["template"]["spec"]["topologySpreadConstraints"][0];
        assert_eq!(spread["labelSelector"]["matchLabels"], labels(kubedns));
        assert_eq!(caches["template"]["spec"]["enableServiceLinks"], true);

        let container =
            |pod: &Value, index: usize| arguments(&pod["template"]["spec"]["containers"][index]);
        let records = container(kubedns, 0);
        let flags =
            ["--domain=k8s.example.org", "--listen=0.0.0.0:10053", "--http-listen=[::]:8081"];
        for flag in flags.into_iter().chain(["--changes-readers=6000"]) {
            assert!(records.iter().any(|found| found == flag), "{flag}: {records:?}");
        }
        // The Service whose variable has the address, and the headless one whose name is resolved.
        let (resolving, replicas) = (one("Service", "kubedns"), one("Service", "kubedns-replicas"));
        assert!(resolving["clusterIP"].is_null() && replicas["clusterIP"] == "None");
        for (service, ports) in
            [(resolving, &[10_053, 10_053][..]), (replicas, &[10_053, 10_053, 8_081])]
        {
            assert_eq!(service["selector"], labels(kubedns));
            let found = service["ports"].as_array().unwrap().iter();
            let found: Vec<u64> = found.map(|port| port["targetPort"].as_u64().unwrap()).collect();
            assert_eq!(found, ports);
        }
        let cache = container(caches, 0);
        let host = "kubedns-replicas.kube-system.svc.k8s.example.org";
        let zones = ["k8s.example.org", "in-addr.arpa", "ip6.arpa"];
        let mut expected = zones.map(|zone| format!("--server=/{zone}/{host}#10053")).to_vec();
        expected.push(format!("--changes=http://{host}:8081/changes"));
        expected.push(format!("--server=/{host}/{KUBEDNS_SERVICE_HOST}#10053"));
        for flag in expected {
            assert!(cache.contains(&flag), "{flag}: {cache:?}");
        }
        let probes = container(caches, 1);
        assert!(probes.iter().all(|flag| !flag.contains("cluster.local")), "{probes:?}");
    }
}

/// With the network of the node, the cache has the classic address beside that of its pod.
#[test]
fn the_classic_address_is_that_of_the_cache_of_the_node() {
    let Some(tool) = tool() else { return };
    const CLASSIC: &str = "169.254.20.10";
    let files = [render(&tool, &root().join("manifests/overlays/link-local"))];
    let objects = objects(&files, "");
    let caches = objects.iter().find(|object| object.kind() == "DaemonSet").unwrap();
    let (spec, pod) = (&caches.value["spec"], &caches.value["spec"]["template"]["spec"]);
    assert_eq!(pod["hostNetwork"], true);
    // The API server refuses them together.
    assert!(pod["securityContext"]["sysctls"].is_null());
    assert_eq!(spec["updateStrategy"]["rollingUpdate"]["maxSurge"], 0);
    let cache = &pod["containers"][0];
    let listens = |address: &str| arguments(cache).contains(&format!("--listen={address}:53"));
    assert!(listens(CLASSIC) && listens(POD_IP) && !listens("0.0.0.0"), "{:?}", arguments(cache));
    let privileges = &cache["securityContext"];
    assert_eq!((&privileges["runAsUser"], &privileges["runAsNonRoot"]), (&0.into(), &false.into()));
    let capabilities = serde_json::json!({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]});
    assert_eq!(privileges["capabilities"], capabilities);
    let probes = arguments(&pod["containers"][1]);
    let asks = |probe: &&String| probe.contains(&format!("{CLASSIC}:53,"));
    assert_eq!(probes.iter().filter(asks).count(), 2, "{probes:?}");
    let [init] = &pod["initContainers"].as_array().unwrap()[..] else { panic!("one") };
    let command: Vec<&str> =
        init["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(command, ["ip", "address", "replace", &format!("{CLASSIC}/32"), "dev", "lo"]);
    assert_eq!(init["securityContext"]["capabilities"]["add"], serde_json::json!(["NET_ADMIN"]));
}

/// Objects that clusters already have: kubeadm's and GKE's names. `kubectl delete -k` deletes by
/// name.
const THERE_BEFORE: [(&str, &str); 11] = [
    ("Service", "kube-dns"),
    ("ConfigMap", "kube-dns"),
    ("ConfigMap", "coredns"),
    ("ConfigMap", "coredns-custom"),
    ("Deployment", "kube-dns"),
    ("Deployment", "coredns"),
    ("ServiceAccount", "kube-dns"),
    ("ServiceAccount", "coredns"),
    ("ClusterRole", "system:coredns"),
    ("ClusterRole", "system:kube-dns"),
    ("PodDisruptionBudget", "kube-dns"),
];

#[test]
fn in_place_overlays_serve_the_service_that_is_there_and_own_nothing_of_before() {
    let Some(tool) = tool() else { return };
    for overlay in ["in-place-coredns", "in-place-kube-dns"] {
        let files = [render(&tool, &root().join("manifests/overlays").join(overlay))];
        let objects = objects(&files, "");
        let clashes = |object: &&Object| THERE_BEFORE.contains(&(object.kind(), object.name().1));
        assert!(objects.iter().find(clashes).is_none(), "{overlay}: {}", files[0].text);
        let pod = objects.iter().find(|object| is_pod(object)).unwrap();
        let label = |value: &Value| value["labels"]["k8s-app"].clone();
        let template = &pod.value["spec"]["template"];
        // The Service selects the pods; `kubeadm upgrade` looks for Deployments.
        assert_eq!(label(&template["metadata"]), "kube-dns");
        assert_ne!(label(&pod.value["metadata"]), "kube-dns");
        let own = &pod.value["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"];
        assert_eq!(own, "kubedns", "pods of the old Deployment are not selected");
        // All objects must name the same service account.
        let account = &template["spec"]["serviceAccountName"];
        let binding = objects.iter().find(|object| object.kind() == "ClusterRoleBinding").unwrap();
        assert_eq!(binding.value["subjects"][0]["name"], *account);
        let found = objects.iter().find(|object| object.kind() == "ServiceAccount").unwrap();
        assert_eq!(found.name().1, account);
        // The target ports of existing Services.
        let ports: Vec<&Value> = template["spec"]["containers"][1]["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| &port["containerPort"])
            .collect();
        assert_eq!(ports, [53, 53, 9153]);
    }
}

/// Renders each component with only the base, as in an overlay of a user.
#[test]
fn each_component_goes_with_the_base() {
    let Some(tool) = tool() else { return };
    let copy = changed("", "", "");
    for component in ["autoscaler", "network-policy", "same-zone", "in-place"] {
        let folder = overlay(copy.path(), component);
        let files = [render(&tool, &folder)];
        let objects = objects(&files, "");
        keep(fit_breaches(&objects));
        keep(objects.iter().flat_map(pod_breaches).collect());
        let has = |text: &str| assert!(files[0].text.contains(text), "{component}: {text}");
        match component {
            "autoscaler" => has("--target=deployment/kube-dns"),
            "network-policy" => has("kind: NetworkPolicy"),
            "same-zone" => has("trafficDistribution: PreferSameZone"),
            _ => has("name: kubedns\n"),
        }
    }
}

/// Writes an overlay of the base with `component` into a copy of the manifests.
fn overlay(copy: &Path, component: &str) -> PathBuf {
    let folder = copy.join("manifests/overlays/with").join(component);
    std::fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n\
         resources: [../../../base]\ncomponents: [../../../components/{component}]\n"
    );
    std::fs::write(folder.join("kustomization.yaml"), text).unwrap();
    folder
}
