//! Step 8: whether an answer may be kept, once it is known.
//!
//! What is kept is given to others, perhaps for days. So an answer must be whole ([`Admission::document`]:
//! finish reasons, refusals, errors, calls of tools), of a size that can be looked through, and free of
//! secrets and, where asked for, of personal data ([`Admission::find`]). Who stores too much in an hour stores
//! no more for a while ([`Quotas`]).
//!
//! Rules are pure: the same answer is always judged alike, whatever way it came in. The write path asks them
//! all; a proxy asks [`Admission::document_for`] before, so that it can tell its caller why.
//!
//! What always holds:
//! - each answer that is not kept has one reason, [`Refused`], which is its metric label;
//! - a finding names its detector, never the text that was found;
//! - everything that is kept was looked through to the end, as larger texts are not kept.

mod config;
mod detect;
mod document;
mod personal;
mod quota;
mod refusal;
mod secrets;

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::entry::{Answer, Media};
use crate::error::Result;
use crate::request::{Protocol, Request};

pub use config::{AdmissionConfig, Detector, PatternConfig, PatternKind, QuotaConfig};
pub use detect::Finding;
pub use quota::Quotas;

use detect::Detectors;
use document::Rules;

/// Why an answer is given to those who wait for it and not kept. Every reason has a stable name, which is its
/// metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// The document is no answer of its protocol.
    NotAnAnswer,
    /// The document tells of an error.
    Error,
    /// The answer was cut short, as it was too long.
    Length,
    /// A filter of the provider took something out.
    ContentFilter,
    /// The provider paused a long turn: the answer goes on in another request.
    Paused,
    /// The answer does not tell that it ended, or ended for a reason that is not known here.
    Unfinished,
    /// The provider gave up.
    Failed,
    /// The model refused to answer.
    Refusal,
    /// There is no text, no call of a tool, nothing.
    EmptyAnswer,
    /// It calls a tool that is not marked safe to be called again.
    ToolCalls,
    /// There is a key, a password or another secret in the request or the answer.
    Secret,
    /// There is personal data in the request or the answer.
    PersonalData,
    /// The texts of the request are larger than what is kept.
    PromptTooLarge,
    /// The answer is larger than what is kept.
    AnswerTooLarge,
    /// Whoever asked has stored too much.
    Quota,
}

impl Refused {
    /// The stable name used in metrics and headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAnAnswer => "not_an_answer",
            Self::Error => "error",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
            Self::Paused => "paused",
            Self::Unfinished => "unfinished",
            Self::Failed => "failed",
            Self::Refusal => "refusal",
            Self::EmptyAnswer => "empty_answer",
            Self::ToolCalls => "tool_calls",
            Self::Secret => "secret",
            Self::PersonalData => "personal_data",
            Self::PromptTooLarge => "prompt_too_large",
            Self::AnswerTooLarge => "answer_too_large",
            Self::Quota => "quota",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Refused {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The rules of one cache for what may be kept.
///
/// ```
/// use askonce::admit::{Admission, AdmissionConfig, Refused};
/// use askonce::request::Protocol;
/// use serde_json::json;
///
/// let admission = Admission::new(&AdmissionConfig::default())?;
/// let answer = |finish: &str| json!({
///     "choices": [{ "finish_reason": finish, "message": { "role": "assistant", "content": "Paris." } }],
/// });
/// assert_eq!(admission.document(Protocol::OpenAiChat, &answer("stop")), Ok(()));
/// assert_eq!(admission.document(Protocol::OpenAiChat, &answer("length")), Err(Refused::Length));
/// # Ok::<(), askonce::Error>(())
/// ```
pub struct Admission {
    rules: Rules,
    detectors: Detectors,
    max_prompt_bytes: u64,
    max_answer_bytes: u64,
    min_principals: usize,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("detectors", &self.detectors.len())
            .field("min_principals", &self.min_principals)
            .finish_non_exhaustive()
    }
}

impl Admission {
    /// The rules that the settings describe.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) naming the field that is out of range, or the pattern
    /// that is no regular expression.
    pub fn new(config: &AdmissionConfig) -> Result<Self> {
        Self::at("admission", config)
    }

    /// As [`new`](Self::new), for settings that stand at `path`.
    fn at(path: &str, config: &AdmissionConfig) -> Result<Self> {
        config.check_ranges(path)?;
        Ok(Self {
            rules: Rules::new(&config.safe_tools, config.refusal_texts),
            detectors: Detectors::new(path, &config.detectors, &config.patterns)?,
            max_prompt_bytes: config.max_prompt_bytes.as_u64(),
            max_answer_bytes: config.max_answer_bytes.as_u64(),
            min_principals: config.min_principals,
        })
    }

    /// Whether a whole response document of `protocol` may be kept, going by what it says of itself.
    ///
    /// # Errors
    /// Why not.
    pub fn document(&self, protocol: Protocol, document: &Value) -> Result<(), Refused> {
        document::judge(&self.rules, protocol, document, &|_| false)
    }

    /// As [`document`](Self::document), for the answer to `request`: tools that it
    /// [marks safe](Request::safe_tool) are safe too.
    ///
    /// # Errors
    /// Why not.
    pub fn document_for(&self, request: &Request, document: &Value) -> Result<(), Refused> {
        let named = |tool: &str| request.safe_tools().any(|safe| matches(safe, tool));
        document::judge(&self.rules, request.protocol(), document, &named)
    }

    /// Whether an answer may be kept, going by its size and what it says of itself. An answer that somebody
    /// `approved` may read like a refusal.
    ///
    /// A document of another shape than the protocol's is not judged: programs may keep what they like.
    ///
    /// # Errors
    /// Why not.
    pub fn answer(
        &self,
        request: &Request,
        answer: &Answer,
        approved: bool,
    ) -> Result<(), Refused> {
        let prompt: usize = request.message_texts().map(str::len).sum();
        if prompt as u64 > self.max_prompt_bytes {
            return Err(Refused::PromptTooLarge);
        }
        if answer.body().len() as u64 > self.max_answer_bytes {
            return Err(Refused::AnswerTooLarge);
        }
        let judged = match answer.media() {
            Media::Json | Media::Stream if request.protocol() != Protocol::Prompt => {
                self.document_for(request, &answer.to_value())
            }
            _ if answer.as_str().trim().is_empty() => Err(Refused::EmptyAnswer),
            _ => self.rules.text(&answer.words()),
        };
        match judged {
            Err(Refused::NotAnAnswer) => Ok(()),
            Err(Refused::Refusal) if approved => Ok(()),
            judged => judged,
        }
    }

    /// The first secret or personal data in a request or its answer.
    #[must_use]
    pub fn find(&self, request: &Request, answer: &Answer) -> Option<Finding<'_>> {
        if self.detectors.len() == 0 {
            return None;
        }
        let asked = request
            .message_texts()
            .find_map(|text| self.detectors.find(text));
        asked.or_else(|| match answer.media() {
            // Unescaped, and without what separates the texts.
            Media::Json | Media::Stream => self.find_in(&answer.to_value()),
            Media::Text => self.detectors.find(answer.as_str()),
        })
    }

    /// The first secret or personal data in any text of a document.
    #[must_use]
    pub fn find_in(&self, document: &Value) -> Option<Finding<'_>> {
        match document {
            Value::String(text) => self.detectors.find(text),
            Value::Array(items) => items.iter().find_map(|item| self.find_in(item)),
            Value::Object(fields) => fields.iter().find_map(|(name, value)| {
                let named = self.detectors.find(name);
                named.or_else(|| self.find_in(value))
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }

    /// Principals that must have asked exactly this before an entry serves others by similarity.
    #[must_use]
    pub const fn min_principals(&self) -> usize {
        self.min_principals
    }
}

/// Whether a name is what `pattern` says, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("get_weather", "get_weather", true),
            ("get_weather", "get_weather_now", false),
            ("search_*", "search_", true),
            ("search_*", "search_docs", true),
            ("search_*", "research_docs", false),
            ("*_read", "file_read", true),
            ("*_read", "file_reads", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn texts_and_answers_beyond_the_limit_are_refused() {
        let config = AdmissionConfig {
            max_prompt_bytes: bytesize::ByteSize::b(8),
            max_answer_bytes: bytesize::ByteSize::b(8),
            ..AdmissionConfig::default()
        };
        let admission = Admission::new(&config).unwrap();
        let ask = |prompt: &str, answer: &str| {
            admission.answer(&Request::prompt(prompt), &Answer::text(answer), false)
        };
        assert_eq!(ask("12345678", "12345678"), Ok(()));
        assert_eq!(ask("123456789", "12345678"), Err(Refused::PromptTooLarge));
        assert_eq!(ask("12345678", "123456789"), Err(Refused::AnswerTooLarge));
    }

    #[test]
    fn what_was_approved_may_read_like_a_refusal() {
        let admission = Admission::new(&AdmissionConfig::default()).unwrap();
        let request = Request::prompt("How do I pick a lock?");
        let canned = Answer::text("I'm sorry, but I can't help with that.");
        assert_eq!(
            admission.answer(&request, &canned, false),
            Err(Refused::Refusal)
        );
        assert_eq!(admission.answer(&request, &canned, true), Ok(()));
    }

    #[test]
    fn a_document_of_a_programs_own_is_nobodys_to_judge() {
        let admission = Admission::new(&AdmissionConfig::default()).unwrap();
        let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hello" }] });
        let request = Request::from_openai_chat(&body, crate::Scope::local()).unwrap();
        let own = Answer::from(json!({ "label": "greeting" }));
        assert_eq!(admission.answer(&request, &own, false), Ok(()));
        let cut =
            json!({ "choices": [{ "finish_reason": "length", "message": { "content": "a" } }] });
        assert_eq!(
            admission.answer(&request, &Answer::from(cut), false),
            Err(Refused::Length)
        );
    }

    proptest! {
        #[test]
        fn a_pattern_without_a_star_is_a_name(name in "[a-z_]{0,8}", other in "[a-z_]{0,8}") {
            prop_assert!(matches(&name, &name));
            prop_assert_eq!(matches(&name, &other), name == other);
        }

        #[test]
        fn a_star_at_the_end_is_a_prefix(name in "[ab]{0,4}", other in "[ab]{0,6}") {
            prop_assert_eq!(matches(&format!("{name}*"), &other), other.starts_with(&name));
        }
    }
}
