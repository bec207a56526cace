//! Reading an OpenAI embeddings body: one request for each input.
//!
//! A vector belongs to its text alone, so each input has a key of its own and one body may be answered
//! in part from the cache. A similar text has another vector: similarity never applies. Nor does a
//! vector grow old with what its text is about.

use serde_json::Value;

use super::super::{IneligibleReason, Protocol, Request, Scope};
use super::openai_completions::is_tokens;
use super::{Form, Transcript, Turn, empty_list, read_model, unexpected};
use crate::Result;

const FORM: Form = Form {
    protocol: Protocol::OpenAiEmbeddings,
    // Read one by one, beside the body.
    excluded: &["input"],
    tools: &[],
    turns: &[],
};

impl Request {
    /// Reads an embeddings body into one request for each of its inputs, in their order. `scope` comes
    /// from the caller's authentication.
    ///
    /// ```
    /// use askonce::{Request, Scope};
    /// use serde_json::json;
    ///
    /// let scope = Scope::tenant("acme");
    /// let both = json!({ "model": "text-embedding-3-small", "input": ["one", "two"] });
    /// let two = json!({ "model": "text-embedding-3-small", "input": "two" });
    /// let both = Request::from_openai_embeddings(&both, scope.clone())?;
    /// let two = Request::from_openai_embeddings(&two, scope)?;
    /// assert_eq!(both[1].exact_key(), two[0].exact_key());
    /// assert_ne!(both[0].exact_key(), both[1].exact_key());
    /// # Ok::<(), askonce::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`from_openai_embedding_input`](Self::from_openai_embedding_input), and `InvalidRequest`
    /// when `input` is missing or empty.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "as the other readers take it"
    )]
    pub fn from_openai_embeddings(body: &Value, scope: Scope) -> Result<Vec<Self>> {
        let inputs = match FORM.open(body)?.get("input") {
            Some(Value::Array(items)) if items.is_empty() => {
                return Err(empty_list("input", "at least one input"));
            }
            Some(Value::Array(items)) if !items.iter().all(Value::is_number) => items.as_slice(),
            Some(input) => std::slice::from_ref(input),
            None => return Err(unexpected("input", "a text or tokens", None)),
        };
        inputs
            .iter()
            .map(|input| Self::from_openai_embedding_input(body, input, scope.clone()))
            .collect()
    }

    /// The request for one input of an embeddings body: a text or a list of tokens. All fields of the
    /// body count but `input`, which is not looked at, and those that change no vector.
    ///
    /// The body's `cache` object is read as it is for [chat](Self::from_openai_chat).
    ///
    /// # Errors
    /// `InvalidRequest`, naming the field, what was expected and what type was found, when the
    /// body is not an object, `model` is not a string, the input is neither a text nor tokens, `cache`
    /// is malformed, or something nests deeper than [`MAX_DEPTH`](crate::request::MAX_DEPTH).
    pub fn from_openai_embedding_input(body: &Value, input: &Value, scope: Scope) -> Result<Self> {
        let body = FORM.open(body)?;
        let model = read_model(body)?;
        let mut transcript = Transcript::new();
        match input {
            Value::String(text) => {
                Turn::LastUser.write(text, &mut transcript.conversation);
                transcript.last_user(vec![text]);
            }
            tokens if is_tokens(tokens) => transcript.conversation.value(tokens),
            other => return Err(unexpected("input", "a text or tokens", Some(other))),
        }
        let turns = transcript.finish(Some(IneligibleReason::Embedding));
        FORM.request(body, Some(model), turns, scope)
    }
}
