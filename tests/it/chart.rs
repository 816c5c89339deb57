//! The chart in `manifests/chart`, rendered by helm, against the kustomizations and the programs.
//!
//! Needs `helm` on the PATH, or `helm-python-sdk` of PyPI for `python3` or the interpreter that the
//! environment variable `HELM_PYTHON` names. Otherwise the tests that need it print that they were
//! skipped.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::manifests::{render, tool};
use crate::tidy::keep;
use crate::tidy::manifests::{Object, arguments, fit_breaches, is_pod, objects, pod_breaches};
use crate::tidy::tree::{File, ROOT};

/// Renders the chart with these values. Returns `None`, and prints a line, if no helm is installed.
fn template(values: &[&str]) -> Option<Output> {
    let mut helm = Command::new("helm");
    helm.args(["template", "kube-dns", "manifests/chart", "--namespace", "kube-system"]);
    helm.args(values.iter().flat_map(|value| ["--set-json", value]));
    let python = std::env::var_os("HELM_PYTHON").unwrap_or_else(|| "python3".into());
    let mut library = Command::new(python);
    library.args(["-c", include_str!("fixture/helm.py")]).args(values);
    let missing = |output: &Output| output.status.code() == Some(77);
    let mut outputs = [helm, library].into_iter().filter_map(|mut command| {
        command.current_dir(ROOT).output().ok().filter(|output| !missing(output))
    });
    let output = outputs.next();
    if output.is_none() {
        println!("skipped: there is neither helm nor the Python package helm-python-sdk");
    }
    output
}

/// Renders the chart in the same way. Panics if the chart rejects the values.
fn rendered(values: &[&str]) -> Option<File> {
    let output = template(values)?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{values:?}: {said}");
    let text = String::from_utf8(output.stdout).unwrap();
    Some(File { path: format!("chart {values:?}.yaml"), text })
}

/// Returns the objects by kind and name.
fn by_name(files: &[File]) -> BTreeMap<(String, String), Value> {
    let objects = objects(files, "");
    let named = |object: &Object| (object.kind().to_owned(), object.name().1.to_owned());
    // helm writes an empty document if a template has no output.
    let objects = objects.into_iter().filter(|object| !object.value.is_null());
    objects.map(|object| (named(&object), object.value)).collect()
}

#[test]
fn default_values_are_the_base_and_in_place_is_in_place() {
    let Some(tool) = tool() else { return };
    let rows = [
        (&[][..], "manifests/base"),
        (&["install=\"in-place\""], "manifests/overlays/in-place-kube-dns"),
    ];
    for (values, folder) in rows {
        let Some(chart) = rendered(values) else { return };
        let (chart, kustomize) = ([chart], [render(&tool, &Path::new(ROOT).join(folder))]);
        let (chart, kustomize) = (by_name(&chart), by_name(&kustomize));
        assert!(chart.keys().eq(kustomize.keys()), "{:?}", chart.keys());
        for (name, object) in &chart {
            assert_eq!(object, &kustomize[name], "{name:?}");
        }
    }
}

#[test]
fn other_values_make_pods_that_the_programs_accept() {
    // Parts that the rendered text must contain.
    let rows: [(&[&str], &[&str]); 6] = [
        (&["clusterDomain=\"k8s.example.org\""], &["/k8s.example.org/127.0.0.1#10053"]),
        (
            &["service={\"clusterIP\":\"10.0.0.10\",\"trafficDistribution\":\"PreferSameZone\"}"],
            &["clusterIP: \"10.0.0.10\"", "trafficDistribution: PreferSameZone"],
        ),
        (
            &["replicaCount=3", "image={\"registry\":\"registry.example/dns/\",\"tag\":\"1.2\"}"],
            &["replicas: 3", "image: registry.example/dns/kubedns:1.2"],
        ),
        (
            &["kubeDns={\"stubDomains\":{\"corp.example\":[\"192.0.2.53\"]}}"],
            &["stubDomains: \"{\\\"corp.example\\\":[\\\"192.0.2.53\\\"]}\""],
        ),
        (&["install=\"beside\""], &["name: kube-dns-beside", "k8s-app: kube-dns-beside"]),
        (
            &["prometheus={\"monitor\":{\"enabled\":true}}", "podDisruptionBudget={}"],
            &["kind: PodMonitor"],
        ),
    ];
    for (values, parts) in rows {
        let Some(file) = rendered(values) else { return };
        for part in parts {
            assert!(file.text.contains(part), "{part} is missing in {}", file.text);
        }
        let files = [file];
        let mut objects = objects(&files, "");
        objects.retain(|object| !object.value.is_null());
        assert!(objects.iter().any(is_pod));
        keep(objects.iter().flat_map(pod_breaches).collect());
        keep(fit_breaches(&objects));
    }
}

/// `servers` becomes a Corefile that both programs accept, together with the flags of the chart.
#[test]
fn servers_become_a_corefile_that_the_programs_take() {
    let kubernetes = "{\"name\":\"kubernetes\",\"parameters\":\"k8s.example.org in-addr.arpa \
        ip6.arpa\",\"configBlock\":\"pods insecure\\nfallthrough in-addr.arpa ip6.arpa\\nttl 30\"}";
    let plain = |name: &str, parameters: &str| {
        format!("{{\"name\":\"{name}\",\"parameters\":\"{parameters}\"}}")
    };
    let first = [
        plain("health", "").replace(",\"parameters\":\"\"", ""),
        kubernetes.to_owned(),
        plain("forward", ". 192.0.2.1"),
        plain("cache", "30"),
    ];
    let second = [plain("forward", ". 192.0.2.53"), plain("cache", "10")];
    let servers = format!(
        "servers=[{{\"zones\":[{{\"zone\":\".\"}}],\"port\":53,\"plugins\":[{}]}},\
         {{\"zones\":[{{\"zone\":\"corp.example\"}}],\"port\":53,\"plugins\":[{}]}}]",
        first.join(","),
        second.join(",")
    );
    let Some(file) = rendered(&[&servers]) else { return };
    let files = [file];
    let objects = by_name(&files);
    let map = &objects[&("ConfigMap".to_owned(), "kube-dns-corefile".to_owned())];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Corefile");
    std::fs::write(&path, map["data"]["Corefile"].as_str().unwrap()).unwrap();
    let pod = &objects[&("Deployment".to_owned(), "kube-dns".to_owned())]["spec"]["template"];
    let read = |index: usize| {
        let container = &pod["spec"]["containers"][index];
        let name = container["name"].as_str().unwrap().to_owned();
        let here = format!("--corefile={}", path.display());
        let flags = arguments(container)
            .into_iter()
            .map(|flag| if flag.starts_with("--corefile=") { here.clone() } else { flag });
        std::iter::once(name).chain(flags).map(OsString::from).collect::<Vec<_>>()
    };
    let kubedns = kubedns::Config::read(read(0)).unwrap();
    assert_eq!(kubedns.zone().apex().to_string(), "k8s.example.org.");
    let dnscache = dnscache::Config::read(read(1)).unwrap();
    let servers = format!("{:?}", dnscache.servers);
    for server in ["127.0.0.1:10053", "192.0.2.1:53", "192.0.2.53:53"] {
        assert!(servers.contains(server), "{server} is missing in {servers}");
    }
}

#[test]
fn values_that_mean_nothing_are_refused_by_name() {
    let rows = [
        ("hpa={}", "hpa"),
        ("servers=[{\"plugin\":[]}]", "plugin"),
        ("install=\"sideways\"", "install"),
        ("terminationGracePeriodSeconds=5", "terminationGracePeriodSeconds"),
        ("kubeDns={\"stubDomain\":{}}", "stubDomain"),
    ];
    for (value, name) in rows {
        let Some(output) = template(&[value]) else { return };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(name), "{value}: {said}");
    }
}

/// Does not need helm. Each value must be in the schema, and the versions must be those of the
/// programs.
#[test]
fn values_schema_and_versions_fit() {
    let values = include_str!("../../manifests/chart/values.yaml");
    let values: Value = serde_saphyr::from_str(values).unwrap();
    let schema = include_str!("../../manifests/chart/values.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    check(&values, &schema, "values");
    let chart = include_str!("../../manifests/chart/Chart.yaml");
    let chart: Value = serde_saphyr::from_str(chart).unwrap();
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

/// Checks that each key of `values` is a property of `schema`, if the schema allows no other
/// properties.
fn check(values: &Value, schema: &Value, path: &str) {
    let Some(values) = values.as_object() else { return };
    for (key, value) in values {
        let property = &schema["properties"][key];
        if schema["additionalProperties"] == false {
            assert!(property.is_object(), "{path}.{key} is not in the schema");
        }
        check(value, property, &format!("{path}.{key}"));
    }
}
