//! How many endpoints and ports a query looks at. It is counted in tests, which check the bound.

/// Counts one look in tests; elsewhere it is an empty function.
#[cfg(not(test))]
#[inline(always)]
pub fn count() {}

#[cfg(test)]
pub use counted::{count, take};

#[cfg(test)]
mod counted {
    use std::cell::Cell;

    thread_local! {
        static LOOKS: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts one look.
    pub fn count() {
        LOOKS.with(|looks| looks.set(looks.get() + 1));
    }

    /// Returns how many looks there were on this thread since the last call.
    pub fn take() -> usize {
        LOOKS.take()
    }
}
