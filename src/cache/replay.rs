//! Hits as responses.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde_json::json;

use super::outcome::Hit;
use super::{Inner, SemanticCache};
use crate::entry::EntryId;
use crate::error::Result;
use crate::replay::{self, Event, Stamp, Template, Wanted};
use crate::request::Request;

/// Bytes of what is kept beside a response.
const OVERHEAD: usize = 256;
/// Bytes for each of which one entry is expected. The cache falls into parts for 32 of them or more, and keeps
/// nothing that is larger than a part.
const FOR_ONE: usize = 32 << 10;

/// In what form a caller wants an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// As one document.
    Whole,
    /// As a stream of events.
    Stream(Wanted),
}

/// How a hit is told in the response: those that differ in it are different responses.
type Told = (&'static str, Form);

/// The responses that tell one entry.
type Forms = Arc<[(Told, Arc<Template>)]>;

/// Responses of entries that were given of late, but for their ids and times.
pub(super) struct Ready(Cache<EntryId, Forms, Weigh>);

#[derive(Clone)]
struct Weigh;

impl Weighter<EntryId, Forms> for Weigh {
    fn weight(&self, _: &EntryId, forms: &Forms) -> u64 {
        let bytes = forms.iter().map(|(_, form)| form.bytes() + OVERHEAD);
        bytes.sum::<usize>() as u64
    }
}

impl Ready {
    /// Room for so many bytes of responses.
    pub(super) fn new(most_bytes: u64) -> Self {
        let items = usize::try_from(most_bytes).unwrap_or(usize::MAX) / FOR_ONE;
        Self(Cache::with_weighter(items, most_bytes, Weigh))
    }

    fn get(&self, entry: EntryId, told: Told) -> Option<Arc<Template>> {
        let forms = self.0.get(&entry)?;
        let found = forms.iter().find(|(other, _)| *other == told);
        found.map(|(_, form)| Arc::clone(form))
    }

    fn keep(&self, entry: EntryId, told: Told, form: &Arc<Template>) {
        let others = self.0.get(&entry);
        let others = others.iter().flat_map(|forms| forms.iter());
        let forms = others
            .filter(|(other, _)| *other != told)
            .cloned()
            .chain([(told, Arc::clone(form))]);
        self.0.insert(entry, forms.collect());
    }

    pub(super) fn forget(&self, entry: EntryId) {
        self.0.remove(&entry);
    }
}

impl Inner {
    /// What a response says that answers `request` by `hit`.
    fn stamp(request: &Request, hit: &Hit) -> Stamp {
        let usage = hit.saved.usage;
        let model = request.model_name().unwrap_or_default();
        Stamp::fresh().about(model, usage.input_tokens, usage.output_tokens)
    }
}

impl SemanticCache {
    /// The body of a new response that answers `request` by `hit`: under an id of its own, at the time of now,
    /// and with a note under `askonce` in its `usage` that tells how the answer was found.
    ///
    /// The protocol is the request's. What was given of late is kept ready, as
    /// [`ready_bytes`](crate::Config::ready_bytes) allows.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest) when what is stored cannot be given in
    /// this protocol.
    ///
    /// ```
    /// use askonce::{Answer, Form, Protocol, Request, Scope, SemanticCache, StoreOptions};
    /// use serde_json::{Value, json};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> askonce::Result<()> {
    /// let cache = SemanticCache::in_memory()?;
    /// let body = json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": "And Rome?" }] });
    /// let request = Request::read(Protocol::OpenAiChat, &body, Scope::local())?;
    /// cache.store(&request, Answer::text("Italy."), StoreOptions::default()).await;
    /// let hit = cache.lookup(&request).await.hit().unwrap();
    /// let given = cache.replay(&request, &hit, Form::Whole)?;
    /// let given: Value = serde_json::from_slice(&given).unwrap();
    /// assert_eq!(given["choices"][0]["message"]["content"], "Italy.");
    /// assert_eq!(given["usage"]["askonce"]["kind"], "exact");
    /// # Ok(())
    /// # }
    /// ```
    pub fn replay(&self, request: &Request, hit: &Hit, form: Form) -> Result<Vec<u8>> {
        let told = (hit.kind.as_str(), form);
        let template = match self.inner.ready.get(hit.entry, told) {
            Some(template) => template,
            None => {
                let stamp = noted(Inner::stamp(request, hit), hit);
                let (source, protocol) = (hit.answer.source(), request.protocol());
                let template = Template::of(stamp, |stamp| match form {
                    Form::Whole => replay::whole(source, protocol, stamp).map(String::into_bytes),
                    Form::Stream(wanted) => {
                        let events = replay::stream(source, protocol, stamp, wanted)?;
                        let mut bytes = Vec::new();
                        for event in &events {
                            event.write(&mut bytes);
                        }
                        Ok(bytes)
                    }
                })?;
                let template = Arc::new(template);
                self.inner.ready.keep(hit.entry, told, &template);
                template
            }
        };
        Ok(template.fill(&Stamp::fresh()))
    }

    /// As [`replay`](Self::replay) for a stream whose events are to be sent one by one.
    ///
    /// # Errors
    /// As [`replay`](Self::replay).
    pub fn replay_events(
        &self,
        request: &Request,
        hit: &Hit,
        wanted: Wanted,
    ) -> Result<Vec<Event>> {
        let stamp = noted(Inner::stamp(request, hit), hit);
        replay::stream(hit.answer.source(), request.protocol(), &stamp, wanted)
    }
}

fn noted(stamp: Stamp, hit: &Hit) -> Stamp {
    stamp.note(json!({ "cached": true, "kind": hit.kind.as_str(), "entry": hit.entry }))
}
