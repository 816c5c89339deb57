//! The programs' command lines: the pod of `manifests/`, on loopback.

use std::path::Path;

use crate::flags::Flags;
use crate::objects::Service;
use crate::ports::Ports;
use crate::programs::Plan;

/// What to start, in the order of the table people see.
///
/// `resolv_file` names no server: without `--server` nothing outside this machine is asked.
pub fn new(flags: &Flags, ports: &Ports, services: &[Service], resolv_file: &Path) -> [Plan; 3] {
    let logging = [format!("--log={}", flags.log), "--log-format=text".to_owned()];
    let with_logging = |mut arguments: Vec<String>| {
        arguments.extend(logging.clone());
        arguments
    };
    [
        Plan {
            name: "kubedns",
            arguments: with_logging(kubedns(flags, ports)),
            dns: Some(ports.kubedns),
            http: ports.kubedns_http,
        },
        Plan {
            name: "dnscache",
            arguments: with_logging(dnscache(flags, ports, resolv_file)),
            dns: Some(ports.dns),
            http: ports.dnscache_http,
        },
        Plan {
            name: "healthz",
            arguments: with_logging(healthz(flags, ports, services)),
            dns: None,
            http: ports.healthz,
        },
    ]
}

fn kubedns(flags: &Flags, ports: &Ports) -> Vec<String> {
    let mut arguments = vec![
        format!("--domain={}", flags.domain),
        format!("--listen={}", ports.kubedns),
        format!("--http-listen={}", ports.kubedns_http),
        "--zonal".to_owned(),
    ];
    let clusterset = flags.clusterset_domain();
    arguments.extend(clusterset.map(|domain| format!("--clusterset-domain={domain}")));
    arguments.extend(flags.objects().map(|path| format!("--objects={}", path.display())));
    arguments
        .extend(flags.kubeconfig.as_ref().map(|path| format!("--kubeconfig={}", path.display())));
    arguments.extend(flags.context.as_ref().map(|name| format!("--context={name}")));
    arguments
}

fn dnscache(flags: &Flags, ports: &Ports, resolv_file: &Path) -> Vec<String> {
    let kubedns = format!("{}#{}", ports.kubedns.ip(), ports.kubedns.port());
    let mut arguments = vec![
        format!("--listen={}", ports.dns),
        format!("--http-listen={}", ports.dnscache_http),
        format!("--changes=http://{}/changes", ports.kubedns_http),
        format!("--resolv-file={}", resolv_file.display()),
    ];
    arguments.extend(
        [&*flags.domain, "in-addr.arpa", "ip6.arpa"]
            .into_iter()
            .chain(flags.clusterset_domain())
            .map(|domain| format!("--server=/{domain}/{kubedns}")),
    );
    arguments.extend(flags.server.iter().map(|server| format!("--server={server}")));
    arguments
}

/// Probes every second, five times as often as in a cluster: who kills a program wants to see it.
fn healthz(flags: &Flags, ports: &Ports, services: &[Service]) -> Vec<String> {
    let (name, rtype) = probe(services, &flags.domain);
    vec![
        format!("--http-listen={}", ports.healthz),
        format!("--probe=kubedns,{},{name},1,{rtype}", ports.kubedns),
        format!("--probe=dnscache,{},{name},1,{rtype}", ports.dns),
    ]
}

/// A name that must answer: `kubernetes` in `default`, as in every cluster; where the objects have
/// no such service, the first with a cluster IP.
fn probe(services: &[Service], domain: &str) -> (String, &'static str) {
    let usual = |service: &&Service| service.namespace == "default" && service.name == "kubernetes";
    let service = services
        .iter()
        .find(usual)
        .or_else(|| services.iter().find(|service| service.cluster_ip.is_some()));
    match service {
        Some(service) if service.cluster_ip.is_some_and(|address| address.is_ipv6()) => {
            (service.owner_name(domain), "AAAA")
        }
        Some(service) => (service.owner_name(domain), "A"),
        None => (format!("kubernetes.default.svc.{domain}"), "A"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_asks_for_a_name_that_exists() {
        let check = |services: &[(&str, &str, Option<&str>)], name: &str, rtype: &str| {
            let services: Vec<Service> = services
                .iter()
                .map(|&(namespace, name, address)| Service {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    cluster_ip: address.map(|text| text.parse().unwrap()),
                    ..Service::default()
                })
                .collect();
            assert_eq!(probe(&services, "example.test"), (name.to_owned(), rtype));
        };
        let usual = "kubernetes.default.svc.example.test";
        check(&[], usual, "A");
        check(&[("shop", "mail", None)], usual, "A");
        let web = ("shop", "web", Some("2001:db8::1"));
        check(&[("shop", "mail", None), web], "web.shop.svc.example.test", "AAAA");
        check(&[web, ("default", "kubernetes", Some("10.96.0.1"))], usual, "A");
    }
}
