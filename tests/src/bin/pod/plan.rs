//! The programs' command lines: the pod of `manifests/`, on loopback.
//!
//! Each program binds its own ports, and its flags name the addresses of the others.

use std::net::SocketAddr;
use std::path::Path;

use crate::flags::Flags;
use crate::objects::Service;

/// Returns the arguments of kubedns.
pub fn kubedns(flags: &Flags) -> Vec<String> {
    let mut arguments = vec![
        format!("--domain={}", flags.domain),
        format!("--listen=127.0.0.1:{}", flags.kubedns_port),
        format!("--http-listen=127.0.0.1:{}", flags.kubedns_http_port),
        "--zonal".to_owned(),
    ];
    let clusterset = flags.clusterset_domain();
    arguments.extend(clusterset.map(|domain| format!("--clusterset-domain={domain}")));
    arguments.extend(flags.objects().map(|path| format!("--objects={}", path.display())));
    arguments
        .extend(flags.kubeconfig.as_ref().map(|path| format!("--kubeconfig={}", path.display())));
    arguments.extend(flags.etcd.iter().map(|url| format!("--etcd={url}")));
    arguments.extend(flags.etcd_zone().map(|zone| format!("--etcd-zone={zone}")));
    arguments.extend(flags.context.as_ref().map(|name| format!("--context={name}")));
    arguments.extend(logging(flags));
    arguments
}

/// Returns the arguments of dnscache for a kubedns at `kubedns` (DNS) and `kubedns_http`.
///
/// `resolv_file` has no server. Without `--server`, dnscache cannot ask another machine.
pub fn dnscache(
    flags: &Flags,
    kubedns: SocketAddr,
    kubedns_http: SocketAddr,
    resolv_file: &Path,
) -> Vec<String> {
    let kubedns = format!("{}#{}", kubedns.ip(), kubedns.port());
    let mut arguments = vec![
        format!("--listen=127.0.0.1:{}", flags.dns_port),
        format!("--http-listen=127.0.0.1:{}", flags.dnscache_http_port),
        format!("--changes=http://{kubedns_http}/changes"),
        format!("--resolv-file={}", resolv_file.display()),
    ];
    arguments.extend(
        [&*flags.domain, "in-addr.arpa", "ip6.arpa"]
            .into_iter()
            .chain(flags.clusterset_domain())
            .chain(flags.etcd_zone())
            .map(|domain| format!("--server=/{domain}/{kubedns}")),
    );
    arguments.extend(flags.server.iter().map(|server| format!("--server={server}")));
    arguments.extend(logging(flags));
    arguments
}

/// Returns the arguments of healthz for a kubedns and a dnscache at these addresses.
///
/// It probes every second, five times as often as in a cluster. If a user kills a program, the
/// effect must be visible soon.
pub fn healthz(
    flags: &Flags,
    kubedns: SocketAddr,
    dns: SocketAddr,
    services: &[Service],
) -> Vec<String> {
    let (name, rtype) = probe(services, &flags.domain);
    let mut arguments = vec![
        format!("--http-listen=127.0.0.1:{}", flags.healthz_port),
        format!("--probe=kubedns,{kubedns},{name},1,{rtype}"),
        format!("--probe=kubedns-tcp,tcp:{kubedns},{name},1,{rtype}"),
        format!("--probe=dnscache,{dns},{name},1,{rtype}"),
        format!("--probe=dnscache-tcp,tcp:{dns},{name},1,{rtype}"),
        format!("--probe=dnscache-miss,{dns},*.default.svc.{},1,{rtype}", flags.domain),
    ];
    arguments.extend(logging(flags));
    arguments
}

/// The arguments of healthz for the pages of both programs.
pub fn pages(dnscache_http: SocketAddr, kubedns_http: SocketAddr) -> [String; 2] {
    [format!("--dnscache-http={dnscache_http}"), format!("--kubedns-http={kubedns_http}")]
}

fn logging(flags: &Flags) -> [String; 2] {
    [format!("--log={}", flags.log), "--log-format=text".to_owned()]
}

/// Returns a name that must have an answer: `kubernetes` in `default`, as in every cluster. If the
/// objects do not have that service, the first one with a cluster IP is used.
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
