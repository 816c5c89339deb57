//! The names of clients: kubedns is asked for the PTR records of their addresses.
//!
//! Edge. Only servers in the pod are asked, over UDP and once; a name that does not come in time
//! is not shown.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use parking_lot::Mutex;
use shared::clock::{Moment, boot_time};
use shared::config_dir::Server;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::route::{Route, Routes};
use shared::name::parse;

/// The names of clients that were asked for lately.
#[derive(Debug, Default)]
pub(super) struct Pods(Mutex<HashMap<IpAddr, Known>>);

#[derive(Clone, Debug)]
struct Known {
    name: Option<String>,
    until: Moment,
}

impl Pods {
    /// Returns the names of `clients`, as far as they have one.
    pub(super) async fn names(
        &self,
        clients: &[IpAddr],
        routes: &Routes,
    ) -> HashMap<IpAddr, String> {
        let now = boot_time();
        let mut asked: HashMap<SocketAddr, Vec<IpAddr>> = HashMap::new();
        {
            let mut known = self.0.lock();
            known.retain(|_, known| known.until > now);
            let unknown = clients.iter().filter(|client| !known.contains_key(client));
            for &client in unknown.take(CLIENTS_MAX.saturating_sub(known.len())) {
                if let Some(server) = server(client, routes) {
                    asked.entry(server).or_default().push(client);
                }
            }
        }
        for (server, clients) in asked {
            let mut names = HashMap::new();
            // What has come by then is of use, however it ends.
            let asked = timeout(PATIENCE, ask(server, &clients, &mut names)).await;
            if let Ok(Err(error)) = asked {
                tracing::debug!(%server, %error, "cannot ask for the names of clients");
            }
            let mut known = self.0.lock();
            for client in clients {
                let name = names.remove(&client).flatten();
                known.insert(client, Known { name, until: now + KEPT });
            }
        }
        let known = self.0.lock();
        let name = |client| known.get(client).and_then(|known| known.name.clone());
        clients.iter().filter_map(|client| Some((*client, name(client)?))).collect()
    }
}

/// Returns the server in the pod that can have a name for `client`.
fn server(client: IpAddr, routes: &Routes) -> Option<SocketAddr> {
    let name = parse(&Name::from(client).to_string())?;
    let Route::Group(group) = routes.route(&name) else { return None };
    let group = &routes.groups()[group];
    group.servers.iter().filter(|_| group.owned).find_map(|server| match server {
        Server::Address(address) => Some(*address),
        Server::Endpoint(endpoint) => Some(endpoint.address),
        Server::Name { .. } => None,
    })
}

/// Asks `server` for the names of `clients`. Adds each answer to `names` when it arrives.
async fn ask(
    server: SocketAddr,
    clients: &[IpAddr],
    names: &mut HashMap<IpAddr, Option<String>>,
) -> std::io::Result<()> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => [0; 4].into(),
        SocketAddr::V6(_) => [0; 16].into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let first: u16 = rand::random();
    for (at, &client) in clients.iter().enumerate() {
        let id = first.wrapping_add(at as u16);
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from(client), RecordType::PTR));
        let message = message.to_vec().map_err(std::io::Error::other)?;
        socket.send(&message).await?;
    }
    let mut buffer = [0; shared::wire::UDP_SIZE_MAX];
    while names.len() < clients.len() {
        let len = socket.recv(&mut buffer).await?;
        let Ok(reply) = Message::from_vec(&buffer[..len]) else { continue };
        let at = usize::from(reply.metadata.id.wrapping_sub(first));
        let Some(&client) = clients.get(at) else { continue };
        let is_ours = reply.queries.iter().any(|query| *query.name() == Name::from(client));
        if !is_ours {
            continue;
        }
        let name = reply.answers.iter().find_map(|record| match &record.data {
            RData::PTR(name) => Some(name.0.to_string()),
            _ => None,
        });
        names.insert(client, name);
    }
    Ok(())
}

/// How long the names of a list may take, from each server.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long a name, or its absence, is kept.
const KEPT: Duration = Duration::from_secs(30);
/// Clients whose names are kept.
const CLIENTS_MAX: usize = 512;
