//! The faults: what makes each of them, and what a check must print.
//!
//! A row takes a healthy world and returns a broken one, with what must live until the end.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde_json::json;
use tests::api_server::Fault;
use tests::objects::{Object, endpoint_slice, namespace, pod, service};

use super::proxy::{Path, Proxy};
use super::world::{World, answers, cache, cluster, dns_pod, dns_service, pages, selecting};
use crate::fixture::dnscache::{FAR, FARTHER, NEAR, stub};
use crate::fixture::http;
use crate::fixture::upstream::{Behaviour, Loss, Reply, Upstream};

/// What must not be dropped before the check has ended.
pub type Keep = Vec<Box<dyn Any + Send>>;
type Broken = Pin<Box<dyn Future<Output = (World, Keep)> + Send>>;

/// One fault.
pub struct Scenario {
    /// What is broken.
    pub fault: &'static str,
    /// Breaks it.
    pub inject: fn(World) -> Broken,
    /// A part of the sentence that names it.
    pub sentence: &'static str,
}

const fn row(fault: &'static str, inject: fn(World) -> Broken, sentence: &'static str) -> Scenario {
    Scenario { fault, inject, sentence }
}

/// The result of a row that needs nothing beside the world.
fn only(world: World) -> (World, Keep) {
    (world, Vec::new())
}

/// The result of a row with one more thing.
fn with(world: World, thing: impl Any + Send) -> (World, Keep) {
    (world, vec![Box::new(thing)])
}

/// Every fault of the rig.
pub const SCENARIOS: &[Scenario] = &[
    row(
        "the Service has no ready endpoint",
        |world| {
            Box::pin(async move {
                let slice = endpoint_slice("kube-system", "kube-dns");
                world.api.apply(slice.not_ready("10.244.1.7").not_ready("10.244.2.9"));
                world.api.apply(dns_pod("kube-dns-1", "10.244.1.7", false));
                world.api.apply(dns_pod("kube-dns-2", "10.244.2.9", false));
                only(world)
            })
        },
        "The Service kube-system/kube-dns has 0 ready endpoints, so no pod can resolve any name; \
         its 2 pods fail their readiness probe.",
    ),
    row(
        "the selector of the Service matches no pod",
        |world| {
            Box::pin(async move {
                for name in ["kube-dns-1", "kube-dns-2"] {
                    let pod = dns_pod(name, "10.244.1.7", true).label("k8s-app", "coredns");
                    world.api.apply(pod);
                }
                only(world)
            })
        },
        "The selector k8s-app=kube-dns of the Service matches no pod; the Deployment's pods have \
         the label k8s-app=coredns.",
    ),
    row(
        "the kubelet has another cluster DNS",
        |world| {
            Box::pin(async move {
                let mut world = world;
                world.leave_the_pod();
                world.api.apply(dns_service("10.43.0.10"));
                only(world)
            })
        },
        "Pods use 10.96.0.10, but the Service kube-dns has 10.43.0.10; correct clusterDNS in the \
        kubelet configuration.",
    ),
    row(
        "one replica of two is dead",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let dead = Upstream::start(FARTHER).await;
                dead.behave(Behaviour::Silent);
                let alive = world.dnscache.dns;
                world.set("--replica", [alive, dead.address]);
                with(world, dead)
            })
        },
        "does not answer on port 53, so about half of all queries wait for a retry",
    ),
    row(
        "TCP is blocked",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let path = Path { tcp: false, ..Path::OPEN };
                let proxy = Proxy::start(NEAR, world.dnscache.dns, path).await;
                world.set("--server", [proxy.address]);
                with(world, proxy)
            })
        },
        "Port 53 answers over UDP but not over TCP; answers larger than the UDP limit cannot be \
        retrieved.",
    ),
    row(
        "UDP is blocked",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let path = Path { udp: false, ..Path::OPEN };
                let proxy = Proxy::start(NEAR, world.dnscache.dns, path).await;
                world.set("--server", [proxy.address]);
                with(world, proxy)
            })
        },
        "answers over TCP but not over UDP",
    ),
    row(
        "a NetworkPolicy blocks DNS",
        |world| {
            Box::pin(async move {
                let mut world = world;
                world.leave_the_pod();
                let path = Path { udp: false, tcp: false, ..Path::OPEN };
                let proxy = Proxy::start(NEAR, world.dnscache.dns, path).await;
                world.set("--server", [proxy.address]);
                world.api.apply(Object(json!({
                    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                    "metadata": {"namespace": "shop", "name": "deny"},
                    "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": []},
                })));
                with(world, proxy)
            })
        },
        "UDP queries from namespace shop time out while the replicas answer; a NetworkPolicy of \
         shop (deny) blocks egress to port 53.",
    ),
    row(
        "the Service address is silent, the replicas answer",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let path = Path { udp: false, tcp: false, ..Path::OPEN };
                let proxy = Proxy::start(NEAR, world.dnscache.dns, path).await;
                world.set("--server", [proxy.address]);
                with(world, proxy)
            })
        },
        "the way from here to the Service address is broken",
    ),
    row(
        "every second query is lost",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let path = Path { lost_every: 2, ..Path::OPEN };
                let proxy = Proxy::start(NEAR, world.dnscache.dns, path).await;
                world.set("--server", [proxy.address]);
                with(world, proxy)
            })
        },
        "% of the queries to 127.0.0.1",
    ),
    row(
        "one of two upstreams is unreachable",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let dead = Upstream::start(FARTHER).await;
                dead.behave(Behaviour::Silent);
                world.dnscache = cache(&world.kubedns, &[&world.upstream, &dead], &[]).await;
                let (dns, pages) = (world.dnscache.dns, world.dnscache.http);
                world.set("--server", [dns]);
                world.set("--dnscache", [pages]);
                with(world, dead)
            })
        },
        "did not answer 20 of 20 queries; the other upstream answers in",
    ),
    row(
        "no upstream answers",
        |world| {
            Box::pin(async move {
                world.upstream.behave(Behaviour::Silent);
                only(world)
            })
        },
        "No upstream answers; outside names resolve only from stale cache entries, cluster names \
         are not affected.",
    ),
    row(
        "an upstream is slow",
        |world| {
            Box::pin(async move {
                world.upstream.delay(Duration::from_millis(1_800));
                only(world)
            })
        },
        "in the median; a lookup with three search steps exceeds the client timeout of 5 s",
    ),
    row(
        "an upstream loses packets",
        |world| {
            Box::pin(async move {
                world.upstream.lose(Loss { queries: 0.3, replies: 0.1 }, 11);
                only(world)
            })
        },
        "get no reply, TCP queries all succeed; the path drops datagrams",
    ),
    row(
        "the upstream sends queries back",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let proxy = Proxy::start(FAR, world.dnscache.dns, Path::OPEN).await;
                let back = format!("--server={}#{}", proxy.address.ip(), proxy.address.port());
                world.dnscache = cache(&world.kubedns, &[], &[back]).await;
                let own = Proxy::start(FARTHER, world.dnscache.dns, Path::OPEN).await;
                let around = format!("--server={}#{}", own.address.ip(), own.address.port());
                world.dnscache = cache(&world.kubedns, &[], &[around]).await;
                let last = Proxy::start(FARTHER, world.dnscache.dns, Path::OPEN).await;
                let (dns, pages) = (world.dnscache.dns, world.dnscache.http);
                world.set("--server", [dns]);
                world.set("--dnscache", [pages]);
                world.set("--upstream", [last.address]);
                with(world, (proxy, own, last))
            })
        },
        "sends queries back to this server; use the file",
    ),
    row(
        "the pod has no search list",
        |world| {
            Box::pin(async move {
                let mut world = world;
                world.leave_the_pod();
                world.resolv("nameserver 10.96.0.10\n");
                only(world)
            })
        },
        "/etc/resolv.conf of this pod has no search list, so short names such as `web` cannot \
         resolve; its dnsPolicy is Default.",
    ),
    row(
        "resolv.conf names no server",
        |world| {
            Box::pin(async move {
                let mut world = world;
                world.leave_the_pod();
                world.resolv("search cluster.local\n");
                only(world)
            })
        },
        "names no DNS server, so no name can resolve",
    ),
    row(
        "the traffic is the search list",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let metrics = "dnscache_dns_replies_total{type=\"A\",rcode=\"NXDOMAIN\"} 9200\n\
                       dnscache_dns_replies_total{type=\"A\",rcode=\"NOERROR\"} 800\n";
                let pages = pages("[+]dns ok\n", metrics).await;
                world.set("--dnscache", [pages.address]);
                with(world, pages)
            })
        },
        "Each lookup of example.com costs 8 queries, because ndots is 5; 92 % of all answers are \
        NXDOMAIN.",
    ),
    row(
        "a search domain answers every name",
        |world| {
            Box::pin(async move {
                let mut world = world;
                world.leave_the_pod();
                world.resolv(
                    "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local \
                      cluster.local corp.example\noptions ndots:5\n",
                );
                world.upstream.otherwise("30 A 192.0.2.99");
                world.upstream.deny_below("com.");
                only(world)
            })
        },
        "The search domain corp.example answers every name with 192.0.2.99, so outside names \
         without a final dot go to the wrong host",
    ),
    row(
        "AAAA without an IPv6 route",
        |world| {
            Box::pin(async move {
                world.file("proc/net/ipv6_route", "");
                only(world)
            })
        },
        "AAAA records are returned for outside names, but this pod has no IPv6 route; clients wait \
        before they use IPv4.",
    ),
    row(
        "the upstream answers AAAA with SERVFAIL",
        |world| {
            Box::pin(async move {
                world.upstream.tries("example.com. AAAA", [Reply::Code(2)]);
                only(world)
            })
        },
        "The upstream answers A for example.com and SERVFAIL for AAAA; glibc then fails the whole \
        lookup.",
    ),
    row(
        "the upstream never answers AAAA",
        |world| {
            Box::pin(async move {
                world.upstream.tries("example.com. AAAA", [Reply::Nothing]);
                only(world)
            })
        },
        "leaves AAAA without an answer",
    ),
    row(
        "large answers are dropped on the path",
        |world| {
            Box::pin(async move {
                let world_api = cluster().await;
                let mut world_with = World::with(world_api, &["--udp-size=4096".to_owned()]).await;
                let path = Path { reply_len_max: 1_400, ..Path::OPEN };
                let proxy = Proxy::start(NEAR, world_with.dnscache.dns, path).await;
                world_with.set("--server", [proxy.address]);
                with(world_with, (proxy, world.files))
            })
        },
        "Replies above 1,400 bytes never arrive, smaller ones do; the path MTU is too small or \
         fragments are dropped. Limit the size to 1232.",
    ),
    row(
        "the receive buffer overflows",
        |world| {
            Box::pin(async move {
                let file =
                    world.file("proc/net/snmp", "Udp: InDatagrams RcvbufErrors\nUdp: 10 7\n");
                let growing = grow(file, |n| {
                    format!("Udp: InDatagrams RcvbufErrors\nUdp: 10 {}\n", 7 + n * 40)
                });
                with(world, growing)
            })
        },
        "because the receive buffer was full; add threads, replicas or buffer space",
    ),
    row(
        "dnscache counted dropped datagrams",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let pages =
                    pages("[+]dns ok\n", "dnscache_dns_overflow_total{transport=\"udp\"} 4812\n")
                        .await;
                world.set("--dnscache", [pages.address]);
                with(world, pages)
            })
        },
        "The kernel dropped 4812 datagrams on port 53",
    ),
    row(
        "the table of tracked connections is full",
        |world| {
            Box::pin(async move {
                world.file("proc/sys/net/netfilter/nf_conntrack_count", "262144\n");
                world.file("proc/net/stat/nf_conntrack", "insert_failed drop\n00000003 00000798\n");
                only(world)
            })
        },
        "nf_conntrack holds 262,144 of 262,144 entries and dropped 1,944 packets; new DNS queries \
         from this node are lost.",
    ),
    row(
        "insertions of tracked connections fail",
        |world| {
            Box::pin(async move {
                let file = world
                    .file("proc/net/stat/nf_conntrack", "insert_failed drop\n00000003 00000000\n");
                let growing =
                    grow(file, |n| format!("insert_failed drop\n{:08x} 00000000\n", 3 + n * 40));
                with(world, growing)
            })
        },
        "per second on this node; parallel A and AAAA queries over one socket lose packets for 5 s",
    ),
    row(
        "the API server is away",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let metrics = "kubedns_watch_age_seconds{kind=\"services\",namespace=\"\"} 340\n\
                       kubedns_watch_ok{kind=\"services\",namespace=\"\"} 0\n";
                let ready = "[!]services warning: 340 s old: cannot ask the API server\n";
                let pages = pages(ready, metrics).await;
                world.set("--kubedns", [pages.address]);
                with(world, pages)
            })
        },
        "kubedns has received nothing from the API server for 340 s; its answers have that age \
         and new services are missing.",
    ),
    row(
        "a right is missing",
        |world| {
            Box::pin(async move {
                let api = cluster().await;
                api.fails("endpointslices", Fault::Refuse(403, None));
                let mut broken = world;
                let kubeconfig = api.kubeconfig(None);
                let path = kubeconfig.path().to_str().unwrap().to_owned();
                broken.kubedns = crate::fixture::kubedns::start(&["--kubeconfig", &path]).await;
                http::eventually(broken.kubedns.http, "/readyz", 503, "must grant verbs").await;
                let (dns, pages) = (broken.kubedns.dns, broken.kubedns.http);
                broken.set("--kubedns", [pages]);
                broken.set("--kubedns-dns", [dns]);
                with(broken, (api, kubeconfig))
            })
        },
        "kubedns may not list endpointslices.discovery.k8s.io; headless services cannot be \
         answered until the ClusterRole allows it.",
    ),
    row(
        "a watch is silent",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let metrics = "kubedns_watch_age_seconds{kind=\"services\",namespace=\"\"} 600\n\
                       kubedns_watch_ok{kind=\"services\",namespace=\"\"} 1\n";
                let pages = pages("[+]services ok\n", metrics).await;
                world.set("--kubedns", [pages.address]);
                with(world, pages)
            })
        },
        "The watch on services has delivered no event and no bookmark for 600 s",
    ),
    row(
        "kubedns is dead",
        |world| {
            Box::pin(async move {
                let mut world = world;
                world.set("--kubedns", ["127.0.0.1:1"]);
                only(world)
            })
        },
        "kubedns does not answer although dnscache of the same pod does",
    ),
    row(
        "replicas disagree",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let (first, second) = (Upstream::start(FAR).await, Upstream::start(FARTHER).await);
                for (server, address, serial) in
                    [(&first, "10.96.12.10", "1041"), (&second, "10.96.12.44", "1038")]
                {
                    replica(server, address, serial);
                }
                world.set("--replica", [first.address, second.address]);
                with(world, (first, second))
            })
        },
        "return different addresses for web.shop (serial 1041 and 1038); the second one lags 3 s \
         behind",
    ),
    row(
        "a cache in front is stale",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let front = Upstream::start(NEAR).await;
                replica(&front, "10.96.12.99", "7");
                world.set("--server", [front.address]);
                with(world, front)
            })
        },
        "returns 10.96.12.99 for web.shop with 22 s left, the server returns 10.96.12.10",
    ),
    row(
        "the server is stale",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let front = Upstream::start(NEAR).await;
                replica(&front, "10.96.12.99", "7");
                world.set("--server", [front.address]);
                world.set("--replica", [front.address]);
                with(world, front)
            })
        },
        "but the API server has 10.96.12.10; the answer is stale",
    ),
    row(
        "a Service has no ready endpoints",
        |world| {
            Box::pin(async move {
                world
                    .api
                    .apply(endpoint_slice("shop", "web").port("http", 80).not_ready("10.244.1.20"));
                only(world)
            })
        },
        "web.shop resolves, but its Service has no ready endpoint; the name is correct and the \
         pods are not ready.",
    ),
    row(
        "a headless Service has neither selector nor slices",
        |world| {
            Box::pin(async move {
                world.api.apply(service("payments", "vault").port("api", 80));
                only(world)
            })
        },
        "vault.payments is headless and has no EndpointSlice, so it has no addresses; it needs a \
         selector or manual slices.",
    ),
    row(
        "a Pod's subdomain has no Service",
        |world| {
            Box::pin(async move {
                let mut object = pod("payments", "ledger-0", "10.244.1.70");
                object.0["spec"] = json!({"hostname": "ledger-0", "subdomain": "ledgers"});
                world.api.apply(object);
                only(world)
            })
        },
        "Pod ledger-0 has subdomain `ledgers`, but no headless Service of that name exists in \
         payments",
    ),
    row(
        "a Namespace is named as a top-level domain",
        |world| {
            Box::pin(async move {
                world.api.apply(namespace("com"));
                world.api.apply(selecting(
                    service("com", "example").cluster_ip("10.96.7.7").port("http", 80),
                ));
                world
                    .api
                    .apply(endpoint_slice("com", "example").port("http", 80).ready("10.244.1.9"));
                only(world)
            })
        },
        "Namespace `com` has a Service `example`, so pods that look up example.com reach that \
         Service, because the search list is tried first.",
    ),
    row(
        "an ExternalName is an address",
        |world| {
            Box::pin(async move {
                world.api.apply(service("shop", "mail").external_name("192.0.2.25"));
                only(world)
            })
        },
        "The ExternalName of mail.shop is 192.0.2.25; an address is not a host name and no client \
         can resolve it.",
    ),
    row(
        "the target of an ExternalName does not exist",
        |world| {
            Box::pin(async move {
                world.api.apply(service("shop", "mail").external_name("smpt.example.net"));
                only(world)
            })
        },
        "mail.shop is an alias of smpt.example.net, and that name does not exist according to the \
        upstream",
    ),
    row(
        "the server of a stub domain is down",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let dead = Upstream::start(FARTHER).await;
                dead.behave(Behaviour::Silent);
                let flags = [stub("corp.example", &dead)];
                world.dnscache = cache(&world.kubedns, &[&world.upstream], &flags).await;
                let (dns, pages) = (world.dnscache.dns, world.dnscache.http);
                let text = format!("{{\"corp.example\": [\"{}\"]}}", dead.address);
                let file = world.file("config/stubDomains", &text);
                let directory = file.parent().unwrap().display().to_string();
                world.set("--server", [dns]);
                world.set("--dnscache", [pages]);
                world.set("--config-dir", [directory]);
                with(world, dead)
            })
        },
        "corp.example is forwarded to 127.0.0.3",
    ),
    row(
        "an invalid configuration is kept back",
        |world| {
            Box::pin(async move {
                let directory = world.file("live/stubDomains", "{}").parent().unwrap().to_owned();
                let flags = [format!("--config-dir={}", directory.display())];
                let mut world = world;
                world.dnscache = cache(&world.kubedns, &[&world.upstream], &flags).await;
                world.file("live/stubDomains", "{\"corp.example\": [\"no address\"]}");
                let (dns, pages) = (world.dnscache.dns, world.dnscache.http);
                http::eventually(pages, "/readyz?verbose", 200, "[!]config-dir").await;
                world.set("--server", [dns]);
                world.set("--dnscache", [pages]);
                only(world)
            })
        },
        "the configuration from before is still active",
    ),
    row(
        "the clock is wrong",
        |world| {
            Box::pin(async move {
                world.api.clock_is_ahead(87 * 60 + 20);
                only(world)
            })
        },
        "The clock of this pod is 87 minutes behind the API server",
    ),
    row(
        "the upstream rewrites NXDOMAIN",
        |world| {
            Box::pin(async move {
                world.upstream.otherwise("30 A 192.0.2.66");
                only(world)
            })
        },
        "The upstream answers names that do not exist with 192.0.2.66 in place of NXDOMAIN",
    ),
    row(
        "the Service has no TCP port",
        |world| {
            Box::pin(async move {
                let mut object = dns_service("10.96.0.10");
                object.0["spec"]["ports"] = json!([{"name": "dns", "port": 53, "protocol": "UDP"}]);
                world.api.apply(object);
                only(world)
            })
        },
        "The Service kube-system/kube-dns has no port 53 over TCP",
    ),
    row(
        "the Service does not exist",
        |world| {
            Box::pin(async move {
                world.api.delete(dns_service("10.96.0.10"));
                only(world)
            })
        },
        "There is no Service kube-system/kube-dns",
    ),
    row(
        "the change stream is down",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let metrics = "dnscache_change_streams 1\ndnscache_change_streams_up 0\n";
                let pages = pages("[!]changes warning: 0 of 1 streams\n", metrics).await;
                world.set("--dnscache", [pages.address]);
                with(world, pages)
            })
        },
        "The change stream of kubedns is down",
    ),
    row(
        "the versions differ",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let pages =
                    pages("[+]dns ok\n", "dnscache_build_info{version=\"0.0.1\"} 1\n").await;
                world.set("--dnscache", [pages.address]);
                with(world, pages)
            })
        },
        "dnscache has version 0.0.1 and healthz has",
    ),
    row(
        "the cluster domain is another one",
        |world| {
            Box::pin(async move {
                let mut world = world;
                world.set("--domain", ["cluster.example"]);
                only(world)
            })
        },
        "The server does not know the cluster domain cluster.example",
    ),
    row(
        "the cache does not follow kubedns",
        |world| {
            Box::pin(async move {
                let mut world = world;
                let other = Upstream::start(NEAR).await;
                replica(&other, "10.96.12.44", "7");
                world.set("--kubedns-dns", [other.address]);
                with(world, other)
            })
        },
        "kubedns returns 10.96.12.44; see the check of the change stream",
    ),
];

/// Fills a scripted server with the names of the cluster; `address` is that of shop/web.
fn replica(server: &Upstream, address: &str, serial: &str) {
    let z = "svc.cluster.local.";
    server.answer(
        &format!("kubernetes.default.{z} A"),
        &[&format!("kubernetes.default.{z} 22 A 10.96.0.1")],
    );
    server.answer(
        &format!("kube-dns.kube-system.{z} A"),
        &[&format!("kube-dns.kube-system.{z} 22 A 10.96.0.10")],
    );
    server.answer(&format!("web.shop.{z} A"), &[&format!("web.shop.{z} 22 A {address}")]);
    server.answer(
        &format!("ledger.payments.{z} A"),
        &[&format!("ledger.payments.{z} 22 A 10.244.1.70")],
    );
    let soa =
        format!("cluster.local. 22 SOA ns.dns.cluster.local. h.cluster.local. {serial} 1 1 1 1");
    server.answer("cluster.local. SOA", &[&soa]);
    answers(server);
}

/// Writes a counter that grows to a file, until it is dropped.
struct Growing(tokio::task::JoinHandle<()>);

impl Drop for Growing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn grow(file: std::path::PathBuf, text: fn(u64) -> String) -> Growing {
    Growing(tokio::spawn(async move {
        for count in 1.. {
            tokio::time::sleep(Duration::from_millis(20)).await;
            // A new file in place of the old one: a reader never sees a part.
            let next = file.with_extension("next");
            std::fs::write(&next, text(count)).unwrap();
            std::fs::rename(&next, &file).unwrap();
        }
    }))
}
