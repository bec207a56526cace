//! Loads of several entities, made one.
//!
//! Each entity has a load of its own, so that it is shared with others who ask for it and gives way to a
//! write. Each of them, when it comes to its loader, puts its id here and waits; when all have, or have
//! no need to, the source is asked once. Some may be waiting for the load of somebody else, who may in
//! turn be waiting for one of these: so the source is asked after a moment in any case, and again for
//! those who come later.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{self, Either};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::{CacheEntity, Source};

/// How long those who are ready wait for those who are not.
const MOMENT: Duration = Duration::from_millis(1);

/// What an id becomes.
type Loaded<E, X> = Result<Option<E>, X>;

/// An id, and who waits for its entity.
type Wanted<'a, E, X> = (&'a <E as CacheEntity>::Id, oneshot::Sender<Loaded<E, X>>);

pub(super) struct Batch<'a, E: CacheEntity, S: Source<E>> {
    source: &'a S,
    wanted: Mutex<Vec<Wanted<'a, E, S::Error>>>,
    asked: Notify,
    /// Loads that have not ended.
    running: Mutex<usize>,
}

impl<'a, E: CacheEntity, S: Source<E>> Batch<'a, E, S> {
    pub(super) fn new(source: &'a S, loads: usize) -> Self {
        Self {
            source,
            wanted: Mutex::new(Vec::new()),
            asked: Notify::new(),
            running: Mutex::new(loads),
        }
    }

    /// The entity, when the source is next asked.
    pub(super) async fn load(&self, id: &'a E::Id) -> Loaded<E, S::Error> {
        let (sender, receiver) = oneshot::channel();
        self.wanted.lock().push((id, sender));
        self.asked.notify_one();
        match receiver.await {
            Ok(loaded) => loaded,
            // The source gave fewer than it was asked for.
            Err(_) => self.source.load(id).await,
        }
    }

    /// `load`, counted when it ends.
    pub(super) async fn account<T>(&self, load: impl Future<Output = T>) -> T {
        let loaded = load.await;
        *self.running.lock() -= 1;
        loaded
    }

    /// The results of `loads`, in order.
    pub(super) async fn run<L: Future>(&self, loads: impl Iterator<Item = L>) -> Vec<L::Output> {
        let loads = pin!(future::join_all(loads));
        let ask = pin!(self.ask());
        match future::select(loads, ask).await {
            Either::Left((loaded, _)) => loaded,
            Either::Right((never, _)) => match never {},
        }
    }

    /// Asks the source for what is wanted, again and again.
    async fn ask(&self) -> std::convert::Infallible {
        loop {
            self.asked.notified().await;
            if self.wanted.lock().len() < *self.running.lock() {
                tokio::time::sleep(MOMENT).await;
            }
            let wanted = std::mem::take(&mut *self.wanted.lock());
            let (ids, waiting): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
            match (self.source.load_many(&ids).await, ids.len()) {
                (_, 0) => {}
                (Ok(loaded), _) => {
                    for (waiting, loaded) in waiting.into_iter().zip(loaded) {
                        // One that has gone away needs nothing.
                        let _ = waiting.send(Ok(loaded));
                    }
                }
                (Err(error), _) => {
                    for waiting in waiting {
                        let _ = waiting.send(Err(error.clone()));
                    }
                }
            }
        }
    }
}
