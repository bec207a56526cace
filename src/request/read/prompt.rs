//! Reading a plain prompt: one user turn, with everything else given beside it.

use std::sync::OnceLock;

use super::super::{Content, Protocol, Request, Scope, Section, Texts, identity};

impl Request {
    /// A request that holds one prompt, in [`Scope::local`] and with no model named.
    ///
    /// ```
    /// use askonce::Request;
    ///
    /// let request = Request::prompt("  What is\ta monad? ");
    /// assert_eq!(request.last_user_text(), "  What is\ta monad? ");
    /// assert_eq!(request.fuzzy_text(), Some("What is a monad?"));
    /// ```
    #[must_use]
    pub fn prompt(text: impl Into<String>) -> Self {
        let text = text.into();
        let mut prompt = identity::section(Section::Prompt);
        prompt.list(1);
        prompt.text(&text);
        let whole = 0..text.len();
        let content = Content {
            protocol: Protocol::Prompt,
            conversation: identity::text_section(Section::Conversation, None),
            tools: identity::text_section(Section::Tools, None),
            parameters: identity::text_section(Section::Parameters, None),
            prompt: prompt.finish(),
            texts: Texts {
                buffer: text,
                ranges: vec![whole.clone()],
                last_user: whole,
            },
            bar: None,
            bypass: None,
            stream: false,
            reading: OnceLock::new(),
        };
        Self::new(content, Scope::local())
    }
}
