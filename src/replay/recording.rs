//! The stored form of a stream: every event, byte for byte, in a few bytes each.
//!
//! The events of a stream repeat each other. A provider that sends a word at a time sends each in some 300
//! bytes of JSON that differ from the last by that word. So an event is kept as its **shape**, its JSON with a
//! hole in place of each string, number, `true`, `false` and `null`, which is kept once; and as those of its
//! holes whose filling is not that of the event before it with the same shape. What is stored is itself JSON:
//!
//! ```json
//! {"recording":1,"protocol":"openai_chat",
//!  "shapes":[[null,"{\"id\":□,\"choices\":[{\"delta\":{\"content\":□}}]}",2]],
//!  "events":[[0,0,"chatcmpl-1",1,"Hel"],[0,1,"lo"]]}
//! ```
//!
//! where □ is the character U+0001, which JSON text cannot hold. A shape has the name of its events, its text and
//! the number of its holes; an event lists its shape, then pairs of a hole and its filling. Data that is not
//! JSON is a shape without holes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::render::Stamp;
use super::sse::Event;
use crate::error::{Error, ErrorKind, Result};
use crate::request::Protocol;

/// The version of the stored form.
const VERSION: u8 = 1;

/// Stands for a scalar that an event gives.
const HOLE: char = '\u{1}';

/// A whole stream, as its events came.
#[derive(Clone, PartialEq, Eq)]
pub struct Recording {
    protocol: Protocol,
    events: Vec<Event>,
}

impl Recording {
    /// The events of a stream in `protocol`.
    #[must_use]
    pub fn new(protocol: Protocol, events: Vec<Event>) -> Self {
        Self { protocol, events }
    }

    /// What the stream speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Its events.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The stored form.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut writer = Writer::default();
        let events = self
            .events
            .iter()
            .map(|event| writer.event(event))
            .collect();
        let stored = Stored {
            recording: VERSION,
            protocol: self.protocol,
            shapes: writer.shapes,
            events,
        };
        // Strings and raw JSON only: there is nothing to fail on.
        serde_json::to_string(&stored).unwrap_or_default()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when the text is not one, or of an unknown version.
    pub fn from_text(text: &str) -> Result<Self> {
        let player = Player::read(text)?;
        let (protocol, events) = (player.protocol, player.play(&[])?);
        Ok(Self { protocol, events })
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Recording({}, {} events)",
            self.protocol,
            self.events.len()
        )
    }
}

#[derive(Serialize)]
struct Stored<'a> {
    recording: u8,
    protocol: Protocol,
    shapes: Vec<(Option<&'a str>, String, usize)>,
    events: Vec<Vec<Box<RawValue>>>,
}

/// A shape and where it stands; the fillings of the last event that had it.
#[derive(Default)]
struct Writer<'a> {
    shapes: Vec<(Option<&'a str>, String, usize)>,
    known: HashMap<(Option<&'a str>, String, usize), usize>,
    last: Vec<Vec<&'a str>>,
}

impl<'a> Writer<'a> {
    fn event(&mut self, event: &'a Event) -> Vec<Box<RawValue>> {
        let (shape, fillings) = take_apart(event.data());
        let key = (event.name(), shape, fillings.len());
        let index = match self.known.get(&key) {
            Some(index) => *index,
            None => {
                self.shapes.push(key.clone());
                self.last.push(Vec::new());
                self.known.insert(key, self.shapes.len() - 1);
                self.shapes.len() - 1
            }
        };
        let raw = |text: String| RawValue::from_string(text).unwrap_or_default();
        let mut written = vec![raw(index.to_string())];
        let last = &mut self.last[index];
        for (hole, filling) in fillings.iter().enumerate() {
            if last.get(hole) != Some(filling) {
                written.push(raw(hole.to_string()));
                written.push(raw((*filling).to_owned()));
            }
        }
        *last = fillings;
        written
    }
}

/// The shape of JSON text and what fills its holes; of other text, the text and nothing.
fn take_apart(text: &str) -> (String, Vec<&str>) {
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        return (text.to_owned(), Vec::new());
    }
    let bytes = text.as_bytes();
    let (mut shape, mut fillings) = (String::new(), Vec::new());
    let mut at = 0;
    let mut copied = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'"' => string_end(bytes, at),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                let ends =
                    |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
                bytes[at..]
                    .iter()
                    .position(ends)
                    .map_or(bytes.len(), |length| at + length)
            }
            _ => {
                at += 1;
                continue;
            }
        };
        // A string before a colon is the name of a field, and part of the shape.
        let mut after = bytes[end..].iter().find(|byte| !byte.is_ascii_whitespace());
        if bytes[at] != b'"' {
            after = None;
        }
        if after != Some(&b':') {
            shape.push_str(&text[copied..at]);
            shape.push(HOLE);
            fillings.push(&text[at..end]);
            copied = end;
        }
        at = end;
    }
    shape.push_str(&text[copied..]);
    (shape, fillings)
}

/// Behind the closing quote of the string that opens at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut escaped = false;
    for (i, byte) in bytes.iter().enumerate().skip(at + 1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return i + 1,
            _ => {}
        }
    }
    bytes.len()
}

/// A change to what a recording gives: other JSON in place of the scalars that some fields hold.
#[derive(Clone, Debug)]
pub(super) struct Renewal {
    /// A JSON pointer into an event's data.
    pub(super) pointer: &'static str,
    /// The JSON that takes the scalar's place, made from it.
    pub(super) make: Make,
}

/// What takes the place of a scalar.
#[derive(Clone, Debug)]
pub(super) enum Make {
    /// An id of the same kind; equal ids become equal ones.
    Id(u128),
    /// This number.
    Number(u64),
}

impl Make {
    /// The JSON in place of `old`; `None` leaves it: `null`, say, is no id.
    pub(super) fn apply(&self, old: &str) -> Option<String> {
        match self {
            Self::Id(salt) => {
                let old: Cow<'_, str> = serde_json::from_str(old).ok()?;
                Some(Value::from(fresh_id(&old, *salt)).to_string())
            }
            Self::Number(number) => old
                .starts_with(|c: char| c.is_ascii_digit())
                .then(|| number.to_string()),
        }
    }
}

/// An id that looks like `old`: with its prefix up to the first `-` or `_`, if that is a word.
fn fresh_id(old: &str, salt: u128) -> String {
    let prefix = old
        .find(['-', '_'])
        .map(|end| &old[..=end])
        .filter(|prefix| {
            prefix.len() > 1
                && prefix[..prefix.len() - 1]
                    .bytes()
                    .all(|b| b.is_ascii_alphabetic())
        })
        .unwrap_or_default();
    format!("{prefix}{}", Stamp::id(salt))
}

/// The stored form, taken apart.
pub(super) struct Player<'a> {
    pub(super) protocol: Protocol,
    shapes: Vec<(Option<Cow<'a, str>>, String, usize)>,
    events: Vec<Vec<&'a RawValue>>,
}

impl<'a> Player<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Stored<'a> {
            recording: u8,
            protocol: Protocol,
            #[serde(borrow)]
            shapes: Vec<(Option<Cow<'a, str>>, String, usize)>,
            #[serde(borrow)]
            events: Vec<Vec<&'a RawValue>>,
        }
        let stored: Stored<'a> = serde_json::from_str(text).map_err(|error| {
            damaged("it cannot be read")
                .with("line", error.line())
                .with("column", error.column())
        })?;
        if stored.recording != VERSION {
            return Err(damaged("its version is not known").with("version", stored.recording));
        }
        Ok(Self {
            protocol: stored.protocol,
            shapes: stored.shapes,
            events: stored.events,
        })
    }

    /// The events, with what `renewals` change.
    pub(super) fn play(&self, renewals: &[Renewal]) -> Result<Vec<Event>> {
        let mut states: Vec<State<'_>> = self
            .shapes
            .iter()
            .map(|(_, shape, holes)| State::new(shape, *holes, renewals))
            .collect::<Result<_>>()?;
        let mut events = Vec::with_capacity(self.events.len());
        for written in &self.events {
            let number = |raw: &RawValue| raw.get().parse::<usize>().ok();
            let (shape, pairs) = written
                .split_first()
                .ok_or_else(|| damaged("an event is empty"))?;
            let index = number(shape);
            let state = index.and_then(|index| states.get_mut(index));
            let (Some(index), Some(state)) = (index, state) else {
                return Err(damaged("an event has no shape"));
            };
            for pair in pairs.chunks(2) {
                let [hole, filling] = pair else {
                    return Err(damaged("an event is cut"));
                };
                let slot = number(hole).and_then(|hole| state.fillings.get_mut(hole));
                *slot.ok_or_else(|| damaged("a hole is not there"))? = Cow::Borrowed(filling.get());
            }
            let data = state.filled();
            events.push(match &self.shapes[index].0 {
                Some(name) => Event::named(&**name, data),
                None => Event::new(data),
            });
        }
        Ok(events)
    }
}

fn damaged(problem: &'static str) -> Error {
    Error::new(ErrorKind::InvalidRequest, "a recording cannot be used").with("problem", problem)
}

/// A shape while its events are played.
struct State<'a> {
    /// What stands before each hole, and behind the last.
    solid: Vec<&'a str>,
    fillings: Vec<Cow<'a, str>>,
    /// Holes that are given something else than they hold.
    renewed: Vec<(usize, &'a Make)>,
}

impl<'a> State<'a> {
    fn new(shape: &'a str, holes: usize, renewals: &'a [Renewal]) -> Result<Self> {
        let solid: Vec<_> = match holes {
            0 => vec![shape],
            _ => shape.split(HOLE).collect(),
        };
        if solid.len() != holes + 1 {
            return Err(damaged("a shape has other holes than it says"));
        }
        let mut state = Self {
            solid,
            fillings: vec![Cow::Borrowed("null"); holes],
            renewed: Vec::new(),
        };
        if !renewals.is_empty() && holes > 0 {
            // With its number in each hole, the shape tells which hole a field is.
            let mut numbered = String::with_capacity(shape.len() + holes * 3);
            for (i, solid) in state.solid.iter().enumerate() {
                numbered.push_str(solid);
                if i < holes {
                    numbered.push_str(&i.to_string());
                }
            }
            if let Ok(numbered) = serde_json::from_str::<Value>(&numbered) {
                for renewal in renewals {
                    let hole = numbered.pointer(renewal.pointer).and_then(Value::as_u64);
                    if let Some(hole) = hole.and_then(|hole| usize::try_from(hole).ok()) {
                        state.renewed.push((hole, &renewal.make));
                    }
                }
            }
        }
        Ok(state)
    }

    fn filled(&self) -> String {
        let mut text = String::with_capacity(
            self.solid.iter().map(|solid| solid.len()).sum::<usize>()
                + self
                    .fillings
                    .iter()
                    .map(|filling| filling.len())
                    .sum::<usize>(),
        );
        for (i, solid) in self.solid.iter().enumerate() {
            text.push_str(solid);
            if let Some(filling) = self.fillings.get(i) {
                let renewed = self.renewed.iter().find(|(hole, _)| *hole == i);
                match renewed.and_then(|(_, make)| make.apply(filling)) {
                    Some(new) => text.push_str(&new),
                    None => text.push_str(filling),
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn recording(events: Vec<Event>) -> Recording {
        Recording::new(Protocol::OpenAiChat, events)
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-c\u{1}\\\\\"{:, é]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-b\":]{0,2}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn every_event_comes_back_byte_for_byte(
            values in prop::collection::vec((any_json(), any::<bool>(), 0_u8..4), 0..16),
            texts in prop::collection::vec("[^\r\n]{0,20}|[\u{1}a]{1,4}", 0..3),
        ) {
            let mut events: Vec<_> = values
                .into_iter()
                .map(|(value, pretty, name)| {
                    let data = match pretty {
                        true => serde_json::to_string_pretty(&value).unwrap(),
                        false => value.to_string(),
                    };
                    match name {
                        0 => Event::named("message", data),
                        1 => Event::named("other", data),
                        _ => Event::new(data),
                    }
                })
                .collect();
            events.extend(texts.into_iter().map(Event::new));
            let whole = recording(events);
            prop_assert_eq!(Recording::from_text(&whole.to_text()).unwrap(), whole);
        }

        #[test]
        fn no_text_is_read_without_an_error_or_a_recording(text in ".{0,80}", cut in 0_usize..400) {
            let _ = Recording::from_text(&text);
            let whole = recording(vec![Event::new(json!({"a": 1, "b": ["x"]}).to_string())]).to_text();
            let cut = cut.min(whole.len() - 1);
            prop_assert!(Recording::from_text(&whole[..cut]).is_err());
        }
    }

    #[test]
    fn a_word_at_a_time_costs_little_more_than_its_words() {
        let words: Vec<String> = (0..500).map(|i| format!(" word{i}")).collect();
        let events: Vec<_> = words
            .iter()
            .map(|word| {
                let chunk = json!({
                    "id": "chatcmpl-123456789012345678901234", "object": "chat.completion.chunk",
                    "created": 1_790_000_000, "model": "gpt-4o-2024-08-06", "service_tier": "default",
                    "system_fingerprint": "fp_0123456789", "usage": null,
                    "choices": [{ "index": 0, "delta": { "content": word }, "logprobs": null, "finish_reason": null }],
                });
                Event::new(chunk.to_string())
            })
            .collect();
        let streamed: usize = events.iter().map(|event| event.data().len()).sum();
        let stored = recording(events).to_text().len();
        let text: usize = words.iter().map(String::len).sum();
        assert!(stored < text + 500 * 10 + 600, "{stored} for {text}");
        assert!(streamed > 12 * stored, "{streamed} and {stored}");
    }

    #[test]
    fn renewed_scalars_are_new_everywhere_and_nothing_else_is() {
        let chunk = |word: &str| {
            Event::new(format!(
                "{{\"id\": \"gen-77\",\"created\":5,\"choices\":[{{\"id\":\"gen-77\",\"text\":\"{word}\"}}]}}"
            ))
        };
        let text = recording(vec![chunk("a"), chunk("b"), Event::new("[DONE]")]).to_text();
        let renewals = [
            Renewal {
                pointer: "/id",
                make: Make::Id(255),
            },
            Renewal {
                pointer: "/created",
                make: Make::Number(9),
            },
            Renewal {
                pointer: "/message/id",
                make: Make::Id(1),
            },
        ];
        let events = Player::read(&text).unwrap().play(&renewals).unwrap();
        let id = format!("gen-{:032x}", 255);
        for (event, word) in events.iter().zip(["a", "b"]) {
            assert_eq!(
                event.data(),
                format!(
                    "{{\"id\": \"{id}\",\"created\":9,\"choices\":[{{\"id\":\"gen-77\",\"text\":\"{word}\"}}]}}"
                )
            );
        }
        assert_eq!(events[2].data(), "[DONE]");
        assert_eq!(fresh_id("3fa8-1", 1), format!("{:032x}", 1));
        assert_eq!(Make::Id(1).apply("null"), None);
    }

    #[test]
    fn other_versions_and_wrong_places_are_errors() {
        for text in [
            r#"{"recording":2,"protocol":"openai_chat","shapes":[],"events":[]}"#,
            r#"{"recording":1,"protocol":"openai_chat","shapes":[],"events":[[0]]}"#,
            r#"{"recording":1,"protocol":"openai_chat","shapes":[[null,"x",0]],"events":[[]]}"#,
            r#"{"recording":1,"protocol":"openai_chat","shapes":[[null,"x",2]],"events":[[0]]}"#,
            r#"{"recording":1,"protocol":"openai_chat","shapes":[[null,"x",0]],"events":[[0,0]]}"#,
            r#"{"recording":1,"protocol":"openai_chat","shapes":[[null,"x",0]],"events":[[0,0,1]]}"#,
        ] {
            let error = Recording::from_text(text).unwrap_err();
            assert!(error.to_string().contains("recording"), "{error}");
        }
    }
}
