//! The subcommand `ask`: what a lookup in a pod costs, step by step, and where each answer is from.
//!
//! Edge. Asks the server what a resolver would ask it, and the pages of both programs for reasons.
//!
//! ```text
//! options, resolv.conf ─▶ walk ─▶ name ─▶ dnscache's /explain, DNS, kubedns's /explain ─▶ text
//!                         core            edge
//! ```

mod walk;

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use hickory_proto::rr::RecordType;
use serde_json::Value;

use crate::check::gather::dns::ask_all;
use crate::check::gather::{pod_spec, read};
use crate::check::plan::once;
use crate::check::resolv::Resolv;
use crate::check::talk::{Over, Question, Talk, bare};
use crate::check::{Access, server};
use crate::config::counted;
use crate::web::Origin;
use walk::{Libc, Outcome};

/// Looks a name up as a pod does: walks the search list as glibc and musl do, and prints each step
/// with its answers, their source (cache, kubedns or upstream), their time, and the reason that
/// kubedns gives. Exits with 0 if glibc finds an address, else with 1.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "ask")]
pub struct Options {
    /// Name as the program in the pod has it; with a final dot there is no search list
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Namespace of the pod, alone or with the name of the pod; dnsPolicy and dnsConfig of the Pod
    /// are used if the API server shows it [default: the search list of --resolv-file]
    #[arg(long, value_name = "NAMESPACE[/POD]")]
    pub from: Option<String>,

    /// DNS server, IP or IP:PORT [default: that of --resolv-file, with --from 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", value_parser = server)]
    pub server: Option<SocketAddr>,

    /// Cluster domain
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    pub domain: String,

    /// Dots from which on a name is tried as it is before the search list, 0 to 15, for --from
    #[arg(long, value_name = "DOTS", default_value_t = 5,
          value_parser = clap::value_parser!(u8).range(0..=15))]
    pub ndots: u8,

    /// Domain at the end of the search list, as nodes have them (repeatable), for --from
    /// [default: none]
    #[arg(long, value_name = "NAME")]
    pub search: Vec<String>,

    /// HTTP address of dnscache
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9153")]
    pub dnscache: SocketAddr,

    /// HTTP address of kubedns
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081")]
    pub kubedns: SocketAddr,

    /// The API server.
    #[command(flatten)]
    pub access: Access,

    /// Settings of the resolver of this pod or machine
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub resolv_file: PathBuf,

    /// Time for each answer in seconds, 1 to 30
    #[arg(long, value_name = "SECONDS", value_parser = shared::flags::seconds(1, 30),
          default_value = "5")]
    pub timeout: Duration,
}

/// Asks if the arguments of this process begin with `ask`; `None` if they do not.
pub fn from_arguments() -> Option<ExitCode> {
    let options: Options = shared::flags::subcommand("healthz", "ask")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = match runtime {
        Ok(runtime) => runtime.block_on(run(&options)),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    Some(match asked {
        Ok((text, is_found)) => {
            // The reader may have closed the pipe; the exit code is the result all the same.
            drop(std::io::stdout().write_all(text.as_bytes()));
            if is_found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    })
}

/// Walks, and returns the text and whether glibc found an address. Fails with one line if there is
/// no server or no search list.
pub async fn run(options: &Options) -> Result<(String, bool), String> {
    let (resolv, assumed) = resolv(options).await?;
    let server = options.server.or_else(|| resolv.nameservers.first().copied());
    let server = server.ok_or("no server is given (--server), and resolv.conf names none")?;
    let mut steps: Vec<Step> = Vec::new();
    let mut text = format!(
        "{} {}at {server}, ndots {}, search {}\n",
        options.name,
        options.from.as_ref().map_or_else(String::new, |from| format!("from {from} ")),
        resolv.ndots,
        if resolv.search.is_empty() { "nothing".to_owned() } else { resolv.search.join(" ") },
    );
    if let Some(reason) = assumed {
        writeln!(text, "dnsPolicy ClusterFirst is assumed: {reason}").expect(TAKES_ALL);
    }
    let mut is_found = false;
    let mut ends = String::new();
    for libc in Libc::ALL {
        let mut count = 0;
        let mut last = None;
        for name in libc.walk(&resolv, &options.name) {
            let known = steps.iter().position(|step| step.name == name);
            let at = match known {
                Some(at) => at,
                None => {
                    let step = Step::ask(options, server, &name).await;
                    text += &step.text(steps.len() + 1);
                    steps.push(step);
                    steps.len() - 1
                }
            };
            count += 1;
            last = Some(at);
            if libc.stops(steps[at].outcome()) {
                break;
            }
        }
        let Some(step) = last.map(|at| &steps[at]) else { continue };
        let outcome = step.outcome();
        is_found |= libc == Libc::Glibc && outcome == Outcome::Found;
        let end = match outcome {
            Outcome::Found => step.addresses().join(", "),
            Outcome::Denied => "the name does not exist".to_owned(),
            Outcome::Empty => format!("{} has no address (NODATA)", bare(&step.name)),
            Outcome::Failed => format!("{} gets SERVFAIL", bare(&step.name)),
            Outcome::Lost => format!("{} gets no answer", bare(&step.name)),
        };
        let walked = counted(count, "step");
        writeln!(ends, "{}: {end}, after {walked} and {} queries", libc.name(), 2 * count)
            .expect(TAKES_ALL);
    }
    Ok((text + &ends, is_found))
}

/// Returns the settings of the pod's resolver, and why those of its Pod are not used, if they are
/// not.
async fn resolv(options: &Options) -> Result<(Resolv, Option<String>), String> {
    let own = read(&options.resolv_file).map(|text| Resolv::read(&text));
    let Some(from) = &options.from else { return Ok((own?, None)) };
    let (namespace, pod) = match from.split_once('/') {
        Some((namespace, pod)) => (namespace, Some(pod)),
        None => (&**from, None),
    };
    let Options { domain, ndots, search, .. } = options;
    // What the kubelet writes for the dnsPolicy ClusterFirst.
    let cluster = Resolv::read(&format!(
        "nameserver 127.0.0.1\nsearch {namespace}.svc.{domain} svc.{domain} {domain} {}\n\
         options ndots:{ndots}\n",
        search.join(" ")
    ));
    let Some(pod) = pod else { return Ok((cluster, None)) };
    Ok(match pod_spec(&options.access, (namespace, pod), options.timeout).await {
        // The pod of the DNS has the file of its node.
        Ok(spec) => (Resolv::of_pod(&spec, cluster, own.unwrap_or(Resolv::read(""))), None),
        Err(reason) => (cluster, Some(reason)),
    })
}

/// One name of the walk.
struct Step {
    name: String,
    /// A and AAAA, each with its source.
    talks: Vec<(Talk, String)>,
    /// What kubedns explains, one line each.
    reasons: Vec<String>,
}

impl Step {
    async fn ask(options: &Options, server: SocketAddr, name: &str) -> Self {
        let mut talks = Vec::new();
        for rtype in [RecordType::A, RecordType::AAAA] {
            let question = Question::new(name, rtype);
            let source = source(options, &question).await;
            let ask = once(question, Over::Udp);
            let asked = ask_all(server, vec![ask], options.timeout).await;
            talks.extend(asked.talks.into_iter().map(|talk| (talk, source.clone())));
        }
        Self { name: name.to_owned(), talks, reasons: reasons(options, name).await }
    }

    fn outcome(&self) -> Outcome {
        let of = |rtype: RecordType| {
            let talk = self.talks.iter().find(|(talk, _)| talk.question.rtype == rtype);
            let answer = talk.and_then(|(talk, _)| talk.result.as_ref().ok());
            Outcome::of(answer.map(|answer| (answer.rcode, !answer.data(rtype).is_empty())))
        };
        Outcome::of_both(of(RecordType::A), of(RecordType::AAAA))
    }

    fn addresses(&self) -> Vec<String> {
        let answers = self.talks.iter().filter_map(|(talk, _)| talk.result.as_ref().ok());
        answers.flat_map(|answer| answer.addresses()).map(|address| address.to_string()).collect()
    }

    fn text(&self, number: usize) -> String {
        let mut text = format!("\n{number}. {}\n", bare(&self.name));
        for (Talk { question, took, result, .. }, source) in &self.talks {
            let said = match result {
                Ok(answer) if !answer.addresses().is_empty() => {
                    let all = answer.addresses();
                    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                }
                Ok(answer) if answer.rcode == 0 => "NODATA".to_owned(),
                Ok(answer) => answer.status(),
                Err(silence) => silence.to_string(),
            };
            let millis = took.as_secs_f64() * 1e3;
            let said: String = said.chars().filter(|c| !c.is_control()).collect();
            writeln!(text, "   {:4} {said}, {millis:.1} ms, {source}", question.rtype.to_string())
                .expect(TAKES_ALL);
        }
        for reason in &self.reasons {
            writeln!(text, "        {reason}").expect(TAKES_ALL);
        }
        text
    }
}

/// Where the answer will come from, before it is asked for.
async fn source(options: &Options, question: &Question) -> String {
    let path = format!("/explain?name={}&type={}", question.name, question.rtype);
    let page = Origin::plain(options.dnscache).get(&path, options.timeout).await;
    let page = page.ok().and_then(|page| serde_json::from_str::<Value>(&page.body).ok());
    let Some(page) = page else { return "source not known: dnscache has no page".to_owned() };
    let entry = page["cache"].as_array().into_iter().flatten().find(|it| it["dnssec"] == false);
    if let Some(entry) = entry {
        let left = entry["remaining_seconds"].as_i64().unwrap_or(0);
        return match entry["stale"] == true {
            true => format!("stale in the cache for {} s, asked again", -left),
            false => format!("from the cache, {left} s left"),
        };
    }
    let route = &page["route"];
    match (route["pod"] == true, route["servers"].as_array(), route["local"].as_str()) {
        (true, ..) => "from kubedns".to_owned(),
        (_, Some(servers), _) => {
            let servers: Vec<&str> = servers.iter().filter_map(Value::as_str).collect();
            format!("from upstream {}", servers.join(" or "))
        }
        (_, _, Some(zone)) => format!("from dnscache itself (zone {zone})"),
        _ => "source not known".to_owned(),
    }
}

/// What kubedns explains about a name of its zone; nothing about others.
async fn reasons(options: &Options, name: &str) -> Vec<String> {
    let path = format!("/explain?name={name}&type=A&format=json");
    let page = Origin::plain(options.kubedns).get(&path, options.timeout).await;
    let page = page.ok().and_then(|page| serde_json::from_str::<Value>(&page.body).ok());
    let Some(page) = page.filter(|page| page["status"] != "REFUSED") else { return Vec::new() };
    let records = page["records"].as_array().into_iter().flatten();
    let record =
        |it: &Value| Some(format!("{} from {}", it["record"].as_str()?, it["object"].as_str()?));
    let reason = page["reason"].as_str().map(|reason| format!("kubedns: {reason}"));
    reason.into_iter().chain(records.filter_map(record).take(RECORDS_MAX)).collect()
}

const TAKES_ALL: &str = "a String takes all text";
/// Records of a step that are explained.
const RECORDS_MAX: usize = 4;
