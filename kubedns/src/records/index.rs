//! Who holds a key: a persistent multimap from small keys to holders' numbers.
//!
//! Core. Lookups do not allocate: the numbers of one key stand under dense places 0, 1, 2, so
//! reading them needs exact lookups only. Knows neither addresses nor hosts.

use imbl::OrdMap;

/// A multimap from `K` to numbers of holders.
#[derive(Clone)]
pub(crate) struct Index<K>(OrdMap<(K, u32), u32>);

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self(OrdMap::new())
    }
}

impl<K: Copy + Ord> Index<K> {
    /// The holders of `key`, in no order.
    pub fn of(&self, key: K) -> impl Iterator<Item = u32> + '_ {
        (0..).map_while(move |place| self.0.get(&(key, place)).copied())
    }

    /// Whether anybody holds `key`.
    pub fn holds(&self, key: K) -> bool {
        self.0.contains_key(&(key, 0))
    }

    /// Whether anybody holds a key from `first` to `last`. The one lookup that allocates: a cursor
    /// of some 100 bytes.
    pub fn holds_any(&self, first: K, last: K) -> bool {
        self.0.range((first, 0)..=(last, u32::MAX)).next().is_some()
    }

    /// Each key that anybody holds, once, in order.
    pub fn keys(&self) -> impl Iterator<Item = K> + '_ {
        self.0.keys().filter(|(_, place)| *place == 0).map(|(key, _)| *key)
    }

    /// Adds `holder` to those of `key`, which it must not be among.
    pub fn insert(&mut self, key: K, holder: u32) {
        let place = self.count(key);
        self.0.insert((key, place), holder);
    }

    /// Takes `holder` from those of `key`, which it must be among.
    pub fn remove(&mut self, key: K, holder: u32) {
        let place = self.of(key).position(|number| number == holder);
        let place = place.expect("only what was inserted is removed") as u32;
        let last = self.count(key) - 1;
        let moved = self.0.remove(&(key, last)).expect("places are dense");
        if place != last {
            self.0.insert((key, place), moved);
        }
    }

    /// How many hold `key`, by doubling and halving.
    fn count(&self, key: K) -> u32 {
        let mut above = 1;
        while self.0.contains_key(&(key, above - 1)) {
            above *= 2;
        }
        let mut below = above / 2;
        while above - below > 1 {
            let middle = below + (above - below) / 2;
            if self.0.contains_key(&(key, middle - 1)) {
                below = middle;
            } else {
                above = middle;
            }
        }
        below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_dense() {
        let mut index = Index::default();
        for holder in 0..100 {
            index.insert(7_u32, holder);
            assert_eq!(index.of(7).count(), holder as usize + 1);
        }
        index.insert(9, 3);
        for holder in (0..100).step_by(2) {
            index.remove(7, holder);
        }
        let mut left: Vec<u32> = index.of(7).collect();
        left.sort_unstable();
        assert_eq!(left, (1..100).step_by(2).collect::<Vec<u32>>());
        assert!(index.holds(9) && !index.holds(8));
        assert_eq!(index.keys().collect::<Vec<_>>(), [7, 9]);
        assert!(index.holds_any(8, 9) && !index.holds_any(10, 99) && !index.holds_any(0, 6));
        index.remove(9, 3);
        assert!(!index.holds(9));
    }
}
