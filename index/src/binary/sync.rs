//! What threads share: atomics, a lock, and pointers that are swapped.
//!
//! Under `--cfg shuttle` they are those of a scheduler that chooses who goes on at each of them; see
//! `tests/shuttle.rs`. It has no pointer that is swapped without a lock: there a lock stands for it,
//! which has the same outcomes, as loading and storing are one step each.

#[cfg(not(shuttle))]
pub(super) use arc_swap::{ArcSwap, Guard};
#[cfg(not(shuttle))]
pub(super) use parking_lot::Mutex;
#[cfg(shuttle)]
pub(super) use shuttle::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(shuttle))]
pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(shuttle)]
pub(super) use self::stand_in::{ArcSwap, Guard, Mutex};

#[cfg(shuttle)]
mod stand_in {
    use std::sync::{Arc, PoisonError};

    use shuttle::sync::MutexGuard;

    pub(in super::super) type Guard<T> = T;

    #[derive(Debug)]
    pub(in super::super) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in super::super) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(in super::super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    #[derive(Debug)]
    pub(in super::super) struct ArcSwap<T>(Mutex<Arc<T>>);

    impl<T> ArcSwap<T> {
        pub(in super::super) fn new(value: Arc<T>) -> Self {
            Self(Mutex::new(value))
        }

        pub(in super::super) fn from_pointee(value: T) -> Self {
            Self::new(Arc::new(value))
        }

        pub(in super::super) fn load(&self) -> Guard<Arc<T>> {
            Arc::clone(&self.0.lock())
        }

        pub(in super::super) fn load_full(&self) -> Arc<T> {
            self.load()
        }

        pub(in super::super) fn store(&self, value: Arc<T>) {
            // Dropped once the lock is free: it may hold others.
            let _old = std::mem::replace(&mut *self.0.lock(), value);
        }
    }
}
