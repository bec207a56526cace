//! One backend made of two: a near tier of copies over a far tier that is right.
//!
//! The rules are those of [`TieredBackend`]; [`Shared`] keeps them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::coherence::{Coherence, Relay, SuspectReason};
use super::message::News;
use super::near::NearCopy;
use super::recovery::{Debt, Target};
use super::shared::{Change, Shared, WideChange, is_refusal};
use crate::backend::{
    BackendHandle, BackendUsage, CacheBackend, Capability, Condition, Cursor, FeedHandle, Glob,
    KeyPage, ServerFacts, StoredValue, TierConfig, Write,
};
use crate::clock::{ClockHandle, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};

/// Builds a [`TieredBackend`].
#[derive(Debug)]
pub struct TieredBackendBuilder {
    near: BackendHandle,
    far: BackendHandle,
    name: Option<String>,
    config: TierConfig,
    clock: ClockHandle,
}

impl TieredBackendBuilder {
    /// The name in metrics and reports. Default: the names of the tiers with a `+` between.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The settings. Default: [`TierConfig::default`].
    #[must_use]
    pub fn config(mut self, config: TierConfig) -> Self {
        self.config = config;
        self
    }

    /// The clock that ends the life of copies. Default: the system clock. The tiers should read the same.
    #[must_use]
    pub fn clock(mut self, clock: ClockHandle) -> Self {
        self.clock = clock;
        self
    }

    /// The backend.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a setting is out of range.
    pub fn build(self) -> Result<TieredBackend> {
        let Self {
            near,
            far,
            name,
            config,
            clock,
        } = self;
        config.validate("tiers")?;
        let name = name.unwrap_or_else(|| format!("{}+{}", near.name(), far.name()));
        Ok(TieredBackend {
            shared: Arc::new(Shared::new(name, near, far, config, clock)),
            tasks: Mutex::default(),
        })
    }
}

/// A near tier of copies over a far tier that is right, as one backend.
///
/// The near tier belongs to this backend: what others write there is not understood. The far tier may be
/// shared, and may itself be a `TieredBackend`.
///
/// | operation | near tier | far tier | others are told |
/// |---|---|---|---|
/// | `get` | asked first | asked when the near tier has nothing or is not trusted | |
/// | `set` | written second | written first | yes |
/// | `delete`, `clear`, `delete_matching` | dropped before and after | decides | yes |
/// | `set_if`, `delete_if`, `take`, `touch`, `increment` | dropped before and after | decides | if something changed |
/// | `scan`, `usage`, `ping` | | asked | |
///
/// # Copies
/// A copy lives as long as its value, and never longer than [`TierConfig::near_ttl`]. A read makes one of
/// what the far tier gave, unless the key was written, deleted or heard of in between. That there is no
/// value is not copied.
///
/// # Without the far tier
/// - A read gives the copy if there is one, and the far tier's error otherwise.
/// - A `set` that the far tier did not take is kept by the near tier alone and is a success; so is one of
///   a value that is too large for it. Such a value is gone after `near_ttl` at the latest; operations that are
///   atomic do not see it.
/// - Everything else is the far tier's error. A failed `delete`, `clear` or `delete_matching` takes effect
///   in this process at once all the same.
/// - Until the far tier has been told what it missed, its values for those keys are not believed. It is
///   told by removing them: the value of a `set` that it missed is not written later, when it may be old.
///
/// # Coherence
/// [`coherence`](Self::coherence) says whether near copies are trusted. The task that sees to it starts with
/// the first operation inside a tokio runtime and ends with the backend.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use askonce::backend::{CacheBackend, MemoryBackend, MemoryConfig};
/// use askonce::tier::TieredBackend;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// # let shared_store = || MemoryBackend::builder(MemoryConfig::default()).build();
/// let near = Arc::new(MemoryBackend::builder(MemoryConfig::default()).build()?);
/// let far = Arc::new(shared_store()?);
/// let tiers = TieredBackend::builder(near, far).build()?;
/// tiers.set(b"key", "value".into(), None).await?;
/// assert_eq!(tiers.get(b"key").await?.unwrap().bytes, "value");
/// # Ok::<_, askonce::Error>(()) }).unwrap();
/// ```
pub struct TieredBackend {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl TieredBackend {
    /// A builder for a backend over these tiers. More than two: the far one is made of the rest.
    #[must_use]
    pub fn builder(near: BackendHandle, far: BackendHandle) -> TieredBackendBuilder {
        TieredBackendBuilder {
            near,
            far,
            name: None,
            config: TierConfig::default(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Whether near copies are trusted.
    #[must_use]
    pub fn coherence(&self) -> Coherence {
        let shared = &self.shared;
        shared.trust.state(shared.clock.now())
    }

    /// Changes that the far tier missed and has not been told yet.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.shared.book.depth()
    }

    /// Tells the far tier now what it missed. A task does it every
    /// [`recovery_interval`](TierConfig::recovery_interval) while something is owed.
    ///
    /// # Errors
    /// What the far tier said to the last attempt.
    pub async fn recover(&self) -> Result<()> {
        self.shared.recover().await
    }

    /// Sees to it that the background tasks are there, if they can be.
    fn start(&self) {
        let shared = &self.shared;
        let reads = shared.feed.is_none() || shared.reading.load(Ordering::Acquire);
        if reads && shared.recovering.load(Ordering::Acquire) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut tasks = self.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        if let Some(life) = TaskLife::begin(shared, false) {
            let task = runtime.spawn(async move { life.shared.recover_forever().await });
            tasks.push(task.abort_handle());
            // What is owed since before.
            shared.far_is_back();
        }
        if let Some(feed) = shared.feed.clone()
            && let Some(life) = TaskLife::begin(shared, true)
        {
            let task = runtime.spawn(async move { life.shared.follow_forever(&feed).await });
            tasks.push(task.abort_handle());
        }
    }

    fn stop(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }

    /// What became of a `set`, after the far tier's answer; and whether others must be told.
    async fn finish_set(
        &self,
        change: &Change<'_>,
        value: Bytes,
        expires: Option<Timestamp>,
        answer: Result<()>,
    ) -> (Result<()>, bool) {
        let shared = &self.shared;
        let copy = |only_here| NearCopy {
            value,
            expires,
            only_here,
        };
        match answer {
            Ok(()) => {
                change.took_effect();
                shared.keep(&change.passage, &copy(false)).await;
                (Ok(()), true)
            }
            Err(error) if error.kind() == ErrorKind::TooLarge => {
                if !shared.hold(change.key(), &copy(true)).await {
                    return (Err(error), false);
                }
                match shared.far.delete(change.key()).await {
                    Ok(_) => change.took_effect(),
                    Err(error) => {
                        shared.report(&shared.far, "delete", &error);
                        change.owe(Debt::Removal);
                    }
                }
                (Ok(()), true)
            }
            Err(error) if is_refusal(&error) => (Err(error), false),
            Err(error) => {
                shared.report(&shared.far, "set", &error);
                // First, so that nobody puts what the far tier holds over the copy.
                change.owe(Debt::Removal);
                if shared.hold(change.key(), &copy(true)).await {
                    shared.degraded("set");
                    (Ok(()), false)
                } else {
                    (Err(error), false)
                }
            }
        }
    }

    /// Drops the copy of a key that is about to be removed; whether it was a value of its own, which the
    /// far tier does not have.
    async fn drop_for_removal(&self, key: &[u8]) -> bool {
        let only_here = self
            .shared
            .look_near(key)
            .await
            .is_some_and(|copy| copy.only_here);
        self.shared.drop_copy(key).await;
        only_here
    }

    /// What became of a `delete`, after the far tier's answer; and whether others must be told.
    async fn finish_delete(
        &self,
        change: &Change<'_>,
        had: Had,
        answer: Result<bool>,
    ) -> (Result<bool>, bool) {
        let shared = &self.shared;
        shared.drop_copy(change.key()).await;
        match answer {
            Ok(held) => {
                change.took_effect();
                (Ok(had.only_here || (held && had.far_believed)), true)
            }
            Err(error) => {
                shared.report(&shared.far, "delete", &error);
                if !is_refusal(&error) {
                    change.owe(Debt::Removal);
                }
                (Err(to_be_repeated(error)), false)
            }
        }
    }

    /// What is known of a key before its removal.
    async fn before_removal(&self, key: &[u8]) -> Had {
        let far_believed = self.shared.book.about(key) != Some(Debt::Removal);
        Had {
            only_here: self.drop_for_removal(key).await,
            far_believed,
        }
    }

    /// An operation of one key that only the far tier can do.
    async fn by_far<T>(
        &self,
        key: &[u8],
        operation: &'static str,
        done: impl Future<Output = Result<T>> + Send,
        changed: impl FnOnce(&T) -> bool + Send,
    ) -> Result<T> {
        self.start();
        let shared = &self.shared;
        // It must not act upon a value that is not to be believed.
        shared.pay_for(key).await.map_err(to_be_repeated)?;
        let change = shared.change(key);
        let _turn = shared.turn(key).await;
        shared.drop_copy(key).await;
        let done = done.await;
        shared.drop_copy(key).await;
        match &done {
            Ok(result) => {
                if changed(result) {
                    change.took_effect();
                    shared.tell(vec![Bytes::copy_from_slice(key)]).await;
                }
            }
            Err(error) => {
                shared.report(&shared.far, operation, error);
                if !is_refusal(error) {
                    change.owe(Debt::News);
                }
            }
        }
        change.settle();
        done
    }

    /// An operation that removes many keys.
    async fn remove_many<T>(
        &self,
        target: Target,
        operation: &'static str,
        done: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.start();
        let shared = &self.shared;
        let until = shared.book.last();
        let change = WideChange::begin(shared, target.clone());
        let _sweep = shared.in_flight.sweep();
        let mut debt = self.drop_many(&target).await;
        let done = done.await;
        debt = debt.max(self.drop_many(&target).await);
        match &done {
            Ok(_) => {
                let news = match target {
                    Target::Matching(pattern) => News::Matching(pattern),
                    Target::Everything | Target::Key(_) => {
                        shared.book.settle_everything(until);
                        News::Everything
                    }
                };
                if shared.say(&news).await.is_err() {
                    debt = debt.max(Some(Debt::News));
                }
            }
            Err(error) => {
                shared.report(&shared.far, operation, error);
                if !is_refusal(error) {
                    debt = Some(Debt::Removal);
                }
            }
        }
        change.settle(debt);
        done.map_err(to_be_repeated)
    }

    /// Drops the copies of many keys; what is owed when the near tier does not.
    async fn drop_many(&self, target: &Target) -> Option<Debt> {
        let dropped = match target {
            Target::Matching(pattern) => self.shared.clear_matching(pattern).await,
            Target::Everything | Target::Key(_) => self.shared.clear_copies().await,
        };
        dropped.err().map(|_| Debt::News)
    }
}

/// What is known of a key before its removal.
#[derive(Clone, Copy)]
struct Had {
    /// The near tier had a value that the far tier does not have.
    only_here: bool,
    /// What the far tier holds counts as a value.
    far_believed: bool,
}

/// Marks the failure of a tier as one that may pass.
fn to_be_repeated(error: Error) -> Error {
    match error.kind() {
        ErrorKind::BackendUnavailable | ErrorKind::Timeout => error.retryable(),
        _ => error,
    }
}

/// A background task, while it lives.
struct TaskLife {
    shared: Arc<Shared>,
    reads: bool,
}

impl TaskLife {
    /// `None` when there is such a task already.
    fn begin(shared: &Arc<Shared>, reads: bool) -> Option<Self> {
        let is_there = Self::alive(shared, reads).swap(true, Ordering::AcqRel);
        (!is_there).then(|| Self {
            shared: Arc::clone(shared),
            reads,
        })
    }

    fn alive(shared: &Shared, reads: bool) -> &AtomicBool {
        if reads {
            &shared.reading
        } else {
            &shared.recovering
        }
    }
}

/// However it ended: by itself, by `close`, or with its runtime.
impl Drop for TaskLife {
    fn drop(&mut self) {
        if self.reads {
            self.shared.doubt(SuspectReason::Stopped);
        }
        Self::alive(&self.shared, self.reads).store(false, Ordering::Release);
    }
}

impl Drop for TieredBackend {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for TieredBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredBackend")
            .field("near", &self.shared.near)
            .field("far", &self.shared.far)
            .field("config", &self.shared.config)
            .field("coherence", &self.coherence())
            .field("owed", &self.owed())
            .finish_non_exhaustive()
    }
}

impl CacheBackend for TieredBackend {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn capability(&self) -> Capability {
        let near = self.shared.near.capability();
        let far = self.shared.far.capability();
        Capability {
            in_process: near.in_process && far.in_process,
            // What the far tier does not take lives in the near one alone.
            max_value_bytes: near
                .max_value_bytes
                .zip(far.max_value_bytes)
                .map(|(near, far)| near.max(far)),
            ..far
        }
    }

    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        self.start();
        let shared = &self.shared;
        match shared.book.about(key) {
            Some(Debt::Removal) => {
                shared.degraded("get");
                return Ok(shared.look_near(key).await.map(NearCopy::into_stored));
            }
            Some(Debt::News) => return shared.ask_far(key).await,
            None => {}
        }
        let copy = shared.look_near(key).await;
        if shared.trust.holds(shared.clock.now())
            && let Some(copy) = copy
        {
            return Ok(Some(copy.into_stored()));
        }
        let passage = shared.in_flight.read(key);
        let found = shared.far.get(key).await;
        shared.refreshed(&passage, copy, found).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Vec<Result<Option<StoredValue>>> {
        self.start();
        let shared = &self.shared;
        let trusted = shared.trust.holds(shared.clock.now());
        let copies = shared.near.get_many(keys).await;
        let mut results: Vec<Result<Option<StoredValue>>> = Vec::with_capacity(keys.len());
        // The far tier is asked for these.
        let mut open = Vec::new();
        let mut copies = copies.into_iter();
        for (place, key) in keys.iter().enumerate() {
            let copy = copies.next().unwrap_or(Ok(None));
            let debt = shared.book.about(key);
            let copy = match debt {
                Some(Debt::News) => None,
                Some(Debt::Removal) | None => shared.usable(copy),
            };
            let believed = debt == Some(Debt::Removal) || trusted;
            match copy {
                Some(copy) if believed => results.push(Ok(Some(copy.into_stored()))),
                copy => {
                    results.push(Ok(None));
                    if debt != Some(Debt::Removal) {
                        let passage = debt.is_none().then(|| shared.in_flight.read(key));
                        open.push((place, passage, copy));
                    }
                }
            }
        }
        if open.is_empty() {
            return results;
        }
        let asked: Vec<Bytes> = open
            .iter()
            .map(|(place, ..)| keys[*place].clone())
            .collect();
        let found = shared.far.get_many(&asked).await;
        for ((place, passage, copy), found) in open.into_iter().zip(found) {
            results[place] = match passage {
                Some(passage) => shared.refreshed(&passage, copy, found).await,
                None => found.map(|held| held.map(super::shared::deeper)),
            };
        }
        results
    }

    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        self.start();
        let shared = &self.shared;
        // If that fails, so does the rest, and says why.
        let _ = shared.pay_wide_for(key).await;
        let change = shared.change(key);
        let _turn = shared.turn(key).await;
        let answer = shared.far.set(key, value.clone(), expires).await;
        let (result, tell) = self.finish_set(&change, value, expires, answer).await;
        if tell {
            shared.tell(vec![Bytes::copy_from_slice(key)]).await;
        }
        change.settle();
        result
    }

    async fn set_many(&self, writes: &[Write]) -> Vec<Result<()>> {
        self.start();
        let shared = &self.shared;
        let mut changes = Vec::with_capacity(writes.len());
        let mut turn = None;
        for Write { key, .. } in writes {
            let _ = shared.pay_wide_for(key).await;
        }
        for Write { key, .. } in writes {
            changes.push(shared.change(key));
            if turn.is_none() {
                turn = shared.turn(key).await;
            }
        }
        let answers = shared.far.set_many(writes).await;
        let mut results = Vec::with_capacity(writes.len());
        let mut news = Vec::new();
        for ((write, change), answer) in writes.iter().zip(&changes).zip(answers) {
            let value = write.value.clone();
            let (result, tell) = self.finish_set(change, value, write.expires, answer).await;
            if tell {
                news.push(write.key.clone());
            }
            results.push(result);
        }
        shared.tell(news).await;
        changes.into_iter().for_each(Change::settle);
        results
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.start();
        let shared = &self.shared;
        let change = shared.change(key);
        let _turn = shared.turn(key).await;
        let had = self.before_removal(key).await;
        let answer = shared.far.delete(key).await;
        let (result, tell) = self.finish_delete(&change, had, answer).await;
        if tell {
            shared.tell(vec![Bytes::copy_from_slice(key)]).await;
        }
        change.settle();
        result
    }

    async fn delete_many(&self, keys: &[Bytes]) -> Vec<Result<bool>> {
        self.start();
        let shared = &self.shared;
        let mut changes = Vec::with_capacity(keys.len());
        let mut turn = None;
        let mut before = Vec::with_capacity(keys.len());
        for key in keys {
            changes.push(shared.change(key));
            if turn.is_none() {
                turn = shared.turn(key).await;
            }
            before.push(self.before_removal(key).await);
        }
        let answers = shared.far.delete_many(keys).await;
        let mut results = Vec::with_capacity(keys.len());
        let mut news = Vec::new();
        for ((change, had), answer) in changes.iter().zip(before).zip(answers) {
            let (result, tell) = self.finish_delete(change, had, answer).await;
            if tell {
                news.push(Bytes::copy_from_slice(change.key()));
            }
            results.push(result);
        }
        shared.tell(news).await;
        changes.into_iter().for_each(Change::settle);
        results
    }

    async fn clear(&self) -> Result<()> {
        self.remove_many(Target::Everything, "clear", self.shared.far.clear())
            .await
    }

    async fn delete_matching(&self, pattern: &Glob) -> Result<u64> {
        let target = Target::Matching(pattern.clone());
        let removed = self.shared.far.delete_matching(pattern);
        self.remove_many(target, "delete_matching", removed).await
    }

    async fn usage(&self) -> Result<BackendUsage> {
        self.start();
        self.shared.far.usage().await
    }

    async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        let done = self.shared.far.set_if(key, value, expires, condition);
        self.by_far(key, "set_if", done, |done| *done).await
    }

    async fn delete_if(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        let done = self.shared.far.delete_if(key, expected);
        self.by_far(key, "delete_if", done, |done| *done).await
    }

    async fn take(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        let done = self.shared.far.take(key);
        let taken = self.by_far(key, "take", done, Option::is_some).await?;
        Ok(taken.map(super::shared::deeper))
    }

    async fn touch(&self, key: &[u8], expires: Option<Timestamp>) -> Result<bool> {
        let done = self.shared.far.touch(key, expires);
        self.by_far(key, "touch", done, |done| *done).await
    }

    async fn increment(&self, key: &[u8], by: i64, expires: Option<Timestamp>) -> Result<i64> {
        let done = self.shared.far.increment(key, by, expires);
        self.by_far(key, "increment", done, |_| true).await
    }

    /// The keys of the far tier. A value that the near tier alone holds is not listed.
    async fn scan(&self, pattern: &Glob, cursor: Cursor, limit: usize) -> Result<KeyPage> {
        self.start();
        let shared = &self.shared;
        let mut page = shared.far.scan(pattern, cursor, limit).await?;
        page.keys
            .retain(|key| shared.book.about(key) != Some(Debt::Removal));
        Ok(page)
    }

    async fn ping(&self) -> Result<()> {
        self.start();
        self.shared.far.ping().await
    }

    /// Those of both tiers.
    async fn servers(&self) -> Result<Vec<ServerFacts>> {
        let mut servers = self.shared.near.servers().await?;
        servers.extend(self.shared.far.servers().await?);
        Ok(servers)
    }

    fn feed(&self) -> Option<FeedHandle> {
        let feed = self.shared.feed.clone()?;
        Some(Arc::new(Relay {
            shared: Arc::clone(&self.shared),
            feed,
        }))
    }

    /// Tells the far tier once more what it missed, ends the tasks and closes both tiers.
    async fn close(&self) {
        // A far tier that does not answer now has been given its chances.
        let _ = self.shared.recover().await;
        self.stop();
        self.shared.near.close().await;
        self.shared.far.close().await;
    }
}
