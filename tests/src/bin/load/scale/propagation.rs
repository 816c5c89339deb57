//! The time from a change in the API to the correct answer. Every change is queried until it is
//! seen.
//!
//! Edge. One thread writes, asks and reads replies in turn, and sleeps in between, because the API
//! server needs the same core.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use ::tests::api_server::ApiServer;
use hdrhistogram::Histogram;

use super::Error;
use super::cluster::{Cluster, cluster_ip, is_headless};
use super::process::Process;
use crate::workload::{Message, question};

/// The results of the changes.
#[derive(Debug)]
pub struct Propagation {
    /// Changes written.
    pub written: u64,
    /// How long the writes took.
    pub took: Duration,
    /// Changes never seen at the DNS port.
    pub lost: u64,
    /// Microseconds from just before the write to the correct answer.
    pub latency: Histogram<u64>,
    /// CPU time of the server meanwhile, for changes and for the questions about them.
    pub cpu: Duration,
}

/// A change that has been written but not seen yet.
struct Open {
    index: usize,
    written: Instant,
    rdata: [u8; 6],
    question: Message,
    asked: Option<Instant>,
}

/// Writes `rate` changes per second to `api` for `duration`. It changes the cluster IP of one
/// service and an endpoint of another in turn.
pub fn measure(
    (api, server): (&ApiServer, &Process),
    cluster: Cluster,
    rate: u32,
    duration: Duration,
) -> Result<Propagation, Error> {
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(Error::Ask)?;
    socket.connect(server.dns).map_err(Error::Ask)?;
    socket.set_nonblocking(true).map_err(Error::Ask)?;
    let latency = Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
    let took = Duration::ZERO;
    let mut result = Propagation { written: 0, took, lost: 0, latency, cpu: server.cpu()? };
    let mut open: Vec<Open> = Vec::new();
    let start = Instant::now();
    loop {
        let due = (start.elapsed().min(duration).as_secs_f64() * f64::from(rate)) as u64;
        while result.written < due {
            let number = result.written as usize;
            let index = number % cluster.services;
            if open.iter().any(|open| open.index == index) {
                break; // an older change of the same object would never be seen
            }
            result.written += 1;
            open.push(write(api, cluster, index, number));
            result.took = start.elapsed();
        }
        listen(&socket, &mut open, &mut result);
        let before = open.len();
        open.retain(|open| open.written.elapsed() < LOST_AFTER);
        result.lost += (before - open.len()) as u64;
        if open.is_empty() && start.elapsed() >= duration {
            break;
        }
        ask(&socket, &mut open);
        std::thread::sleep(NAP);
    }
    result.cpu = server.cpu()?.saturating_sub(result.cpu);
    Ok(result)
}

/// Writes change `number`, to service `index`.
fn write(api: &ApiServer, cluster: Cluster, index: usize, number: usize) -> Open {
    let address = if is_headless(index) {
        Ipv4Addr::from(CHANGED_ENDPOINTS + number as u32)
    } else {
        cluster_ip(cluster.services + number)
    };
    let object = match is_headless(index) {
        true => cluster.slices(index, Some(address)).into_iter().next(),
        false => Some(cluster.service(index, address)),
    };
    let question = question(&cluster.name(index), A);
    let written = Instant::now();
    if let Some(object) = object {
        api.apply(object);
    }
    let [a, b, c, d] = address.octets();
    Open { index, written, rdata: [0, 4, a, b, c, d], question, asked: None }
}

/// Asks for every open change that does not have an outstanding question.
fn ask(socket: &UdpSocket, open: &mut [Open]) {
    for open in open {
        if open.asked.is_none_or(|asked| asked.elapsed() > ASK_AGAIN) {
            open.question[..2].copy_from_slice(&(open.index as u16).to_be_bytes());
            // If the kernel does not accept the question, it is asked again.
            drop(socket.send(&open.question));
            open.asked = Some(Instant::now());
        }
    }
}

/// Reads every reply. If it shows the change, the change is closed. Otherwise it is asked for
/// again.
fn listen(socket: &UdpSocket, open: &mut Vec<Open>, result: &mut Propagation) {
    let mut reply = [0; 4_096];
    while let Ok(len) = socket.recv(&mut reply) {
        let reply = &reply[..len];
        let is_asked = |open: &Open| {
            let len = open.question.len();
            reply.len() >= len
                && reply[..2] == open.question[..2]
                && reply[12..len] == open.question[12..]
        };
        let Some(place) = open.iter().position(is_asked) else { continue };
        let question_len = open[place].question.len();
        if reply[question_len..].windows(6).any(|window| window == open[place].rdata) {
            let seen = open.swap_remove(place).written.elapsed();
            result.latency.saturating_record(seen.as_micros() as u64);
        } else {
            open[place].asked = None;
        }
    }
}

/// A change is lost if it is not seen for this long.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// A question without a reply is asked again after this.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// The pause between two checks, which is the precision of the measurement.
const NAP: Duration = Duration::from_micros(100);
/// Addresses of changed endpoints: 11.0.0.0 and up, which no other endpoint has.
const CHANGED_ENDPOINTS: u32 = 11 << 24;
const A: u16 = 1;
