//! Tracks the connections, and chooses which of them make room for others.
//!
//! Core, called by the one task that accepts. Independent of sockets.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::task::Id;

use super::budget::{Account, Budget, Told};

/// Every open connection, by client.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    per_client_max: usize,
    clients: HashMap<IpAddr, HashMap<Id, Arc<Account>>>,
    /// The client of each connection.
    owners: HashMap<Id, IpAddr>,
}

impl Places {
    /// Returns room for `max` connections, of which one address can have `per_client_max`.
    pub(super) fn new(max: usize, per_client_max: usize) -> Self {
        Self { max, per_client_max, clients: HashMap::new(), owners: HashMap::new() }
    }

    /// Returns how many connections are open.
    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    /// Returns how many more connections there can be.
    pub(super) fn free(&self) -> usize {
        self.max.saturating_sub(self.len())
    }

    /// Returns whether another connection of `client` can be served, and how many others were asked
    /// to leave for it.
    ///
    /// If a client is at its limit, its connection that has been idle for longest must leave. At
    /// the limit of all, several that have been idle for longest must leave. A connection with a
    /// query in flight never does (RFC 7766 section 6.2.3), so the new one is refused if no other
    /// is idle.
    pub(super) fn admit(&self, client: IpAddr) -> (bool, usize) {
        let own = self.clients.get(&client);
        let mut left = 0;
        if let Some(own) = own.filter(|own| own.len() >= self.per_client_max) {
            let Some(told) = evict(own.values(), self.per_client_max, 1) else { return (false, 0) };
            left += told;
        }
        if self.len() >= self.max {
            let some = (self.max / EVICTED_PART).max(1);
            match evict(self.clients.values().flat_map(HashMap::values), self.max, some) {
                Some(told) => left += told,
                None => return (false, left),
            }
        }
        (true, left)
    }

    /// Adds an admitted connection of `client`.
    pub(super) fn insert(&mut self, id: Id, client: IpAddr, account: Arc<Account>) {
        self.owners.insert(id, client);
        self.clients.entry(client).or_default().insert(id, account);
    }

    /// Removes a connection that has ended in any way.
    pub(super) fn remove(&mut self, id: Id) {
        let Some(client) = self.owners.remove(&id) else { return };
        if let Some(own) = self.clients.get_mut(&client) {
            own.remove(&id);
            if own.is_empty() {
                self.clients.remove(&client);
            }
        }
    }

    /// Ends the connections whose clients have let bytes wait for longest, as many as necessary to
    /// free half of `budget`. Returns how many.
    ///
    /// A client that reads, even slowly, empties its buffer from time to time, so those that do not
    /// read are ended first.
    pub(super) fn make_room(&self, budget: &Budget) -> usize {
        let mut excess = budget.excess();
        if excess == 0 {
            return 0;
        }
        let all = self.clients.values().flat_map(HashMap::values);
        let mut holders: Vec<_> = all.filter(|account| account.bytes() > 0).collect();
        holders.sort_unstable_by_key(|account| account.holding_since());
        let mut ended = 0;
        for account in holders {
            let is_new = account.told() < Told::End;
            account.tell(Told::End);
            ended += usize::from(is_new);
            excess = excess.saturating_sub(account.bytes());
            if excess == 0 {
                break;
            }
        }
        ended
    }
}

/// Asks up to `count` of `accounts` to leave, those first that have been idle for longest. Returns
/// how many. If enough were asked before, so that fewer than `max` stay, none is asked. `None` if
/// no connection can leave, or if too many are about to.
fn evict<'a>(
    accounts: impl Iterator<Item = &'a Arc<Account>>,
    max: usize,
    count: usize,
) -> Option<usize> {
    let (mut staying, mut leaving, mut idle) = (0, 0, Vec::new());
    for account in accounts {
        if account.told() == Told::Stay {
            staying += 1;
            idle.extend(account.idle_since().map(|since| (since, account)));
        } else {
            leaving += 1;
        }
    }
    if leaving > (max / 4).max(1) {
        return None;
    }
    if staying < max {
        return Some(0);
    }
    if idle.is_empty() {
        return None;
    }
    let count = count.min(idle.len());
    idle.select_nth_unstable_by_key(count - 1, |&(since, _)| since);
    idle[..count].iter().for_each(|(_, account)| account.tell(Told::Leave));
    Some(count)
}

/// At the limit of all connections, one in this many is asked to leave at once, because the search
/// for idle ones costs time for every connection.
const EVICTED_PART: usize = 100;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::budget::Charge;
    use super::*;
    use crate::clock::Moment;
    use crate::serve::counters::Counters;

    struct World {
        budget: Arc<Budget>,
        places: Places,
        ids: Vec<Id>,
    }

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const TWO: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    impl World {
        fn new(max: usize, per_client_max: usize) -> Self {
            let budget = Budget::new(1_000, Arc::new(Counters::new([])));
            Self { budget, places: Places::new(max, per_client_max), ids: Vec::new() }
        }

        /// Opens a connection that has been idle since that second, or is busy.
        fn open(&mut self, client: IpAddr, idle: Option<u64>) -> Arc<Account> {
            let account = Account::new(Arc::clone(&self.budget), Moment::default());
            account.set_idle(idle.map(|secs| Moment::default() + Duration::from_secs(secs)));
            let id = tokio::spawn(async {}).id();
            self.places.insert(id, client, Arc::clone(&account));
            self.ids.push(id);
            account
        }
    }

    #[tokio::test]
    async fn a_client_at_its_limit_loses_its_longest_idle_connection() {
        let mut world = World::new(100, 3);
        assert_eq!(world.places.admit(ONE), (true, 0));
        let accounts = [Some(5), None, Some(3)].map(|idle| world.open(ONE, idle));
        let other = world.open(TWO, Some(1));
        assert_eq!(world.places.admit(ONE), (true, 1));
        let told = accounts.each_ref().map(|account| account.told());
        assert_eq!(told, [Told::Stay, Told::Stay, Told::Leave]);
        assert_eq!(other.told(), Told::Stay, "it has room");
        assert_eq!(world.places.admit(TWO), (true, 0));
        // The leaving connection is replaced by the new one, which is busy.
        world.open(ONE, None);
        assert_eq!(world.places.admit(ONE), (true, 1));
        assert_eq!(accounts[0].told(), Told::Leave);
        world.open(ONE, None);
        assert_eq!(world.places.admit(ONE), (false, 0), "three have queries in flight");
        for id in world.ids.clone() {
            world.places.remove(id);
            world.places.remove(id);
        }
        assert_eq!((world.places.len(), world.places.clients.len()), (0, 0));
        assert_eq!(world.places.admit(ONE), (true, 0));
    }

    #[tokio::test]
    async fn at_the_limit_of_all_the_longest_idle_go() {
        let mut world = World::new(300, 300);
        let accounts: Vec<_> =
            (0..300).map(|at| world.open(if at < 299 { ONE } else { TWO }, Some(1 + at))).collect();
        assert_eq!(world.places.free(), 0);
        assert_eq!(world.places.admit(TWO), (true, 3), "one in a hundred");
        let left = accounts.iter().filter(|account| account.told() == Told::Leave).count();
        assert_eq!(left, 3);
        assert!(accounts[..3].iter().all(|account| account.told() == Told::Leave));
        assert_eq!(world.places.admit(TWO), (true, 0), "three are about to leave");
        accounts.iter().for_each(|account| account.set_idle(None));
        (0..3).for_each(|_| drop(world.open(TWO, None)));
        assert_eq!(world.places.admit(TWO), (false, 0), "nobody is idle");
    }

    #[tokio::test]
    async fn those_whose_bytes_have_waited_for_longest_make_room() {
        let mut world = World::new(10, 10);
        let mut charges = Vec::new();
        let accounts: Vec<_> = (0..6).map(|_| world.open(ONE, None)).collect();
        let mut hold = |of: usize, bytes, since| {
            let mut charge = Charge::none(&accounts[of]);
            let now = || Moment::default() + Duration::from_secs(since);
            assert!(charge.set(bytes, now));
            charges.push(charge);
        };
        hold(0, 200, 9);
        hold(1, 200, 3);
        hold(2, 50, 5);
        hold(3, 300, 7);
        assert_eq!(world.places.make_room(&world.budget), 0, "750 of 1,000 are allowed");
        hold(4, 1, 1);
        // 251 bytes too many for half of the budget: 1 and 200 and 50 do.
        assert_eq!(world.places.make_room(&world.budget), 3);
        let told: Vec<_> = accounts.iter().map(|account| account.told() == Told::End).collect();
        assert_eq!(told, [false, true, true, false, true, false]);
        assert_eq!(world.places.make_room(&world.budget), 0, "they are on their way");
    }
}
