//! An answer made ready: as it is given, but for what is new each time.

use std::ops::Range;

use super::render::Stamp;
use crate::error::Result;

/// The bytes of a response with gaps for its id and its time.
///
/// It is made by giving the answer once, under an id and at a time that are chosen at random and stand nowhere
/// else in it, and looking where they came out. So it holds for every protocol and every form, and whatever is
/// given is made by one code.
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// In order, and none within another.
    gaps: Vec<Gap>,
}

struct Gap {
    range: Range<usize>,
    filling: Filling,
}

#[derive(Clone, Copy)]
enum Filling {
    Id,
    Created,
}

impl Template {
    /// What `give` makes of an answer under a stamp like `stamp`.
    ///
    /// # Errors
    /// Those of `give`.
    pub(crate) fn of(stamp: Stamp, give: impl FnOnce(&Stamp) -> Result<Vec<u8>>) -> Result<Self> {
        // A number of 20 digits, as no clock gives it.
        const NEVER: u64 = 10_000_000_000_000_000_000;
        let (id, created): (u128, u64) = (rand::random(), rand::random_range(NEVER..=u64::MAX));
        let bytes = give(&stamp.with(id, created))?;
        let marks = [
            (Stamp::id(id), Filling::Id),
            (created.to_string(), Filling::Created),
        ];
        let mut gaps: Vec<Gap> = marks
            .iter()
            .flat_map(|(mark, filling)| {
                places(&bytes, mark).map(|range| Gap {
                    range,
                    filling: *filling,
                })
            })
            .collect();
        gaps.sort_unstable_by_key(|gap| gap.range.start);
        Ok(Self { bytes, gaps })
    }

    /// The response under the id and at the time of `stamp`.
    pub(crate) fn fill(&self, stamp: &Stamp) -> Vec<u8> {
        let (id, created) = stamp.texts();
        let mut out = Vec::with_capacity(self.bytes.len());
        let mut done = 0;
        for gap in &self.gaps {
            out.extend_from_slice(&self.bytes[done..gap.range.start]);
            out.extend_from_slice(match gap.filling {
                Filling::Id => id.as_bytes(),
                Filling::Created => created.as_bytes(),
            });
            done = gap.range.end;
        }
        out.extend_from_slice(&self.bytes[done..]);
        out
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.capacity() + self.gaps.capacity() * size_of::<Gap>()
    }
}

/// Where `mark` stands in `bytes`.
fn places<'a>(bytes: &'a [u8], mark: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
    memchr::memmem::find_iter(bytes, mark).map(|at| at..at + mark.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::replay::{self, Recording, Source, Wanted};
    use crate::request::Protocol;

    fn document(protocol: Protocol) -> serde_json::Value {
        match protocol {
            Protocol::AnthropicMessages => json!({
                "id": "msg_01", "type": "message", "role": "assistant", "model": "m",
                "content": [{ "type": "text", "text": "One 1700000000 two." }],
                "stop_reason": "end_turn", "stop_sequence": null,
                "usage": { "input_tokens": 3, "output_tokens": 5 },
            }),
            Protocol::OpenAiResponses => json!({
                "id": "resp_01", "object": "response", "created_at": 1_700_000_000, "status": "completed",
                "model": "m", "store": false, "output": [{
                    "id": "msg_01", "type": "message", "status": "completed", "role": "assistant",
                    "content": [{ "type": "output_text", "text": "One two.", "annotations": [] }],
                }],
                "usage": { "input_tokens": 3, "output_tokens": 5, "total_tokens": 8 },
            }),
            Protocol::OpenAiCompletions => json!({
                "id": "cmpl-01", "object": "text_completion", "created": 1_700_000_000, "model": "m",
                "choices": [{ "index": 0, "text": "One two.", "logprobs": null, "finish_reason": "stop" }],
            }),
            _ => json!({
                "id": "chatcmpl-01", "object": "chat.completion", "created": 1_700_000_000, "model": "m",
                "choices": [{
                    "index": 0, "message": { "role": "assistant", "content": "One chatcmpl-01 two." },
                    "finish_reason": "stop",
                }],
                "usage": { "prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8 },
            }),
        }
    }

    #[test]
    fn a_template_gives_what_rendering_gives() {
        for protocol in [
            Protocol::OpenAiChat,
            Protocol::OpenAiCompletions,
            Protocol::OpenAiResponses,
            Protocol::AnthropicMessages,
        ] {
            let document = document(protocol);
            let bytes = document.to_string();
            let recording = Recording::of_document(protocol, &document).to_text();
            let stamp = Stamp::fresh()
                .about("m", 3, 5)
                .note(json!({ "cached": true }));
            for source in [
                Source::Text("One two."),
                Source::Document(bytes.as_bytes()),
                Source::Recording(&recording),
            ] {
                let whole =
                    |stamp: &Stamp| replay::whole(source, protocol, stamp).map(String::into_bytes);
                let stream = |stamp: &Stamp| {
                    let wanted = Wanted { usage: true };
                    let events = replay::stream(source, protocol, stamp, wanted)?;
                    Ok(events.iter().flat_map(replay::Event::to_bytes).collect())
                };
                let whole_again = Template::of(stamp.clone(), whole).unwrap();
                let stream_again = Template::of(stamp.clone(), stream).unwrap();
                for _ in 0..2 {
                    let stamp = stamp.clone().with(rand::random(), 1_800_000_000);
                    assert_eq!(whole_again.fill(&stamp), whole(&stamp).unwrap());
                    assert_eq!(stream_again.fill(&stamp), stream(&stamp).unwrap());
                }
            }
        }
    }
}
