//! Recording while a stream is passed on.

use std::fmt;

use super::openai_chat::{self, DONE};
use super::sse::{Event, Frame, NotText, SseReader};
use super::{Ending, Recording, ending};
use crate::request::Protocol;

/// Keeps the events of a stream as its bytes come.
///
/// ```
/// use askonce::Protocol;
/// use askonce::replay::Recorder;
///
/// let mut recorder = Recorder::new(Protocol::OpenAiChat);
/// recorder.feed(b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\n")?;
/// assert!(recorder.ending().is_none());
/// recorder.feed(b"data: [DONE]\n\n")?;
/// let recording = recorder.finish()?;
/// let document = recording.document()?;
/// assert_eq!(document["choices"][0]["message"]["content"], "Hi");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Recorder {
    protocol: Protocol,
    reader: SseReader,
    events: Vec<Event>,
    bytes: usize,
    ending: Option<Ending>,
}

/// Why a stream has no recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// It stopped before its last event.
    CutOff,
    /// It ended with an error, or says that it was cut short.
    Failed,
    /// It is not text.
    NotText,
}

impl Unfinished {
    /// The stable, snake-case name used in headers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CutOff => "cut_off",
            Self::Failed => "stream_failed",
            Self::NotText => "not_text",
        }
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CutOff => "the stream stopped before its end",
            Self::Failed => "the stream ended with an error",
            Self::NotText => "the stream is not text",
        })
    }
}

impl std::error::Error for Unfinished {}

impl Recorder {
    /// A recorder of a stream in `protocol`.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            reader: SseReader::default(),
            events: Vec::new(),
            bytes: 0,
            ending: None,
        }
    }

    /// Takes the next bytes; gives the frames that end in them, to be passed on.
    ///
    /// # Errors
    /// [`NotText`] when the stream is not UTF-8.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, NotText> {
        self.bytes += bytes.len();
        let frames = self.reader.feed(bytes)?;
        self.keep(&frames);
        Ok(frames)
    }

    /// The bytes taken so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How the stream ended; `None` while it goes on.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// The frame that the end of the stream completes, to be passed on: some servers leave out the last empty
    /// line.
    ///
    /// # Errors
    /// [`NotText`] when the stream is not UTF-8.
    pub fn end(&mut self) -> Result<Option<Frame>, NotText> {
        let frame = std::mem::take(&mut self.reader).finish()?;
        self.keep(frame.as_slice());
        Ok(frame)
    }

    /// The recording, once the stream is at its end.
    ///
    /// # Errors
    /// Why there is none.
    pub fn finish(mut self) -> Result<Recording, Unfinished> {
        self.end().map_err(|NotText| Unfinished::NotText)?;
        let chat = matches!(
            self.protocol,
            Protocol::OpenAiChat | Protocol::OpenAiCompletions
        );
        match self.ending {
            Some(Ending::Complete) => {}
            Some(Ending::Failed) => return Err(Unfinished::Failed),
            // Some servers only close the connection.
            None if chat && openai_chat::is_whole(&self.events) => {
                self.events.push(Event::new(DONE));
            }
            None => return Err(Unfinished::CutOff),
        }
        Ok(Recording::new(self.protocol, self.events))
    }

    fn keep(&mut self, frames: &[Frame]) {
        for event in frames.iter().filter_map(Frame::event) {
            // What follows the end is no part of the answer.
            if self.ending.is_none() {
                self.ending = ending(self.protocol, event);
                self.events.push(event.clone());
            }
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("protocol", &self.protocol)
            .field("events", &self.events.len())
            .field("ending", &self.ending)
            .finish_non_exhaustive()
    }
}
