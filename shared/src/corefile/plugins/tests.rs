//! Tests the meaning of the lines of each plugin.

use super::super::parser::{Outside, Text, parse};
use super::super::plan::{Plan, Row, Surroundings, plan};
use super::*;

/// Returns the plan of one block for all names with these lines.
fn planned(lines: &str) -> Plan {
    let text = format!(".:53 {{\n{lines}\n}}\n");
    let mut read = |path: &str| Ok(vec![Text { path: path.to_owned(), text: text.clone() }]);
    let outside = Outside { read: &mut read, variable: &|_| None };
    let corefile = parse("Corefile", outside).unwrap_or_else(|error| panic!("{lines}: {error}"));
    plan(&corefile, Surroundings::default())
}

/// Returns the result of a row, in one line.
fn said(row: &Row) -> String {
    if !row.refused.is_empty() {
        return format!("refused: {}", row.refused.join("; "));
    }
    let flag =
        |it: &super::super::plan::Setting| format!("{} {}", it.program.name(), it.argument());
    let flags = row.settings.iter().map(flag);
    let flags: Vec<String> = flags.chain(row.rules.iter().cloned()).collect();
    if flags.is_empty() {
        format!("built in: {}", row.built_in.join("; "))
    } else {
        flags.join(" ")
    }
}

/// Checks that the result of the last line of `lines` contains `expected`.
#[track_caller]
fn check(lines: &str, expected: &str) {
    let plan = planned(lines);
    // A block without a name for kubernetes has a row of its own.
    let row = plan.rows.last().unwrap();
    let said = said(row);
    assert!(said.contains(expected), "{lines}: {said}");
    for row in &plan.rows {
        let texts = [&row.rules, &row.built_in, &row.refused];
        let is_settled = !row.settings.is_empty() || texts.iter().any(|it| !it.is_empty());
        assert!(is_settled, "{lines}: nothing becomes of {:?}", row.text);
    }
}

/// Checks that the result of the last option of a block of `directive` contains `expected`.
#[track_caller]
fn check_option(directive: &str, option: &str, expected: &str) {
    check(&format!("{directive} {{\n{option}\n}}"), expected);
}

#[test]
fn every_plugin_of_coredns_is_known() {
    // plugin.cfg of CoreDNS 1.14.7, and plugins of other versions.
    let names = "root metadata geoip cancel proxyproto quic grpc_server https https3 timeouts \
        multisocket reload nsid bufsize bind debug trace ready health pprof shed prometheus errors \
        log dnstap local dns64 any chaos loadbalance tsig rewrite autopath acl cache header dnssec \
        tls minimal template transfer hosts route53 azure clouddns k8s_external kubernetes file \
        auto secondary etcd loop forward grpc erratic whoami on sign view nomad proxy federation \
        multicluster";
    for name in names.split_whitespace() {
        let is_read = PLUGINS.iter().any(|plugin| plugin.name == name);
        let is_refused = REFUSED.iter().any(|(refused, _)| *refused == name);
        assert!(is_read != is_refused, "{name}");
    }
    assert_eq!(names.split_whitespace().count(), PLUGINS.len() + REFUSED.len());
    // The supported ones are in the order of plugin.cfg, except for old and external ones.
    let place = |name: &str| names.split_whitespace().position(|it| it == name).unwrap();
    let places: Vec<usize> = PLUGINS
        .iter()
        .filter(|it| !["multicluster", "proxy"].contains(&it.name))
        .map(|it| place(it.name))
        .collect();
    assert!(places.is_sorted(), "{places:?}");
    check("hosst", "refused: there is no plugin \"hosst\"");
}

#[test]
fn plugins_that_change_no_answer_check_their_arguments() {
    for lines in [
        "errors",
        "errors stdout",
        "debug",
        "metadata",
        "cancel",
        "cancel 5s",
        "reload",
        "reload off",
        "reload 2s 1s",
        "reload 30s 0",
        "loop",
        "loadbalance",
        "loadbalance round_robin",
        "chaos",
        "any",
        "multisocket 4",
        "pprof",
        "minimal",
        "root /etc",
        "timeouts",
    ] {
        check(lines, "built in: ");
    }
    for lines in [
        "errors stderr",
        "debug x",
        "cancel x",
        "reload 1s",
        "reload 5",
        "reload 2s 5ms",
        "reload 2s 1s 1s",
        "loop 1",
        "loadbalance weighted f",
        "loadbalance a b",
        "chaos 1.0",
        "any x",
        "multisocket 0",
        "root",
        "root a b",
        "errors\nerrors",
        "loop\nloop",
    ] {
        check(lines, "refused: ");
    }
    for (directive, option, expected) in [
        ("errors", "stacktrace", "built in"),
        ("errors", "consolidate 5m \".* timeout$\" warning show_first", "built in"),
        ("errors", "consolidate 5m", "refused: expected a duration and a pattern"),
        ("errors", "consolidate 5 x", "refused: \"5\" is not a duration"),
        ("errors", "consolidate 5m x fatal", "refused: \"fatal\""),
        ("errors", "class all", "refused: unknown option \"class\"; expected one of: stacktrace"),
        ("errors", "consolidate 5m \".*\" warning", "built in: an upstream that fails is one line"),
        ("log", "class some", "refused: \"some\""),
        ("log", "class", "refused: no argument"),
        ("timeouts", "idle 30s", "built in"),
        ("timeouts", "idle", "refused: no argument; expected a duration"),
        ("pprof", "block 1", "built in"),
        ("loop", "x", "refused: loop has no options"),
        ("loadbalance", "prefer 10.0.0.0/8", "refused: no prefix"),
        ("local", "localhost_prefix off", "built in"),
        ("local", "localhost_prefix on", "refused: "),
        ("header", "response set ra aa", "flags of replies"),
        ("header", "CLEAR RD", "flags of replies"),
        ("header", "query set rd", "flags of queries"),
        ("header", "query", "refused: expected [query|response] set|clear"),
        ("header", "response set", "refused: expected [query|response] set|clear"),
        ("header", "response toggle aa", "refused: expected [query|response] set|clear"),
        ("header", "set ad", "refused: \"ad\" is not allowed; expected aa, ra or rd"),
    ] {
        check_option(directive, option, expected);
    }
}

#[test]
fn queries_are_logged_by_names_and_classes() {
    let log = |lines: &str, expected: &str| {
        let rows = planned(lines).rows;
        let said = said(rows.iter().find(|row| row.text.starts_with("log")).unwrap());
        assert!(said.contains(expected), "{lines}: {said}");
    };
    log("log", "dnscache --log-queries=1 dnscache --log-filter=name:.");
    log("log . {combined}", "--log-filter=name:.");
    log("log a.example b.example", "name:a.example dnscache --log-filter=name:b.example");
    log("log a.example {common}", "--log-filter=name:a.example");
    log("log {common}", "built in: no query has this name");
    log(
        "log {\nclass error denial\n}",
        "name:.,class:error dnscache --log-filter=name:.,class:denial",
    );
    log("log {\nclass error all\n}", "--log-filter=name:.");
    log("log\nlog a.example", "--log-filter=name:.");
}

#[test]
fn addresses_of_the_block_and_of_pages() {
    check("health", "dnscache --health-listen=[::]:8080");
    check("health localhost:8081", "--health-listen=127.0.0.1:8081");
    check("health 8080", "refused: \"8080\" is not allowed; expected IP:PORT or :PORT");
    check_option("health", "lameduck 5s", "kubedns --lameduck=5 dnscache --lameduck=5");
    check_option("health", "lameduck 1500ms", "dnscache --lameduck=2");
    check_option("health", "lameduck 5", "refused: \"5\" is not a duration");
    check_option("health", "lameduck 1h", "refused: \"1h\" is not allowed; expected at most 120s");
    check("ready", "dnscache --ready-listen=[::]:8181");
    check_option("ready", "monitor continuously", "built in");
    check_option("ready", "monitor", "refused");
    check("prometheus :9153", "--http-listen=[::]:9153");
    check("prometheus", "--http-listen=127.0.0.1:9153");
    check("prometheus :9153", "dnscache --metrics-compat=coredns");
    check("prometheus :9153 b", "refused: \"b\" is too much");
    check_option("prometheus", "tls web.yml", "refused");
    check_option("prometheus", "runtime_metrics", "built in");
    check("bind 127.0.0.1 ::1", "dnscache --listen=127.0.0.1:53 dnscache --listen=[::1]:53");
    let keys = |keys: &str, lines: &str, expected: &str| {
        let text = format!("forward . 10.0.0.1\n}}\n{keys} {{\n{lines}\nforward . 10.0.0.2");
        let rows = planned(&text).rows;
        let said: Vec<String> = rows[2..].iter().map(said).collect();
        assert!(said.iter().any(|it| it.contains(expected)), "{keys} {lines}: {said:?}");
    };
    let tls = "tls cert.pem /etc/key.pem";
    keys("tls://a.example", tls, "dnscache --tls-listen=0.0.0.0:853");
    keys("tls://a.example:8853 a.example", tls, "dnscache --tls-listen=0.0.0.0:8853");
    keys("tls://a.example", tls, "--tls-cert=cert.pem dnscache --tls-key=/etc/key.pem");
    keys("tls://a.example", "tls c k ca\nroot /etc", "--tls-cert=/etc/c dnscache --tls-key=/etc/k");
    keys("tls://a.example", "tls c", "refused: expected the files CERT KEY [CA]");
    keys("tls://a.example", "tls c k {\nclient_auth nocert\n}", "built in: clients are not asked");
    keys("tls://a.example", "tls c k {\nclient_auth require\n}", "refused: clients are not asked");
    keys("tls://a.example", "tls c k {\nkeylog f\n}", "refused: secrets of TLS");
    keys("tls://a.example", "log", "refused: tls:// needs a certificate");
    keys("a.example", tls, "built in: no key of the block begins with tls://");
    keys("https://a.example", tls, "refused: there is no listener for https://");
    keys("tls://.", tls, "refused: . has another block on another port");
    check("bind eth0", "refused: \"eth0\" is not an address");
    check("local", "dnscache --server=/localhost/ dnscache --server=/0.in-addr.arpa/");
    check("local x", "refused: ");
    check("bufsize", "dnscache --udp-size=1232");
    check("bufsize 4096", "dnscache --udp-size=4096");
    check("bufsize 100", "refused: \"100\" is not allowed; expected a number from 512 to 4096");
    check("acl {\nallow net 10.0.0.0/8 fd00::/8\nblock\n}", "built in: clients that are not");
    let first = |lines: &str, expected: &str| {
        let said = said(&planned(lines).rows[2]);
        assert!(said.contains(expected), "{lines}: {said}");
    };
    first("acl {\nallow net 10.0.0.0/8\nblock\n}", "dnscache --allow=10.0.0.0/8");
    first("acl {\nallow net 10.0.0.7/8\nfilter\n}", "a rule about clients");
    first("acl a.example {\nallow net 10.0.0.7/8\nblock\n}", "a rule about clients");
    for (option, expected) in [
        ("allow net 10.0.0.0/8", "a rule about clients"),
        ("block type A AAAA net 10.0.0.7 fd00::/8", "a rule about clients"),
        ("filter type ANY net *", "a rule about clients"),
        ("drop", "a rule about clients"),
        ("deny", "refused: unknown option \"deny\"; expected one of: allow, block, filter"),
        ("block type B", "refused: \"B\" is not a type"),
        ("block net 10.0.0.0/33", "refused: \"10.0.0.0/33\" is not allowed"),
        ("block 10.0.0.0/8", "refused: \"10.0.0.0/8\" is not allowed; expected type"),
        ("block net", "refused: nothing is behind \"net\""),
    ] {
        check_option("acl", option, expected);
    }
    check("acl a..b {\nblock\n}", "");
    let plan = planned("acl a.example {\nblock type A type TXT net 10.0.0.7\n}");
    let policy = &plan.servers[0].acls[0].policies[0];
    assert_eq!((policy.action, &policy.types[..]), (Action::Block, &[1, 16][..]));
    assert_eq!(policy.networks[0].to_string(), "10.0.0.7/32");
}

#[test]
fn the_cluster_is_kubedns() {
    check("kubernetes cluster.local", "kubedns --ttl=5 kubedns --pods=disabled");
    check("kubernetes cluster.local", "kubedns --domain=cluster.local dnscache --changes=http://");
    check("kubernetes cluster.local", "dnscache --server=/cluster.local/127.0.0.1#10053");
    check("kubernetes a.b in-addr.arpa", "dnscache --server=/in-addr.arpa/127.0.0.1#10053");
    check("kubernetes a.b in-addr.arpa", "kubedns --cluster-cidr=0.0.0.0/0");
    check("kubernetes a.b 10.0.0.7/24", "kubedns --cluster-cidr=10.0.0.0/24");
    check("kubernetes a.b 10.0.0.7/24", "--server=/0.0.10.in-addr.arpa/");
    check("kubernetes in-addr.arpa", "refused: no zone that is not a reverse zone");
    check("kubernetes a.b c.d", "kubedns --extra-domain=c.d");
    check("kubernetes a.b c.d", "--server=/a.b/127.0.0.1#10053 dnscache --server=/c.d/127.0.0.1");
    check("kubernetes a.b c.a.b", "refused: one of a.b and c.a.b is within the other");
    check("kubernetes", "refused: the cluster domain cannot be the root");
    check("kubernetes a..b", "refused: \"a..b\" is not a zone");
    let cluster = "kubernetes cluster.local in-addr.arpa ip6.arpa";
    for (option, expected) in [
        ("ttl 30", "kubedns --ttl=30"),
        ("ttl 3601", "refused: \"3601\" is not allowed; expected a number from 0 to 3600"),
        ("ttl", "refused: no argument; expected 0 to 3600 seconds"),
        ("pods insecure", "kubedns --pods=insecure"),
        ("pods all", "refused: \"all\": expected disabled, insecure or verified"),
        ("namespaces a b", "kubedns --namespace=a kubedns --namespace=b"),
        ("namespaces A", "refused: \"A\""),
        ("labels app in (a, b)", "kubedns --service-selector=app in (a, b)"),
        ("kubeconfig /f prod", "kubedns --context=prod kubedns --kubeconfig=/f"),
        ("endpoint_pod_names", "kubedns --endpoint-pod-names"),
        ("zonal", "kubedns --zonal"),
        ("ignore empty_service", "kubedns --ignore-empty-service"),
        ("multicluster clusterset.local", "kubedns --clusterset-domain=clusterset.local"),
        ("multicluster set.cluster.local", "refused: one of cluster.local and set.cluster.local"),
        ("fallthrough in-addr.arpa ip6.arpa", "built in"),
        ("fallthrough", "built in: no other plugin answers for names of cluster.local"),
        ("startup_timeout 5s", "built in"),
        ("resyncperiod 5m", "built in"),
        ("upstream", "built in"),
        ("upstream 1.1.1.1", "built in"),
        ("apiserver_qps 10", "built in"),
        ("endpoint https://a:6443", "kubedns --api-server=https://a:6443"),
        ("endpoint https://a https://b", "kubedns --api-server=https://a"),
        ("endpoint https://a\ntls c k ca", "--api-server-cert=c kubedns --api-server-key=k"),
        ("tls c k ca", "refused: expected endpoint beside it"),
        ("endpoint https://a\ntls c k", "refused: expected CERTIFICATE KEY CACERTIFICATE"),
        ("kubeconfig f\nendpoint https://a", "refused: kubeconfig names the API server"),
        ("namespace_labels a in (b, c)", "kubedns --namespace-selector=a in (b, c)"),
        ("namespaces a\nnamespace_labels a=b", "refused: namespaces are named already"),
        ("noendpoints", "kubedns --no-endpoints"),
        ("noendpoints\nzonal", "refused: without endpoints there are no such names"),
        ("noendpoints\nignore empty_service", "refused: without endpoints no Service"),
        ("ttls 5", "refused: unknown option \"ttls\""),
    ] {
        check_option(cluster, option, expected);
    }
    check("multicluster clusterset.local", "kubedns --clusterset-domain=clusterset.local");
    let option =
        |option: &str| format!("forward . 10.0.0.1\nmulticluster c.local {{\n{option}\n}}");
    check(&option("fallthrough"), "dnscache --next=/c.local/NXDOMAIN=10.0.0.1");
    check(&option("fallthrough x.c.local"), "dnscache --next=/x.c.local/NXDOMAIN=10.0.0.1");
    check(&option("fallthrough a..b"), "refused: ");
    check(&option("noendpoints"), "refused: endpoints are always answered");
    check("transfer {\nto *\n}", "kubedns --transfer=0.0.0.0/0 kubedns --transfer=::/0");
    check("transfer a.b {\nto 10.0.0.1 10.0.0.2:53 ::1\n}", "--transfer=10.0.0.2/32");
    check("transfer {\nto 10.0.0.1\nsource 10.0.0.2\n}", "refused: NOTIFY");
    check("transfer", "refused: no line `to`");
}

#[test]
fn upstreams_are_servers() {
    for (line, expected) in [
        ("forward . 10.0.0.1", "dnscache --server=10.0.0.1"),
        (
            "forward . 10.0.0.1:5353 [fd00::1]:53",
            "--server=10.0.0.1#5353 dnscache --server=fd00::1",
        ),
        ("forward . fdaa::3", "dnscache --server=fdaa::3"),
        ("forward . dns://10.0.0.1", "dnscache --server=10.0.0.1"),
        ("forward . /etc/resolv.conf", "dnscache --resolv-file=/etc/resolv.conf"),
        ("forward . tls://9.9.9.9", "dnscache --server=tls://9.9.9.9"),
        ("forward . tls://9.9.9.9%dns.quad9.net", "--server=tls://9.9.9.9@dns.quad9.net"),
        ("forward . tls://9.9.9.9%a.b:8853", "--server=tls://9.9.9.9#8853@a.b"),
        ("forward a.example 10.0.0.1", "dnscache --server=/a.example/10.0.0.1"),
        ("forward 10.0.0.0/24 10.0.0.1", "dnscache --server=/0.0.10.in-addr.arpa/10.0.0.1"),
        ("forward 10.0.0.0/17 10.0.0.1", "refused: \"10.0.0.0/17\" stands for several zones"),
        ("forward a.example /etc/resolv.conf", "dnscache --server=/a.example/#"),
        ("forward . 10.0.0.1 /etc/resolv.conf", "refused: a file cannot stand beside"),
        ("forward . NAMESERVER", "refused: \"NAMESERVER\" is neither an address nor the path"),
        ("forward . https://1.1.1.1", "refused: servers over https://"),
        ("forward . 0.0.0.0", "refused: \"0.0.0.0\": "),
        ("forward .", "refused: expected a zone and at least one server"),
        ("forward", "refused: expected a zone and at least one server"),
        ("proxy . 10.0.0.1", "dnscache --server=10.0.0.1"),
    ] {
        check(line, expected);
    }
    for (option, expected) in [
        ("except a.example", "built in"),
        ("except", "refused: no argument"),
        ("policy sequential", "built in"),
        ("policy best", "refused: \"best\""),
        ("max_concurrent 1000", "built in"),
        ("max_concurrent x", "refused: \"x\""),
        ("prefer_udp", "built in"),
        ("health_check 5s no_rec domain a.example", "built in"),
        ("health_check 5", "refused: \"5\" is not a duration"),
        ("expire 10s", "built in"),
        ("failover SERVFAIL REFUSED", "built in"),
        ("failover NOERROR", "refused: NOERROR is an answer"),
        ("failover 3", "refused: \"3\" is not a response code"),
        ("next NXDOMAIN", "built in: the line below is asked after these answers; no line below"),
        ("next NOERROR", "refused: NOERROR is an answer; write next_on_nodata"),
        ("next", "refused: no argument; expected response codes"),
        ("next_on_nodata x", "refused: \"x\" is too much"),
        ("tls /ca.pem", "dnscache --tls-ca=/ca.pem"),
        ("tls c k", "dnscache --tls-client-cert=c dnscache --tls-client-key=k"),
        ("tls c k ca", "dnscache --tls-ca=ca dnscache --tls-client-cert=c"),
        ("tls c k ca x", "refused: expected tls [CERTIFICATE KEY] [CA]"),
        ("max_fail 1", "refused: unknown option \"max_fail\""),
    ] {
        check_option("forward . 10.0.0.1", option, expected);
    }
    let nth = |at: usize, lines: &str, expected: &str| {
        let said = said(&planned(lines).rows[at]);
        assert!(said.contains(expected), "{lines}: {said}");
    };
    let first = |lines: &str, expected: &str| nth(1, lines, expected);
    let both =
        "forward . 10.0.0.1 {\nnext NXDOMAIN\nnext_on_nodata\n}\nforward . 10.0.0.2 10.0.0.3";
    nth(2, both, "dnscache --next=NXDOMAIN,NODATA=10.0.0.2 dnscache --next=NXDOMAIN,NODATA=10.0");
    let failover = "forward . 10.0.0.1 10.0.0.2 {\nfailover NXDOMAIN SERVFAIL\n}";
    nth(2, failover, "dnscache --next=NXDOMAIN,SERVFAIL=10.0.0.2");
    first(failover, "dnscache --server=10.0.0.1");
    let cluster = "kubernetes a.b c.d {\nfallthrough\n}\nforward . 10.0.0.1";
    nth(2, cluster, "--next=/a.b/NXDOMAIN=10.0.0.1 dnscache --next=/c.d/NXDOMAIN=10.0.0.1");
    let part = "kubernetes a.b {\nfallthrough x.a.b in-addr.arpa\n}\nforward . /etc/resolv.conf";
    nth(2, part, "dnscache --next=/x.a.b/NXDOMAIN=#");
    nth(
        2,
        "kubernetes a.b {\nfallthrough\n}",
        "built in: no other plugin answers for names of a.b",
    );
    first("forward . 10.0.0.1 {\nforce_tcp\n}", "dnscache --server=tcp://10.0.0.1");
    first("forward . 10.0.0.1 {\nsource_address 10.0.0.2\n}", "--server=10.0.0.1@10.0.0.2");
    first("forward . tls://9.9.9.9 {\ntls_servername a.b\n}", "--server=tls://9.9.9.9@a.b");
    first("forward . tls://9.9.9.9%c.d {\ntls_servername a.b\n}", "refused: a server name stands");
}

#[test]
fn hosts_are_rules() {
    check("hosts", "hosts table of /etc/hosts");
    check("hosts /etc/coredns/NodeHosts a.example", "hosts table of /etc/coredns/NodeHosts");
    check("root /srv\nhosts table", "hosts table of /srv/table");
    check("hosts f a..b", "refused: \"a..b\" is not a zone");
    for (option, expected) in [
        ("192.168.4.11 master m", "a rule of the hosts table"),
        ("fd00::1 six", "a rule of the hosts table"),
        ("fallthrough a.example", "a rule of the hosts table"),
        ("no_reverse", "a rule of the hosts table"),
        ("ttl 60", "a rule of the hosts table"),
        ("ttl 0", "refused: \"0\" is not allowed"),
        ("reload 15s", "built in: the file is watched"),
        ("reload soon", "refused: \"soon\" is not a duration"),
        ("10.0.0.1", "refused: an address without a name"),
        ("host 10.0.0.1", "refused: \"host\" is neither an address nor one of"),
        ("fallthrough\n10.0.0.1 a", "refused: addresses must be above fallthrough"),
    ] {
        check_option("hosts", option, expected);
    }
    let plan = planned("hosts f {\n10.0.0.1 a  b\nttl 60\nreload 0\nfallthrough\n}");
    let hosts = plan.servers[0].hosts.as_ref().unwrap();
    assert_eq!((&hosts.lines[..], hosts.ttl), (&["10.0.0.1 a b".to_owned()][..], 60));
    assert!(hosts.is_fixed && hosts.fallthrough == [Zone::root()]);
}

#[test]
fn rewrites_and_templates_are_rules() {
    check("rewrite name a.example b.example", "rewrite rules, in the order of the file");
    check("rewrite continue ttl a.example 30-", "rewrite rules");
    check("rewrite stop {\nname regex a b\nanswer name c d\n}", "rewrite rule above");
    check("rewrite", "refused: the rule ends early");
    check("rewrite edns0 local set 0xffee abcd", "queries to upstreams have no options");
    check("rewrite names a b", "refused: \"names\" is not ");
    check("rewrite name regex (a b", "refused: \"(a\" is not a regular expression");
    check("rewrite name regex (a) {2}", "refused: \"{2}\" uses group 2");
    check("rewrite type A B", "refused: \"B\" is not a type");
    let plan = planned("rewrite stop {\nname regex a b\nanswer name c d\n}");
    assert_eq!(plan.servers[0].rewrites.len(), 1);
    check("template ANY AAAA", "templates, in the order of the file");
    check("template IN", "refused: expected CLASS TYPE");
    check("template CH A", "refused: \"CH\"");
    check("template IN AB", "refused: \"AB\" is not a type");
    for (option, expected) in [
        ("rcode NOERROR", "template above"),
        ("match .*", "template above"),
        ("answer \"{{ .Name }} 60 IN A 10.0.0.1\"", "template above"),
        ("ederror 15 \"not here\"", "template above"),
        ("ederror x", "refused: expected a number"),
        ("ederror 9999 x", "refused: \"9999\" is not an Extended DNS Error"),
        ("match (a", "refused: \"(a\" is not a regular expression"),
        ("rcode NO", "refused: \"NO\" is not a response code"),
        ("answer nonsense", "refused: \"nonsense\" is not a record"),
        ("answer \"{{ .Name | x }}\"", "refused: {{ .Name | x }} is not supported"),
        ("fallthrough", "template above"),
        ("upstream", "built in"),
        ("answer", "refused: no argument"),
        ("expr a", "refused: expressions"),
        ("reply a", "refused: unknown option"),
    ] {
        check_option("template IN A", option, expected);
    }
}

#[test]
fn answers_are_made_of_others() {
    let cluster = "kubernetes cluster.local in-addr.arpa {\nfallthrough in-addr.arpa\n}";
    check(&format!("{cluster}\nautopath @kubernetes"), "walk along the search list of pods");
    check(&format!("{cluster}\nautopath cluster.local /etc/resolv.conf"), "walk along");
    check("autopath @kubernetes", "refused: the search lists of pods begin with the cluster");
    check("autopath", "refused: no argument");
    check("autopath @etcd", "refused: \"@etcd\" has no search list");
    check("autopath a..b @kubernetes", "refused: \"a..b\" is not a zone");
    let plan = planned(&format!("{cluster}\nautopath a.b file\nautopath cluster.local f"));
    let autopath = plan.servers[0].autopath.as_ref().unwrap();
    assert_eq!(autopath.file.as_deref(), Some("f"), "the last line counts");
    check("dns64", "translation to 64:ff9b::/96");
    check("dns64 64:1337::/96", "translation to 64:1337::/96");
    for prefix in ["64:ff9b::/95", "64:ff9b::1/96", "10.0.0.0/32", "64:ff9b::", "x"] {
        check(&format!("dns64 {prefix}"), &format!("refused: {prefix:?} is not allowed"));
    }
    check("dns64 64:ff9b::/96 x", "refused: \"x\" is too much");
    check_option("dns64", "allow_ipv4", "built in");
    check_option("dns64", "prefix", "refused: no argument");
    check_option("dns64", "mode x", "refused: unknown option");
    let plan = planned("dns64 {\nprefix 64:1337::/96\ntranslate_all\n}");
    let expected = Dns64 { prefix: "64:1337::/96".to_owned(), translate_all: true };
    assert_eq!(plan.servers[0].dns64, Some(expected));
}

#[test]
fn external_addresses_are_zones_of_kubedns() {
    let cluster = "kubernetes cluster.local\n";
    let check = |lines: &str, expected: &str| check(&format!("{cluster}{lines}"), expected);
    check("k8s_external a.example", "kubedns --external-domain=a.example dnscache --server=/a.ex");
    check("k8s_external", "refused: external addresses have names in forward zones");
    check("k8s_external 10.in-addr.arpa", "refused: external addresses have names in forward");
    check("k8s_external a.cluster.local", "refused: one of cluster.local and a.cluster.local");
    check("k8s_external a..b", "refused: \"a..b\" is not a zone");
    for (option, expected) in [
        ("apex ns", "kubedns --external-apex=ns"),
        ("apex a.b", "refused: \"a.b\" is not allowed"),
        ("ttl 60", "kubedns --external-ttl=60"),
        ("ttl 3601", "refused: \"3601\" is not allowed"),
        ("headless", "kubedns --external-headless"),
        ("headless x", "refused: \"x\" is too much"),
        ("transfer", "refused: unknown option"),
    ] {
        check(&format!("k8s_external a.example {{\n{option}\n}}"), expected);
    }
    self::check("k8s_external a.example", "refused: k8s_external needs kubernetes");
}

#[test]
fn zones_in_etcd_are_zones_of_kubedns() {
    check("etcd skydns.local", "kubedns --etcd-zone=skydns.local kubedns --etcd=http://localhost:");
    check("etcd skydns.local", "dnscache --server=/skydns.local/127.0.0.1#10053");
    check("etcd", "refused: etcd cannot have all names");
    check("etcd a..b", "refused: \"a..b\" is not a zone");
    check("etcd a.b\netcd c.d", "built in: the first line of etcd counts");
    for (option, expected) in [
        ("path /dns", "kubedns --etcd-prefix=/dns"),
        ("endpoint http://a:1 b:2", "kubedns --etcd=http://a:1 kubedns --etcd=http://b:2"),
        ("endpoint", "refused: no argument"),
        ("credentials a b", "kubedns --etcd-user=a kubedns --etcd-password=b"),
        ("credentials a", "refused: expected two arguments"),
        ("tls", "built in: the certificates of the system"),
        ("tls ca", "kubedns --etcd-cacert=ca"),
        ("tls cert key", "kubedns --etcd-cert=cert kubedns --etcd-key=key"),
        ("tls cert key ca", "kubedns --etcd-key=key kubedns --etcd-cacert=ca"),
        ("tls a b c d", "refused: too many files"),
        ("min-lease-ttl 5m", "kubedns --etcd-min-lease-ttl=300"),
        ("max-lease-ttl 60", "kubedns --etcd-max-lease-ttl=60"),
        ("max-lease-ttl 25h", "refused: \"90000\" is not allowed"),
        ("stubzones", "refused: zones are not delegated"),
        ("upstream", "built in"),
        ("debug", "built in"),
        ("ttl 5", "refused: unknown option"),
    ] {
        check(&format!("etcd skydns.local {{\n{option}\n}}"), expected);
    }
}

#[test]
fn zone_files_are_rules() {
    check("file db.example a.example b.example", "zone file db.example for a.example b.example");
    check("root /srv\nfile db", "zone file /srv/db for .");
    check("file", "refused: no argument");
    check("file db a..b", "refused: \"a..b\" is not a zone");
    for (option, expected) in [
        ("reload 30s", "built in: the file is watched"),
        ("reload soon", "refused: \"soon\" is not a duration"),
        ("reload_by_mtime", "built in"),
        ("fallthrough", "a rule of the zone file"),
        ("upstream 10.0.0.1", "built in"),
        ("ttl 5", "refused: unknown option"),
    ] {
        check_option("file db a.example", option, expected);
    }
    let plan = planned("file db a.example {\nreload 0\nfallthrough b.a.example\n}");
    let file = &plan.servers[0].files[0];
    assert!(file.is_fixed && file.fallthrough == [Zone::parse("b.a.example").unwrap()]);
    // kubernetes is asked before a file.
    let cluster = "kubernetes cluster.local in-addr.arpa {\nfallthrough in-addr.arpa\n}";
    let last = |lines: &str, expected: &str| {
        let plan = planned(&format!("{lines}\n{cluster}"));
        let said = format!("{:?}", plan.rows[1]);
        assert!(said.contains(expected), "{lines}: {said}");
    };
    last("file db a.cluster.local", "names of cluster.local are answered by kubernetes");
    last("file db local", "names of cluster.local are answered by kubernetes");
    last("file db 10.in-addr.arpa", "kubernetes is asked before the file");
    last("file db a.example", "refused: []");
}

#[test]
fn lifetimes_are_limits() {
    check("cache 30", "dnscache --max-ttl=30 dnscache --negative-ttl=30");
    check("cache", "dnscache --max-ttl=3600 dnscache --negative-ttl=1800");
    check("cache 0", "refused: \"0\" is not allowed");
    check("cache 30 a..b", "refused: \"a..b\" is not a zone");
    check("cache 30 a.example", "dnscache --zone-ttl=/a.example/30,30");
    for (option, expected) in [
        ("success 10000", "dnscache --cache-size=19984"),
        ("success 10000 60", "dnscache --cache-size=19984 dnscache --max-ttl=60"),
        ("denial 9984 5 0", "dnscache --cache-size=19968 dnscache --negative-ttl=5"),
        ("success", "refused: expected CAPACITY"),
        ("success x", "refused: \"x\""),
        ("prefetch 10 1m 20%", "built in"),
        ("prefetch 10 1m 20", "refused: expected a percentage"),
        ("prefetch 10 1m 95%", "refused: \"95\""),
        ("serve_stale", "--serve-stale=3600 dnscache --stale-after=0 dnscache --stale-ttl=0"),
        ("serve_stale immediate", "dnscache --serve-stale=3600 dnscache --stale-after=0 "),
        ("serve_stale 2h immediate 5s", "--stale-after=0 dnscache --stale-ttl=5"),
        ("serve_stale 2h immediate 5s 1m", "dnscache --stale-ttl=5"),
        ("serve_stale 2h verify", "dnscache --serve-stale=7200 dnscache --stale-ttl=0"),
        ("serve_stale verify 100ms 30s 0s", "dnscache --stale-after=0.1 dnscache --stale-ttl=30"),
        ("serve_stale 2h verify 1s 5s 1s 1s", "refused: \"1s\" is too much"),
        ("serve_stale verify 1m", "refused: the timeout is too long; expected at most 30s"),
        ("serve_stale immediate 2h", "refused: the TTL is too long; expected at most 1h"),
        ("serve_stale 2h 1h", "refused: \"1h\" is not allowed; expected immediate or verify"),
        ("serve_stale\nserve_stale_policy prefer_positive", "dnscache --stale-over-denials"),
        ("serve_stale\nserve_stale_policy any", "refused: \"any\" is not allowed"),
        ("serve_stale_policy prefer_positive", "refused: expected serve_stale beside it"),
        ("serve_stale later", "refused: \"later\""),
        ("servfail 0", "built in"),
        ("servfail 10m", "refused: \"10m\""),
        ("keepttl", "dnscache --keep-ttl"),
        ("keepttl 5", "refused: "),
        ("disable denial", "dnscache --negative-ttl=0"),
        ("disable success", "refused: names of . are cached"),
        ("disable both", "refused: \"both\""),
        ("ttl 5", "refused: unknown option \"ttl\""),
    ] {
        check_option("cache 30", option, expected);
    }
    let blocks = |first: &str, second: &str| {
        let text = "cache {\nFIRST\n}\n}\na.example {\ncache {\nSECOND\n}";
        said(planned(&text.replace("FIRST", first).replace("SECOND", second)).rows.last().unwrap())
    };
    assert!(blocks("serve_stale", "serve_stale 1h").contains("dnscache --serve-stale=3600"));
    assert!(blocks("serve_stale", "serve_stale 2h").contains("refused: all zones serve expired"));
    assert!(blocks("success 5", "keepttl").contains("refused: write it in each block"));
    assert!(blocks("keepttl", "keepttl").contains("dnscache --keep-ttl"));
    let both = "kubernetes cluster.local\ncache 30 {\ndisable success cluster.local\n}";
    check(both, "built in: kubedns reports what changes");
}
