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
use tokio::task::JoinSet;

use super::proxy::{Path, Proxy};
use super::world::{World, answers, cache, cluster, dns_pod, dns_service, pages, selecting};
use crate::fixture::dnscache::{FAR, FARTHER, NEAR, stub};
use crate::fixture::http;
use crate::fixture::upstream::{Behaviour, Loss, Reply, Upstream};

/// What must not be dropped before the check has ended.
pub type Keep = Box<dyn Any + Send>;
type Broken = Pin<Box<dyn Future<Output = (World, Keep)> + Send>>;

/// One fault.
pub struct Scenario {
    /// What is broken.
    pub fault: &'static str,
    inject: Inject,
    /// A part of the sentence that names it.
    pub sentence: &'static str,
}

/// How a fault is made.
enum Inject {
    /// At once.
    Now(fn(&mut World)),
    /// By something that is started, and that must live until the end.
    Started(fn(World) -> Broken),
}

impl Scenario {
    /// Breaks `world`.
    pub async fn inject(&self, mut world: World) -> (World, Keep) {
        match self.inject {
            Inject::Now(inject) => {
                inject(&mut world);
                with(world, ())
            }
            Inject::Started(inject) => inject(world).await,
        }
    }
}

const fn now(fault: &'static str, inject: fn(&mut World), sentence: &'static str) -> Scenario {
    Scenario { fault, inject: Inject::Now(inject), sentence }
}

const fn row(fault: &'static str, inject: fn(World) -> Broken, sentence: &'static str) -> Scenario {
    Scenario { fault, inject: Inject::Started(inject), sentence }
}

/// The result of a row: the world, and what must live.
fn with(world: World, thing: impl Any + Send) -> (World, Keep) {
    (world, Box::new(thing))
}

/// Puts `path` between the clients and dnscache.
fn through(mut world: World, path: Path) -> Broken {
    Box::pin(async move {
        let proxy = Proxy::start(NEAR, world.dnscache.dns, path).await;
        world.set("--server", [proxy.address]);
        with(world, proxy)
    })
}

/// Lets the program of `flag` have these texts as `/readyz` and `/metrics`.
fn paged(
    mut world: World,
    flag: &'static str,
    ready: &'static str,
    metrics: &'static str,
) -> Broken {
    Box::pin(async move {
        let pages = pages(ready, metrics).await;
        world.set(flag, [pages.address]);
        with(world, pages)
    })
}

/// Lets `flags` lead to a server that has another `address` for shop/web.
fn stale(mut world: World, flags: &'static [&'static str], address: &'static str) -> Broken {
    Box::pin(async move {
        let server = Upstream::start(NEAR).await;
        replica(&server, address, "7");
        for flag in flags {
            world.set(flag, [server.address]);
        }
        with(world, server)
    })
}

/// Lets a file of the machine have a counter that grows.
fn growing(world: World, path: &'static str, text: fn(u64) -> String) -> Broken {
    Box::pin(async move {
        let file = world.files.path().join(path);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            for count in 1.. {
                tokio::time::sleep(Duration::from_millis(20)).await;
                // A new file in place of the old one: a reader never sees a part.
                let next = file.with_extension("next");
                std::fs::write(&next, text(count)).unwrap();
                std::fs::rename(&next, &file).unwrap();
            }
        });
        with(world, tasks)
    })
}

/// Every fault of the rig.
pub const SCENARIOS: &[Scenario] = &[
    now(
        "the Service has no ready endpoint",
        |world| {
            let slice = endpoint_slice("kube-system", "kube-dns");
            world.api.apply(slice.not_ready("10.244.1.7").not_ready("10.244.2.9"));
            world.api.apply(dns_pod("kube-dns-1", "10.244.1.7", false));
            world.api.apply(dns_pod("kube-dns-2", "10.244.2.9", false));
        },
        "The Service kube-system/kube-dns has 0 ready endpoints, so no pod can resolve any name; \
         its 2 pods fail their readiness probe.",
    ),
    now(
        "the selector of the Service matches no pod",
        |world| {
            for name in ["kube-dns-1", "kube-dns-2"] {
                let pod = dns_pod(name, "10.244.1.7", true).label("k8s-app", "coredns");
                world.api.apply(pod);
            }
        },
        "The selector k8s-app=kube-dns of the Service matches no pod; the Deployment's pods have \
         the label k8s-app=coredns.",
    ),
    now(
        "the kubelet has another cluster DNS",
        |world| {
            world.leave_the_pod();
            world.api.apply(dns_service("10.43.0.10"));
        },
        "Pods use 10.96.0.10, but the Service kube-dns has 10.43.0.10; correct clusterDNS in the \
        kubelet configuration.",
    ),
    row(
        "one replica of two is dead",
        |mut world| {
            Box::pin(async move {
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
        |world| through(world, Path { tcp: false, ..Path::OPEN }),
        "Port 53 answers over UDP but not over TCP; answers larger than the UDP limit cannot be \
        retrieved.",
    ),
    row(
        "UDP is blocked",
        |world| through(world, Path { udp: false, ..Path::OPEN }),
        "answers over TCP but not over UDP",
    ),
    row(
        "a NetworkPolicy blocks DNS",
        |mut world| {
            world.leave_the_pod();
            world.api.apply(Object(json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"namespace": "shop", "name": "deny"},
                "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": []},
            })));
            through(world, Path { udp: false, tcp: false, ..Path::OPEN })
        },
        "UDP queries from namespace shop time out while the replicas answer; a NetworkPolicy of \
         shop (deny) blocks egress to port 53.",
    ),
    row(
        "the Service address is silent, the replicas answer",
        |world| through(world, Path { udp: false, tcp: false, ..Path::OPEN }),
        "the way from here to the Service address is broken",
    ),
    row(
        "every second query is lost",
        |world| through(world, Path { lost_every: 2, ..Path::OPEN }),
        "% of the queries to 127.0.0.1",
    ),
    row(
        "one of two upstreams is unreachable",
        |mut world| {
            Box::pin(async move {
                let dead = Upstream::start(FARTHER).await;
                dead.behave(Behaviour::Silent);
                let dnscache = cache(&world.kubedns, &[&world.upstream, &dead], &[]).await;
                world.look_at(dnscache);
                with(world, dead)
            })
        },
        "did not answer 20 of 20 queries; the other upstream answers in",
    ),
    now(
        "no upstream answers",
        |world| world.upstream.behave(Behaviour::Silent),
        "No upstream answers; outside names resolve only from stale cache entries, cluster names \
         are not affected.",
    ),
    now(
        "an upstream is slow",
        |world| world.upstream.delay(Duration::from_millis(1_800)),
        "in the median; a lookup with three search steps exceeds the client timeout of 5 s",
    ),
    now(
        "an upstream loses packets",
        |world| world.upstream.lose(Loss { queries: 0.3, replies: 0.1 }, 11),
        "get no reply, TCP queries all succeed; the path drops datagrams",
    ),
    row(
        "the upstream sends queries back",
        |mut world| {
            Box::pin(async move {
                let proxy = Proxy::start(FAR, world.dnscache.dns, Path::OPEN).await;
                let back = format!("--server={}#{}", proxy.address.ip(), proxy.address.port());
                world.dnscache = cache(&world.kubedns, &[], &[back]).await;
                let own = Proxy::start(FARTHER, world.dnscache.dns, Path::OPEN).await;
                let around = format!("--server={}#{}", own.address.ip(), own.address.port());
                let dnscache = cache(&world.kubedns, &[], &[around]).await;
                world.look_at(dnscache);
                let last = Proxy::start(FARTHER, world.dnscache.dns, Path::OPEN).await;
                world.set("--upstream", [last.address]);
                with(world, (proxy, own, last))
            })
        },
        "sends queries back to this server; use the file",
    ),
    now(
        "the pod has no search list",
        |world| {
            world.leave_the_pod();
            world.resolv("nameserver 10.96.0.10\n");
        },
        "/etc/resolv.conf of this pod has no search list, so short names such as `web` cannot \
         resolve; its dnsPolicy is Default.",
    ),
    now(
        "resolv.conf names no server",
        |world| {
            world.leave_the_pod();
            world.resolv("search cluster.local\n");
        },
        "names no DNS server, so no name can resolve",
    ),
    row(
        "the traffic is the search list",
        |world| {
            paged(
                world,
                "--dnscache",
                "[+]dns ok\n",
                "dnscache_dns_replies_total{type=\"A\",rcode=\"NXDOMAIN\"} 9200\n\
                 dnscache_dns_replies_total{type=\"A\",rcode=\"NOERROR\"} 800\n",
            )
        },
        "Each lookup of example.com costs 8 queries, because ndots is 5; 92 % of all answers are \
        NXDOMAIN.",
    ),
    now(
        "a search domain answers every name",
        |world| {
            world.leave_the_pod();
            world.resolv(
                "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local \
                 cluster.local corp.example\noptions ndots:5\n",
            );
            world.upstream.otherwise("30 A 192.0.2.99");
            world.upstream.deny_below("com.");
        },
        "The search domain corp.example answers every name with 192.0.2.99, so outside names \
         without a final dot go to the wrong host",
    ),
    now(
        "AAAA without an IPv6 route",
        |world| {
            world.file("proc/net/ipv6_route", "");
        },
        "AAAA records are returned for outside names, but this pod has no IPv6 route; clients wait \
        before they use IPv4.",
    ),
    now(
        "the upstream answers AAAA with SERVFAIL",
        |world| world.upstream.tries("example.com. AAAA", [Reply::Code(2)]),
        "The upstream answers A for example.com and SERVFAIL for AAAA; glibc then fails the whole \
        lookup.",
    ),
    now(
        "the upstream never answers AAAA",
        |world| world.upstream.tries("example.com. AAAA", [Reply::Nothing]),
        "leaves AAAA without an answer",
    ),
    row(
        "large answers are dropped on the path",
        |mut world| {
            Box::pin(async move {
                let flags = ["--udp-size=4096".to_owned()];
                let dnscache = cache(&world.kubedns, &[&world.upstream], &flags).await;
                world.look_at(dnscache);
                through(world, Path { reply_len_max: 1_400, ..Path::OPEN }).await
            })
        },
        "Replies above 1,400 bytes never arrive, smaller ones do; the path MTU is too small or \
         fragments are dropped. Limit the size to 1232.",
    ),
    row(
        "the receive buffer overflows",
        |world| {
            growing(world, "proc/net/snmp", |n| {
                format!("Udp: InDatagrams RcvbufErrors\nUdp: 10 {}\n", 7 + n * 40)
            })
        },
        "because the receive buffer was full; add threads, replicas or buffer space",
    ),
    row(
        "dnscache counted dropped datagrams",
        |world| {
            paged(
                world,
                "--dnscache",
                "[+]dns ok\n",
                "dnscache_dns_overflow_total{transport=\"udp\"} 4812\n",
            )
        },
        "The kernel dropped 4812 datagrams on port 53",
    ),
    now(
        "the table of tracked connections is full",
        |world| {
            world.file("proc/sys/net/netfilter/nf_conntrack_count", "262144\n");
            world.file("proc/net/stat/nf_conntrack", "insert_failed drop\n00000003 00000798\n");
        },
        "nf_conntrack holds 262,144 of 262,144 entries and dropped 1,944 packets; new DNS queries \
         from this node are lost.",
    ),
    row(
        "insertions of tracked connections fail",
        |world| {
            growing(world, "proc/net/stat/nf_conntrack", |n| {
                format!("insert_failed drop\n{:08x} 00000000\n", 3 + n * 40)
            })
        },
        "per second on this node; parallel A and AAAA queries over one socket lose packets for 5 s",
    ),
    row(
        "the API server is away",
        |world| {
            paged(
                world,
                "--kubedns",
                "[!]services warning: 340 s old: cannot ask the API server\n",
                "kubedns_watch_age_seconds{kind=\"services\",namespace=\"\"} 340\n\
                 kubedns_watch_ok{kind=\"services\",namespace=\"\"} 0\n",
            )
        },
        "kubedns has received nothing from the API server for 340 s; its answers have that age \
         and new services are missing.",
    ),
    row(
        "a right is missing",
        |mut world| {
            Box::pin(async move {
                let api = cluster().await;
                api.fails("endpointslices", Fault::Refuse(403, None));
                let kubeconfig = api.kubeconfig(None);
                let path = kubeconfig.path().to_str().unwrap().to_owned();
                world.kubedns = crate::fixture::kubedns::start(&["--kubeconfig", &path]).await;
                http::eventually(world.kubedns.http, "/readyz", 503, "must grant verbs").await;
                let (dns, pages) = (world.kubedns.dns, world.kubedns.http);
                world.set("--kubedns", [pages]);
                world.set("--kubedns-dns", [dns]);
                with(world, (api, kubeconfig))
            })
        },
        "kubedns may not list endpointslices.discovery.k8s.io; headless services cannot be \
         answered until the ClusterRole allows it.",
    ),
    row(
        "a watch is silent",
        |world| {
            paged(
                world,
                "--kubedns",
                "[+]services ok\n",
                "kubedns_watch_age_seconds{kind=\"services\",namespace=\"\"} 600\n\
                 kubedns_watch_ok{kind=\"services\",namespace=\"\"} 1\n",
            )
        },
        "The watch on services has delivered no event and no bookmark for 600 s",
    ),
    now(
        "kubedns is dead",
        |world| world.set("--kubedns", ["127.0.0.1:1"]),
        "kubedns does not answer although dnscache of the same pod does",
    ),
    row(
        "replicas disagree",
        |mut world| {
            Box::pin(async move {
                let (first, second) = (Upstream::start(FAR).await, Upstream::start(FARTHER).await);
                replica(&first, "10.96.12.10", "1041");
                replica(&second, "10.96.12.44", "1038");
                world.set("--replica", [first.address, second.address]);
                with(world, (first, second))
            })
        },
        "return different addresses for web.shop (serial 1041 and 1038); the second one lags 3 s \
         behind",
    ),
    row(
        "a cache in front is stale",
        |world| stale(world, &["--server"], "10.96.12.99"),
        "returns 10.96.12.99 for web.shop with 22 s left, the server returns 10.96.12.10",
    ),
    row(
        "the server is stale",
        |world| stale(world, &["--server", "--replica"], "10.96.12.99"),
        "but the API server has 10.96.12.10; the answer is stale",
    ),
    now(
        "a Service has no ready endpoints",
        |world| {
            let slice = endpoint_slice("shop", "web").port("http", 80);
            world.api.apply(slice.not_ready("10.244.1.20"));
        },
        "web.shop resolves, but its Service has no ready endpoint; the name is correct and the \
         pods are not ready.",
    ),
    now(
        "a headless Service has neither selector nor slices",
        |world| {
            world.api.apply(service("payments", "vault").port("api", 80));
        },
        "vault.payments is headless and has no EndpointSlice, so it has no addresses; it needs a \
         selector or manual slices.",
    ),
    now(
        "a Pod's subdomain has no Service",
        |world| {
            let mut object = pod("payments", "ledger-0", "10.244.1.70");
            object.0["spec"] = json!({"hostname": "ledger-0", "subdomain": "ledgers"});
            world.api.apply(object);
        },
        "Pod ledger-0 has subdomain `ledgers`, but no headless Service of that name exists in \
         payments",
    ),
    now(
        "a Namespace is named as a top-level domain",
        |world| {
            world.api.apply(namespace("com"));
            let service = service("com", "example").cluster_ip("10.96.7.7").port("http", 80);
            world.api.apply(selecting(service));
            world.api.apply(endpoint_slice("com", "example").port("http", 80).ready("10.244.1.9"));
        },
        "Namespace `com` has a Service `example`, so pods that look up example.com reach that \
         Service, because the search list is tried first.",
    ),
    now(
        "an ExternalName is an address",
        |world| {
            world.api.apply(service("shop", "mail").external_name("192.0.2.25"));
        },
        "The ExternalName of mail.shop is 192.0.2.25; an address is not a host name and no client \
         can resolve it.",
    ),
    now(
        "the target of an ExternalName does not exist",
        |world| {
            world.api.apply(service("shop", "mail").external_name("smpt.example.net"));
        },
        "mail.shop is an alias of smpt.example.net, and that name does not exist according to the \
        upstream",
    ),
    row(
        "the server of a stub domain is down",
        |mut world| {
            Box::pin(async move {
                let dead = Upstream::start(FARTHER).await;
                dead.behave(Behaviour::Silent);
                let flags = [stub("corp.example", &dead)];
                let dnscache = cache(&world.kubedns, &[&world.upstream], &flags).await;
                world.look_at(dnscache);
                let text = format!("{{\"corp.example\": [\"{}\"]}}", dead.address);
                let file = world.file("config/stubDomains", &text);
                let directory = file.parent().unwrap().display().to_string();
                world.set("--config-dir", [directory]);
                with(world, dead)
            })
        },
        "corp.example is forwarded to 127.0.0.3",
    ),
    row(
        "an invalid configuration is kept back",
        |mut world| {
            Box::pin(async move {
                let directory = world.file("live/stubDomains", "{}").parent().unwrap().to_owned();
                let flags = [format!("--config-dir={}", directory.display())];
                let dnscache = cache(&world.kubedns, &[&world.upstream], &flags).await;
                world.look_at(dnscache);
                world.file("live/stubDomains", "{\"corp.example\": [\"no address\"]}");
                let pages = world.dnscache.http;
                http::eventually(pages, "/readyz?verbose", 200, "[!]config-dir").await;
                with(world, ())
            })
        },
        "the configuration from before is still active",
    ),
    now(
        "the clock is wrong",
        |world| world.api.clock_is_ahead(87 * 60 + 20),
        "The clock of this pod is 87 minutes behind the API server",
    ),
    now(
        "the upstream rewrites NXDOMAIN",
        |world| world.upstream.otherwise("30 A 192.0.2.66"),
        "The upstream answers names that do not exist with 192.0.2.66 in place of NXDOMAIN",
    ),
    now(
        "the Service has no TCP port",
        |world| {
            let mut object = dns_service("10.96.0.10");
            object.0["spec"]["ports"] = json!([{"name": "dns", "port": 53, "protocol": "UDP"}]);
            world.api.apply(object);
        },
        "The Service kube-system/kube-dns has no port 53 over TCP",
    ),
    now(
        "the Service does not exist",
        |world| {
            world.api.delete(dns_service("10.96.0.10"));
        },
        "There is no Service kube-system/kube-dns",
    ),
    row(
        "the change stream is down",
        |world| {
            paged(
                world,
                "--dnscache",
                "[!]changes warning: 0 of 1 streams\n",
                "dnscache_change_streams 1\ndnscache_change_streams_up 0\n",
            )
        },
        "The change stream of kubedns is down",
    ),
    row(
        "the versions differ",
        |world| {
            paged(world, "--dnscache", "[+]dns ok\n", "dnscache_build_info{version=\"0.0.1\"} 1\n")
        },
        "dnscache has version 0.0.1 and healthz has",
    ),
    now(
        "the cluster domain is another one",
        |world| world.set("--domain", ["cluster.example"]),
        "The server does not know the cluster domain cluster.example",
    ),
    row(
        "the cache does not follow kubedns",
        |world| stale(world, &["--kubedns-dns"], "10.96.12.44"),
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
