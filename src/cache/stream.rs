//! Lookup, and on a miss one upstream call whose answer all callers read while it comes.
//!
//! A stream is a flight like any other: one for all who ask for the same request, whole or streamed, detached
//! from its caller, its answer stored when it is whole. What is more: those who want a stream read the frames
//! as they come, from the first one on, whenever they join.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::Instrument as _;

use super::SemanticCache;
use super::call::{Fill, Looked};
use super::lookup::LookupOptions;
use super::outcome::{Hit, Miss, Served};
use crate::error::{Error, ErrorKind, Result};
use crate::replay::Frame;
use crate::request::{ExactKey, Request};
use crate::stampede::{Attendance, Broadcast, Flight, Tail};

type Sequence = Broadcast<Arc<Frame>, Result<Served>>;

/// Where an upstream call puts what it is sent.
pub struct Sink(Option<Sequence>);

impl Sink {
    /// Gives a frame to all who read.
    pub fn send(&self, frame: Frame) {
        if let Some(sequence) = &self.0 {
            sequence.push(Arc::new(frame));
        }
    }

    /// Waits until nobody has waited for this answer for so long without a break: it may be given up then. Never,
    /// where nobody was to read it.
    pub async fn deserted(&self, patience: Duration) {
        match &self.0 {
            Some(sequence) => sequence.deserted(patience).await,
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}

/// What a caller that wants a stream gets.
#[derive(Debug)]
pub enum Streamed {
    /// A stored answer.
    Hit(Box<Hit>),
    /// An answer that is under way.
    Live(Box<Live>),
}

/// An answer that is under way.
#[derive(Debug)]
pub struct Live {
    miss: Miss,
    flight: Flight,
    tail: Tail<Arc<Frame>, Result<Served>>,
}

impl Live {
    /// Why the cache had no answer.
    #[must_use]
    pub fn miss(&self) -> &Miss {
        &self.miss
    }

    /// Whether this caller began the call, or reads that of another.
    #[must_use]
    pub fn flight(&self) -> Flight {
        self.flight
    }

    /// Waits until there is something to read or the end is there; whether there is something to read. If not,
    /// [`result`](Self::result) has the answer, which came as a whole, or what went wrong.
    pub async fn ready(&mut self) -> bool {
        self.tail.ready().await
    }

    /// The next frame; `None` at the end, when [`result`](Self::result) tells whether it was a good one.
    pub async fn next(&mut self) -> Option<Arc<Frame>> {
        self.tail.next().await
    }

    /// What became of the call; `None` while it runs.
    #[must_use]
    pub fn result(&self) -> Option<Result<Served>> {
        self.tail.result()
    }
}

/// Streams that are under way, by request.
#[derive(Debug, Default)]
pub(super) struct Lives(Arc<Mutex<HashMap<ExactKey, Sequence>>>);

impl Lives {
    /// Counts as somebody who waits for the answer to this request, if it is being streamed.
    pub(super) fn attend(&self, key: &ExactKey) -> Option<Attendance<Arc<Frame>, Result<Served>>> {
        self.0.lock().get(key).map(Broadcast::attend)
    }

    /// The stream that is under way, or a new one with what is to end it.
    fn join(&self, key: ExactKey) -> (Tail<Arc<Frame>, Result<Served>>, Option<Landing>) {
        let mut lives = self.0.lock();
        if let Some(running) = lives.get(&key) {
            return (running.subscribe(), None);
        }
        let (sequence, tail) = Broadcast::new();
        lives.insert(key, sequence.clone());
        let landing = Landing {
            lives: Arc::clone(&self.0),
            key,
            sequence,
        };
        (tail, Some(landing))
    }
}

/// Ends a stream, whatever way its task ends.
struct Landing {
    lives: Arc<Mutex<HashMap<ExactKey, Sequence>>>,
    key: ExactKey,
    sequence: Sequence,
}

impl Landing {
    fn land(self, result: Result<Served>) {
        self.forget();
        self.sequence.end(result);
    }

    /// Whoever comes from now on begins anew.
    fn forget(&self) {
        let mut lives = self.lives.lock();
        if lives
            .get(&self.key)
            .is_some_and(|running| running.is(&self.sequence))
        {
            lives.remove(&self.key);
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.forget();
        // After a landing this changes nothing.
        let message = "the upstream call ended without a result";
        self.sequence
            .end(Err(Error::new(ErrorKind::Upstream, message)));
    }
}

impl SemanticCache {
    /// The stored answer for `request`, or the one that `call` is sent, while it is sent.
    ///
    /// `call` is given a [`Sink`] for the frames and returns the whole answer at the end, as it does for
    /// [`get_or_call`](Self::get_or_call); all that is said there holds here, and both share their calls. A
    /// call that gets the answer as a whole sends no frames.
    ///
    /// A caller that goes away does not end the call. Whoever makes the call may watch [`Sink::deserted`] and
    /// give up an answer that nobody waits for any more.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// ```
    /// use askonce::replay::{Event, Frame, Recorder};
    /// use askonce::{Answer, Fill, Protocol, Request, SemanticCache, Streamed};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = SemanticCache::in_memory()?;
    /// let request = Request::prompt("What is the capital of France?").model("gpt-4o");
    /// let call = |sink: askonce::Sink| async move {
    ///     let mut recorder = Recorder::new(Protocol::OpenAiChat);
    ///     // Stands for the bytes that come from a provider.
    ///     for bytes in [&b"data: {\"choices\":[{\"delta\":{\"content\":\"Paris\"}}]}\n\n"[..], b"data: [DONE]\n\n"] {
    ///         for frame in recorder.feed(bytes).map_err(std::io::Error::other)? {
    ///             sink.send(frame);
    ///         }
    ///     }
    ///     let recording = recorder.finish().map_err(std::io::Error::other)?;
    ///     Ok::<_, std::io::Error>(Fill::from(Answer::stream(&recording)))
    /// };
    /// let Streamed::Live(mut live) = cache.get_or_stream(&request, call).await else { panic!() };
    /// let mut frames = 0;
    /// while live.next().await.is_some() {
    ///     frames += 1;
    /// }
    /// assert_eq!(frames, 2);
    /// assert!(live.result().unwrap().is_ok());
    /// assert!(matches!(cache.get_or_stream(&request, call).await, Streamed::Hit(_)));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_stream<F, Fut, E>(&self, request: &Request, call: F) -> Streamed
    where
        F: FnOnce(Sink) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Fill, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        self.get_or_stream_with(request, &LookupOptions::of(request), call)
            .await
    }

    /// As [`get_or_stream`](Self::get_or_stream), with a say in what may be served from the cache.
    pub async fn get_or_stream_with<F, Fut, E>(
        &self,
        request: &Request,
        options: &LookupOptions,
        call: F,
    ) -> Streamed
    where
        F: FnOnce(Sink) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Fill, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        // An audit of a hit makes the call for itself, and nobody reads what is sent.
        let into: Arc<Mutex<Option<Sequence>>> = Arc::default();
        let call = {
            let into = Arc::clone(&into);
            move || {
                let sink = Sink(into.lock().take());
                call(sink)
            }
        };
        let (missed, call) = match self.served(request, options, call).await {
            Looked::Hit(hit) => return Streamed::Hit(hit),
            Looked::Missed(missed, call) => (missed, call),
        };
        let miss = missed.miss.clone();
        let key = match self.inner.protection && request.bypass().is_none() {
            true => request.exact_key(),
            false => ExactKey::from_bytes(rand::random()),
        };
        let (tail, landing) = self.inner.lives.join(key);
        let flight = match &landing {
            Some(_) => Flight::Led,
            None => Flight::Followed,
        };
        if let Some(landing) = landing {
            *into.lock() = Some(landing.sequence.clone());
            let (cache, request) = (self.clone(), request.clone());
            let flight = async move {
                let served = cache.fly(&request, missed, call).await;
                landing.land(served);
            };
            tokio::spawn(flight.in_current_span());
        }
        Streamed::Live(Box::new(Live { miss, flight, tail }))
    }
}
