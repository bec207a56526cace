//! What a stack of two tiers and its background tasks share: the tiers, and the rules by which the near
//! one is changed.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::RngExt as _;
use tokio::sync::{Notify, RwLock, RwLockReadGuard};

use super::coherence::Trust;
use super::in_flight::{InFlight, Passage};
use super::message::{self, News};
use super::metrics;
use super::near::NearCopy;
use super::recovery::{Book, Debt, Owed, Target};
use crate::backend::{BackendHandle, FeedHandle, FeedPosition, Glob, StoredValue, TierConfig};
use crate::clock::{ClockHandle, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::observe;

/// Failures in one round after which the far tier counts as away.
const PATIENCE: usize = 8;

/// See the module documentation.
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) near: BackendHandle,
    pub(super) far: BackendHandle,
    pub(super) feed: Option<FeedHandle>,
    pub(super) config: TierConfig,
    pub(super) clock: ClockHandle,
    pub(super) in_flight: InFlight,
    pub(super) book: Book,
    pub(super) trust: Trust,
    /// How far the feed has been read.
    pub(super) position: Mutex<Option<FeedPosition>>,
    /// Whether the task that reads the feed, and the one that pays what is owed, are there.
    pub(super) reading: AtomicBool,
    pub(super) recovering: AtomicBool,
    origin: u64,
    /// Messages sent.
    said: AtomicU64,
    /// One of them that has not come back, and when it was sent.
    awaited: Mutex<Option<(u64, Timestamp)>>,
    /// Held shared by writes of keys that something is owed to, and alone by the one who pays, so that a
    /// late removal does not take away what was just written.
    turns: RwLock<()>,
    /// Tells the task that pays of a debt, or of a far tier that is back.
    due: Notify,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        name: String,
        near: BackendHandle,
        far: BackendHandle,
        config: TierConfig,
        clock: ClockHandle,
    ) -> Self {
        let feed = far.feed();
        Self {
            name,
            near,
            far,
            in_flight: InFlight::default(),
            book: Book::new(config.recovery_queue),
            trust: Trust::new(feed.is_some(), clock.now(), config.feed_lag),
            feed,
            position: Mutex::default(),
            reading: AtomicBool::new(false),
            recovering: AtomicBool::new(false),
            origin: rand::random(),
            said: AtomicU64::new(0),
            awaited: Mutex::default(),
            turns: RwLock::default(),
            due: Notify::new(),
            config,
            clock,
        }
    }

    pub(super) fn report(&self, tier: &BackendHandle, operation: &'static str, error: &Error) {
        observe::backend_error(tier.name(), operation);
        tracing::warn!(
            tiers = %self.name, tier = tier.name(), operation, kind = %error.kind(), %error,
            "tier failed"
        );
    }

    pub(super) fn degraded(&self, operation: &'static str) {
        metrics::degraded(&self.name, operation);
    }

    // The near tier.

    /// The live copy of `key`. A near tier that fails has none.
    pub(super) async fn look_near(&self, key: &[u8]) -> Option<NearCopy> {
        let found = self.near.get(key).await;
        self.usable(found)
    }

    /// The live copy in what the near tier said.
    pub(super) fn usable(&self, found: Result<Option<StoredValue>>) -> Option<NearCopy> {
        let found = found
            .inspect_err(|error| self.report(&self.near, "get", error))
            .ok()??;
        let copy = NearCopy::open(&found.bytes)?;
        let now = self.clock.now();
        copy.expires
            .is_none_or(|expires| now < expires)
            .then_some(copy)
    }

    /// Makes a copy, unless something happened to the key beside this operation. After a disturbed write
    /// there is no copy; a disturbed read leaves what there is.
    pub(super) async fn keep(&self, passage: &Passage<'_>, copy: &NearCopy) {
        let _gate = self.in_flight.gate(passage.key()).await;
        if passage.is_undisturbed() {
            self.put(passage.key(), copy).await;
        } else if passage.writes() {
            self.erase(passage.key()).await;
        }
    }

    /// Makes the only copy there is; `false` when the near tier does not take it.
    pub(super) async fn hold(&self, key: &[u8], copy: &NearCopy) -> bool {
        let _gate = self.in_flight.gate(key).await;
        self.put(key, copy).await
    }

    /// Drops a copy that the far tier does not confirm, unless something happened to the key meanwhile.
    pub(super) async fn drop_unconfirmed(&self, passage: &Passage<'_>) {
        let _gate = self.in_flight.gate(passage.key()).await;
        if passage.is_undisturbed() {
            self.erase(passage.key()).await;
        }
    }

    pub(super) async fn drop_copy(&self, key: &[u8]) {
        let _gate = self.in_flight.gate(key).await;
        self.erase(key).await;
    }

    /// The key's gate must be held.
    async fn put(&self, key: &[u8], copy: &NearCopy) -> bool {
        let cap = self.clock.now().after(self.near_life());
        let expires = copy.expires.map_or(cap, |expires| expires.min(cap));
        let Err(error) = self.near.set(key, copy.seal(), Some(expires)).await else {
            return true;
        };
        if error.kind() != ErrorKind::TooLarge {
            self.report(&self.near, "set", &error);
        }
        // What it held before is older.
        self.erase(key).await;
        false
    }

    /// The key's gate must be held.
    async fn erase(&self, key: &[u8]) {
        if let Err(error) = self.near.delete(key).await {
            self.report(&self.near, "delete", &error);
            self.owe(Target::Key(Bytes::copy_from_slice(key)), Debt::News);
        }
    }

    /// How long the next copy may live.
    fn near_life(&self) -> Duration {
        let longest = self.config.near_ttl;
        let jitter = self.config.near_ttl_jitter;
        if jitter == 0.0 {
            return longest;
        }
        longest.mul_f64(1.0 - rand::rng().random_range(0.0..jitter))
    }

    /// Drops every copy.
    pub(super) async fn clear_copies(&self) -> Result<()> {
        let _sweep = self.in_flight.sweep();
        let _gates = self.in_flight.every_gate().await;
        self.near
            .clear()
            .await
            .inspect_err(|error| self.report(&self.near, "clear", error))
    }

    /// Drops the copies of keys that match.
    pub(super) async fn clear_matching(&self, pattern: &Glob) -> Result<()> {
        if !self.near.capability().lists_keys {
            return self.clear_copies().await;
        }
        let _sweep = self.in_flight.sweep();
        let _gates = self.in_flight.every_gate().await;
        self.near
            .delete_matching(pattern)
            .await
            .map(drop)
            .inspect_err(|error| self.report(&self.near, "delete_matching", error))
    }

    // The others.

    /// Sends a message; its number.
    pub(super) async fn say(&self, news: &News) -> Result<u64> {
        let Some(feed) = &self.feed else {
            return Ok(0);
        };
        let number = self.said.fetch_add(1, Ordering::Relaxed) + 1;
        {
            let now = self.clock.now();
            let mut awaited = self.awaited.lock();
            // One at a time is measured; one that never came back makes way.
            if awaited.is_none_or(|(_, sent)| now.since(sent) > self.config.feed_lag) {
                *awaited = Some((number, now));
            }
        }
        feed.append(message::encode(self.origin, number, news))
            .await
            .map(|()| number)
            .inspect_err(|error| self.report(&self.far, "append", error))
    }

    /// Acts on a message; the number of a marker of our own.
    pub(super) async fn hear(&self, bytes: &Bytes) -> Result<Option<u64>> {
        let message = message::decode(bytes);
        if message.origin == Some(self.origin) {
            self.came_back(message.number);
            let is_marker = matches!(message.news, News::Marker);
            return Ok(is_marker.then_some(message.number));
        }
        metrics::message(&self.name, message.news.as_str());
        match message.news {
            News::Keys(keys) => {
                for key in keys {
                    self.in_flight.moved(&key);
                    let _gate = self.in_flight.gate(&key).await;
                    self.near
                        .delete(&key)
                        .await
                        .inspect_err(|error| self.report(&self.near, "delete", error))?;
                }
            }
            News::Matching(pattern) => self.clear_matching(&pattern).await?,
            News::Everything => self.clear_copies().await?,
            News::Marker => {}
        }
        Ok(None)
    }

    fn came_back(&self, number: u64) {
        let mut awaited = self.awaited.lock();
        if let Some((asked, sent)) = *awaited
            && asked <= number
        {
            if asked == number {
                metrics::lag(&self.name, self.clock.now().since(sent));
            }
            *awaited = None;
        }
    }

    // The far tier.

    /// What the far tier holds, one step further away than it says.
    pub(super) async fn ask_far(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        let found = self.far.get(key).await;
        Ok(found
            .inspect_err(|error| self.report(&self.far, "get", error))?
            .map(deeper))
    }

    /// What a read of the far tier comes to, with the copy that there was before it.
    pub(super) async fn refreshed(
        &self,
        passage: &Passage<'_>,
        copy: Option<NearCopy>,
        found: Result<Option<StoredValue>>,
    ) -> Result<Option<StoredValue>> {
        match (found, copy) {
            (Ok(Some(held)), _) => {
                let copy = NearCopy {
                    value: held.bytes.clone(),
                    expires: held.expires,
                    only_here: false,
                };
                self.keep(passage, &copy).await;
                Ok(Some(deeper(held)))
            }
            (Ok(None), Some(copy)) if copy.only_here => Ok(Some(copy.into_stored())),
            (Ok(None), Some(_)) => {
                self.drop_unconfirmed(passage).await;
                Ok(None)
            }
            (Ok(None), None) => Ok(None),
            (Err(error), copy) => {
                self.report(&self.far, "get", &error);
                match copy {
                    Some(copy) => {
                        self.degraded("get");
                        Ok(Some(copy.into_stored()))
                    }
                    None => Err(error),
                }
            }
        }
    }

    // What is owed to it.

    pub(super) fn owe(&self, target: Target, debt: Debt) {
        if self.book.owe(target, debt, self.clock.now()) {
            metrics::overflow(&self.name);
            tracing::warn!(
                tiers = %self.name,
                limit = self.config.recovery_queue,
                "the far tier missed too many changes: it will be cleared when it is back"
            );
        }
        self.show_debts();
        self.due.notify_one();
    }

    pub(super) fn far_is_back(&self) {
        self.due.notify_one();
    }

    fn show_debts(&self) {
        let now = self.clock.now();
        let age = self.book.oldest().map(|since| now.since(since));
        metrics::owed(&self.name, self.book.depth(), age.unwrap_or_default());
    }

    /// The right to write `key` before anybody pays what is owed to it.
    pub(super) async fn turn(&self, key: &[u8]) -> Option<RwLockReadGuard<'_, ()>> {
        match self.book.about(key) {
            Some(_) => Some(self.turns.read().await),
            None => None,
        }
    }

    /// Pays one debt, or as much of it as is possible.
    async fn pay(&self, owed: &Owed) -> Result<()> {
        let _turn = self.turns.write().await;
        if !self.book.is_open(owed) {
            return Ok(());
        }
        let mut paid = self.make_good(owed).await;
        if let Ok(news) = &paid {
            if let Err(error) = self.say(news).await {
                if owed.debt == Debt::Removal {
                    // The next round repeats the news alone.
                    self.book.removed(owed);
                } else {
                    paid = Err(error);
                }
            } else {
                self.book.paid(owed);
                metrics::recovered(&self.name);
            }
        }
        if paid.is_err() {
            // One key that cannot be reached keeps no other waiting.
            self.book.postpone(owed, self.clock.now());
        }
        self.show_debts();
        paid.map(drop)
    }

    /// Does what is owed; the news of it.
    async fn make_good(&self, owed: &Owed) -> Result<News> {
        let removal = owed.debt == Debt::Removal;
        match &owed.target {
            Target::Key(key) => {
                self.in_flight.moved(key);
                if removal {
                    self.unless_refused("delete", self.far.delete(key)).await?;
                } else {
                    let _gate = self.in_flight.gate(key).await;
                    self.near.delete(key).await?;
                }
                Ok(News::Keys(vec![key.clone()]))
            }
            Target::Matching(pattern) => {
                let _sweep = self.in_flight.sweep();
                if removal {
                    let removed = self.far.delete_matching(pattern);
                    self.unless_refused("delete_matching", removed).await?;
                } else {
                    self.clear_matching(pattern).await?;
                }
                Ok(News::Matching(pattern.clone()))
            }
            Target::Everything => {
                let _sweep = self.in_flight.sweep();
                if removal {
                    self.unless_refused("clear", self.far.clear()).await?;
                }
                self.clear_copies().await?;
                Ok(News::Everything)
            }
        }
    }

    /// What the far tier refuses today it refuses tomorrow: that is no reason to ask again.
    async fn unless_refused<T>(
        &self,
        operation: &'static str,
        done: impl Future<Output = Result<T>>,
    ) -> Result<()> {
        match done.await {
            Ok(_) => Ok(()),
            Err(error) if is_refusal(&error) => {
                self.report(&self.far, operation, &error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Pays everything that is owed.
    pub(super) async fn recover(&self) -> Result<()> {
        let mut failures = 0;
        while let Some(owed) = self.book.next() {
            if let Err(error) = self.pay(&owed).await {
                failures += 1;
                if failures >= PATIENCE.min(self.book.depth()) {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Does the removals that are owed to one key.
    pub(super) async fn pay_for(&self, key: &[u8]) -> Result<()> {
        while let Some(owed) = self.book.removal_of(key) {
            self.pay(&owed).await?;
        }
        Ok(())
    }

    /// Does the removals that are owed to one key together with others.
    pub(super) async fn pay_wide_for(&self, key: &[u8]) -> Result<()> {
        while let Some(owed) = self.book.removal_of(key) {
            if matches!(owed.target, Target::Key(_)) {
                break;
            }
            self.pay(&owed).await?;
        }
        Ok(())
    }

    /// Pays what comes to be owed, for as long as the task lives.
    pub(super) async fn recover_forever(&self) {
        loop {
            self.due.notified().await;
            while !self.book.is_empty() {
                let answers = self.far.ping().await.is_ok();
                if answers && self.recover().await.is_ok() {
                    break;
                }
                self.show_debts();
                tokio::time::sleep(self.config.recovery_interval).await;
            }
        }
    }

    /// Begins a change of one key.
    pub(super) fn change<'a>(&'a self, key: &'a [u8]) -> Change<'a> {
        Change {
            shared: self,
            passage: self.in_flight.write(key),
            until: self.book.last(),
            settled: false,
        }
    }

    /// Tells others that these keys changed. What could not be told is owed.
    pub(super) async fn tell(&self, keys: Vec<Bytes>) {
        if keys.is_empty() || self.feed.is_none() {
            return;
        }
        let news = News::Keys(keys);
        if self.say(&news).await.is_err()
            && let News::Keys(keys) = news
        {
            for key in keys {
                self.owe(Target::Key(key), Debt::News);
            }
        }
    }
}

/// The change of one key, from before the far tier is asked until others have been told. If it is dropped
/// in between, nobody knows what the far tier did, and news of the key is owed.
pub(super) struct Change<'a> {
    shared: &'a Shared,
    pub(super) passage: Passage<'a>,
    /// The last debt at its beginning.
    until: u64,
    settled: bool,
}

impl Change<'_> {
    pub(super) fn key(&self) -> &[u8] {
        self.passage.key()
    }

    /// The far tier has done what was asked: what it missed before no longer matters.
    pub(super) fn took_effect(&self) {
        self.shared.book.settle(self.key(), self.until);
    }

    pub(super) fn owe(&self, debt: Debt) {
        let key = Bytes::copy_from_slice(self.key());
        self.shared.owe(Target::Key(key), debt);
    }

    /// Ends it: it is known what became of it.
    pub(super) fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.owe(Debt::News);
        }
    }
}

/// The removal of many keys; as [`Change`].
pub(super) struct WideChange<'a> {
    shared: &'a Shared,
    target: Option<Target>,
}

impl<'a> WideChange<'a> {
    pub(super) fn begin(shared: &'a Shared, target: Target) -> Self {
        Self {
            shared,
            target: Some(target),
        }
    }

    /// Ends it, with what is owed.
    pub(super) fn settle(mut self, debt: Option<Debt>) {
        if let (Some(target), Some(debt)) = (self.target.take(), debt) {
            self.shared.owe(target, debt);
        }
    }
}

impl Drop for WideChange<'_> {
    fn drop(&mut self) {
        if let Some(target) = self.target.take() {
            self.shared.owe(target, Debt::News);
        }
    }
}

/// Whether a tier said no, rather than nothing: the operation did not happen and never will.
pub(super) fn is_refusal(error: &Error) -> bool {
    use ErrorKind::{Config, InvalidRequest, TooLarge, Unsupported};
    matches!(
        error.kind(),
        InvalidRequest | TooLarge | Unsupported | Config
    )
}

pub(super) fn deeper(held: StoredValue) -> StoredValue {
    StoredValue {
        depth: held.depth.saturating_add(1),
        ..held
    }
}
