//! Server-sent events as bytes: the form in which providers stream.
//!
//! The grammar is that of the HTML standard, section 9.2 (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//! Fields that no provider's protocol uses (`id`, `retry`) are dropped.

use std::fmt;

/// One event: what a `data` field holds, under the name of an `event` field if there is one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Event {
    name: Option<Box<str>>,
    data: Box<str>,
}

impl Event {
    /// An event of the default name.
    #[must_use]
    pub fn new(data: impl Into<Box<str>>) -> Self {
        Self {
            name: None,
            data: data.into(),
        }
    }

    /// An event with a name.
    #[must_use]
    pub fn named(name: impl Into<Box<str>>, data: impl Into<Box<str>>) -> Self {
        Self {
            name: Some(name.into()),
            data: data.into(),
        }
    }

    /// Its name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its data; several `data` lines are joined by line feeds.
    #[must_use]
    pub fn data(&self) -> &str {
        &self.data
    }

    /// The same event with other data.
    #[must_use]
    pub(super) fn with_data(&self, data: impl Into<Box<str>>) -> Self {
        Self {
            name: self.name.clone(),
            data: data.into(),
        }
    }

    /// Appends the event as it goes over the wire.
    pub fn write(&self, out: &mut Vec<u8>) {
        if let Some(name) = &self.name {
            field(out, "event", name);
        }
        for line in self.data.split('\n') {
            field(out, "data", line);
        }
        out.push(b'\n');
    }

    /// The event as it goes over the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.data.len() + 32);
        self.write(&mut out);
        out
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

impl fmt::Debug for Event {
    /// Shows the name and the size, never the data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({:?}, {} bytes)", self.name, self.data.len())
    }
}

/// What a stream holds, in the order in which it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// An event.
    Event(Event),
    /// A comment, by which a server keeps a connection open while it has nothing to say. It is no part of an
    /// answer.
    Comment(Box<str>),
}

impl Frame {
    /// Appends the frame as it goes over the wire.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Event(event) => event.write(out),
            Self::Comment(text) => {
                out.push(b':');
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\n\n");
            }
        }
    }

    /// The event, if it is one.
    #[must_use]
    pub fn event(&self) -> Option<&Event> {
        match self {
            Self::Event(event) => Some(event),
            Self::Comment(_) => None,
        }
    }
}

/// The stream is not text in UTF-8, which the format requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotText;

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stream of events is not UTF-8")
    }
}

impl std::error::Error for NotText {}

/// Reads frames from bytes, however those are cut.
///
/// ```
/// use askonce::replay::SseReader;
///
/// let mut reader = SseReader::default();
/// assert!(reader.feed(b"event: ping\r\nda")?.is_empty());
/// let frames = reader.feed(b"ta: {}\r\n\r\n")?;
/// let event = frames[0].event().unwrap();
/// assert_eq!((event.name(), event.data()), (Some("ping"), "{}"));
/// # Ok::<(), askonce::replay::NotText>(())
/// ```
#[derive(Clone, Default)]
pub struct SseReader {
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// Whether the last byte was a carriage return, which a line feed may follow.
    returned: bool,
    began: bool,
    name: Option<Box<str>>,
    data: Option<String>,
}

impl SseReader {
    /// The frames that end in `bytes`.
    ///
    /// # Errors
    /// [`NotText`] when a line is not UTF-8; nothing can be read any more then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, NotText> {
        let mut frames = Vec::new();
        let mut rest = bytes;
        if std::mem::take(&mut self.returned) && rest.first() == Some(&b'\n') {
            rest = &rest[1..];
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.line.extend_from_slice(&rest[..end]);
            let crlf = rest[end] == b'\r' && rest.get(end + 1) == Some(&b'\n');
            self.returned = rest[end] == b'\r' && end + 1 == rest.len();
            rest = &rest[end + 1 + usize::from(crlf)..];
            let line = std::mem::take(&mut self.line);
            frames.extend(self.line_ended(&line)?);
        }
        self.line.extend_from_slice(rest);
        Ok(frames)
    }

    /// The frame that the end of the stream completes. The standard would drop it; some servers leave out the
    /// last empty line.
    ///
    /// # Errors
    /// [`NotText`] when the last line is not UTF-8.
    pub fn finish(mut self) -> Result<Option<Frame>, NotText> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty()
            && let Some(frame) = self.line_ended(&line)?
        {
            return Ok(Some(frame));
        }
        Ok(self.dispatch())
    }

    /// Bytes held back until their event ends.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.line.len() + self.data.as_ref().map_or(0, String::len)
    }

    fn line_ended(&mut self, line: &[u8]) -> Result<Option<Frame>, NotText> {
        let mut line = std::str::from_utf8(line).map_err(|_| NotText)?;
        if !std::mem::replace(&mut self.began, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "" => return Ok(Some(Frame::Comment(line[1..].into()))),
            "event" => self.name = Some(value.into()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
        Ok(None)
    }

    fn dispatch(&mut self) -> Option<Frame> {
        let name = self.name.take().filter(|name| !name.is_empty());
        let data = self.data.take()?;
        Some(Frame::Event(Event {
            name,
            data: data.into(),
        }))
    }
}

impl fmt::Debug for SseReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SseReader")
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(chunks: &[&[u8]]) -> Vec<Frame> {
        let mut reader = SseReader::default();
        let mut frames: Vec<_> = chunks
            .iter()
            .flat_map(|chunk| reader.feed(chunk).unwrap())
            .collect();
        frames.extend(reader.finish().unwrap());
        frames
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(
            events in prop::collection::vec(
                (prop::option::of("[a-z_.]{1,12}"), "[^\r]{0,40}"), 0..12),
            cuts in prop::collection::vec(0_usize..600, 0..12),
            crlf in any::<bool>(),
        ) {
            let events: Vec<_> = events
                .into_iter()
                .map(|(name, data)| match name {
                    Some(name) => Event::named(name, data),
                    None => Event::new(data),
                })
                .collect();
            let mut wire: Vec<u8> = events.iter().flat_map(Event::to_bytes).collect();
            if crlf {
                wire = String::from_utf8(wire).unwrap().replace('\n', "\r\n").into_bytes();
            }
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(wire.len())).collect();
            cuts.extend([0, wire.len()]);
            cuts.sort_unstable();
            let chunks: Vec<_> = cuts.windows(2).map(|cut| &wire[cut[0]..cut[1]]).collect();
            let read: Vec<_> = read(&chunks).iter().filter_map(|f| f.event().cloned()).collect();
            prop_assert_eq!(read, events);
        }
    }

    #[test]
    fn comments_unknown_fields_and_a_mark_of_order_are_no_events() {
        let wire =
            "\u{feff}: keep-alive\n\nid: 1\nretry: 5\n\ndata: a\ndata\ndata:b\n\ndata: [DONE]\n";
        let frames = read(&[wire.as_bytes()]);
        assert_eq!(
            frames,
            [
                Frame::Comment(" keep-alive".into()),
                Frame::Event(Event::new("a\n\nb")),
                Frame::Event(Event::new("[DONE]")),
            ]
        );
        assert!(SseReader::default().feed(b"data: \xff\n").is_err());
    }
}
