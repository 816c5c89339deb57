//! Who reads `/changes`: a number of readers in all, a few of one client, and one place that only
//! clients on this machine get, which is where dnscache is.
//!
//! Seam: one lock, held for a look-up.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places of all readers; clones share them.
#[derive(Clone, Debug)]
pub(super) struct Places {
    taken: Arc<Mutex<Taken>>,
    max: usize,
}

#[derive(Debug, Default)]
struct Taken {
    by_client: HashMap<IpAddr, usize>,
    count: usize,
}

/// One reader's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    client: IpAddr,
}

impl Places {
    /// Returns `max` places, none of which is taken.
    pub(super) fn new(max: usize) -> Self {
        Self { taken: Arc::default(), max }
    }

    /// Returns how many places there are.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Returns how many places are taken.
    pub(super) fn count(&self) -> usize {
        self.lock().count
    }

    /// Returns a place for a reader at `client`; `None` if there is none left for it.
    pub(super) fn take(&self, client: IpAddr) -> Option<Place> {
        let mut taken = self.lock();
        let own = taken.by_client.get(&client).copied().unwrap_or_default();
        let max = if client.is_loopback() { self.max } else { self.max - 1 };
        if own >= READERS_PER_CLIENT_MAX || taken.count >= max {
            return None;
        }
        taken.by_client.insert(client, own + 1);
        taken.count += 1;
        Some(Place { places: self.clone(), client })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // No code panics while it holds the lock, and counts would still be right.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.count -= 1;
        if let Some(own) = taken.by_client.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

/// Readers at one address: dnscache while it reconnects, and a person with curl.
const READERS_PER_CLIENT_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_every_place_and_one_is_for_this_machine() {
        const READERS_MAX: usize = 64;
        let places = Places::new(READERS_MAX);
        let mut held = Vec::new();
        for client in 1..=9_u8 {
            let client = IpAddr::from([10, 0, 0, client]);
            held.extend((0..20).map_while(|_| places.take(client)));
        }
        assert_eq!((held.len(), places.count()), (READERS_MAX - 1, READERS_MAX - 1));
        assert!(places.take([10, 0, 0, 10].into()).is_none());
        let local = places.take([127, 0, 0, 1].into());
        assert!(local.is_some() && places.take([127, 0, 0, 1].into()).is_none());
        drop(held);
        let own: Vec<_> = (0..20).map_while(|_| places.take([10, 0, 0, 1].into())).collect();
        assert_eq!(own.len(), READERS_PER_CLIENT_MAX);
        drop((own, local));
        assert!(places.lock().by_client.is_empty());
        assert_eq!(places.count(), 0);
    }
}
