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

#[test]
fn converted_units_and_currency_signs_are_the_same_amount() {
    let agree = |a: &str, b: &str| GuardReport::compare(a, b).number == GuardState::Agree;
    assert!(agree("cook 0.5 kg of beef", "cook 500 g of beef"));
    assert!(agree("a limit of 1 GiB", "a limit of 1024 MiB"));
    assert!(agree("a layover of 90 min", "a layover of 1.5 hours"));
    assert!(agree("bake at 350 degrees fahrenheit", "bake at 350 °F"));
    assert!(agree("a gift for $50", "a gift for 50 dollars"));
    assert!(agree("a gift for $50", "a gift for 50"));
    assert!(!agree("a dose of 5 mg", "a dose of 5 g"));
    assert!(!agree("set it to 30 °C", "set it to 30 °F"));
    assert!(agree("the 3rd floor", "the third floor"));
}

#[test]
fn a_day_is_the_same_however_it_is_written() {
    let calendar = |a: &str, b: &str| {
        let report = GuardReport::compare(a, b);
        (report.calendar, report.number)
    };
    let agree = (GuardState::Agree, GuardState::Agree);
    assert_eq!(
        calendar(
            "what happened on 4 July 1776",
            "on July 4th, 1776, what happened"
        ),
        agree
    );
    assert_eq!(
        calendar("was 2020-02-29 a Monday", "was 29 February 2020 a Monday"),
        agree
    );
    assert_eq!(calendar("the 5th of March 2024", "March 5, 2024"), agree);
    assert_eq!(
        calendar(
            "what happened on 1 March 2000",
            "what happened on 3 January 2000"
        )
        .0,
        GuardState::Conflict
    );
    // A verb is no month, and a number beside one no day.
    assert_eq!(
        calendar("may 5 people march", "5 people may march").0,
        GuardState::OneSided
    );
}

#[test]
fn the_form_of_the_answer_is_part_of_the_question() {
    let kind = Some(GuardKind::Format);
    assert_eq!(
        conflict(
            "list the planets as JSON",
            "list the planets as a markdown table"
        ),
        kind
    );
    assert_eq!(
        conflict(
            "explain DNS in one sentence",
            "explain DNS in one paragraph"
        ),
        kind
    );
    assert_eq!(
        conflict(
            "benefits of yoga as bullet points",
            "benefits of yoga in a bulleted list"
        ),
        None
    );
    let report = GuardReport::compare("explain DNS", "explain DNS in a table");
    assert_eq!(report.format, GuardState::OneSided);
}

#[test]
fn the_language_of_the_answer_is_part_of_the_question() {
    let kind = Some(GuardKind::Language);
    assert_eq!(
        conflict(
            "implement quicksort in Go",
            "implement quicksort in Haskell"
        ),
        kind
    );
    assert_eq!(
        conflict("write hello world in C", "write hello world in C++"),
        kind
    );
    assert_eq!(
        conflict("translate it to polish", "translate it to dutch"),
        kind
    );
    let report = GuardReport::compare("where do I go in Rust", "which way do I swiftly polish");
    assert_ne!(
        report.language,
        GuardState::Conflict,
        "go and polish are verbs here"
    );
    assert_eq!(
        conflict(
            "loop over an array in JavaScript",
            "loop over an array in JS"
        ),
        None
    );
}

#[test]
fn names_and_rare_words_are_looked_for_in_all_of_the_other_text() {
    let entity = |a: &str, b: &str| GuardReport::compare(a, b).entity;
    assert_eq!(
        entity(
            "play some music by Nirvana please",
            "please play nirvana music"
        ),
        GuardState::Agree
    );
    assert_eq!(
        entity("i want to hear wolfsheim", "i want to hear zwan"),
        GuardState::Conflict
    );
    assert_eq!(
        entity("the visa rules for Brazilians", "the visa rules"),
        GuardState::OneSided
    );
    assert_eq!(entity("how are you", "how is it going"), GuardState::Absent);
    // Evidence, and no reason to pass alone.
    assert!(!GuardKind::Entity.is_veto());
}

#[test]
fn he_is_not_she_and_an_unnamed_it_is_seen() {
    assert_eq!(
        conflict("is he still alive", "is she still alive"),
        Some(GuardKind::Pronoun)
    );
    let pronoun = |a: &str, b: &str| GuardReport::compare(a, b).pronoun;
    assert_eq!(
        pronoun("who wrote it", "who wrote the trial"),
        GuardState::OneSided
    );
    assert_eq!(
        pronoun("is it safe to eat raw eggs", "are raw eggs safe to eat"),
        GuardState::Absent
    );
}

#[test]
fn two_things_joined_by_and_may_change_places() {
    let report = GuardReport::compare("compare TypeScript and Flow", "compare Flow and TypeScript");
    assert_eq!(report.order, GuardState::OneSided);
    assert_eq!(
        conflict("did he reject her", "did she reject him"),
        Some(GuardKind::Order)
    );
}

#[test]
fn a_passive_turns_the_roles_round_and_the_same_order_then_differs() {
    let order = |a: &str, b: &str| GuardReport::compare(a, b).order;
    assert_eq!(
        order(
            "did Joshua inherit the farm",
            "was the farm inherited by Joshua"
        ),
        GuardState::Agree
    );
    assert_eq!(
        order("did Justin sell the car", "was Justin sold by the car"),
        GuardState::Conflict
    );
}

#[test]
fn what_used_to_be_is_no_longer_and_or_is_not_and() {
    assert_eq!(
        conflict("is Ann a pilot", "did Ann use to be a pilot"),
        Some(GuardKind::Negation)
    );
    let report = GuardReport::compare("is Ann a pilot or a nurse", "is Ann a pilot and a nurse");
    assert_eq!(report.connective, GuardState::Conflict);
    assert!(!GuardKind::Connective.is_veto());
}

#[test]
fn every_guard_has_a_name_and_a_state_of_its_own() {
    let names: std::collections::BTreeSet<_> =
        GuardKind::ALL.into_iter().map(GuardKind::as_str).collect();
    assert_eq!(names.len(), GuardKind::ALL.len());
    for kind in GuardKind::ALL {
        let json = format!("{{\"{}\":\"conflict\"}}", kind.as_str());
        let report: GuardReport = serde_json::from_str(&json).unwrap();
        assert_eq!(report.state(kind), GuardState::Conflict);
        assert_eq!(report.conflict(), Some(kind).filter(|kind| kind.is_veto()));
    }
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
