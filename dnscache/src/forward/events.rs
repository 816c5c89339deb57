//! Matches events of the sockets to their queries and judges them.
//!
//! Core. A message that is not proven genuine can only cause its query to be asked once over TCP.

use shared::clock::Moment;
use shared::wire::HEADER_LEN;

use super::act::{Act, Datagram, TryId, Via};
use super::message::{Form, Match, match_reply, write_query};
use super::outcome::{Genuine, Outcome, judge};
use super::queries::Queries;
use super::query::Asking;
use super::table::{Phase, QUERIES_MAX};
use crate::route::Routes;

impl<W> Queries<W> {
    /// Takes in a datagram. Returns whether it ended its query.
    pub fn datagram(
        &mut self,
        via: Via,
        datagram: Datagram<'_>,
        now: Moment,
        routes: &Routes,
    ) -> bool {
        let Some((slot, at)) = self.awaits(via, datagram.bytes) else { return false };
        let matched = self.match_with(slot, at, datagram.bytes);
        if matches!(matched, Match::Stray | Match::OtherCase) {
            if matches!(via, Via::Own { .. }) && !self.is_probe(slot) {
                let lost_case = matched == Match::OtherCase;
                self.drive(slot, now, |asking, turn| asking.on_suspicion(at, lost_case, turn));
            }
            return false;
        }
        let outcome = if datagram.is_cut {
            Outcome::Truncated(None)
        } else {
            self.judge(slot, datagram.bytes, matched, false, routes)
        };
        self.take_reply(slot, at, false, outcome, now);
        !matches!(self.table.get(slot).phase, Phase::Asking(_))
    }

    /// Returns the try that waits for a datagram that arrived `via` a socket.
    fn awaits(&self, via: Via, bytes: &[u8]) -> Option<(u16, usize)> {
        let slot = match via {
            Via::Own { slot, .. } => slot,
            Via::Pool(_) => {
                u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]) % QUERIES_MAX as u16
            }
        };
        if usize::from(slot) >= self.table.len() {
            return None;
        }
        let asking = self.table.get(slot).asking()?;
        let at = match via {
            Via::Own { at, .. } => usize::from(at),
            Via::Pool(server) => asking.tries.iter().position(|one| one.server == server)?,
        };
        asking.awaits_datagram(at).then_some((slot, at))
    }

    fn match_with(&mut self, slot: u16, at: usize, message: &[u8]) -> Match {
        let query = self.table.get(slot);
        let form = query.asking().map_or(Form::default(), |asking| asking.tries[at].form);
        let question_end = HEADER_LEN + query.key.len() - 1;
        write_query(&query.question(), form, &mut self.scratch);
        match_reply(message, &self.scratch, question_end)
    }

    fn judge(
        &mut self,
        slot: u16,
        message: &[u8],
        matched: Match,
        is_stream: bool,
        routes: &Routes,
    ) -> Outcome {
        let query = self.table.get(slot);
        self.scratch.clear();
        self.scratch.extend_from_slice(message);
        if matched != Match::Bare {
            // The case of the letters was chosen here. The owner names that point to it must not
            // show it.
            let end = HEADER_LEN + query.key.len() - 5;
            self.scratch[HEADER_LEN..end].make_ascii_lowercase();
        }
        let genuine = Genuine { message: &self.scratch, matched, is_stream };
        judge(genuine, &query.question(), query.origin.group, routes)
    }

    /// Takes in the outcome of a genuine reply.
    fn take_reply(&mut self, slot: u16, at: usize, is_stream: bool, outcome: Outcome, now: Moment) {
        let Some(index) = self.table.get(slot).asking().map(|asking| asking.tries[at].server)
        else {
            return;
        };
        let is_good = matches!(outcome, Outcome::Answer(_) | Outcome::Truncated(_));
        let server = self.servers.get_mut(index);
        let was_silent = server.is_silent();
        let was_down = server.replied(now);
        let has_recovered = is_good && server.answered() || was_silent || was_down;
        if has_recovered && std::mem::take(&mut server.is_blamed) {
            let blame = self.servers.blame(index);
            self.recovered.push(blame);
        }
        if self.is_probe(slot) {
            self.drive(slot, now, |asking, turn| {
                asking.learn(at, is_stream, turn);
                None
            });
            self.end_probe(slot, now);
        } else {
            self.drive(slot, now, |asking, turn| {
                Some(asking.on_reply(at, is_stream, outcome, turn))
            });
        }
        if was_down {
            self.acts.push(Act::Health { server: index });
            self.sound(index, now);
            self.wake(index, now);
        }
    }

    /// Takes in the outcome of [`Act::Dial`]: a whole message, or `None` if the exchange failed.
    pub fn stream(&mut self, one: TryId, message: Option<&[u8]>, now: Moment, routes: &Routes) {
        let at = usize::from(one.at);
        let Some(slot) = self.table.slot(one.ticket) else { return };
        let awaits =
            |asking: &Asking| asking.awaits_stream(at) && asking.tries[at].server == one.server;
        if !self.table.get(slot).asking().is_some_and(awaits) {
            return;
        }
        let matched = match message {
            Some(message) => self.match_with(slot, at, message),
            None => Match::Stray,
        };
        match (message, matched) {
            (None, _) | (_, Match::Stray) if self.is_probe(slot) => self.overdue(slot, now),
            (None, _) | (_, Match::Stray) => {
                self.drive(slot, now, |asking, turn| Some(asking.on_stream_failed(at, turn)));
            }
            (Some(message), matched) => {
                // A server that changes the case of the letters even over TCP always does.
                self.servers.get_mut(one.server).keeps_case &= matched != Match::OtherCase;
                let matched = if matched == Match::Bare { matched } else { Match::Reply };
                let outcome = self.judge(slot, message, matched, true, routes);
                self.take_reply(slot, at, true, outcome, now);
            }
        }
    }

    /// Notes that no program listens at the other end of a socket. If the server is in this pod,
    /// the kernel's error applies to all queries.
    pub fn unreachable(&mut self, via: Via, now: Moment) {
        match via {
            Via::Own { slot, at } => {
                if self.awaits(via, &[]).is_none() {
                    return;
                }
                if self.is_probe(slot) {
                    self.overdue(slot, now);
                } else {
                    let at = usize::from(at);
                    self.drive(slot, now, |asking, turn| Some(asking.on_unreachable(at, turn)));
                }
            }
            Via::Pool(index) => {
                if self.servers.get_mut(index).is_closed(now) {
                    self.acts.push(Act::Health { server: index });
                }
                for slot in 0..self.table.len() as u16 {
                    self.reset(slot, index, now);
                }
            }
        }
    }

    /// Takes back the queries that the query in `slot` has sent to `server`, whose port is closed.
    fn reset(&mut self, slot: u16, server: u16, now: Moment) {
        let asks = |asking: &Asking| asking.tries.iter().any(|one| one.server == server);
        if !self.table.get(slot).asking().is_some_and(asks) {
            return;
        }
        if self.is_probe(slot) {
            self.end_probe(slot, now);
            return;
        }
        self.drive(slot, now, |asking, turn| {
            asking.on_closed(server);
            Some(asking.next(turn))
        });
    }
}
