//! Work that is repeated within one request, done once.
//!
//! A [`RequestScope`] keeps what was loaded while one request is served, in memory and as it is: no
//! serializer, no expiry. [`scope`] opens one around a future; within it [`get_or_set`] and
//! [`get_or_try_set`] find it without being told, and [`spawn`] gives it on to tasks. All tasks of a
//! request share its loads: one runs, the others wait for it and are given its result, an error too.
//!
//! Always true: values of one request are never seen by another; a scope ends with the future that it
//! was opened around and frees what it holds, also when that future is dropped half-way or a task that
//! outlives it still has a handle; without a scope, or after its end, a call is a plain call.
//!
//! Left to others: what is kept beyond a request ([`crate::typed`]). The two go together: a load here
//! may be a [`Cache::get_or_set`](crate::Cache::get_or_set).
//!
//! ```
//! use askonce::scoped;
//! use askonce::typed::Key;
//!
//! async fn permissions(user: u64) -> Vec<String> {
//!     let load = || async { vec!["read".to_owned()] };
//!     scoped::get_or_set(&Key::new("permissions").part(user), load).await
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! scoped::scope(async {
//!     permissions(7).await;
//!     permissions(7).await; // Not loaded again.
//! })
//! .await;
//! # }
//! ```

#[cfg(feature = "tower")]
mod service;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::stampede::SingleFlight;
use crate::typed::Key;

#[cfg(feature = "tower")]
pub use service::{ScopeFuture, ScopeLayer, ScopeService};

tokio::task_local! {
    static CURRENT: Entered;
}

/// A value of some type.
type Held = Arc<dyn Any + Send + Sync>;

/// Where a value lies: values of two types under one key do not meet.
type Slot = (TypeId, Key);

/// What has been loaded while one request is served; see the [module](self).
///
/// Cheap to clone. All clones are the same scope.
#[derive(Clone)]
pub struct RequestScope {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Callers share a load if nothing was forgotten between them.
    loads: SingleFlight<(Slot, u64), Landed>,
}

struct State {
    values: HashMap<Slot, Held>,
    /// How often something was forgotten.
    epoch: u64,
    ended: bool,
}

/// What a load hands to those who wait.
#[derive(Clone)]
enum Landed {
    Value(Held),
    Failed(Held),
}

impl fmt::Debug for RequestScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("RequestScope")
            .field("values", &state.values.len())
            .field("ended", &state.ended)
            .finish_non_exhaustive()
    }
}

/// A scope as a task sees it.
struct Entered {
    scope: RequestScope,
    /// Whether the scope ends with this task's stay in it.
    owned: bool,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.owned {
            self.scope.end();
        }
    }
}

/// Runs `request` in a scope of its own, which ends with it.
///
/// A scope within a scope is another one; the outer is found again when the inner has ended.
pub async fn scope<F: Future>(request: F) -> F::Output {
    let entered = Entered {
        scope: RequestScope::new(),
        owned: true,
    };
    CURRENT.scope(entered, request).await
}

/// What `loader` gives, kept until the end of the request. Without a scope, `loader` just runs.
///
/// A loader must not ask for its own key: it would wait for itself.
pub async fn get_or_set<T, F, Fut>(key: &Key, loader: F) -> T
where
    T: Clone + Send + Sync + 'static,
    F: FnOnce() -> Fut,
    Fut: Future<Output = T>,
{
    match RequestScope::current() {
        Some(scope) => scope.get_or_set(key, loader).await,
        None => loader().await,
    }
}

/// As [`get_or_set`], for a loader that may fail.
///
/// # Errors
/// Only what `loader` returns. It is given to everybody who waits for this load, and not kept.
pub async fn get_or_try_set<T, E, F, Fut>(key: &Key, loader: F) -> Result<T, E>
where
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    match RequestScope::current() {
        Some(scope) => scope.get_or_try_set(key, loader).await,
        None => loader().await,
    }
}

/// Spawns a task that belongs to the request, if there is one. The scope does not wait for it.
///
/// # Panics
/// As [`tokio::spawn`], outside a tokio runtime.
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    match RequestScope::current() {
        Some(scope) => tokio::spawn(async move { scope.enter(task).await }),
        None => tokio::spawn(task),
    }
}

impl Default for RequestScope {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestScope {
    /// A scope that is held by hand, and ends when its last handle goes or at [`end`](Self::end).
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            values: HashMap::new(),
            epoch: 0,
            ended: false,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                loads: SingleFlight::default(),
            }),
        }
    }

    /// The scope of the request that this task serves.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|entered| entered.scope.clone()).ok()
    }

    /// Runs `future` in this scope, as one of several.
    pub async fn enter<F: Future>(&self, future: F) -> F::Output {
        let entered = Entered {
            scope: self.clone(),
            owned: false,
        };
        CURRENT.scope(entered, future).await
    }

    /// Frees what is held. From now on a call with this scope is a plain call.
    pub fn end(&self) {
        let values = {
            let mut state = self.shared.state.lock();
            state.ended = true;
            std::mem::take(&mut state.values)
        };
        // Values run code of their own when they go: not under the lock.
        drop(values);
    }

    /// Drops what is held under `key`, of whatever type. A load that is under way is not kept.
    pub fn forget(&self, key: &Key) {
        let mut gone = Vec::new();
        let mut state = self.shared.state.lock();
        state.epoch += 1;
        state.values.retain(|(_, held), value| {
            let keep = held != key;
            if !keep {
                gone.push(Arc::clone(value));
            }
            keep
        });
        drop(state);
    }

    /// As the [function](get_or_set) of this name, in this scope.
    pub async fn get_or_set<T, F, Fut>(&self, key: &Key, loader: F) -> T
    where
        T: Clone + Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = T>,
    {
        let loaded = self
            .get_or_try_set(key, || async { Ok::<T, Infallible>(loader().await) })
            .await;
        match loaded {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// As the [function](get_or_try_set) of this name, in this scope.
    ///
    /// # Errors
    /// Only what `loader` returns.
    pub async fn get_or_try_set<T, E, F, Fut>(&self, key: &Key, loader: F) -> Result<T, E>
    where
        T: Clone + Send + Sync + 'static,
        E: Clone + Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let slot = (TypeId::of::<T>(), key.clone());
        let mut loader = Some(loader);
        loop {
            let epoch = match self.look::<T>(&slot) {
                Look::Found(value) => return Ok(value),
                Look::Nothing { epoch } => Some(epoch),
                Look::Ended => None,
            };
            let mut own = None;
            let lead = async {
                // Between this caller's look and its turn another load may have landed.
                if let Look::Found(value) = self.look::<T>(&slot) {
                    own = Some(Ok(value.clone()));
                    return Landed::Value(Arc::new(value));
                }
                let Some(loader) = loader.take() else {
                    unreachable!("a caller that has led has a result of its own")
                };
                let loaded = loader().await;
                let landed = match &loaded {
                    Ok(value) => {
                        let held: Held = Arc::new(value.clone());
                        if let Some(epoch) = epoch {
                            self.keep(&slot, epoch, &held);
                        }
                        Landed::Value(held)
                    }
                    Err(error) => Landed::Failed(Arc::new(error.clone())),
                };
                own = Some(loaded);
                landed
            };
            let landed = match epoch {
                Some(epoch) => {
                    let id = (slot.clone(), epoch);
                    self.shared.loads.run_in_place(id, lead).await.0
                }
                None => lead.await,
            };
            if let Some(own) = own {
                return own;
            }
            match landed {
                Landed::Value(held) => {
                    if let Some(value) = held.downcast_ref::<T>() {
                        return Ok(value.clone());
                    }
                }
                // An error of another type is of no use here; the next turn is this caller's.
                Landed::Failed(held) => {
                    if let Some(error) = held.downcast_ref::<E>() {
                        return Err(error.clone());
                    }
                }
            }
        }
    }

    fn look<T: Clone + 'static>(&self, slot: &Slot) -> Look<T> {
        let held = {
            let state = self.shared.state.lock();
            if state.ended {
                return Look::Ended;
            }
            match state.values.get(slot) {
                Some(held) => Arc::clone(held),
                None => return Look::Nothing { epoch: state.epoch },
            }
        };
        match held.downcast_ref::<T>() {
            Some(value) => Look::Found(value.clone()),
            None => unreachable!("a slot says the type of its value"),
        }
    }

    fn keep(&self, slot: &Slot, epoch: u64, held: &Held) {
        let mut state = self.shared.state.lock();
        if !state.ended && state.epoch == epoch {
            state.values.insert(slot.clone(), Arc::clone(held));
        }
    }
}

/// What a scope has in a slot.
enum Look<T> {
    Found(T),
    Nothing { epoch: u64 },
    Ended,
}
