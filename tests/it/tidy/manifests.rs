//! Compares what `manifests/` contains about the programs with the programs' own flags.
//!
//! It reads Kubernetes objects as JSON values, and uses each program's own parser of flags.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use shared::flags::{Stop, parse_from};

use super::tree::{self, File};
use super::{Breach, keep};

#[test]
fn flags_ports_and_probes_are_those_of_the_programs() {
    let files = tree::files();
    keep(objects(&files, "manifests/base/").iter().flat_map(pod_breaches).collect());
}

/// Without any flag, each program must be reachable on nodes with IPv4, IPv6 or both.
#[test]
fn the_programs_listen_on_both_families_by_default() {
    let files = [File { path: "defaults".to_owned(), text: String::new() }];
    let object = Object { file: &files[0], value: Value::Null };
    for name in ["kubedns", "dnscache", "healthz"] {
        let default = program(name, &[]).expect("no flag is needed");
        keep(family_breaches(&object, name, &default));
        assert_eq!(default.dns.is_empty(), name == "healthz");
        // An address of one family must still be accepted.
        let older = format!("--http-listen=0.0.0.0:{}", default.http.port());
        assert!(program(name, &[&older]).is_ok());
    }
}

#[test]
fn the_objects_of_the_pod_fit_each_other() {
    let files = tree::files();
    let base = objects(&files, "manifests/base/");
    keep(fit_breaches(&base));
    keep(owner_breaches(&base));
}

#[test]
fn the_flags_of_overlays_are_those_of_the_programs() {
    let files = tree::files();
    let mut flags = 0;
    for file in files.iter().filter(|file| file.path.starts_with("manifests/overlays/")) {
        for flag in file.text.lines().filter_map(|line| line.split_once("value: --")) {
            let flag = format!("--{}", flag.1.trim_end_matches('}')).replace("$(POD_IP)", POD_IP);
            let flag = flag.replace("$(DOMAIN)", "cluster.local");
            let known = PROGRAMS.map(|name| program(name, &[&flag]).is_ok());
            assert!(known.contains(&true), "{}: {flag}", file.path);
            flags += 1;
        }
    }
    assert!(flags >= 4, "{flags} flags in overlays");
}

/// Zone and region of a federation are set by the labels of Nodes, and the ranges of Pods by their
/// specification.
#[test]
fn two_overlays_grant_list_and_watch_on_nodes() {
    let federation = include_str!("../../../manifests/overlays/federation/kustomization.yaml");
    let pod_cidrs = include_str!("../../../manifests/overlays/pod-cidrs/kustomization.yaml");
    for overlay in [federation, pod_cidrs] {
        check_node_overlay(overlay);
    }
}

fn check_node_overlay(overlay: &str) {
    let role = include_str!("../../../manifests/base/cluster-role.yaml");
    let mut role: Value = serde_saphyr::from_str(role).expect("YAML");
    let overlay: Value = serde_saphyr::from_str(overlay).expect("YAML");
    for patch in list(&overlay["patches"]) {
        let target = &patch["target"];
        assert_eq!((&target["kind"], &target["name"]), (&role["kind"], &role["metadata"]["name"]));
        let steps: Value = serde_saphyr::from_str(text(&patch["patch"])).expect("YAML");
        for step in list(&steps) {
            let path = text(&step["path"]).strip_suffix("/-").expect("something is appended");
            assert_eq!(text(&step["op"]), "add");
            let place = role.pointer_mut(path).and_then(Value::as_array_mut).expect("a list");
            place.push(step["value"].clone());
        }
    }
    let has = |rule: &Value, key: &str, word: &str| list(&rule[key]).any(|value| value == word);
    let mut rules = list(&role["rules"]).filter(|rule| has(rule, "resources", "nodes"));
    let rule = rules.next().expect("a rule for nodes");
    assert!(has(rule, "apiGroups", ""), "Nodes are of the core group: {rule}");
    let verbs: Vec<&str> = list(&rule["verbs"]).map(text).collect();
    assert_eq!((verbs, rules.count()), (vec!["list", "watch"], 0));
}

/// The kubelet must ask healthz about labels that it has, and must wait longer than for healthz
/// itself. The answer must not depend on the servers that the program asks.
#[test]
fn liveness_by_healthz_is_about_the_program_itself() {
    let base: Value =
        serde_saphyr::from_str(include_str!("../../../manifests/base/deployment.yaml")).unwrap();
    let overlay = "../../../manifests/overlays/liveness-by-healthz/deployment.yaml";
    let patch: Value = serde_saphyr::from_str(include_str!(
        "../../../manifests/overlays/liveness-by-healthz/deployment.yaml"
    ))
    .unwrap();
    let container = |object: &Value, name: &str| {
        let containers = list(&object["spec"]["template"]["spec"]["containers"]);
        let mut found = containers.filter(|container| container["name"] == name);
        found.next().cloned().unwrap_or_else(|| panic!("{overlay}: no container {name}"))
    };
    let healthz = container(&base, "healthz");
    let arguments: Vec<&str> = list(&healthz["args"]).map(text).collect();
    let config = parse_from::<healthz::Config>([&["healthz"], &arguments[..]].concat()).unwrap();
    let threshold = |probe: &Value| probe["failureThreshold"].as_u64().unwrap_or(3);
    for name in ["kubedns", "dnscache"] {
        let probe = &container(&patch, name)["livenessProbe"];
        assert_eq!(probe["httpGet"]["path"], format!("/livez/{name}"));
        assert_eq!(probe["httpGet"]["port"], config.http_listen.port());
        assert!(config.probes.iter().any(|probe| probe.label == name), "{name}");
        let of_base = &container(&base, name)["livenessProbe"];
        assert_eq!(of_base["periodSeconds"], healthz["livenessProbe"]["periodSeconds"]);
        assert!(threshold(probe) > 2 * threshold(&healthz["livenessProbe"]), "{name}");
    }
}

/// The pod for podman must have the flags of the base, except for those that cannot work there.
#[test]
fn the_standalone_pod_has_the_flags_of_the_base() {
    let parse = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap();
    let base = parse(include_str!("../../../manifests/base/deployment.yaml"));
    let pod = parse(include_str!("../../../manifests/overlays/standalone/pod.yaml"));
    let arguments = |container: &Value| -> Vec<String> {
        list(&container["args"]).map(|flag| text(flag).to_owned()).collect()
    };
    let of_base: Vec<&Value> = list(&base["spec"]["template"]["spec"]["containers"]).collect();
    let of_pod: Vec<&Value> = list(&pod["spec"]["containers"]).collect();
    for (base, pod) in of_base.into_iter().zip(of_pod) {
        let name = text(&base["name"]);
        assert_eq!(pod["name"], *name);
        let is_there = |flag: &String| {
            !["--config-dir", "--snapshot", "--cache-file"]
                .iter()
                .any(|word| flag.starts_with(word))
        };
        let mut expected: Vec<String> = arguments(base).into_iter().filter(is_there).collect();
        for flag in &mut expected {
            // Port 53 needs a privilege.
            if flag.ends_with(":53") || flag.contains(":53,") {
                *flag = flag.replace(":53", ":1053");
            }
        }
        if name == "kubedns" {
            expected.insert(expected.len() - 1, "--objects=/objects".to_owned());
        }
        assert_eq!(arguments(pod), expected, "{name}");
        let flags = arguments(pod);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let http = program(name, &flags).unwrap().http.port();
        let url = format!("http://127.0.0.1:{http}/livez");
        let command = serde_json::json!([format!("/{name}"), "probe", url]);
        assert_eq!(pod["livenessProbe"]["exec"]["command"], command);
    }
}

/// The Prometheus Operator must find the metrics of all three programs.
#[test]
fn the_pod_monitor_names_the_port_of_each_program() {
    let files = tree::files();
    let base = objects(&files, "manifests/base/");
    let deployment = base.iter().find(|object| object.kind() == "Deployment").unwrap();
    let template = &deployment.value["spec"]["template"];
    let mut ports = BTreeSet::new();
    for container in list(&template["spec"]["containers"]) {
        let arguments: Vec<&str> = list(&container["args"]).map(text).collect();
        let http = program(text(&container["name"]), &arguments).unwrap().http.port();
        let named = list(&container["ports"]).find(|port| port["containerPort"] == http).unwrap();
        ports.insert(text(&named["name"]));
    }
    let monitors = objects(&files, "manifests/monitoring/pod-monitor/pod-monitor.yaml");
    let [monitor] = &monitors[..] else { panic!("one object") };
    let spec = &monitor.value["spec"];
    let named = list(&spec["podMetricsEndpoints"]).map(|endpoint| text(&endpoint["port"]));
    assert_eq!(named.collect::<BTreeSet<_>>(), ports);
    assert_eq!(spec["selector"]["matchLabels"], template["metadata"]["labels"]);
}

#[test]
fn the_role_grants_what_kubedns_watches_and_nothing_else() {
    let role = include_str!("../../../manifests/base/cluster-role.yaml");
    let role: Value = serde_saphyr::from_str(role).expect("YAML");
    let mut granted = BTreeSet::new();
    for rule in list(&role["rules"]) {
        let verbs: Vec<&str> = list(&rule["verbs"]).map(text).collect();
        assert_eq!(verbs, ["list", "watch"], "{rule}");
        for group in list(&rule["apiGroups"]).map(text) {
            let resources = list(&rule["resources"]).map(text);
            granted.extend(resources.map(|resource| format!("{group}/{resource}")));
        }
    }
    let exposed = parse_from::<kubedns::Config>(["kubedns"]).expect("flags").scope();
    let kinds = kubedns::source::watch::scopes(&exposed).into_iter().map(|scope| scope.kind);
    let watched: BTreeSet<String> = kinds
        .chain([kubedns::project::Kind::ServiceCidr])
        .map(|kind| {
            let group = kind.api_versions()[0].rsplit_once('/').map_or("", |(group, _)| group);
            format!("{group}/{}", kind.plural())
        })
        .collect();
    assert_eq!(granted, watched);
}

/// kubedns uses each right of the role, as the API server sees it.
#[tokio::test]
async fn each_right_of_the_role_is_used() {
    let role = include_str!("../../../manifests/base/cluster-role.yaml");
    let role: Value = serde_saphyr::from_str(role).expect("YAML");
    let api = tests::api_server::ApiServer::start().await;
    // The streamed list is a watch; without it there is a list as well.
    api.does_not_stream();
    let kubeconfig = api.kubeconfig(None);
    let from = kubeconfig.path().to_str().expect("UTF-8");
    let kubedns = crate::fixture::kubedns::start(&["--kubeconfig", from]).await;
    let mut rights = 0;
    for rule in list(&role["rules"]) {
        for resource in list(&rule["resources"]).map(text) {
            for verb in list(&rule["verbs"]).map(text) {
                let query = match verb {
                    "list" => "limit=",
                    "watch" => "watch=",
                    other => panic!("{other} is not used"),
                };
                api.hears(0, &[&format!("/{resource}?"), query]).await;
                rights += 1;
            }
        }
    }
    assert_eq!(rights, 8);
    kubedns.end().await;
}

/// Each command of a guide that no test runs is marked as needing a cluster, and what it names is
/// there.
#[test]
fn commands_of_guides_are_marked_and_name_what_is_there() {
    let files = tree::files();
    let (mut breaches, mut commands) = (Vec::new(), 0);
    for guide in files.iter().filter(|file| file.path.starts_with("manifests/guides/")) {
        let is_marked = |text: &str| {
            ["(cluster)*", "need your cluster", "needs your cluster"]
                .iter()
                .any(|mark| text.replace('\n', " ").contains(mark))
        };
        let for_all = guide.text.split("\n## ").next().is_some_and(is_marked);
        let mut before = String::new();
        for (index, part) in guide.text.split("```").enumerate() {
            let section = before.rsplit("\n## ").next().unwrap_or_default();
            let line = before.lines().count() + 1;
            let has_command = index % 2 == 1 && part.contains("kubectl ");
            commands += usize::from(has_command);
            if has_command && !for_all && !is_marked(section) {
                let law = "a command is not marked as needing a cluster";
                breaches.push(Breach::new(&guide.path, line, law.to_owned()));
            }
            before += part;
        }
        for word in guide.text.split(|c: char| c.is_whitespace() || "`()[],;:".contains(c)) {
            let path = word.trim_end_matches(['.', '/']);
            if path.starts_with("manifests/") && !files.iter().any(|it| it.path.starts_with(path)) {
                let law = format!("{path} is not there");
                breaches.push(Breach::new(&guide.path, 1, law));
            }
        }
    }
    assert!(commands >= 8, "{commands}");
    keep(breaches);
}

#[test]
fn every_manifest_is_named_by_a_kustomization() {
    let files = tree::files();
    let folders = ["manifests/", "manifests/base/"];
    let mut breaches = Vec::new();
    for folder in folders {
        let listed = listed(&files, folder);
        let in_folder = files.iter().filter_map(|file| file.path.strip_prefix(folder));
        for name in in_folder.filter(|name| !name.contains('/') && *name != KUSTOMIZATION) {
            if !listed.contains(name) {
                let path = format!("{folder}{name}");
                breaches.push(Breach::new(&path, 1, format!("not in {folder}{KUSTOMIZATION}")));
            }
        }
        for name in &listed {
            let path = format!("{folder}{name}");
            if !files.iter().any(|file| file.path.starts_with(&path)) {
                let law = format!("{name} is not there");
                breaches.push(Breach::new(&format!("{folder}{KUSTOMIZATION}"), 1, law));
            }
        }
    }
    keep(breaches);
}

#[test]
fn the_demo_objects_fit_each_other() {
    keep(demo_breaches(&objects(&tree::files(), "manifests/demo/")));
}

#[test]
fn a_manifest_that_says_something_else_is_caught() {
    let deployment = include_str!("../../../manifests/base/deployment.yaml");
    let service = include_str!("../../../manifests/base/service.yaml");
    let metrics = include_str!("../../../manifests/base/service-metrics.yaml");
    let metrics = ("service-metrics.yaml", metrics);
    let check = |from: &str, to: &str, law: &str| {
        let mut files = Vec::new();
        let all = [("deployment.yaml", deployment), ("service.yaml", service), metrics];
        for (path, text) in all {
            files.push(File { path: path.to_owned(), text: text.replace(from, to) });
        }
        let changed =
            files.iter().any(|file| ![deployment, service, metrics.1].contains(&&*file.text));
        assert!(changed || from == to, "{from:?} is in no manifest");
        let objects = objects(&files, "");
        let mut breaches: Vec<Breach> = objects.iter().flat_map(pod_breaches).collect();
        breaches.extend(fit_breaches(&objects));
        breaches.extend(owner_breaches(&objects));
        let list: Vec<String> = breaches.iter().map(Breach::to_string).collect();
        match law {
            "" => assert!(list.is_empty(), "{list:#?}"),
            law => assert!(list.iter().any(|said| said.contains(law)), "{law:?}: {list:#?}"),
        }
    };
    check("a", "a", "");
    check("--domain=", "--zone=", "'--zone'");
    check("--listen=0.0.0.0:53", "--listen=nowhere", "'nowhere'");
    check("containerPort: 8081", "containerPort: 8082", "port 8082");
    check("--http-listen=[::]:9153", "--http-listen=[::]:9154", "9154");
    check("--http-listen=[::]:8081", "--http-listen=0.0.0.0:8081", "both families");
    check("--http-listen=[::]:10054", "--http-listen=10.0.0.7:10054", "both families");
    check("            - --listen=[::]:53\n", "", "both families");
    check("            - --listen=0.0.0.0:53\n", "", "both families");
    check("--listen=127.0.0.1:10053", "--listen=10.0.0.7:10053", "both families");
    check("/readiness", "/reddiness", "/reddiness");
    check(
        "port: cache-http}\n            periodSeconds",
        "port: 1}\n            periodSeconds",
        "1",
    );
    check("GracePeriodSeconds: 30", "GracePeriodSeconds: 5", "grace");
    check("#10053", "#10054", "10054");
    check("8081/changes", "8080/changes", "8080");
    check("kubedns,127.0.0.1:10053", "kubedns,127.0.0.1:10055", "10055");
    check("--domain=cluster.local", "--domain=example.org", "example.org");
    check("default.svc.cluster.local", "default.svc.example.org", "kubernetes.default");
    check("dnscache-miss,127.0.0.1:53,*.", "dnscache-miss,127.0.0.1:53,a.", "--probe");
    check("  strategy:\n", "  replicas: 2\n  strategy:\n", "replicas");
    check("port: \"10054\"", "port: \"10055\"", "metrics of healthz");
    check("port: \"9153\"", "port: \"53\"", "metrics of dnscache");
    check("port: \"8081\"", "port: \"8082\"", "metrics of kubedns");
    check("targetPort: kubedns-http", "targetPort: kubedns", "targetPort");
    check("protocol: TCP, targetPort: 53", "protocol: TCP, targetPort: 54", "targetPort");
    check("targetPort: 9153", "targetPort: cache", "targetPort");
    check("spec:\n  selector:\n    k8s-app", "spec:\n  selector:\n    app", "does not select");
    check(
        "- {name: config, mountPath: /etc/kube-dns",
        "- {name: config, mountPath: /etc",
        "mounts",
    );
    check("mountPath: /var/lib/kubedns}", "mountPath: /var/lib/other}", "mounts");
    check("/var/lib/kubedns}", "/var/lib/kubedns, readOnly: true}", "mounts");
    check("keep-sockets=/run/kube-dns/", "keep-sockets=/run/other/", "mounts");
}

/// An object and its file.
pub struct Object<'a> {
    file: &'a File,
    /// The object itself.
    pub value: Value,
}

impl Object<'_> {
    /// Returns a breach at the first line that has `word`.
    fn breach(&self, word: &str, law: impl Into<String>) -> Breach {
        let line = self.file.text.lines().position(|line| line.contains(word)).unwrap_or(0) + 1;
        Breach::new(&self.file.path, line, law)
    }

    pub fn kind(&self) -> &str {
        text(&self.value["kind"])
    }

    /// Returns the namespace and name.
    pub fn name(&self) -> (&str, &str) {
        let metadata = &self.value["metadata"];
        (text(&metadata["namespace"]), text(&metadata["name"]))
    }
}

/// Returns every object below `folder`. Panics with the file if it is not valid YAML.
pub fn objects<'a>(files: &'a [File], folder: &str) -> Vec<Object<'a>> {
    let mut objects = Vec::new();
    for file in files {
        if !file.path.starts_with(folder) || !file.path.ends_with(".yaml") {
            continue;
        }
        let values = serde_saphyr::from_multiple::<Value>(&file.text)
            .unwrap_or_else(|error| panic!("{} is not YAML: {error}", file.path));
        objects.extend(values.into_iter().map(|value| Object { file, value }));
    }
    objects
}

fn listed(files: &[File], folder: &str) -> BTreeSet<String> {
    let path = format!("{folder}{KUSTOMIZATION}");
    let file = files.iter().find(|file| file.path == path).expect("each folder has one");
    let value: Value = serde_saphyr::from_str(&file.text).expect("a kustomization is YAML");
    list(&value["resources"]).map(|name| text(name).to_owned()).collect()
}

/// The addresses and directories of a program, parsed from its flags.
struct Program {
    dns: Vec<SocketAddr>,
    http: SocketAddr,
    config_dir: Option<String>,
    corefile: Option<String>,
    /// The directory of the snapshot or of the cache file.
    state_dir: Option<String>,
    /// The directory of the Unix socket for kept sockets.
    keep_dir: Option<String>,
    drain: Duration,
}

/// Parses `arguments` as the program `name` does. Fails with the program's own message.
fn program(name: &str, arguments: &[&str]) -> Result<Program, String> {
    let arguments = [&[name], arguments].concat();
    let said = |stop| match stop {
        Stop::Shown(text) | Stop::Wrong(text) => text,
    };
    let path = |path: Option<std::path::PathBuf>| path.map(|path| path.display().to_string());
    match name {
        "kubedns" => parse_from::<kubedns::config::Config>(arguments).map(|config| Program {
            dns: config.listen,
            http: config.http_listen,
            config_dir: path(config.config_dir),
            corefile: path(config.corefile),
            state_dir: path(config.snapshot.map(|file| file.with_file_name(""))),
            keep_dir: path(config.listener.keep_sockets.map(|file| file.with_file_name(""))),
            drain: config.listener.lameduck + config.drain,
        }),
        "dnscache" => parse_from::<dnscache::config::Config>(arguments)
            .and_then(|config| {
                config.check().map_err(|error| Stop::Wrong(error.to_string()))?;
                Ok(config)
            })
            .map(|config| Program {
                dns: config.listen,
                http: config.http_listen,
                config_dir: path(config.config_dir),
                corefile: path(config.corefile),
                state_dir: path(config.cache_file.map(|file| file.with_file_name(""))),
                keep_dir: path(config.listener.keep_sockets.map(|file| file.with_file_name(""))),
                drain: config.listener.lameduck + DRAIN_OF_OTHERS,
            }),
        "healthz" => parse_from::<healthz::Config>(arguments).map(|config| Program {
            dns: Vec::new(),
            http: config.http_listen,
            config_dir: path(config.config_dir),
            corefile: None,
            state_dir: None,
            keep_dir: path(config.keep_sockets.map(|file| file.with_file_name(""))),
            drain: DRAIN_OF_OTHERS,
        }),
        other => panic!("no program is called {other}"),
    }
    .map_err(said)
}

/// Returns whether this object makes pods with at least one of the three programs.
pub fn is_pod(object: &Object) -> bool {
    let containers = list(&object.value["spec"]["template"]["spec"]["containers"]);
    let names: Vec<&str> = containers.map(|container| text(&container["name"])).collect();
    names.iter().any(|name| PROGRAMS.contains(name))
}

/// Returns the flags of a container. `$(NAME)` is replaced by its environment, as the kubelet does.
pub fn arguments(container: &Value) -> Vec<String> {
    let expand = |flag: &str| {
        // The Service kubedns is there, and its address among the variables.
        let flag = flag.replace("$(KUBEDNS_SERVICE_HOST)", KUBEDNS_SERVICE_HOST);
        list(&container["env"]).fold(flag, |flag, variable| {
            let value = match text(&variable["valueFrom"]["fieldRef"]["fieldPath"]) {
                "status.podIP" => POD_IP,
                _ => text(&variable["value"]),
            };
            flag.replace(&format!("$({})", text(&variable["name"])), value)
        })
    };
    list(&container["args"]).map(|flag| expand(text(flag))).collect()
}

/// Returns the places at which a Deployment does not fit the programs in it.
pub fn pod_breaches(object: &Object) -> Vec<Breach> {
    let mut breaches = Vec::new();
    if !is_pod(object) {
        return breaches;
    }
    let pod = &object.value["spec"]["template"]["spec"];
    for container in list(&pod["containers"]) {
        let name = text(&container["name"]);
        let arguments = arguments(container);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match program(name, &arguments) {
            Err(said) => breaches.push(object.breach(&format!("name: {name}"), said)),
            Ok(program) => {
                breaches.extend(port_breaches(object, container, &program));
                breaches.extend(family_breaches(object, name, &program));
                breaches.extend(probe_breaches(object, container, &program));
                breaches.extend(mount_breaches(object, container, &program));
                let grace = Duration::from_secs(
                    pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(30),
                );
                if grace <= program.drain {
                    let law = format!("grace period is not above --lameduck and drain of {name}");
                    breaches.push(object.breach("terminationGracePeriodSeconds", law));
                }
            }
        }
    }
    breaches
}

/// Checks that the program listens on the declared ports, and that ports open to the network are
/// declared.
fn port_breaches(object: &Object, container: &Value, program: &Program) -> Vec<Breach> {
    let name = text(&container["name"]);
    let mut open: BTreeSet<(u64, &str)> = BTreeSet::new();
    for address in program.dns.iter().filter(|address| !address.ip().is_loopback()) {
        open.extend(["TCP", "UDP"].map(|transport| (address.port().into(), transport)));
    }
    open.insert((program.http.port().into(), "TCP"));
    let declared: BTreeSet<(u64, &str)> = list(&container["ports"])
        .map(|port| (port["containerPort"].as_u64().unwrap_or(0), text(&port["protocol"])))
        .collect();
    let breach = |(port, transport): &(u64, &str), law| {
        object.breach(&port.to_string(), format!("{name} {law} port {port}/{transport}"))
    };
    let undeclared = open.difference(&declared).map(|port| breach(port, "does not declare its"));
    let unknown = declared.difference(&open).map(|port| breach(port, "does not listen on"));
    undeclared.chain(unknown).collect()
}

/// Checks that every address works on nodes with IPv4, IPv6 or both: the loopback that every pod
/// has, HTTP on the wildcard that accepts both families, and DNS on one wildcard for each family.
fn family_breaches(object: &Object, name: &str, program: &Program) -> Vec<Breach> {
    let open = program.dns.iter().filter(|address| !address.ip().is_loopback());
    let mut wildcards: BTreeMap<u16, BTreeSet<IpAddr>> = BTreeMap::new();
    let mut breaches = Vec::new();
    for address in open {
        wildcards.entry(address.port()).or_default().insert(address.ip());
    }
    let both = BTreeSet::from([IpAddr::from([0; 4]), IpAddr::from([0; 16])]);
    for (port, found) in &wildcards {
        if *found != both {
            let law = format!("{name} serves DNS on {found:?} port {port}, not on both families");
            breaches.push(object.breach(&format!(":{port}"), law));
        }
    }
    if program.http.ip() != IpAddr::from([0; 16]) {
        let law = format!("{name} serves HTTP on {}, not on both families", program.http);
        breaches.push(object.breach(&program.http.to_string(), law));
    }
    breaches
}

/// Checks that probes request a path that the container's own HTTP port serves.
fn probe_breaches(object: &Object, container: &Value, program: &Program) -> Vec<Breach> {
    let name = text(&container["name"]);
    let mut breaches = Vec::new();
    for probe in ["readinessProbe", "livenessProbe"] {
        let get = &container[probe]["httpGet"];
        let path = text(&get["path"]);
        if !PATHS.contains(&path) {
            let law = format!("{probe} of {name}: {path:?} is not answered");
            breaches.push(object.breach(path, law));
        }
        let by_name = |port: &&Value| port["name"] == get["port"];
        let port = match get["port"].as_u64() {
            Some(port) => Some(port),
            None => list(&container["ports"])
                .find(by_name)
                .and_then(|port| port["containerPort"].as_u64()),
        };
        if port != Some(program.http.port().into()) {
            let law = format!("{probe} of {name} asks port {}, not {}", get["port"], program.http);
            breaches.push(object.breach(probe, law));
        }
    }
    breaches
}

/// Checks that the configuration directory is the mount of the ConfigMap, and that the directories
/// of the snapshot, of the cache file and of kept sockets can be written.
fn mount_breaches(object: &Object, container: &Value, program: &Program) -> Vec<Breach> {
    let name = text(&container["name"]);
    let mounts: Vec<(&str, bool)> = list(&container["volumeMounts"])
        .map(|mount| (text(&mount["mountPath"]), mount["readOnly"] == true))
        .collect();
    // The Corefile may import from the directory below its own.
    let corefile = program.corefile.as_deref().and_then(|path| path.strip_suffix("/Corefile"));
    let custom = corefile.map(|path| format!("{path}/custom"));
    let read = [program.config_dir.as_deref(), corefile, custom.as_deref()];
    let read = read.into_iter().flatten().map(|path| (path, true));
    let written = [program.state_dir.as_deref(), program.keep_dir.as_deref()];
    let written = written.into_iter().flatten().map(|path| (path.trim_end_matches('/'), false));
    let wanted: Vec<(&str, bool)> = read.chain(written).collect();
    if mounts == wanted {
        return Vec::new();
    }
    let law = format!("{name} mounts {mounts:?} (path, read-only), needs {wanted:?}");
    vec![object.breach("mountPath", law)]
}

/// Returns the places at which Deployment and Services, or the three programs, do not fit each
/// other.
pub fn fit_breaches(objects: &[Object]) -> Vec<Breach> {
    let deployment = objects.iter().find(|object| is_pod(object)).expect("a pod");
    let template = &deployment.value["spec"]["template"];
    let containers: BTreeMap<&str, &Value> = list(&template["spec"]["containers"])
        .map(|container| (text(&container["name"]), container))
        .collect();
    let mut breaches = selector_breaches(objects, deployment);
    let services = objects.iter().filter(|object| object.kind() == "Service");
    for (service, port) in services
        .flat_map(|service| list(&service.value["spec"]["ports"]).map(move |port| (service, port)))
    {
        let target = &port["targetPort"];
        let is_target = |declared: &Value| {
            let is_it = declared["name"] == *target || declared["containerPort"] == *target;
            is_it && declared["protocol"] == port["protocol"]
        };
        let mut declared = containers.values().flat_map(|container| list(&container["ports"]));
        if !declared.any(is_target) {
            let law = format!("targetPort {target} of {} is no container's", port["protocol"]);
            breaches.push(service.breach("targetPort", law));
        }
    }

    let flag = |container: &str, flag: &str| -> Vec<String> {
        let arguments = list(&containers[container]["args"]).map(text);
        arguments.filter_map(|argument| argument.strip_prefix(flag)).map(str::to_owned).collect()
    };
    let mut same = |what: &str, said: Vec<String>, meant: Vec<String>| {
        if said != meant {
            let word = said.first().map_or(what, String::as_str);
            breaches.push(deployment.breach(word, format!("{what} {said:?}, should be {meant:?}")));
        }
    };
    let kubedns = flag("kubedns", "--listen=");
    let server = kubedns.concat().replace(':', "#");
    // A Corefile has the domain and the routes. The probes of healthz have the domain too.
    let corefile = flag("kubedns", "--corefile=");
    let probed = flag("healthz", "--probe=").concat();
    let probed = probed.split(".default.svc.").last().unwrap_or_default().to_owned();
    let domain = if corefile.is_empty() { flag("kubedns", "--domain=").concat() } else { probed };
    let mut zones = vec![domain.clone(), "in-addr.arpa".to_owned(), "ip6.arpa".to_owned()];
    zones.extend(flag("kubedns", "--clusterset-domain="));
    zones.retain(|_| corefile.is_empty());
    let routes = zones.iter().map(|zone| format!("/{zone}/{server}")).collect();
    same("dnscache --corefile", flag("dnscache", "--corefile="), corefile);
    same("dnscache --server", flag("dnscache", "--server="), routes);
    let http = flag("kubedns", "--http-listen=").concat();
    let changes = http.replace("[::]", "http://127.0.0.1") + "/changes";
    same("dnscache --changes", flag("dnscache", "--changes="), vec![changes]);
    let dns = flag("dnscache", "--listen=").concat();
    let dns = dns.split("[::]").next().unwrap_or_default().replace("0.0.0.0", "127.0.0.1");
    let mut probes = Vec::new();
    for (label, server) in [("kubedns", kubedns.concat()), ("dnscache", dns.clone())] {
        let name = format!("kubernetes.default.svc.{domain}");
        probes.push(format!("{label},{server},{name}"));
        probes.push(format!("{label}-tcp,tcp:{server},{name}"));
    }
    probes.push(format!("dnscache-miss,{dns},*.default.svc.{domain}"));
    same("healthz --probe", flag("healthz", "--probe="), probes);
    breaches
}

/// Checks that all selectors of pods select those of `deployment`.
fn selector_breaches(objects: &[Object], deployment: &Object) -> Vec<Breach> {
    let labels = &deployment.value["spec"]["template"]["metadata"]["labels"];
    let mut breaches = Vec::new();
    for object in objects {
        let spec = &object.value["spec"];
        let selector = match object.kind() {
            "Service" => &spec["selector"],
            "PodDisruptionBudget" => &spec["selector"]["matchLabels"],
            "NetworkPolicy" => &spec["podSelector"]["matchLabels"],
            _ if std::ptr::eq(object, deployment) => &spec["selector"]["matchLabels"],
            _ => continue,
        };
        let wanted = selector.as_object().into_iter().flatten();
        if selector.is_null() || wanted.into_iter().any(|(key, value)| labels[key] != *value) {
            breaches
                .push(object.breach("selector", format!("{selector} does not select {labels}")));
        }
    }
    breaches
}

/// Checks that the base does not set fields that others own, and that scrapers can find the metrics
/// of all three programs.
fn owner_breaches(objects: &[Object]) -> Vec<Breach> {
    let deployment = objects.iter().find(|object| is_pod(object)).expect("a pod");
    let mut breaches = Vec::new();
    let spec = &deployment.value["spec"];
    if !spec["replicas"].is_null() {
        let law = "an autoscaler or an operator sets `replicas`";
        breaches.push(deployment.breach("replicas:", law));
    }
    let template = &spec["template"];
    let of_services = objects.iter().filter(|object| object.kind() == "Service");
    let annotated = of_services.map(|service| &service.value["metadata"]["annotations"]);
    let scraped: BTreeSet<&str> = annotated
        .chain([&template["metadata"]["annotations"]])
        .filter(|annotations| annotations["prometheus.io/scrape"] == "true")
        .map(|annotations| text(&annotations["prometheus.io/port"]))
        .collect();
    for container in list(&template["spec"]["containers"]) {
        let name = text(&container["name"]);
        let arguments: Vec<&str> = list(&container["args"]).map(text).collect();
        // If the program rejects its flags, another check reports it.
        let Ok(program) = program(name, &arguments) else { continue };
        if !scraped.contains(&*program.http.port().to_string()) {
            let law = format!("no annotation leads to the metrics of {name}, {}", program.http);
            breaches.push(deployment.breach("prometheus.io/port", law));
        }
    }
    breaches
}

/// Returns the places at which the demo's objects do not fit each other. kubedns must serve what
/// the files contain.
fn demo_breaches(objects: &[Object]) -> Vec<Breach> {
    let of = |kind: &'static str| objects.iter().filter(move |object| object.kind() == kind);
    let namespaces: BTreeSet<&str> = of("Namespace").map(|object| object.name().1).collect();
    let services: BTreeSet<(&str, &str)> = of("Service").map(Object::name).collect();
    let imports: BTreeSet<(&str, &str)> = of("ServiceImport").map(Object::name).collect();
    let mut breaches = Vec::new();
    let mut taken = BTreeSet::new();
    for service in of("Service") {
        let (namespace, name) = service.name();
        if !namespaces.contains(namespace) {
            breaches.push(service.breach("namespace:", format!("no namespace {namespace}")));
        }
        let expected = match namespace {
            "default" => format!("manifests/demo/default-{name}.yaml"),
            _ => format!("manifests/demo/{namespace}-{name}.yaml"),
        };
        if service.file.path != expected {
            breaches.push(service.breach("kind", format!("belongs to {expected}")));
        }
        let addresses = list(&service.value["spec"]["clusterIPs"]).map(text);
        for address in addresses.filter(|address| *address != "None" && !taken.insert(*address)) {
            breaches.push(service.breach(address, format!("{address} is taken")));
        }
    }
    for slice in of("EndpointSlice") {
        let labels = &slice.value["metadata"]["labels"];
        let (known, label) = match text(&labels["kubernetes.io/service-name"]) {
            "" => (&imports, text(&labels["multicluster.kubernetes.io/service-name"])),
            label => (&services, label),
        };
        if !known.contains(&(slice.name().0, label)) {
            breaches.push(slice.breach("service-name", format!("no service {label}")));
        }
        let is_ipv6 = slice.value["addressType"] == "IPv6";
        let endpoints = list(&slice.value["endpoints"]);
        for address in endpoints.flat_map(|endpoint| list(&endpoint["addresses"])).map(text) {
            let fits = address.parse::<IpAddr>().is_ok_and(|parsed| parsed.is_ipv6() == is_ipv6);
            if !fits || !taken.insert(address) {
                breaches.push(slice.breach(address, format!("{address} is taken or no such type")));
            }
        }
    }
    breaches
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

const PROGRAMS: [&str; 3] = ["kubedns", "dnscache", "healthz"];
const KUSTOMIZATION: &str = "kustomization.yaml";
/// Paths that every program answers, and those of healthz.
const PATHS: [&str; 4] = ["/livez", "/readyz", "/readiness", "/healthz"];
/// What the kubelet fills in.
pub const KUBEDNS_SERVICE_HOST: &str = "10.96.0.11";
/// Likewise.
pub const POD_IP: &str = "10.244.1.7";
/// The drain of programs that have no flag for it.
const DRAIN_OF_OTHERS: Duration = Duration::from_secs(5);
