//! Examples: commands with the answers that the running pod gave to exactly these questions.

use std::fmt;
use std::net::IpAddr;

use hickory_proto::rr::{DNSClass, RData, RecordType};

use crate::ask;
use crate::flags::{self, Flags};
use crate::objects::Service;
use crate::ports::Ports;

/// A command and what it answers.
#[derive(Debug)]
pub struct Example {
    command: String,
    answer: Vec<String>,
}

impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}", self.command)?;
        for line in self.answer.iter().take(ANSWER_LINES) {
            write!(f, "\n      {line}")?;
        }
        match self.answer.len().saturating_sub(ANSWER_LINES) {
            0 => Ok(()),
            more => write!(f, "\n      and {more} more"),
        }
    }
}

/// Returns six commands: an address, a port, the name of an address, an alias, why the first has
/// this answer, and the pod's health. Each was asked a moment ago. If a question has no answer, it
/// is left out, and the specification's version takes its place.
pub async fn find(ports: &Ports, services: &[Service], domain: &str) -> Vec<Example> {
    let mut examples = Vec::new();
    let mut explained = None;
    for questions in questions(services, domain) {
        let Some((example, address, question)) = first(ports, &questions).await else { continue };
        examples.push(example);
        explained = explained.or(Some(question.clone()));
        if let Some(address) = address
            && let Some(example) = reverse(ports, address).await
        {
            examples.push(example);
        }
    }
    if examples.len() < 4 {
        let version = [(format!("dns-version.{domain}"), RecordType::TXT)];
        examples.extend(first(ports, &version).await.map(|(example, ..)| example));
    }
    if let Some(question) = explained {
        examples.extend(explanation(ports, &question).await);
    }
    if let Ok((status, body)) = ask::http(ports.healthz, "/healthz").await {
        let mut answer = vec![format!("HTTP/1.1 {status}")];
        answer.extend(body.lines().next().map(str::to_owned));
        examples
            .push(Example { command: format!("curl -i http://{}/healthz", ports.healthz), answer });
    }
    examples
}

/// Returns text about what else a user can do with a running pod.
pub fn hints(flags: &Flags, kubedns: Option<u32>) -> String {
    let edit = match flags.objects() {
        Some(path) => {
            let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            format!("\nEdit {} and ask again: answers follow.", flags::seen_from_here(&path))
        }
        None => String::new(),
    };
    let outside = match flags.server.is_empty() {
        true => "\nNames outside the cluster have no upstream: give one with --server ADDR.",
        false => "",
    };
    let kill = kubedns.map_or(String::new(), |id| {
        format!("\nkill {id} ends kubedns: healthz says 503, dnscache answers what it knows.")
    });
    format!("{edit}{outside}{kill}\nCtrl-C ends everything.")
}

type Question = (String, RecordType);

/// Returns groups of questions. One answer of each group is enough.
fn questions(services: &[Service], domain: &str) -> [Vec<Question>; 3] {
    let usual = [Service {
        namespace: "default".to_owned(),
        name: "kubernetes".to_owned(),
        cluster_ip: Some(IpAddr::from([0, 0, 0, 0])),
        port: Some(("https".to_owned(), "tcp".to_owned())),
        ..Service::default()
    }];
    let services = if services.is_empty() { &usual } else { services };
    let mut addresses: Vec<Question> = services
        .iter()
        .filter_map(|service| {
            let is_ipv4 = service.cluster_ip?.is_ipv4();
            let rtype = if is_ipv4 { RecordType::A } else { RecordType::AAAA };
            Some((service.owner_name(domain), rtype))
        })
        .collect();
    addresses.sort_by_key(|(_, rtype)| *rtype != RecordType::A); // the better known type first
    // Endpoints with names of their own make a better example than one cluster IP.
    let (headless, others): (Vec<&Service>, Vec<_>) =
        services.iter().partition(|service| service.headless);
    let named_ports = headless.into_iter().chain(others).filter_map(|service| {
        let (port, protocol) = service.port.as_ref()?;
        Some((format!("_{port}._{protocol}.{}", service.owner_name(domain)), RecordType::SRV))
    });
    let aliases = services
        .iter()
        .filter(|service| service.external)
        .map(|service| (service.owner_name(domain), RecordType::CNAME));
    [addresses, named_ports.collect(), aliases.collect()]
}

/// Returns the first question that has an answer, and the first address in it.
async fn first<'q>(
    ports: &Ports,
    questions: &'q [Question],
) -> Option<(Example, Option<IpAddr>, &'q Question)> {
    let dns = ports.dns;
    for question in questions.iter().take(QUESTIONS_MAX) {
        let (name, rtype) = question;
        let answer = ask::dns(dns, name, DNSClass::IN, *rtype).await.unwrap_or_default();
        let Some(first) = answer.first() else { continue };
        let address = match first {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        };
        let command = format!("dig @{} -p {} +short {name} {rtype}", dns.ip(), dns.port());
        let answer = answer.iter().map(RData::to_string).collect();
        return Some((Example { command, answer }, address, question));
    }
    None
}

async fn reverse(ports: &Ports, address: IpAddr) -> Option<Example> {
    let name = hickory_proto::rr::Name::from(address).to_string();
    let dns = ports.dns;
    let answer = ask::dns(dns, &name, DNSClass::IN, RecordType::PTR).await.ok()?;
    let answer: Vec<String> = answer.iter().map(RData::to_string).collect();
    let command = format!("dig @{} -p {} +short -x {address}", dns.ip(), dns.port());
    (!answer.is_empty()).then_some(Example { command, answer })
}

/// Returns which object gives the answer.
async fn explanation(ports: &Ports, (name, rtype): &Question) -> Option<Example> {
    let path = format!("/explain?name={name}&type={rtype}");
    let (_, body) = ask::http(ports.kubedns_http, &path).await.ok()?;
    let answer = body.lines().map(|line| line.trim_start().to_owned()).collect();
    Some(Example { command: format!("curl 'http://{}{path}'", ports.kubedns_http), answer })
}

/// The number of lines that are shown of one answer.
const ANSWER_LINES: usize = 4;
/// The number of Services without an answer after which the search stops.
const QUESTIONS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_fit_the_services() {
        let service = |name: &str, change: fn(&mut Service)| {
            let mut service = Service {
                namespace: "shop".to_owned(),
                name: name.to_owned(),
                port: Some(("http".to_owned(), "tcp".to_owned())),
                ..Service::default()
            };
            change(&mut service);
            service
        };
        let services = [
            service("six", |six| six.cluster_ip = "2001:db8::1".parse().ok()),
            service("web", |web| web.cluster_ip = Some(IpAddr::from([10, 0, 0, 7]))),
            service("db", |db| db.headless = true),
            service("mail", |mail| (mail.external, mail.port) = (true, None)),
        ];
        let check = |services: &[Service], expected: [&[&str]; 3]| {
            let found = questions(services, "example.test").map(|group| {
                group.iter().map(|(name, rtype)| format!("{name} {rtype}")).collect::<Vec<_>>()
            });
            assert_eq!(found, expected.map(|group| group.to_vec()));
        };
        check(
            &services,
            [
                &["web.shop.svc.example.test A", "six.shop.svc.example.test AAAA"],
                &[
                    "_http._tcp.db.shop.svc.example.test SRV",
                    "_http._tcp.six.shop.svc.example.test SRV",
                    "_http._tcp.web.shop.svc.example.test SRV",
                ],
                &["mail.shop.svc.example.test CNAME"],
            ],
        );
        check(
            &[],
            [
                &["kubernetes.default.svc.example.test A"],
                &["_https._tcp.kubernetes.default.svc.example.test SRV"],
                &[],
            ],
        );
    }
}
