//! A sequence that grows while others read it: every reader sees all of it, from the start.
//!
//! One side pushes items and ends the sequence with a result; any number of [`Tail`]s read at their own pace,
//! also after the end. Nothing waits for a slow reader, and what it has not read yet is kept for it: whoever
//! pushes bounds the sequence.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

struct State<T, R> {
    items: Vec<T>,
    end: Option<R>,
}

/// The side that pushes. Cheap to clone; clones are one sequence.
pub struct Broadcast<T, R>(Arc<Shared<T, R>>);

struct Shared<T, R> {
    state: Mutex<State<T, R>>,
    /// Told of every change.
    changes: watch::Sender<()>,
    /// How many read or wait for the end.
    readers: watch::Sender<usize>,
}

impl<T, R> Clone for Broadcast<T, R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T, R> fmt::Debug for Broadcast<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("Broadcast")
            .field("items", &state.items.len())
            .field("ended", &state.end.is_some())
            .field("readers", &*self.0.readers.borrow())
            .finish()
    }
}

impl<T: Clone, R: Clone> Broadcast<T, R> {
    /// A sequence and its first reader.
    #[must_use]
    pub fn new() -> (Self, Tail<T, R>) {
        let broadcast = Self(Arc::new(Shared {
            state: Mutex::new(State {
                items: Vec::new(),
                end: None,
            }),
            changes: watch::Sender::new(()),
            readers: watch::Sender::new(0),
        }));
        let tail = broadcast.subscribe();
        (broadcast, tail)
    }

    /// Adds an item; none is added after the end.
    pub fn push(&self, item: T) {
        let mut state = self.0.state.lock();
        if state.end.is_none() {
            state.items.push(item);
            drop(state);
            self.0.changes.send_replace(());
        }
    }

    /// Ends the sequence. Only the first end counts.
    pub fn end(&self, result: R) {
        let mut state = self.0.state.lock();
        if state.end.is_none() {
            state.end = Some(result);
            drop(state);
            self.0.changes.send_replace(());
        }
    }

    /// One more reader, from the first item on.
    #[must_use]
    pub fn subscribe(&self) -> Tail<T, R> {
        Tail {
            attendance: self.attend(),
            changes: self.0.changes.subscribe(),
            at: 0,
        }
    }

    /// Counts as a reader without reading.
    #[must_use]
    pub fn attend(&self) -> Attendance<T, R> {
        self.0.readers.send_modify(|readers| *readers += 1);
        Attendance(self.clone())
    }

    /// Whether both are one sequence.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Waits until nobody has read for so long without a break.
    pub async fn deserted(&self, patience: Duration) {
        let mut readers = self.0.readers.subscribe();
        // Errors say that the sender is gone; it lives as long as `self`.
        loop {
            let _ = readers.wait_for(|readers| *readers == 0).await;
            let back = readers.wait_for(|readers| *readers > 0);
            if tokio::time::timeout(patience, back).await.is_err() {
                return;
            }
        }
    }
}

/// Somebody who waits for the end of a sequence, for as long as this lives.
pub struct Attendance<T, R>(Broadcast<T, R>);

impl<T, R> Drop for Attendance<T, R> {
    fn drop(&mut self) {
        self.0.0.readers.send_modify(|readers| *readers -= 1);
    }
}

impl<T, R> fmt::Debug for Attendance<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attendance")
    }
}

/// A reader.
pub struct Tail<T, R> {
    attendance: Attendance<T, R>,
    changes: watch::Receiver<()>,
    at: usize,
}

impl<T: Clone, R: Clone> Tail<T, R> {
    /// The next item; `None` at the end.
    pub async fn next(&mut self) -> Option<T> {
        self.ready().await;
        let item = self.state().lock().items.get(self.at).cloned();
        self.at += usize::from(item.is_some());
        item
    }

    /// Waits until there is a next item or the end is there; whether there is an item.
    pub async fn ready(&mut self) -> bool {
        loop {
            self.changes.mark_unchanged();
            {
                let state = self.state().lock();
                if state.items.len() > self.at {
                    return true;
                }
                if state.end.is_some() {
                    return false;
                }
            }
            // An error says that the sender is gone; this reader keeps it.
            let _ = self.changes.changed().await;
        }
    }

    /// The result, once the sequence has ended, whatever of it was read.
    #[must_use]
    pub fn result(&self) -> Option<R> {
        self.state().lock().end.clone()
    }

    fn state(&self) -> &Mutex<State<T, R>> {
        &self.attendance.0.0.state
    }
}

impl<T, R> fmt::Debug for Tail<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_readers_see_all_items_whenever_they_come() {
        let (broadcast, mut first) = Broadcast::<u32, &str>::new();
        let early = tokio::spawn({
            let mut tail = broadcast.subscribe();
            async move {
                let mut seen = Vec::new();
                while let Some(item) = tail.next().await {
                    seen.push(item);
                }
                (seen, tail.result())
            }
        });
        for i in 0..100 {
            broadcast.push(i);
            if i % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(first.result(), None);
        broadcast.end("done");
        broadcast.end("again");
        broadcast.push(100);
        let all: Vec<_> = (0..100).collect();
        assert_eq!(early.await.unwrap(), (all.clone(), Some("done")));
        let mut late = broadcast.subscribe();
        for expected in all {
            assert_eq!(first.next().await, Some(expected));
            assert_eq!(late.next().await, Some(expected));
        }
        assert_eq!(late.next().await, None);
        assert!(!late.ready().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sequence_is_deserted_once_nobody_came_back_in_time() {
        let (broadcast, first) = Broadcast::<u32, ()>::new();
        let patience = Duration::from_secs(60);
        let deserted = tokio::spawn({
            let broadcast = broadcast.clone();
            async move { broadcast.deserted(patience).await }
        });
        let rest = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        rest(600).await;
        assert!(!deserted.is_finished(), "somebody reads");
        drop(first);
        rest(59).await;
        let second = broadcast.attend();
        rest(600).await;
        assert!(!deserted.is_finished(), "somebody came back");
        drop(second);
        rest(59).await;
        assert!(!deserted.is_finished());
        rest(2).await;
        assert!(deserted.is_finished());
    }
}
