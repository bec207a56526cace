//! What each principal may store.
//!
//! Stores are metered by one moment a principal: when its stores so far would be done if they came at an even
//! pace. A store that would be an hour ahead of the clock is refused. Bytes are those of live entries, and come
//! back when an entry leaves the catalogue.
//!
//! Bounded: principals beyond [`MOST_PRINCIPALS`] share one account, and accounts that say nothing any more
//! are dropped to make room. Entries are listed only where bytes are bounded.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::{QuotaConfig, Refused};
use crate::clock::Timestamp;
use crate::entry::EntryId;
use crate::request::Request;

/// Principals that have an account of their own.
const MOST_PRINCIPALS: usize = 16_384;

/// The account of those that have none.
const OTHERS: u64 = 0;

const HOUR: Duration = Duration::from_secs(3_600);

/// The accounts of a cache's principals.
#[derive(Debug)]
pub struct Quotas {
    config: QuotaConfig,
    accounts: Mutex<Accounts>,
}

#[derive(Debug, Default)]
struct Accounts {
    by_principal: HashMap<u64, Account>,
    /// Who stored an entry, and how large it is.
    entries: HashMap<EntryId, (u64, u64)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// When the stores so far would be done at an even pace, in microseconds.
    paid_until: u128,
    bytes: u64,
}

impl Account {
    /// Whether it is as if it had never been.
    fn is_idle(&self, now: u128) -> bool {
        self.bytes == 0 && self.paid_until <= now
    }
}

impl Quotas {
    /// Accounts within the bounds of `config`.
    #[must_use]
    pub fn new(config: QuotaConfig) -> Self {
        Self {
            config,
            accounts: Mutex::default(),
        }
    }

    fn is_unbounded(&self) -> bool {
        self.config == QuotaConfig::default()
    }

    /// Takes one store of `bytes` from the account of whoever asks.
    ///
    /// # Errors
    /// [`Refused::Quota`] where it does not reach; nothing is taken then.
    pub fn take(&self, request: &Request, bytes: u64, now: Timestamp) -> Result<(), Refused> {
        if self.is_unbounded() {
            return Ok(());
        }
        let now = u128::from(now.as_millis()) * 1_000;
        let mut accounts = self.accounts.lock();
        let account = accounts.of(account_of(request), now);
        if let Some(most) = self.config.bytes
            && account.bytes.saturating_add(bytes) > most.as_u64()
        {
            return Err(Refused::Quota);
        }
        if let Some(stores) = self.config.stores_per_hour {
            let hour = HOUR.as_micros();
            let paid_until = account.paid_until.max(now) + hour / u128::from(stores.max(1));
            if paid_until > now + hour {
                return Err(Refused::Quota);
            }
            account.paid_until = paid_until;
        }
        Ok(())
    }

    /// Books what an entry takes, which it was [taken](Self::take) for.
    pub fn hold(&self, request: &Request, entry: EntryId, bytes: u64, now: Timestamp) {
        if self.config.bytes.is_none() {
            return;
        }
        let now = u128::from(now.as_millis()) * 1_000;
        let mut accounts = self.accounts.lock();
        let name = accounts.name(account_of(request), now);
        let account = accounts.by_principal.entry(name).or_default();
        account.bytes = account.bytes.saturating_add(bytes);
        accounts.entries.insert(entry, (name, bytes));
    }

    /// Gives back what an entry took.
    pub fn release(&self, entry: EntryId) {
        if self.config.bytes.is_none() {
            return;
        }
        let mut accounts = self.accounts.lock();
        if let Some((name, bytes)) = accounts.entries.remove(&entry)
            && let Some(account) = accounts.by_principal.get_mut(&name)
        {
            account.bytes = account.bytes.saturating_sub(bytes);
        }
    }
}

impl Accounts {
    /// The name under which a principal has its account.
    fn name(&mut self, principal: u64, now: u128) -> u64 {
        if self.by_principal.contains_key(&principal) {
            return principal;
        }
        if self.by_principal.len() >= MOST_PRINCIPALS {
            self.by_principal.retain(|_, account| !account.is_idle(now));
        }
        if self.by_principal.len() >= MOST_PRINCIPALS {
            OTHERS
        } else {
            principal
        }
    }

    fn of(&mut self, principal: u64, now: u128) -> &mut Account {
        let name = self.name(principal, now);
        self.by_principal.entry(name).or_default()
    }
}

/// Who stores: the principal within its scope, or the scope as a whole.
fn account_of(request: &Request) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("askonce quota account v1");
    hasher.update(request.scope_ref().label().as_bytes());
    hasher.update(&[0]);
    hasher.update(request.principal_name().unwrap_or_default().as_bytes());
    let mut digest = [0; 8];
    hasher.finalize_xof().fill(&mut digest);
    u64::from_le_bytes(digest).max(1)
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_754_481_600_000);

    fn asks(name: &str) -> Request {
        Request::prompt("hello").principal(name)
    }

    fn bounded(stores_per_hour: Option<u32>, bytes: Option<u64>) -> Quotas {
        Quotas::new(QuotaConfig {
            stores_per_hour,
            bytes: bytes.map(ByteSize::b),
        })
    }

    #[test]
    fn an_hours_stores_come_back_one_by_one() {
        let quotas = bounded(Some(4), None);
        let take = |name: &str, minutes: u64| {
            let now = NOW.after(Duration::from_secs(60 * minutes));
            quotas.take(&asks(name), 1, now)
        };
        for _ in 0..4 {
            assert_eq!(take("mallory", 0), Ok(()));
        }
        assert_eq!(take("mallory", 0), Err(Refused::Quota));
        assert_eq!(take("alice", 0), Ok(()));
        assert_eq!(take("mallory", 14), Err(Refused::Quota));
        assert_eq!(take("mallory", 15), Ok(()));
        assert_eq!(take("mallory", 15), Err(Refused::Quota));
        for _ in 0..4 {
            assert_eq!(take("mallory", 200), Ok(()));
        }
        assert_eq!(take("mallory", 200), Err(Refused::Quota));
    }

    #[test]
    fn bytes_come_back_with_the_entries() {
        let quotas = bounded(None, Some(1_000));
        let request = asks("alice");
        assert_eq!(quotas.take(&request, 600, NOW), Ok(()));
        quotas.hold(&request, EntryId::new(1), 600, NOW);
        assert_eq!(quotas.take(&request, 600, NOW), Err(Refused::Quota));
        assert_eq!(quotas.take(&asks("bob"), 600, NOW), Ok(()));
        quotas.release(EntryId::new(1));
        quotas.release(EntryId::new(1));
        assert_eq!(quotas.take(&request, 1_000, NOW), Ok(()));
        assert_eq!(quotas.take(&request, 1_001, NOW), Err(Refused::Quota));
    }

    #[test]
    fn accounts_are_bounded_and_the_rest_share_one() {
        let quotas = bounded(Some(1), None);
        for i in 0..MOST_PRINCIPALS {
            assert_eq!(quotas.take(&asks(&format!("p{i}")), 1, NOW), Ok(()));
        }
        assert_eq!(quotas.take(&asks("late"), 1, NOW), Ok(()));
        assert_eq!(quotas.take(&asks("later"), 1, NOW), Err(Refused::Quota));
        let most = MOST_PRINCIPALS + 1;
        assert_eq!(quotas.accounts.lock().by_principal.len(), most);
        // An hour later all of them are as if they had never been.
        let now = NOW.after(HOUR);
        assert_eq!(quotas.take(&asks("later"), 1, now), Ok(()));
        assert_eq!(quotas.accounts.lock().by_principal.len(), 1);
    }

    #[test]
    fn without_bounds_nothing_is_kept() {
        let quotas = bounded(None, None);
        for i in 0..100 {
            assert_eq!(quotas.take(&asks(&format!("p{i}")), u64::MAX, NOW), Ok(()));
            quotas.hold(&asks("p"), EntryId::new(i), 1, NOW);
        }
        let accounts = quotas.accounts.lock();
        assert!(accounts.by_principal.is_empty() && accounts.entries.is_empty());
    }
}
