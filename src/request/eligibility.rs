//! Which requests may be answered by a similar one, and why the others may not.
//!
//! Similarity compares the text of the last user turn. Where that text is not what the model is
//! asked to answer (a tool result came after it, an image stands beside it, it is empty), two
//! requests with the same text may need different answers: such requests are served by their
//! exact key only. An agent whose last user text is empty on every turn must not replay one answer
//! for all of them.
//!
//! A few requests may not be answered by a stored answer at all: their call does more than answer.

use std::fmt;

/// Whether a request takes part in similarity search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Eligibility {
    /// Similar requests of the same partition may answer it.
    Eligible,
    /// Only the same request may answer it.
    ExactOnly(IneligibleReason),
}

impl Eligibility {
    /// Whether similarity may be used.
    #[must_use]
    pub const fn is_eligible(self) -> bool {
        matches!(self, Self::Eligible)
    }

    /// Why similarity may not be used, if so.
    #[must_use]
    pub const fn reason(self) -> Option<IneligibleReason> {
        match self {
            Self::Eligible => None,
            Self::ExactOnly(reason) => Some(reason),
        }
    }
}

/// Why a request is answered by its exact key only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IneligibleReason {
    /// No message has the role `user`.
    NoUserTurn,
    /// The last user text holds nothing visible.
    EmptyUserText,
    /// A tool or function result follows the last user turn.
    ToolResultTurn,
    /// An assistant message follows the last user turn: the model is to continue it.
    AssistantPrefill,
    /// A message of a role unknown to us follows the last user turn.
    UnknownRoleTurn,
    /// The last user turn holds an image, audio, a file or another part that is not text.
    NonTextPart,
    /// The body holds several prompts, and asks for an answer to each.
    PromptList,
    /// The prompt is a list of tokens: there is no text to compare.
    TokenPrompt,
    /// The request is for an embedding: a similar text has another one.
    Embedding,
    /// The normalised text is longer than [`FUZZY_TEXT_LIMIT`](super::FUZZY_TEXT_LIMIT).
    TextTooLong,
}

impl IneligibleReason {
    /// The stable, snake-case name used in metrics, headers and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoUserTurn => "no_user_turn",
            Self::EmptyUserText => "empty_user_text",
            Self::ToolResultTurn => "tool_result_turn",
            Self::AssistantPrefill => "assistant_prefill",
            Self::UnknownRoleTurn => "unknown_role_turn",
            Self::NonTextPart => "non_text_part",
            Self::PromptList => "prompt_list",
            Self::TokenPrompt => "token_prompt",
            Self::Embedding => "embedding",
            Self::TextTooLong => "text_too_long",
        }
    }
}

impl fmt::Display for IneligibleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a request passes by the cache: a stored answer would stand for the words of a call and not for
/// what else it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BypassReason {
    /// The call works on something that the provider keeps and that calls change: a conversation to
    /// which it appends, a container with files.
    ProviderState,
    /// The call is a job to be asked for later: its first answer holds no result.
    Background,
}

impl BypassReason {
    /// The stable, snake-case name used in metrics, headers and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProviderState => "provider_state",
            Self::Background => "background",
        }
    }
}

impl fmt::Display for BypassReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
