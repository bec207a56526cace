//! Whether the same words stand in another order, or one word in another's place.

use super::GuardState;

/// Words of a text that carry its content, in order.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Sequence {
    /// Digests of the stems.
    stems: Box<[u32]>,
    /// Where the stem of each ends in `spelling`.
    ends: Box<[u32]>,
    spelling: Box<str>,
    /// Places whose word is joined to the one before by "and", "or" or the like.
    joined: Box<[u32]>,
    /// Whether some word gives the others different roles.
    is_relational: bool,
    passive: Option<Passive>,
}

/// Who does what to whom in "was the farm inherited by Joshua": stems of farm and Joshua.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passive {
    pub(super) patient: u32,
    pub(super) agent: u32,
}

/// Collects a [`Sequence`].
#[derive(Default)]
pub(super) struct Builder {
    stems: Vec<u32>,
    ends: Vec<u32>,
    spelling: String,
    joined: Vec<u32>,
    pub(super) is_relational: bool,
    pub(super) passive: Option<Passive>,
}

impl Builder {
    pub(super) fn push(&mut self, digest: u32, stem: &str, is_joined: bool) {
        if is_joined {
            self.joined.push(self.stems.len() as u32);
        }
        self.stems.push(digest);
        self.spelling.push_str(stem);
        self.ends.push(self.spelling.len() as u32);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stems.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.stems.len()
    }

    /// The word before the last, or nothing.
    pub(super) fn before_last(&self) -> Option<u32> {
        let place = self.stems.len().checked_sub(2)?;
        self.stems.get(place).copied()
    }

    pub(super) fn build(self) -> Sequence {
        Sequence {
            stems: self.stems.into(),
            ends: self.ends.into(),
            spelling: self.spelling.into(),
            joined: self.joined.into(),
            is_relational: self.is_relational,
            passive: self.passive,
        }
    }
}

impl Sequence {
    pub(super) fn heap_bytes(&self) -> usize {
        4 * (self.stems.len() + self.ends.len() + self.joined.len()) + self.spelling.len()
    }

    fn spelling(&self, place: usize) -> &str {
        let end = |place: usize| self.ends.get(place).map_or(0, |&end| end as usize);
        let start = place.checked_sub(1).map_or(0, end);
        self.spelling.get(start..end(place)).unwrap_or_default()
    }
}

/// The same content words in another order. Only texts that name at least two things can swap them.
pub(super) fn compare_order(a: &Sequence, b: &Sequence) -> GuardState {
    let voices = match (a.passive, b.passive) {
        (Some(passive), None) => compare_voices(passive, b),
        (None, Some(passive)) => compare_voices(passive, a),
        _ => None,
    };
    voices.unwrap_or_else(|| compare_places(a, b))
}

/// A passive sentence beside an active one: there the agent comes first.
fn compare_voices(passive: Passive, active: &Sequence) -> Option<GuardState> {
    let place = |stem: u32| active.stems.iter().position(|&other| other == stem);
    let (agent, patient) = (place(passive.agent)?, place(passive.patient)?);
    Some(if agent < patient {
        GuardState::Agree
    } else {
        GuardState::Conflict
    })
}

fn compare_places(a: &Sequence, b: &Sequence) -> GuardState {
    if a.stems.len() < 2 || a.stems.len() != b.stems.len() {
        return GuardState::Absent;
    }
    if a.stems == b.stems {
        return GuardState::Agree;
    }
    // A sum over mixed digests tells most texts apart without sorting.
    let sum = |stems: &[u32]| {
        stems.iter().fold(0u64, |sum, &stem| {
            sum.wrapping_add(u64::from(stem).wrapping_mul(0x9E37_79B9_7F4A_7C15))
        })
    };
    if sum(&a.stems) != sum(&b.stems) {
        return GuardState::Absent;
    }
    let sorted = |stems: &[u32]| {
        let mut stems = stems.to_vec();
        stems.sort_unstable();
        stems
    };
    if sorted(&a.stems) != sorted(&b.stems) {
        return GuardState::Absent;
    }
    let mut moved = (0u32..).zip(a.stems.iter().zip(&b.stems));
    let mut moved = moved.by_ref().filter(|(_, (x, y))| x != y);
    let (first, second, more) = (moved.next(), moved.next(), moved.next());
    if let (Some((i, _)), Some((j, _)), None) = (first, second, more) {
        // "Flow and TypeScript" is "TypeScript and Flow"; two other words that changed places are two
        // roles.
        let is_list = j == i + 1 && a.joined.contains(&j) && b.joined.contains(&j);
        return if is_list {
            GuardState::OneSided
        } else {
            GuardState::Conflict
        };
    }
    // A clause moved as a whole is mere wording.
    if a.is_relational || b.is_relational {
        GuardState::Conflict
    } else {
        GuardState::OneSided
    }
}

/// All content words the same but one on each side.
pub(super) fn compare_substitution(a: &Sequence, b: &Sequence) -> GuardState {
    let (in_a, in_b) = (only(a, b), only(b, a));
    match (in_a, in_b) {
        (Only::Nothing, Only::Nothing) => GuardState::Absent,
        (Only::One(x), Only::One(y)) if a.stems.len() > 1 || b.stems.len() > 1 => {
            if are_forms_of_one_word(a.spelling(x), b.spelling(y)) {
                GuardState::Agree
            } else {
                GuardState::Conflict
            }
        }
        (Only::Nothing, _) | (_, Only::Nothing) => GuardState::OneSided,
        _ => GuardState::Absent,
    }
}

/// The words of one text that the other has not.
enum Only {
    Nothing,
    /// One, at this place; it may occur more than once.
    One(usize),
    Several,
}

fn only(here: &Sequence, there: &Sequence) -> Only {
    let mut found = Only::Nothing;
    for (place, stem) in here.stems.iter().enumerate() {
        if there.stems.contains(stem) {
            continue;
        }
        found = match found {
            Only::Nothing => Only::One(place),
            Only::One(first) if here.stems.get(first) == Some(stem) => Only::One(first),
            _ => return Only::Several,
        };
    }
    found
}

/// Whether two words share all but a short ending.
fn are_forms_of_one_word(x: &str, y: &str) -> bool {
    let common = x.chars().zip(y.chars()).take_while(|(p, q)| p == q).count();
    let longest = x.chars().count().max(y.chars().count());
    let is_prefix = x.starts_with(y) && y.len() <= 4 || y.starts_with(x) && x.len() <= 4;
    common >= 4 && longest - common <= 3 && !is_prefix
}
