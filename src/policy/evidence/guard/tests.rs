use proptest::prelude::*;

use super::*;

fn conflict(a: &str, b: &str) -> Option<GuardKind> {
    GuardReport::compare(a, b).conflict()
}

#[test]
fn quantities_are_compared_after_magnitude_and_unit() {
    let kind = Some(GuardKind::Number);
    assert_eq!(
        conflict("convert 25000 INR to USD", "convert 25k INR to USD"),
        None
    );
    assert_eq!(
        conflict(
            "a laptop with 1 GB of memory",
            "a laptop with 2 GB of memory"
        ),
        kind
    );
    assert_eq!(conflict("how long is 5 km", "how long is 5 miles"), kind);
    assert_eq!(conflict("plan two meals", "plan 2 meals"), None);
    assert_eq!(
        conflict("a 3 day trip to Rome", "a three day trip to Rome"),
        None
    );
}

#[test]
fn a_negation_on_one_side_is_a_conflict_and_two_cancel() {
    assert_eq!(
        conflict("foods to eat", "foods not to eat"),
        Some(GuardKind::Negation)
    );
    assert_eq!(conflict("why can't I log in", "why cannot I log in"), None);
    assert_eq!(
        conflict("is it ok", "is it not unusual that it is not ok"),
        None
    );
}

#[test]
fn opposites_conflict_unless_both_sides_name_both() {
    let kind = Some(GuardKind::Antonym);
    assert_eq!(
        conflict("enable two factor login", "disable two factor login"),
        kind
    );
    assert_eq!(
        conflict(
            "pros and cons of remote work",
            "the pros and the cons of remote work"
        ),
        None
    );
}

#[test]
fn flags_are_compared_by_case_and_names_without() {
    let kind = Some(GuardKind::Identifier);
    assert_eq!(conflict("what does rm -R do", "what does rm -r do"), kind);
    assert_eq!(
        conflict("explain useEffect in react", "explain useeffect in react"),
        None
    );
    assert_eq!(conflict("upgrade to v2.1", "upgrade to v2.2"), kind);
    assert_eq!(conflict("open /etc/hosts", "open /etc/passwd"), kind);
}

#[test]
fn swapped_roles_conflict_and_reordered_wording_does_not() {
    let kind = Some(GuardKind::Order);
    assert_eq!(
        conflict(
            "is Messi better than Ronaldo",
            "is Ronaldo better than Messi"
        ),
        kind
    );
    assert_eq!(
        conflict("fly from Rome to Paris", "fly from Paris to Rome"),
        kind
    );
    let report = GuardReport::compare("learn java, best way", "best way: learn java");
    assert_ne!(report.order, GuardState::Conflict);
    assert_eq!(
        conflict("can a landlord sue a tenant", "can a tenant sue a landlord"),
        kind
    );
}

#[test]
fn one_word_in_anothers_place_is_another_slot() {
    let kind = Some(GuardKind::Substitution);
    assert_eq!(
        conflict("the capital of France", "the capital of Spain"),
        kind
    );
    assert_eq!(
        conflict("how to cancel a booking", "how to cancel bookings"),
        None
    );
    assert_eq!(
        conflict(
            "a formal letter of complaint",
            "a funny letter of complaint"
        ),
        kind
    );
}

#[test]
fn who_when_where_and_why_are_not_exchangeable() {
    let kind = Some(GuardKind::Question);
    assert_eq!(
        conflict(
            "who invented the telephone",
            "when was the telephone invented"
        ),
        kind
    );
    assert_eq!(
        conflict("what is the way to cook rice", "how do I cook rice"),
        None
    );
}

#[test]
fn days_and_quotes_must_be_the_same() {
    assert_eq!(
        conflict("open on Monday", "open on Tuesday"),
        Some(GuardKind::Calendar)
    );
    assert_eq!(
        conflict("translate \"good night\"", "translate \"good morning\""),
        Some(GuardKind::Quote)
    );
}

proptest! {
    #[test]
    fn any_two_texts_are_compared_symmetrically(a in ".{0,80}", b in ".{0,80}") {
        prop_assert_eq!(GuardReport::compare(&a, &b), GuardReport::compare(&b, &a));
    }

    #[test]
    fn a_text_never_conflicts_with_itself(a in ".{0,120}") {
        let spaced = format!("{a} ");
        prop_assert_eq!(GuardReport::compare(&a, &spaced).conflict(), None);
    }
}
