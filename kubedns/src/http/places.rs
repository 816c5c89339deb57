//! Who reads `/changes`: some readers in all, a few of one client, and one place that only clients
//! on this machine get, which is where dnscache is.
//!
//! Seam: one lock, held for a look-up.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places of all readers; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One reader's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    client: IpAddr,
}

impl Places {
    /// Returns a place for a reader at `client`; `None` if there is none left for it.
    pub(super) fn take(&self, client: IpAddr) -> Option<Place> {
        let mut taken = self.lock();
        let own = taken.get(&client).copied().unwrap_or_default();
        let max = if client.is_loopback() { READERS_MAX } else { READERS_MAX - 1 };
        if own >= READERS_PER_CLIENT_MAX || taken.values().sum::<usize>() >= max {
            return None;
        }
        taken.insert(client, own + 1);
        Some(Place { places: self.clone(), client })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // No code panics while it holds the lock, and counts would still be right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(own) = taken.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

/// Readers at the same time: dnscache, its neighbours, somebody with curl.
const READERS_MAX: usize = 64;
/// Of these at one address.
const READERS_PER_CLIENT_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_every_place_and_one_is_for_this_machine() {
        let places = Places::default();
        let mut held = Vec::new();
        for client in 1..=9_u8 {
            let client = IpAddr::from([10, 0, 0, client]);
            held.extend((0..20).map_while(|_| places.take(client)));
        }
        assert_eq!(held.len(), READERS_MAX - 1);
        assert!(places.take([10, 0, 0, 10].into()).is_none());
        let local = places.take([127, 0, 0, 1].into());
        assert!(local.is_some() && places.take([127, 0, 0, 1].into()).is_none());
        drop(held);
        let own: Vec<_> = (0..20).map_while(|_| places.take([10, 0, 0, 1].into())).collect();
        assert_eq!(own.len(), READERS_PER_CLIENT_MAX);
        drop((own, local));
        assert!(places.lock().is_empty());
    }
}
