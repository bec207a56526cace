//! How far an entry is trusted: who has asked for exactly this.

use serde::{Deserialize, Serialize};

use crate::request::{ExactKey, Request};

/// The most principals that an entry remembers.
pub const MOST_PRINCIPALS: usize = 8;

const PRINCIPAL_DOMAIN: &str = "askonce entry principal v1";

/// Who has asked for exactly this, and whether somebody answers for it.
///
/// Principals are kept as 64 bits of a digest that the entry's key is part of: what is stored does not tell
/// which entries one of them asked for, nor its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trust {
    principals: Vec<u64>,
    approved: bool,
}

impl Trust {
    /// Whether somebody answers for the entry.
    #[must_use]
    pub const fn is_approved(&self) -> bool {
        self.approved
    }

    /// How many principals have asked for exactly this, as far as they are remembered.
    #[must_use]
    pub const fn principals(&self) -> usize {
        self.principals.len()
    }

    /// Marks that somebody answers for the entry.
    pub(crate) const fn approve(&mut self) {
        self.approved = true;
    }

    /// Notes that whoever makes `request` has asked for what lies under `key`; tells whether that is new.
    pub(crate) fn add(&mut self, key: &ExactKey, request: &Request) -> bool {
        let Some(digest) = digest(key, request) else {
            return false;
        };
        let new = self.principals.len() < MOST_PRINCIPALS && !self.principals.contains(&digest);
        if new {
            self.principals.push(digest);
        }
        new
    }

    /// Takes over who had asked for the same answer before.
    pub(crate) fn join(&mut self, other: &Self) {
        self.approved |= other.approved;
        for digest in &other.principals {
            if self.principals.len() < MOST_PRINCIPALS && !self.principals.contains(digest) {
                self.principals.push(*digest);
            }
        }
    }

    /// Whether the entry under `key` may answer a similar request, where `needed` principals must have asked.
    /// Its own principals may have it always; where none are named, all who ask are one.
    #[must_use]
    pub fn serves(&self, key: &ExactKey, request: &Request, needed: usize) -> bool {
        needed <= 1
            || self.approved
            || self.principals.len() >= needed
            || match digest(key, request) {
                Some(digest) => self.principals.contains(&digest),
                None => self.principals.is_empty(),
            }
    }
}

/// The digest of a request's principal, if it names one.
fn digest(key: &ExactKey, request: &Request) -> Option<u64> {
    let name = request.principal_name()?;
    let mut hasher = blake3::Hasher::new_derive_key(PRINCIPAL_DOMAIN);
    hasher.update(key.as_bytes());
    hasher.update(name.as_bytes());
    let mut digest = [0; 8];
    hasher.finalize_xof().fill(&mut digest);
    Some(u64::from_le_bytes(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_serves_its_own_and_others_once_enough_have_asked() {
        let asked = |name: &str| Request::prompt("hello").principal(name);
        let key = asked("alice").exact_key();
        assert_eq!(key, asked("bob").exact_key());
        let mut trust = Trust::default();
        assert!(trust.add(&key, &asked("alice")) && !trust.add(&key, &asked("alice")));
        assert!(trust.serves(&key, &asked("alice"), 2));
        assert!(!trust.serves(&key, &asked("carol"), 2));
        assert!(!trust.serves(&key, &Request::prompt("hello"), 2));
        assert!(trust.serves(&key, &asked("carol"), 1));
        assert!(trust.add(&key, &asked("bob")));
        assert!(trust.serves(&key, &asked("carol"), 2));
        assert!(!trust.serves(&key, &asked("carol"), 3));
        trust.approve();
        assert!(trust.serves(&key, &asked("carol"), 8));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_differs_by_key() {
        let (one, other) = (Request::prompt("one"), Request::prompt("other"));
        let mut trust = Trust::default();
        for i in 0..100 {
            trust.add(&one.exact_key(), &one.clone().principal(format!("p{i}")));
        }
        assert_eq!(trust.principals(), MOST_PRINCIPALS);
        let alice = one.principal("alice");
        assert_ne!(
            digest(&alice.exact_key(), &alice),
            digest(&other.exact_key(), &alice)
        );
    }

    #[test]
    fn where_nobody_is_named_all_are_one() {
        let nobody = Request::prompt("hello");
        let key = nobody.exact_key();
        let mut trust = Trust::default();
        assert!(!trust.add(&key, &nobody));
        assert!(trust.serves(&key, &nobody, 8));
        assert!(!trust.serves(&key, &nobody.principal("alice"), 2));
    }
}
