//! Secrets and personal data: what is found, what is not mistaken for them, and that it is not kept.
//!
//! Secrets are made up here by their shape, so that none stands in the repository.

use std::sync::LazyLock;

use askonce::admit::{Admission, AdmissionConfig, Detector, PatternConfig, PatternKind, Refused};
use askonce::cache::NotStored;
use askonce::{Answer, Request, StoreOptions, StoreOutcome};
use proptest::prelude::*;
use proptest::string::string_regex;
use serde_json::json;

use crate::support::ask;
use crate::{cache_with, chat, completion};

const PERSONAL: [Detector; 6] = [
    Detector::Email,
    Detector::Phone,
    Detector::CreditCard,
    Detector::Iban,
    Detector::Ssn,
    Detector::Ip,
];

/// Each secret by its shape, and the detector that is to find it.
const SECRETS: &[(&str, &str)] = &[
    ("api_key", "sk-[A-Za-z0-9]{24}[0-9]{2}[A-Za-z0-9]{22}"),
    ("api_key", "sk-proj-[A-Za-z0-9]{30}[0-9]{2}[A-Za-z0-9_]{40}"),
    (
        "api_key",
        "sk-ant-api03-[A-Za-z0-9]{40}[0-9]{2}[A-Za-z0-9]{50}AA",
    ),
    ("api_key", "gsk_[A-Za-z0-9]{52}"),
    ("api_key", "hf_[A-Za-z0-9]{34}"),
    ("api_key", "npm_[A-Za-z0-9]{36}"),
    ("api_key", "glpat-[A-Za-z0-9]{20}"),
    ("api_key", "SG\\.[A-Za-z0-9]{22}\\.[A-Za-z0-9]{43}"),
    (
        "api_key",
        "api_key ?= ?\"[a-z]{12}[0-9]{4}[A-Z]{12}[0-9]{4}\"",
    ),
    ("api_key", "client-secret: [A-Za-z]{16}[0-9]{6}[A-Za-z]{16}"),
    (
        "private_key",
        "-----BEGIN (RSA |EC |OPENSSH )?PRIVATE KEY-----\n[A-Za-z0-9+/]{64}\n[A-Za-z0-9+/]{64}\n",
    ),
    (
        "jwt",
        "eyJ[A-Za-z0-9_]{20}\\.eyJ[A-Za-z0-9_]{60}\\.[A-Za-z0-9_]{43}",
    ),
    ("aws_key", "(AKIA|ASIA)[A-F]{4}[G-N]{4}[0-9]{4}[O-Z]{4}"),
    (
        "aws_key",
        "aws_secret_access_key = [a-z]{10}[0-9]{10}[A-Z]{10}[/+a-z]{10}",
    ),
    ("gcp_key", "AIza[0-9A-Za-z]{35}"),
    ("gcp_key", "GOCSPX-[0-9A-Za-z]{28}"),
    ("github_token", "gh[pousr]_[A-Za-z0-9]{36}"),
    ("github_token", "github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    ("slack_token", "xox[bp]-[0-9]{12}-[0-9]{12}-[A-Za-z0-9]{24}"),
    (
        "stripe_key",
        "(sk|rk)_live_[A-Za-z]{12}[0-9]{2}[A-Za-z0-9]{12}",
    ),
    (
        "url_password",
        "postgres://[a-z]{4,8}:[a-f]{3}[0-9]{3}[g-z]{3}@db\\.internal:5432/app",
    ),
    (
        "bearer_token",
        "Authorization: Bearer [A-Za-z]{16}[0-9]{4}[A-Za-z]{16}",
    ),
    (
        "bearer_token",
        "Authorization: Basic [A-Za-z]{8}[0-9]{4}[A-Za-z0-9]{8}==",
    ),
];

fn looking_for(detectors: &[Detector]) -> Admission {
    let config = AdmissionConfig {
        detectors: detectors.to_vec(),
        ..AdmissionConfig::default()
    };
    Admission::new(&config).unwrap()
}

/// Made once: patterns take a while to compile.
fn secrets() -> &'static Admission {
    static SECRETS: LazyLock<Admission> = LazyLock::new(|| looking_for(&[Detector::Secrets]));
    &SECRETS
}

fn personal() -> &'static Admission {
    static ALL: LazyLock<Admission> = LazyLock::new(|| looking_for(&PERSONAL));
    &ALL
}

/// The detector that finds something in a prompt.
fn found(admission: &Admission, text: &str) -> Option<String> {
    let finding = admission.find(&Request::prompt(text), &Answer::text("Yes."));
    finding.map(|finding| finding.detector.to_owned())
}

fn any_secret() -> impl Strategy<Value = (&'static str, String)> {
    (0..SECRETS.len()).prop_flat_map(|i| {
        let (detector, shape) = SECRETS[i];
        let made = string_regex(shape).expect("a shape is a regular expression");
        made.prop_map(move |secret| (detector, secret))
    })
}

/// Sixteen digits of which the last is the check digit.
fn card(digits: &[u8]) -> String {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, digit)| match (i % 2, u32::from(*digit) * 2) {
            (1, _) => u32::from(*digit),
            (_, double) => double / 10 + double % 10,
        })
        .sum();
    let shown: String = digits.iter().map(ToString::to_string).collect();
    format!("{shown}{}", (10 - sum % 10) % 10)
}

/// An account number with its check digits: 98 less what the rest comes to.
fn iban(country: &str, account: &str) -> String {
    let spelt: String = format!("{account}{country}00")
        .chars()
        .map(|c| c.to_digit(36).unwrap().to_string())
        .collect();
    let remainder = spelt.bytes().fold(0_u32, |sum, digit| {
        (sum * 10 + u32::from(digit - b'0')) % 97
    });
    format!("{country}{:02}{account}", 98 - remainder)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_secret_is_found_wherever_it_stands(
        (detector, secret) in any_secret(),
        before in "[a-z äöü.,]{0,40}[ \n(]",
        after in "[ \n.,)][a-z 漢字.,]{0,40}",
    ) {
        let admission = secrets();
        let text = format!("{before}{secret}{after}");
        prop_assert_eq!(found(admission, &text), Some(detector.to_owned()));
        // In an answer's document, where it is escaped.
        let request = chat("What is our key?");
        let answer = completion("stop", &json!({ "role": "assistant", "content": text }));
        let finding = admission.find(&request, &answer);
        prop_assert_eq!(finding.map(|finding| finding.reason), Some(Refused::Secret));
    }

    #[test]
    fn words_are_no_secrets(text in "([a-zA-Z]{1,12}[ ,.\n-]){0,60}") {
        prop_assert_eq!(found(secrets(), &text), None);
    }

    #[test]
    fn a_card_number_is_found_by_its_check_digit(
        rest in prop::collection::vec(0_u8..10, 14),
        first in 4_u8..6,
        space in prop::sample::select(vec!["", " ", "-"]),
        wrong in 1_u32..10,
    ) {
        let digits: Vec<u8> = std::iter::once(first).chain(rest).collect();
        let number = card(&digits);
        let shown = |number: &str| {
            let groups: Vec<&str> = (0..4).map(|i| &number[i * 4..i * 4 + 4]).collect();
            format!("Charge 1234 {} please, 5678 times", groups.join(space))
        };
        let (head, last) = number.split_at(15);
        let other = format!("{head}{}", (last.parse::<u32>().unwrap() + wrong) % 10);
        let admission = personal();
        prop_assert_eq!(found(admission, &shown(&number)), Some("credit_card".to_owned()));
        // With another last digit it is not, unless some other row of digits in there is one.
        if space.is_empty() {
            prop_assert_eq!(found(admission, &shown(&other)), None);
        }
    }

    #[test]
    fn an_account_number_is_found_by_its_check_digits(
        account in "[0-9]{18}",
        spaced in any::<bool>(),
    ) {
        let number = iban("DE", &account);
        let shown = |number: &str| match spaced {
            false => format!("Pay to {number}, please"),
            true => {
                let groups: Vec<&str> = (0..6).map(|i| &number[i * 4..number.len().min(i * 4 + 4)]).collect();
                format!("Pay to {} PLEASE", groups.join(" "))
            }
        };
        let admission = personal();
        prop_assert_eq!(found(admission, &shown(&number)), Some("iban".to_owned()));
        let last = number.chars().last().and_then(|c| c.to_digit(10)).unwrap();
        let wrong = format!("{}{}", &number[..21], (last + 1) % 10);
        prop_assert!(found(admission, &shown(&wrong)) != Some("iban".to_owned()));
    }
}

#[test]
fn placeholders_are_no_secrets() {
    let admission = secrets();
    for text in [
        "Set OPENAI_API_KEY=sk-your-api-key-here and run it.",
        "export OPENAI_API_KEY=sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "The class is sk-fading-circle-animation-container.",
        "What does -----BEGIN PRIVATE KEY----- mean?",
        "AKIAIOSFODNN7EXAMPLE is the key in the documentation.",
        "postgres://user:password@localhost:5432/db",
        "postgres://postgres:postgres@localhost/db",
        "redis://:${REDIS_PASSWORD}@cache:6379",
        "mysql://root:<your-password>@host/db",
        "Authorization: Bearer YOUR_ACCESS_TOKEN_GOES_HERE",
        "api_key = os.environ[\"SERVICE_API_KEY_FOR_PROJECT_1234\"]",
        "client_secret = SERVICE_CLIENT_SECRET_FOR_STAGING_2024",
        "git clone git@github.com:rust-lang/rust.git",
        "xoxb-your-token-goes-here",
        "commit 3f786850e387550fdab836ed7e6dc881de23001b",
        "550e8400-e29b-41d4-a716-446655440000",
        "http://localhost:8080@example",
    ] {
        assert_eq!(found(admission, text), None, "{text}");
    }
}

#[test]
fn personal_data_is_found_and_its_examples_are_not() {
    let admission = personal();
    for (text, expected) in [
        ("Write to jane.doe+x@mail.acme.co.uk today", Some("email")),
        ("Write to someone@example.com today", None),
        ("Write to a@b today", None),
        ("Call +49 30 901820 now", Some("phone")),
        ("Call +1 (415) 555-2671", Some("phone")),
        ("Call 415-555-2671", Some("phone")),
        ("Call (415) 555-2671", Some("phone")),
        ("What is 2+12345678?", None),
        ("x = (a)+12345678", None),
        ("My number is 078-05-1120", Some("ssn")),
        ("My number is 000-12-3456", None),
        ("My number is 912-12-3456", None),
        ("Part 1-078-05-1120", None),
        ("From 8.8.8.8 it works", Some("ip")),
        ("From 192.168.0.1 and 10.1.2.3 it works", None),
        ("From 203.0.113.7 it works", None),
        ("Version 1.2.3.4 and 8.8.8.8.8", None),
        ("At 2a00:1450:4001:81b::200e it works", Some("ip")),
        ("At 2001:db8::1 and 10:30:45 it works", None),
        ("Order 1234567890123456", None),
        ("Card 0000 0000 0000 0000", None),
    ] {
        assert_eq!(found(admission, text).as_deref(), expected, "{text}");
    }
    // None of it is looked for unless asked for.
    assert_eq!(found(secrets(), "Write to jane.doe@mail.acme.co.uk"), None);
}

#[test]
fn detectors_are_chosen_one_by_one() {
    let admission = looking_for(&[Detector::GithubToken]);
    let token = format!("ghp_{}", "a1B2c3D4e5F6".repeat(3));
    assert_eq!(found(&admission, &token).as_deref(), Some("github_token"));
    let key = format!("sk-{}", "a1B2c3D4e5F6".repeat(4));
    assert_eq!(found(&admission, &key), None);
    assert_eq!(found(secrets(), &key).as_deref(), Some("api_key"));
    assert_eq!(found(&looking_for(&[]), &token), None);
}

#[tokio::test]
async fn what_is_found_is_not_kept_whichever_way_it_comes_in() {
    let config = AdmissionConfig {
        patterns: vec![PatternConfig {
            name: "badge".to_owned(),
            regex: r"\bE-\d{6}\b".to_owned(),
            kind: PatternKind::PersonalData,
        }],
        ..AdmissionConfig::default()
    };
    let (_, cache) = cache_with(config).await;
    let token = format!("ghp_{}", "a1B2c3D4e5F6".repeat(3));
    let secret = NotStored::Refused(Refused::Secret);
    for (request, answer, expected) in [
        (ask(&format!("Is {token} mine?")), "Yes.".to_owned(), secret),
        (ask("What is my token?"), token.clone(), secret),
        // In instructions, and far behind in a long text.
        (ask("hello").system(token.clone()), "Hi.".to_owned(), secret),
        (
            ask(&format!("{} {token}", "word ".repeat(40_000))),
            "Yes.".to_owned(),
            secret,
        ),
        (
            ask("Who is E-123456?"),
            "A colleague.".to_owned(),
            NotStored::Refused(Refused::PersonalData),
        ),
    ] {
        let answer = Answer::text(answer);
        let outcome = cache.store(&request, answer.clone(), StoreOptions::default());
        assert_eq!(outcome.await, StoreOutcome::NotStored { reason: expected });
        let call = move || async move { Ok::<_, std::io::Error>(answer.into()) };
        let served = cache.get_or_call(&request, call).await.unwrap();
        assert!(served.source.hit().is_none());
        assert!(!cache.lookup(&request).await.is_hit());
    }
    assert_eq!(cache.stats().await.entries, 0);
}
