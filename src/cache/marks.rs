//! What an answer depends on, for all processes that share a tier.
//!
//! Each entry carries [marks](crate::generation): of the whole cache, of its scope, of its model, of the
//! two together, of each tag, and of each tag in its scope. So any [`Selector`] that names one of these is
//! answered by renewing one mark, whichever process stored the entries and however many there are.
//!
//! The marks of a request are known before its upstream call, those of its answer's tags only after. So
//! tags fall into [`GROUPS`] groups, and whoever invalidates a tag renews the mark of its group first. A
//! fill has read the groups before its call; if the group of one of its tags has moved since, the answer
//! is not stored. Without an invalidation of that very tag this costs a store, never an answer.
//!
//! A single key needs no mark in its entry, as it is deleted. But an answer to it may be under way in
//! another process: so keys fall into 256 groups, one of which each fill watches in the same way.
//!
//! Always true: generations are read before what is stored under them is computed.

use super::Inner;
use super::epoch::Epoch;
use super::outcome::NotStored;
use crate::clock::Timestamp;
use crate::codec::Mark;
use crate::entry::catalog::Selector;
use crate::error::Result;
use crate::generation::{Generations, MarkName};
use crate::request::{ExactKey, Request, Scope};
use crate::tier::Check;

/// Separates the ids of marks from every other use of BLAKE3.
const DOMAIN: &str = "askonce 2026 semantic cache mark v1";

/// Groups that tags fall into; a fill reads all of them.
const GROUPS: u8 = 16;

/// What a mark stands for.
enum Kind<'a> {
    Everything,
    Scope,
    Model(&'a str),
    Tag(&'a str),
    Group(u8),
    KeyGroup(u8),
}

/// The mark of something, in all scopes or in one.
fn mark(scope: Option<&[u8; 32]>, kind: &Kind<'_>) -> MarkName {
    let mut hasher = blake3::Hasher::new_derive_key(DOMAIN);
    let (kind, name): (u8, &[u8]) = match kind {
        Kind::Everything => (b'e', b""),
        Kind::Scope => (b's', b""),
        Kind::Model(model) => (b'm', model.as_bytes()),
        Kind::Tag(tag) => (b't', tag.as_bytes()),
        Kind::Group(group) => (b'g', std::slice::from_ref(group)),
        Kind::KeyGroup(group) => (b'k', std::slice::from_ref(group)),
    };
    hasher.update(&[kind, u8::from(scope.is_some())]);
    hasher.update(scope.map_or(&[][..], |digest| digest));
    hasher.update(name);
    MarkName::hashed(&hasher)
}

/// The mark that every entry carries.
pub(super) fn of_everything() -> MarkName {
    mark(None, &Kind::Everything)
}

/// The mark of every entry of a scope.
pub(super) fn of_scope(scope: &Scope) -> MarkName {
    mark(Some(&scope.digest()), &Kind::Scope)
}

/// The marks of every entry of a scope and a model.
pub(super) fn of(scope: &Scope, model: &str) -> Vec<MarkName> {
    let scope = scope.digest();
    vec![
        of_everything(),
        mark(Some(&scope), &Kind::Scope),
        mark(None, &Kind::Model(model)),
        mark(Some(&scope), &Kind::Model(model)),
    ]
}

/// The marks of every entry with one of these tags.
pub(super) fn of_tags(scope: &Scope, tags: &[String]) -> Vec<MarkName> {
    let scope = scope.digest();
    let mut names = Vec::with_capacity(tags.len() * 2);
    for tag in tags {
        for name in [None, Some(&scope)].map(|scope| mark(scope, &Kind::Tag(tag))) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

fn group_of(tag: &str) -> MarkName {
    let [first, ..] = *blake3::hash(tag.as_bytes()).as_bytes();
    mark(None, &Kind::Group(first % GROUPS))
}

fn key_group_of(key: &ExactKey) -> MarkName {
    let [first, ..] = *key.as_bytes();
    mark(None, &Kind::KeyGroup(first))
}

/// What to renew for an invalidation, in steps: each must be done before the next begins. None for what
/// only this process can find: single entries, and entries by age.
fn steps(selector: &Selector, scope: Option<&Scope>) -> Vec<MarkName> {
    let digest = scope.map(Scope::digest);
    let digest = digest.as_ref();
    match selector {
        Selector::All => match digest {
            None => vec![of_everything()],
            Some(_) => vec![mark(digest, &Kind::Scope)],
        },
        Selector::Scope(named) if scope.is_none_or(|scope| scope == named) => {
            vec![mark(Some(&named.digest()), &Kind::Scope)]
        }
        Selector::Model(model) => vec![mark(digest, &Kind::Model(model))],
        Selector::Tag(tag) => vec![group_of(tag), mark(digest, &Kind::Tag(tag))],
        Selector::Within(within, inner) if scope.is_none_or(|scope| scope == within) => {
            steps(inner, Some(within))
        }
        _ => Vec::new(),
    }
}

/// What was true when a fill began.
pub(super) struct Began {
    pub(super) epoch: Epoch,
    /// `None` when nothing is shared.
    seen: Option<Result<Seen>>,
}

/// The generations that a fill saw before it began.
struct Seen {
    /// Of what the entry will carry, as far as that was known.
    marks: Vec<Mark>,
    /// Of the group of its key.
    key: Vec<Mark>,
    /// Of the groups of tags; empty when the tags were known.
    groups: Vec<Mark>,
    generations: Generations,
}

/// What an entry is stored with.
pub(super) struct Terms {
    pub(super) marks: Vec<Mark>,
    pub(super) expires: Option<Timestamp>,
    generations: Generations,
}

impl Inner {
    /// What must be true of an entry for `request`.
    pub(super) fn check(&self, request: &Request) -> Check {
        let model = request.model_name().unwrap_or_default();
        self.check_of(request.scope_ref(), model)
    }

    /// What must be true of an entry of a scope and a model.
    pub(super) fn check_of(&self, scope: &Scope, model: &str) -> Check {
        let mut check = Check::default();
        if self.tiers.is_shared() {
            check.required = of(scope, model);
        }
        check
    }

    /// The marks of tags, where marks count.
    pub(super) fn tag_marks(&self, scope: &Scope, tags: &[String]) -> Vec<MarkName> {
        if self.tiers.is_shared() {
            of_tags(scope, tags)
        } else {
            Vec::new()
        }
    }

    /// Notes what is true before an answer is computed. `tags` are those that it will have, if that is known.
    pub(super) async fn begin(
        &self,
        epoch: Epoch,
        request: &Request,
        tags: Option<&[String]>,
    ) -> Began {
        let Some(board) = self.tiers.board() else {
            return Began { epoch, seen: None };
        };
        let scope = request.scope_ref();
        let mut names = of(scope, request.model_name().unwrap_or_default());
        let mut groups = 0;
        match tags {
            Some(tags) => names.extend(of_tags(scope, tags)),
            None => {
                groups = usize::from(GROUPS);
                names.extend((0..GROUPS).map(|group| mark(None, &Kind::Group(group))));
            }
        }
        names.push(key_group_of(&request.exact_key()));
        let seen = board.current(&names).await;
        let seen = seen.map(|(mut marks, generations)| Seen {
            key: marks.split_off(marks.len() - 1),
            groups: marks.split_off(marks.len() - groups),
            marks,
            generations,
        });
        Began {
            epoch,
            seen: Some(seen),
        }
    }

    /// With which marks, and until when, an entry is stored that lives until `expires`.
    ///
    /// # Errors
    /// [`NotStored::Invalidated`] when something that the entry depends on was invalidated since `began`.
    /// While that cannot be read, the entry is for this process alone, for as long as any near copy lives;
    /// [`NotStored::TierUnavailable`] where there is no near tier.
    pub(super) async fn terms(
        &self,
        began: &Began,
        scope: &Scope,
        tags: &[String],
        expires: Option<Timestamp>,
    ) -> Result<Terms, NotStored> {
        let known = match &began.seen {
            None => {
                return Ok(Terms {
                    marks: Vec::new(),
                    expires,
                    generations: Generations::default(),
                });
            }
            Some(Ok(seen)) => self.still(seen, scope, tags).await,
            Some(Err(error)) => Err(error.clone()),
        };
        match known {
            Ok(Some((marks, generations))) => Ok(Terms {
                marks,
                expires,
                generations,
            }),
            Ok(None) => Err(NotStored::Invalidated),
            Err(error) => {
                let (own, life) = self.tiers.unshared().ok_or(NotStored::TierUnavailable)?;
                tracing::debug!(%error, "an entry is kept by this process alone");
                let bound = self.clock.now().after(life);
                Ok(Terms {
                    marks: vec![own],
                    expires: Some(expires.map_or(bound, |expires| expires.min(bound))),
                    generations: Generations::default(),
                })
            }
        }
    }

    /// The marks of an entry with these tags; `None` when one has moved.
    async fn still(
        &self,
        seen: &Seen,
        scope: &Scope,
        tags: &[String],
    ) -> Result<Option<(Vec<Mark>, Generations)>> {
        let Some(board) = self.tiers.board() else {
            return Ok(None);
        };
        let mut marks = seen.marks.clone();
        let mut generations = seen.generations.clone();
        let mut bound = [&marks[..], &seen.key].concat();
        if !seen.groups.is_empty() && !tags.is_empty() {
            // Before the groups are read again: whoever moves a tag has moved its group by then.
            let (more, theirs) = board.current(&of_tags(scope, tags)).await?;
            generations.extend(theirs);
            marks.extend(more);
            let groups: Vec<_> = tags.iter().map(|tag| group_of(tag).id).collect();
            let groups = seen.groups.iter().filter(|mark| groups.contains(&mark.id));
            bound.extend(groups.copied());
        }
        let names = Generations::default().unknown(&bound);
        let now = board.read(&names).await;
        Ok(now.agree(&bound)?.then_some((marks, generations)))
    }

    /// Sees to it that the marks of a stored entry outlive it.
    pub(super) async fn keep_marks(&self, terms: &Terms) {
        if let Some(board) = self.tiers.board() {
            board.prolong(&terms.generations, terms.expires).await;
        }
    }

    /// Makes what `selector` means a miss in every process that shares a tier.
    pub(super) async fn renew(&self, selector: &Selector) {
        if !self.tiers.is_shared() {
            return;
        }
        for name in steps(selector, None) {
            self.renew_all(&[name]).await;
        }
    }

    /// Refuses the fills of these keys that other processes have begun.
    pub(super) async fn renew_keys(&self, keys: &[ExactKey]) {
        if !self.tiers.is_shared() {
            return;
        }
        let mut names: Vec<MarkName> = Vec::new();
        for name in keys.iter().map(key_group_of) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        self.renew_all(&names).await;
    }

    async fn renew_all(&self, names: &[MarkName]) {
        self.tiers.renew(names, &of_everything()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> Scope {
        Scope::tenant("acme")
    }

    /// The marks of an entry of `acme` and `gpt-4o` with the tag `doc:1`.
    fn marks() -> Vec<MarkName> {
        let tags = of_tags(&acme(), &["doc:1".to_owned()]);
        [of(&acme(), "gpt-4o"), tags].concat()
    }

    #[test]
    fn an_invalidation_renews_a_mark_of_each_entry_that_it_means_and_of_no_other() {
        let meant = [
            Selector::All,
            Selector::Scope(acme()),
            Selector::model("gpt-4o"),
            Selector::tag("doc:1"),
        ];
        let others = [
            Selector::Scope(Scope::tenant("globex")),
            Selector::model("gpt-4o-mini"),
            Selector::model("doc:1"),
            Selector::tag("doc:12"),
            Selector::tag("gpt-4o"),
        ];
        let hits = |selector: &Selector| {
            let last = steps(selector, None).pop();
            last.is_some_and(|name| marks().contains(&name))
        };
        for selector in meant {
            assert!(hits(&selector), "{selector:?}");
            assert!(hits(&selector.clone().within(acme())), "{selector:?}");
            let twice = selector.clone().within(acme()).within(acme());
            assert!(hits(&twice), "{selector:?}");
            let other = selector.within(Scope::tenant("globex"));
            assert!(!hits(&other), "{other:?}");
            assert!(!hits(&other.within(acme())));
        }
        for selector in others {
            assert!(!hits(&selector), "{selector:?}");
            assert!(!hits(&selector.clone().within(acme())), "{selector:?}");
        }
    }

    #[test]
    fn a_tag_moves_its_group_first() {
        let names = steps(&Selector::tag("doc:1"), None);
        assert_eq!(names.len(), 2);
        assert_eq!(names[0], group_of("doc:1"));
        let within = steps(&Selector::tag("doc:1").within(acme()), None);
        assert_eq!(within[0], names[0]);
        assert_ne!(within[1], names[1]);
    }
}
