//! What the far tier still has to be told: changes that it missed, or may have missed.
//!
//! A key is in the book at most once, with the stronger of what is owed to it. The book is bounded: when
//! it is full, what is owed becomes one entry, the removal of everything.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::backend::Glob;
use crate::clock::Timestamp;

/// Patterns that are remembered before they become a removal of everything: each is compared with every
/// key that is read.
const PATTERNS: usize = 16;

/// What is owed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Debt {
    /// The far tier is right, or may be; near copies, here and elsewhere, must go.
    News,
    /// What the far tier holds must go, and then near copies elsewhere.
    Removal,
}

/// To which keys.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Target {
    Key(Bytes),
    Matching(Glob),
    Everything,
}

/// One entry of the book.
pub(super) struct Owed {
    pub(super) target: Target,
    pub(super) debt: Debt,
    /// Counts entries. One that is owed again gets a new number.
    pub(super) number: u64,
}

#[derive(Clone, Copy)]
struct Note {
    debt: Debt,
    number: u64,
    since: Timestamp,
}

/// See the module documentation.
pub(super) struct Book {
    pages: Mutex<Pages>,
    /// Entries, so that readers need no lock while nothing is owed.
    depth: AtomicUsize,
    limit: usize,
}

#[derive(Default)]
struct Pages {
    keys: HashMap<Bytes, Note>,
    order: BTreeMap<u64, Bytes>,
    patterns: Vec<(Glob, Note)>,
    everything: Option<Note>,
    last: u64,
}

impl Pages {
    fn depth(&self) -> usize {
        self.keys.len() + self.patterns.len() + usize::from(self.everything.is_some())
    }

    /// A note in place of `earlier`, with the stronger debt of the two.
    fn note(&mut self, earlier: Option<Note>, debt: Debt, now: Timestamp) -> Note {
        self.last += 1;
        Note {
            debt: earlier.map_or(debt, |earlier| earlier.debt.max(debt)),
            number: self.last,
            since: earlier.map_or(now, |earlier| earlier.since),
        }
    }

    fn owe_everything(&mut self, debt: Debt, now: Timestamp) {
        let earlier = self.everything;
        let mut note = self.note(earlier, debt, now);
        if debt == Debt::Removal {
            // It covers the rest. What was owed before it stays owed as long as it does.
            if let Some(oldest) = self.oldest() {
                note.since = note.since.min(oldest);
            }
            self.keys.clear();
            self.order.clear();
            self.patterns.clear();
        }
        self.everything = Some(note);
    }

    fn oldest(&self) -> Option<Timestamp> {
        let keys = self.keys.values();
        let patterns = self.patterns.iter().map(|(_, note)| note);
        let notes = keys.chain(patterns).chain(&self.everything);
        notes.map(|note| note.since).min()
    }

    fn forget_key(&mut self, key: &[u8]) {
        if let Some(note) = self.keys.remove(key) {
            self.order.remove(&note.number);
        }
    }
}

impl Book {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            pages: Mutex::default(),
            depth: AtomicUsize::new(0),
            limit,
        }
    }

    fn write<T>(&self, change: impl FnOnce(&mut Pages) -> T) -> T {
        let mut pages = self.pages.lock();
        let result = change(&mut pages);
        self.depth.store(pages.depth(), Ordering::SeqCst);
        result
    }

    /// Adds a debt; `true` when the book was full and what is owed is now the removal of everything.
    pub(super) fn owe(&self, target: Target, debt: Debt, now: Timestamp) -> bool {
        self.write(|pages| {
            if let Some(everything) = pages.everything
                && everything.debt >= debt
            {
                // Covered, under a new number: if it is being paid now it must be paid again.
                pages.owe_everything(debt, now);
                return false;
            }
            match target {
                Target::Everything => pages.owe_everything(debt, now),
                Target::Key(key) => {
                    let earlier = pages.keys.get(&key).copied();
                    if earlier.is_none() && pages.keys.len() >= self.limit {
                        pages.owe_everything(Debt::Removal, now);
                        return true;
                    }
                    pages.forget_key(&key);
                    let note = pages.note(earlier, debt, now);
                    pages.order.insert(note.number, key.clone());
                    pages.keys.insert(key, note);
                }
                Target::Matching(pattern) => {
                    let at = pages.patterns.iter().position(|(own, _)| *own == pattern);
                    if at.is_none() && pages.patterns.len() >= PATTERNS {
                        pages.owe_everything(Debt::Removal, now);
                        return true;
                    }
                    let earlier = at.map(|at| pages.patterns.remove(at).1);
                    let note = pages.note(earlier, debt, now);
                    pages.patterns.push((pattern, note));
                }
            }
            false
        })
    }

    /// The strongest debt that concerns `key`.
    pub(super) fn about(&self, key: &[u8]) -> Option<Debt> {
        if self.is_empty() {
            return None;
        }
        let pages = self.pages.lock();
        let own = pages.keys.get(key);
        let matching = pages.patterns.iter().filter(|(own, _)| own.matches(key));
        let notes = own.into_iter().chain(matching.map(|(_, note)| note));
        notes.chain(&pages.everything).map(|note| note.debt).max()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.depth() == 0
    }

    /// How many entries there are.
    pub(super) fn depth(&self) -> usize {
        self.depth.load(Ordering::SeqCst)
    }

    /// Since when the oldest of them has been owed.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.pages.lock().oldest()
    }

    /// The number of the last entry that was made. What happened before is settled by a later success.
    pub(super) fn last(&self) -> u64 {
        self.pages.lock().last
    }

    /// Takes out what was owed to one key, up to the entry numbered `until`.
    pub(super) fn settle(&self, key: &[u8], until: u64) {
        if self.is_empty() {
            return;
        }
        self.write(|pages| {
            if pages.keys.get(key).is_some_and(|note| note.number <= until) {
                pages.forget_key(key);
            }
        });
    }

    /// Takes out what was owed to all keys, up to the entry numbered `until`.
    pub(super) fn settle_everything(&self, until: u64) {
        self.write(|pages| {
            pages.keys.retain(|_, note| note.number > until);
            pages.order.retain(|number, _| *number > until);
            pages.patterns.retain(|(_, note)| note.number > until);
            pages.everything = pages.everything.filter(|note| note.number > until);
        });
    }

    /// Takes out one entry, unless it has been owed again since.
    pub(super) fn paid(&self, owed: &Owed) {
        match &owed.target {
            Target::Key(key) => self.settle(key, owed.number),
            Target::Matching(pattern) => self.write(|pages| {
                pages
                    .patterns
                    .retain(|(own, note)| own != pattern || note.number > owed.number);
            }),
            Target::Everything => self.write(|pages| {
                pages.everything = pages.everything.filter(|note| note.number > owed.number);
            }),
        }
    }

    /// Notes that the removal has been done and the news is still owed.
    pub(super) fn removed(&self, owed: &Owed) {
        let mut pages = self.pages.lock();
        let note = match &owed.target {
            Target::Key(key) => pages.keys.get_mut(key),
            Target::Matching(pattern) => pages
                .patterns
                .iter_mut()
                .find_map(|(own, note)| (own == pattern).then_some(note)),
            Target::Everything => pages.everything.as_mut(),
        };
        if let Some(note) = note
            && note.number == owed.number
        {
            note.debt = Debt::News;
        }
    }

    /// Puts an entry behind the others.
    pub(super) fn postpone(&self, owed: &Owed, now: Timestamp) {
        if let Target::Key(key) = &owed.target {
            self.write(|pages| {
                let Some(earlier) = pages.keys.get(key).copied() else {
                    return;
                };
                pages.forget_key(key);
                let note = pages.note(Some(earlier), earlier.debt, now);
                pages.order.insert(note.number, key.clone());
                pages.keys.insert(key.clone(), note);
            });
        }
    }

    /// Whether this entry is still to be paid.
    pub(super) fn is_open(&self, owed: &Owed) -> bool {
        let pages = self.pages.lock();
        let note = match &owed.target {
            Target::Key(key) => pages.keys.get(key),
            Target::Matching(pattern) => pages
                .patterns
                .iter()
                .find_map(|(own, note)| (own == pattern).then_some(note)),
            Target::Everything => pages.everything.as_ref(),
        };
        note.is_some_and(|note| note.number == owed.number)
    }

    /// What to pay next: the widest first, then the oldest.
    pub(super) fn next(&self) -> Option<Owed> {
        let pages = self.pages.lock();
        let owed = |target, note: &Note| Owed {
            target,
            debt: note.debt,
            number: note.number,
        };
        if let Some(note) = &pages.everything {
            return Some(owed(Target::Everything, note));
        }
        if let Some((pattern, note)) = pages.patterns.first() {
            return Some(owed(Target::Matching(pattern.clone()), note));
        }
        let key = pages.order.values().next()?;
        let note = pages.keys.get(key)?;
        Some(owed(Target::Key(key.clone()), note))
    }

    /// The removal that is owed to `key`, the widest first.
    pub(super) fn removal_of(&self, key: &[u8]) -> Option<Owed> {
        if self.is_empty() {
            return None;
        }
        let pages = self.pages.lock();
        let removal = |target, note: &Note| {
            (note.debt == Debt::Removal).then_some(Owed {
                target,
                debt: note.debt,
                number: note.number,
            })
        };
        if let Some(note) = &pages.everything
            && let Some(owed) = removal(Target::Everything, note)
        {
            return Some(owed);
        }
        let mut patterns = pages.patterns.iter();
        let matching = patterns.find_map(|(own, note)| {
            let owed = removal(Target::Matching(own.clone()), note)?;
            own.matches(key).then_some(owed)
        });
        if matching.is_some() {
            return matching;
        }
        let (key, note) = pages.keys.get_key_value(key)?;
        removal(Target::Key(key.clone()), note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);
    const LATER: Timestamp = Timestamp::from_millis(2_000);

    fn key(name: &'static str) -> Target {
        Target::Key(Bytes::from_static(name.as_bytes()))
    }

    #[test]
    fn a_key_is_owed_the_stronger_of_two_debts_since_the_first() {
        let book = Book::new(10);
        assert!(!book.owe(key("a"), Debt::Removal, NOW));
        assert!(!book.owe(key("a"), Debt::News, LATER));
        assert!(book.about(b"a") == Some(Debt::Removal) && book.about(b"b").is_none());
        assert_eq!((book.depth(), book.oldest()), (1, Some(NOW)));
    }

    #[test]
    fn a_later_success_settles_what_was_owed_before_it_and_nothing_after() {
        let book = Book::new(10);
        book.owe(key("a"), Debt::Removal, NOW);
        let before = book.last();
        book.owe(key("a"), Debt::Removal, NOW);
        book.settle(b"a", before);
        assert_eq!(book.depth(), 1, "owed again since");
        book.settle(b"a", book.last());
        assert!(book.is_empty() && book.next().is_none());
    }

    #[test]
    fn an_entry_owed_again_while_it_is_paid_stays_open() {
        for target in [
            key("a"),
            Target::Matching(Glob::new("a*")),
            Target::Everything,
        ] {
            let book = Book::new(10);
            book.owe(target.clone(), Debt::News, NOW);
            let owed = book.next().unwrap();
            book.owe(target, Debt::News, LATER);
            assert!(!book.is_open(&owed));
            book.paid(&owed);
            assert_eq!(book.depth(), 1);
            let again = book.next().unwrap();
            assert!(book.is_open(&again));
            book.paid(&again);
            assert!(book.is_empty());
        }
    }

    #[test]
    fn a_full_book_becomes_the_removal_of_everything() {
        let book = Book::new(2);
        for name in ["a", "b"] {
            assert!(!book.owe(key(name), Debt::News, NOW));
        }
        assert!(book.owe(key("c"), Debt::News, LATER), "reported");
        assert_eq!((book.depth(), book.oldest()), (1, Some(NOW)));
        assert!(book.about(b"never seen") == Some(Debt::Removal));
        assert!(!book.owe(key("d"), Debt::Removal, LATER), "covered already");
        let owed = book.next().unwrap();
        assert!(owed.target == Target::Everything);
        book.paid(&owed);
        assert!(book.is_empty());
    }

    #[test]
    fn patterns_concern_the_keys_that_match_and_are_bounded_too() {
        let book = Book::new(100);
        book.owe(Target::Matching(Glob::new("a*")), Debt::Removal, NOW);
        assert!(book.about(b"ab") == Some(Debt::Removal) && book.about(b"b").is_none());
        let overflowed = (0..PATTERNS)
            .filter(|i| {
                let pattern = Glob::literal(i.to_string());
                book.owe(Target::Matching(pattern), Debt::Removal, NOW)
            })
            .count();
        assert_eq!(overflowed, 1);
        assert!(book.about(b"b") == Some(Debt::Removal));
    }

    #[test]
    fn the_widest_removal_of_a_key_comes_first_and_news_is_none() {
        let book = Book::new(100);
        book.owe(key("a"), Debt::News, NOW);
        assert!(book.removal_of(b"a").is_none());
        book.owe(key("a"), Debt::Removal, NOW);
        book.owe(Target::Matching(Glob::new("a*")), Debt::Removal, NOW);
        let wide = book.removal_of(b"a").unwrap();
        assert!(wide.target == Target::Matching(Glob::new("a*")));
        book.removed(&wide);
        assert_eq!(book.depth(), 2, "the news of it is still owed");
        assert!(book.removal_of(b"a").unwrap().target == key("a"));
    }

    #[test]
    fn keys_are_paid_oldest_first() {
        let book = Book::new(100);
        for name in ["b", "a", "c"] {
            book.owe(key(name), Debt::News, NOW);
        }
        book.owe(key("b"), Debt::News, NOW);
        let mut paid = Vec::new();
        while let Some(owed) = book.next() {
            book.paid(&owed);
            if let Target::Key(key) = owed.target {
                paid.push(key);
            }
        }
        assert_eq!(paid, ["a", "c", "b"]);
    }
}
