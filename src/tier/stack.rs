//! The exact tiers of a semantic cache, nearest first.
//!
//! Tiers in this process in front of one that processes share become one backend
//! ([`TieredBackend`]): a near tier of copies over a far one that is right. Other stacks are asked one
//! by one: a value found in a far tier is copied into the nearer ones with the life it has left, and a
//! store writes the farthest tier first and the nearest last, whose word counts. Each envelope is
//! checked against the key.
//!
//! Where a tier is shared, entries carry [marks](crate::generation), and one is found only while all of
//! its marks are what they were: whatever process invalidates, all see it. In a process by itself that
//! costs nothing.
//!
//! A tier that fails, hangs onto garbage or lies is counted, reported and passed over: the answer of
//! the stack is then a miss with a note of the fault, never an error.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;

use super::decoded::{Decoded, DecodedEntries};
use super::near::NearCopy;
use super::{TierConfig, TieredBackend};
use crate::backend::{BackendHandle, BackendUsage, Condition, StoredValue};
use crate::clock::{ClockHandle, Timestamp};
use crate::codec::{Codec, EnvelopeError, Header, Mark};
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::generation::{Board, Generations, MarkName};
use crate::observe;
use crate::request::ExactKey;

/// Marks whose renewal failed that are remembered one by one.
const MAX_OVERDUE: usize = 4_096;

/// The exact tiers of one cache, nearest first.
#[derive(Clone, Debug)]
pub struct TierStack {
    /// What is asked, in this order.
    tiers: Vec<BackendHandle>,
    /// What that is made of, nearest first.
    parts: Vec<BackendHandle>,
    shared: Option<Arc<Shared>>,
    codec: Codec,
    decoded: Option<DecodedEntries>,
}

/// What a stack has that processes share.
#[derive(Debug)]
struct Shared {
    clock: ClockHandle,
    /// Which of the tiers holds the generations.
    board: usize,
    /// How long copies live near, where the tiers are one backend.
    near_ttl: Option<Duration>,
    /// Stands for all generations in entries that were stored while those could not be read. Only this
    /// process serves them.
    own: Mark,
    /// Marks that are to be renewed and could not be: what carries them is not served.
    overdue: RwLock<Vec<MarkName>>,
}

/// What the tiers know of a key.
#[derive(Debug)]
pub struct TierAnswer {
    /// The live entry, and the position of the tier that held it.
    pub found: Option<(Arc<Entry>, usize)>,
    /// A tier failed or held what could not be used.
    pub fault: Option<TierFault>,
}

/// Why a tier could not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TierFault {
    /// It returned an error.
    Unavailable,
    /// It held bytes that are not a usable entry.
    Corrupt,
    /// It held an entry from before an invalidation, or one of which that cannot be known.
    Invalidated,
    /// It held an entry, and whether that was invalidated could not be read.
    GenerationUnavailable,
}

/// What a lookup must know of generations, and what it has learnt of them so far.
#[derive(Debug, Default)]
pub(crate) struct Check {
    /// Marks that every entry that may be found carries.
    pub(crate) required: Vec<MarkName>,
    /// What they and others were when they were asked for.
    pub(crate) seen: Generations,
}

impl TierStack {
    /// A stack of `tiers`, nearest first, of values that `codec` writes and reads. They are asked one by
    /// one, and no generations are kept.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when there is none.
    pub fn new(tiers: Vec<BackendHandle>, codec: Codec) -> Result<Self> {
        if tiers.is_empty() {
            return Err(
                Error::new(ErrorKind::Config, "a cache needs at least one backend")
                    .with("field", "backends"),
            );
        }
        Ok(Self {
            parts: tiers.clone(),
            tiers,
            shared: None,
            decoded: None,
            codec,
        })
    }

    /// As [`new`](Self::new), for tiers of which some may be shared with other processes. Those in this
    /// process become the near tiers of a [`TieredBackend`] if only the last of all is not in it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when there is no tier, or a setting is out of range.
    pub fn shared(
        tiers: Vec<BackendHandle>,
        codec: Codec,
        config: &TierConfig,
        clock: ClockHandle,
    ) -> Result<Self> {
        let mut stack = Self::new(tiers, codec)?;
        let here = |tier: &BackendHandle| tier.capability().in_process;
        let Some(farthest) = stack.parts.iter().rposition(|tier| !here(tier)) else {
            return Ok(stack);
        };
        let mut board = farthest;
        let mut near_ttl = None;
        if let Some((far, near)) = stack.parts.split_last()
            && !near.is_empty()
            && near.iter().all(here)
        {
            let mut whole = Arc::clone(far);
            for tier in near.iter().rev() {
                let tiered = TieredBackend::builder(Arc::clone(tier), whole)
                    .config(config.clone())
                    .clock(Arc::clone(&clock));
                whole = Arc::new(tiered.build()?);
            }
            near_ttl = Some(config.near_ttl);
            board = 0;
            stack.tiers = vec![whole];
        }
        stack.shared = Some(Arc::new(Shared {
            clock,
            board,
            near_ttl,
            own: Mark {
                id: rand::random(),
                generation: rand::random(),
            },
            overdue: RwLock::default(),
        }));
        Ok(stack)
    }

    /// Keeps entries of tiers in this process as they were decoded, in so many bytes; none that are encrypted.
    pub(crate) fn keep_decoded(mut self, bytes: u64) -> Self {
        let keeps = bytes > 0 && !self.codec.encrypts();
        self.decoded = keeps.then(|| DecodedEntries::new(bytes));
        self
    }

    /// Whether a tier is shared, so that entries carry marks.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Where the generations lie; `None` when nothing is shared.
    pub(crate) fn board(&self) -> Option<Board<'_>> {
        let shared = self.shared.as_deref()?;
        Some(Board {
            backend: &self.tiers[shared.board],
            clock: &shared.clock,
        })
    }

    /// The mark of an entry whose generations could not be read, and how long it may live then: as long
    /// as any copy. `None` where there is no near tier to keep it.
    pub(crate) fn unshared(&self) -> Option<(Mark, Duration)> {
        let shared = self.shared.as_deref()?;
        Some((shared.own, shared.near_ttl?))
    }

    /// What writes and reads the values.
    #[must_use]
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// The name of the tier at `position`.
    #[must_use]
    pub fn name(&self, position: usize) -> &str {
        self.parts.get(position).map_or("", |tier| tier.name())
    }

    /// Names of the tiers, nearest first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|tier| tier.name())
    }

    /// What a tier of this name holds, without what the stack keeps beside it; `None` for bytes that the
    /// stack has not written.
    pub(crate) fn plain(&self, tier: &str, held: StoredValue) -> Option<StoredValue> {
        let is_one = self.tiers.len() < self.parts.len();
        let near = self.parts.split_last().map_or(&[][..], |(_, near)| near);
        if is_one && near.iter().any(|own| own.name() == tier) {
            return Some(NearCopy::open(&held.bytes)?.into_stored());
        }
        Some(held)
    }

    /// The live entry under `key`, from the nearest tier that has one that was not invalidated. `also` are
    /// marks that it is likely to carry beside the required ones: they are read along.
    pub(crate) async fn look(
        &self,
        key: &ExactKey,
        also: &[MarkName],
        check: &mut Check,
        now: Timestamp,
    ) -> TierAnswer {
        let mut fault = None;
        for (position, tier) in self.tiers.iter().enumerate() {
            let (bytes, depth) = match self.ask(position, key, also, check).await {
                Ok(Some(held)) => (held.bytes, usize::from(held.depth)),
                Ok(None) => continue,
                Err(error) => {
                    fault = Some(TierFault::Unavailable);
                    self.report(position, "get", &error);
                    continue;
                }
            };
            let part = (position + depth).min(self.parts.len() - 1);
            match self.decode(part, key, &bytes) {
                Ok(decoded) if decoded.entry.is_live(now) => {
                    if let Some(found_out) = self.invalidated(&decoded.marks, check).await {
                        fault = Some(found_out);
                        continue;
                    }
                    let entry = Arc::clone(&decoded.entry);
                    self.backfill(position, key, &bytes, entry.expires).await;
                    return TierAnswer {
                        found: Some((entry, part)),
                        fault,
                    };
                }
                Ok(_) => {}
                Err(error) => {
                    fault = Some(TierFault::Corrupt);
                    let error = Error::new(ErrorKind::Corrupt, error.to_string());
                    self.report(position, "decode", &error);
                    // Left in place it would be read, checked and refused on every lookup.
                    if let Err(error) = tier.delete(key.as_bytes()).await {
                        self.report(position, "delete", &error);
                    }
                }
            }
        }
        TierAnswer { found: None, fault }
    }

    /// What one tier holds under `key`; the tier with the generations gives those in the same round trip.
    async fn ask(
        &self,
        position: usize,
        key: &ExactKey,
        also: &[MarkName],
        check: &mut Check,
    ) -> Result<Option<StoredValue>> {
        let board = self.board().filter(|_| self.is_board(position));
        let Some(board) = board else {
            return self.tiers[position].get(key.as_bytes()).await;
        };
        let Check { required, seen } = check;
        let names = seen.missing_of(required.iter().chain(also));
        let key = Bytes::copy_from_slice(key.as_bytes());
        let mut answers = board.fetch(std::iter::once(key), &names, seen).await;
        answers.pop().unwrap_or(Ok(None))
    }

    fn is_board(&self, position: usize) -> bool {
        self.shared
            .as_deref()
            .is_some_and(|shared| shared.board == position)
    }

    /// Why an entry with these marks is not to be served; `None` when it is.
    async fn invalidated(&self, marks: &[Mark], check: &mut Check) -> Option<TierFault> {
        let (shared, board) = (self.shared.as_deref()?, self.board()?);
        if marks.contains(&shared.own) {
            return None;
        }
        let carries = |name: &MarkName| marks.iter().any(|mark| mark.id == name.id);
        // One of another build, or of a stack without generations: nobody could have invalidated it.
        if check.required.is_empty() || !check.required.iter().all(carries) {
            return Some(TierFault::Invalidated);
        }
        if shared.overdue.read().iter().any(carries) {
            return Some(TierFault::Invalidated);
        }
        let names = check.seen.unknown(marks);
        board
            .fetch(std::iter::empty(), &names, &mut check.seen)
            .await;
        match check.seen.agree(marks) {
            Ok(true) => None,
            Ok(false) => Some(TierFault::Invalidated),
            Err(error) => {
                self.report(shared.board, "generations", &error);
                Some(TierFault::GenerationUnavailable)
            }
        }
    }

    /// Gives each mark another generation. What carries one that could not be renewed is not served by
    /// this process until it [is](Self::catch_up). `everything` is the mark that all entries carry.
    pub(crate) async fn renew(&self, names: &[MarkName], everything: &MarkName) {
        let (Some(shared), Some(board)) = (self.shared.as_deref(), self.board()) else {
            return;
        };
        let Err(error) = board.renew(names).await else {
            return;
        };
        self.report(shared.board, "renew", &error);
        let mut overdue = shared.overdue.write();
        let new = names.iter().filter(|name| !overdue.contains(name));
        let new: Vec<_> = new.cloned().collect();
        overdue.extend(new);
        if overdue.len() > MAX_OVERDUE {
            *overdue = vec![everything.clone()];
        }
    }

    /// Renews the marks whose renewal failed.
    pub(crate) async fn catch_up(&self) {
        let (Some(shared), Some(board)) = (self.shared.as_deref(), self.board()) else {
            return;
        };
        let overdue = shared.overdue.read().clone();
        if !overdue.is_empty() && board.renew(&overdue).await.is_ok() {
            let mut left = shared.overdue.write();
            left.retain(|name| !overdue.contains(name));
        }
    }

    /// The ids of the marks of what lies under `key`, alive or not.
    pub(crate) async fn marks_of(&self, key: &ExactKey) -> Vec<[u8; 16]> {
        for tier in &self.tiers {
            if let Ok(Some(held)) = tier.get(key.as_bytes()).await
                && let Ok(envelope) = self.codec.open(key.as_bytes(), &held.bytes)
            {
                let marks = envelope.header.marks.iter();
                return marks.map(|mark| mark.id).collect();
            }
        }
        Vec::new()
    }

    /// Whether any tier holds a value under `key`, usable or not.
    pub async fn contains(&self, key: &ExactKey) -> bool {
        self.held(&[*key]).await == [Some(true)]
    }

    /// Whether any tier holds a value under each key, usable or not; `None` when none that answers does.
    /// Makes no copies.
    pub(crate) async fn held(&self, keys: &[ExactKey]) -> Vec<Option<bool>> {
        let mut held = vec![Some(false); keys.len()];
        for (position, tier) in self.parts.iter().enumerate() {
            let open = (0..keys.len()).filter(|place| held[*place] != Some(true));
            let open: Vec<usize> = open.collect();
            if open.is_empty() {
                break;
            }
            let asked = open.iter();
            let asked = asked.map(|place| Bytes::copy_from_slice(keys[*place].as_bytes()));
            let asked: Vec<Bytes> = asked.collect();
            for (place, answer) in open.into_iter().zip(tier.get_many(&asked).await) {
                match answer {
                    Ok(Some(_)) => held[place] = Some(true),
                    Ok(None) => {}
                    Err(error) => {
                        self.report(position, "get", &error);
                        held[place] = None;
                    }
                }
            }
        }
        held
    }

    /// Stores `entry` in every tier, the farthest first, with the marks it depends on.
    ///
    /// The nearest tier decides: what it takes is stored, and a farther tier that fails is reported and
    /// does without, so that a remote server that is down does not stop the cache from filling. Until
    /// it is written again such a tier may still give an older answer to the same request, within that
    /// answer's own life.
    ///
    /// # Errors
    /// What the nearest tier said; the farther ones are then cleaned of the entry.
    pub async fn set(&self, entry: &Entry, generation: u64, marks: Vec<Mark>) -> Result<()> {
        let key = entry.digests.exact();
        let header = Header {
            created: entry.created,
            expires: entry.expires,
            generation,
            load_time: entry.latency,
            marks,
            ..Header::default()
        };
        let sealed = self.codec.seal(key.as_bytes(), &header, entry);
        let bytes = sealed.map_err(|error| {
            Error::new(ErrorKind::Corrupt, "the entry has no stored form").caused_by(error)
        })?;
        for (position, tier) in self.tiers.iter().enumerate().rev() {
            let written = tier.set(key.as_bytes(), bytes.clone(), entry.expires).await;
            let Err(error) = written else { continue };
            self.report(position, "set", &error);
            if position == 0 {
                self.delete(&key).await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Changes the live entry under `key`, in each tier that holds one, if `change` says so. Everything else
    /// stays as it is, its marks and its life too, and a value that was written or removed meanwhile wins:
    /// nothing comes back to life. Where a tier has no conditional writes, nothing changes there.
    pub(crate) async fn amend(
        &self,
        key: &ExactKey,
        now: Timestamp,
        change: impl Fn(&mut Entry) -> bool,
    ) {
        for (position, tier) in self.tiers.iter().enumerate() {
            if !tier.capability().conditional_writes {
                continue;
            }
            let held = match tier.get(key.as_bytes()).await {
                Ok(Some(held)) => held,
                Ok(None) => continue,
                Err(error) => {
                    self.report(position, "get", &error);
                    continue;
                }
            };
            let Some(amended) = self.amended(key, &held.bytes, now, &change) else {
                continue;
            };
            let same = Condition::Equals(&held.bytes);
            let expires = held.expires;
            if let Err(error) = tier.set_if(key.as_bytes(), amended, expires, same).await {
                self.report(position, "set_if", &error);
            }
        }
    }

    /// The same value with another entry in it; `None` when nothing is to be changed.
    fn amended(
        &self,
        key: &ExactKey,
        bytes: &Bytes,
        now: Timestamp,
        change: impl Fn(&mut Entry) -> bool,
    ) -> Option<Bytes> {
        let (mut entry, _) = self.unseal(key, bytes).ok()?;
        let header = self.codec.open(key.as_bytes(), bytes).ok()?.header;
        if !entry.is_live(now) || !change(&mut entry) {
            return None;
        }
        self.codec.seal(key.as_bytes(), &header, &entry).ok()
    }

    /// Removes `key` from every tier, nearest first; `true` when any held it.
    pub async fn delete(&self, key: &ExactKey) -> bool {
        self.forget_decoded(key);
        let mut held = false;
        for (position, tier) in self.tiers.iter().enumerate() {
            match tier.delete(key.as_bytes()).await {
                Ok(had) => held |= had,
                Err(error) => self.report(position, "delete", &error),
            }
        }
        held
    }

    /// Removes keys from every tier, nearest first.
    pub(crate) async fn delete_many(&self, keys: &[ExactKey]) {
        let keys = keys.iter().inspect(|key| self.forget_decoded(key));
        let keys = keys.map(|key| Bytes::copy_from_slice(key.as_bytes()));
        let keys: Vec<Bytes> = keys.collect();
        for (position, tier) in self.tiers.iter().enumerate() {
            for answer in tier.delete_many(&keys).await {
                if let Err(error) = answer {
                    self.report(position, "delete", &error);
                }
            }
        }
    }

    /// What each tier holds, nearest first; `None` for a tier that does not answer.
    pub async fn usage(&self) -> Vec<(String, Option<BackendUsage>)> {
        let mut usage = Vec::with_capacity(self.parts.len());
        for tier in &self.parts {
            usage.push((tier.name().to_owned(), tier.usage().await.ok()));
        }
        usage
    }

    async fn backfill(
        &self,
        from: usize,
        key: &ExactKey,
        bytes: &Bytes,
        expires: Option<Timestamp>,
    ) {
        for (position, tier) in self.tiers.iter().enumerate().take(from) {
            if let Err(error) = tier.set(key.as_bytes(), bytes.clone(), expires).await {
                self.report(position, "backfill", &error);
            }
        }
    }

    fn report(&self, position: usize, operation: &'static str, error: &Error) {
        let tier = self.tiers.get(position).map_or("", |tier| tier.name());
        observe::backend_error(tier, operation);
        tracing::warn!(tier, operation, kind = %error.kind(), %error, "tier failed");
    }

    fn forget_decoded(&self, key: &ExactKey) {
        if let Some(decoded) = &self.decoded {
            decoded.forget(key);
        }
    }

    /// The entry in an envelope that the tier at `part` of all gave.
    fn decode(
        &self,
        part: usize,
        key: &ExactKey,
        bytes: &Bytes,
    ) -> Result<Arc<Decoded>, EnvelopeError> {
        // Any other tier gives a copy each time.
        let here = self.parts[part].capability().in_process;
        let kept = self.decoded.as_ref().filter(|_| here);
        if let Some(decoded) = kept.and_then(|kept| kept.get(key, bytes)) {
            return Ok(decoded);
        }
        let (entry, marks) = self.unseal(key, bytes)?;
        let decoded = Arc::new(Decoded {
            entry: Arc::new(entry),
            marks,
        });
        if let Some(kept) = kept {
            kept.keep(*key, bytes.clone(), Arc::clone(&decoded));
        }
        Ok(decoded)
    }

    /// An entry and its marks.
    fn unseal(&self, key: &ExactKey, bytes: &Bytes) -> Result<(Entry, Vec<Mark>), EnvelopeError> {
        let envelope = self.codec.open(key.as_bytes(), bytes)?;
        let mut entry: Entry = envelope.read()?;
        entry.created = envelope.header.created;
        entry.expires = envelope.header.expires;
        if entry.digests.exact() == *key {
            Ok((entry, envelope.header.marks))
        } else {
            Err(EnvelopeError::WrongKey)
        }
    }
}
