//! The next step of one flight: another try, another server, TCP, or giving up.
//!
//! Core. The rules behind [`Flights`]; knows no socket and no clock.

use shared::clock::Moment;
use shared::wire::{ErrorCode, rcode};

use super::flights::{ALL_DOWN, Act, Failure, Flights, NEVER, NO_UPSTREAM, SILENCE};
use super::message::{Form, Reading, read_key, write_query};
use super::table::{Purpose, SPENT, State, Ticket};

impl<W> Flights<W> {
    /// Makes the next try of the flight in `slot`; where there is none to make, waits for what is
    /// under way, or fails.
    pub(super) fn advance(&mut self, slot: u16, now: Moment, acts: &mut Vec<Act>) {
        let flight = self.table.get_mut(slot);
        let deadline = flight.deadline;
        let may_send = flight.sends < SENDS_MAX && now < deadline;
        let tries = |at: usize| {
            let tries = flight.tries[at];
            (may_send && tries < TRIES_MAX).then_some(tries)
        };
        if let Some(at) = self.servers.choose(&flight.candidates, tries) {
            flight.plain = false;
            return self.send(slot, at, now, acts);
        }
        let all_down = self.servers.all_down(&flight.candidates);
        let waits = matches!(flight.state, State::Reply { .. }) && !all_down;
        if now < deadline && (waits || flight.stream.is_some()) {
            if !waits {
                flight.state = State::Stream;
            }
            self.arm(slot, deadline);
            return;
        }
        let failure = match flight.failure {
            Some(failure) => failure,
            None if flight.candidates.is_empty() => NO_UPSTREAM,
            None if all_down => ALL_DOWN,
            None => SILENCE,
        };
        self.fail(slot, failure, acts);
    }

    /// Sends the flight's question to candidate `at`.
    pub(super) fn send(&mut self, slot: u16, at: usize, now: Moment, acts: &mut Vec<Act>) {
        let flight = self.table.get_mut(slot);
        let index = flight.candidates[at];
        let server = self.servers.get_mut(index);
        let local = server.is_local();
        let edns = !flight.plain && server.reads_edns(now);
        let mut form = Form { id: flight.id, edns, upper_case: 0 };
        if !local {
            form.id = (self.draw)() as u16;
            form.upper_case =
                if server.keeps_case && !flight.other_case { (self.draw)() } else { 0 };
        }
        write_query(&read_key(&flight.key), form, &mut flight.query);
        let patience = server.patience() * (1 << flight.tries[at].min(TRIES_MAX));
        server.sent(now);
        flight.sends += 1;
        flight.tries[at] += 1;
        flight.state = State::Reply { at: at as u8, sent: now, silent: false };
        if std::mem::replace(&mut flight.own_socket, !local) && local {
            acts.push(Act::Close { slot });
        }
        acts.push(Act::Send {
            ticket: Ticket { slot, generation: flight.generation },
            server: index,
        });
        let due = (now + patience).min(flight.deadline);
        self.arm(slot, due);
    }

    /// Goes on with a genuine reply of candidate `at`; yields the slot where it is the answer.
    pub(super) fn read(
        &mut self,
        slot: u16,
        at: usize,
        reading: Reading,
        now: Moment,
        acts: &mut Vec<Act>,
    ) -> Option<u16> {
        let flight = self.table.get_mut(slot);
        if flight.purpose == Purpose::Probe {
            self.land(slot, acts, |_| {});
            return None;
        }
        let failure = match reading {
            Reading::Answer => {
                let server = self.servers.get_mut(flight.candidates[at]);
                server.keeps_case &= !flight.other_case;
                if flight.plain {
                    server.answered_plain(now);
                }
                return Some(slot);
            }
            Reading::Truncated => {
                self.dial(slot, at, acts);
                return None;
            }
            Reading::NotUnderstood if !flight.plain && flight.sends < SENDS_MAX => {
                flight.plain = true;
                self.send(slot, at, now, acts);
                return None;
            }
            Reading::Failed(failure) => failure,
            _ => NOT_UNDERSTOOD,
        };
        flight.tries[at] = SPENT;
        flight.failure = Some(failure);
        flight.refusals += 1;
        flight.state = State::Ready;
        if flight.refusals >= REFUSALS_MAX {
            self.fail(slot, failure, acts);
        } else {
            self.advance(slot, now, acts);
        }
        None
    }

    /// An odd datagram came to a flight's own socket: forgers may be at work. It is asked over TCP
    /// once, where they cannot interfere; the true reply may still come. The server is not to
    /// blame.
    ///
    /// Where only the case of the letters was odd, further tries do without.
    pub(super) fn suspect(&mut self, slot: u16, at: usize, other_case: bool, acts: &mut Vec<Act>) {
        let flight = self.table.get_mut(slot);
        flight.other_case |= other_case;
        if flight.suspected || flight.stream.is_some() || flight.purpose == Purpose::Probe {
            return;
        }
        flight.suspected = true;
        flight.stream = Some(at as u8);
        let (server, deadline) = (flight.candidates[at], flight.deadline);
        acts.push(Act::Dial { ticket: self.table.ticket(slot), server, deadline });
    }

    /// Goes over to TCP with candidate `at`.
    fn dial(&mut self, slot: u16, at: usize, acts: &mut Vec<Act>) {
        let flight = self.table.get_mut(slot);
        flight.state = State::Stream;
        if std::mem::take(&mut flight.own_socket) {
            acts.push(Act::Close { slot });
        }
        let (server, deadline) = (flight.candidates[at], flight.deadline);
        if flight.stream.is_none() {
            flight.stream = Some(at as u8);
            acts.push(Act::Dial { ticket: self.table.ticket(slot), server, deadline });
        }
        self.arm(slot, deadline);
    }

    /// The time of the flight in `slot` has come.
    pub(super) fn overdue(&mut self, slot: u16, now: Moment, acts: &mut Vec<Act>) {
        let flight = self.table.get_mut(slot);
        if let State::Reply { at, silent, .. } = &mut flight.state
            && !std::mem::replace(silent, true)
        {
            self.servers.get_mut(flight.candidates[usize::from(*at)]).was_silent(now);
        }
        if flight.purpose == Purpose::Probe {
            self.land(slot, acts, |_| {});
        } else {
            self.advance(slot, now, acts);
        }
    }

    /// The try under way in `slot` cannot succeed.
    pub(super) fn give_up_try(&mut self, slot: u16, now: Moment, acts: &mut Vec<Act>) {
        let flight = self.table.get_mut(slot);
        if flight.purpose == Purpose::Probe {
            self.land(slot, acts, |_| {});
        } else {
            flight.state = State::Ready;
            self.advance(slot, now, acts);
        }
    }

    /// Sets when `slot` is due.
    pub(super) fn arm(&mut self, slot: u16, due: Moment) {
        let slot = usize::from(slot);
        if slot >= self.due.len() {
            self.due.resize(slot + 1, NEVER);
        }
        self.due[slot] = due;
        self.due_next = self.due_next.min(due);
    }
}

/// Tries of one server over UDP (RFC 9520 section 3.1).
const TRIES_MAX: u8 = 3;
/// Tries in all.
const SENDS_MAX: u8 = 6;
/// Servers that may answer with a failure before we believe it.
const REFUSALS_MAX: u8 = 2;
const NOT_UNDERSTOOD: Failure = Failure {
    rcode: rcode::SERVFAIL,
    reason: ErrorCode::Other,
    text: "upstream cannot read the query",
};
