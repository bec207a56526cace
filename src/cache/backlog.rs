//! Vectors in the second space that are still to be made, in the background.
//!
//! A store does not wait for them. A lookup that needs one that is missing makes it itself, so what is
//! forgotten here (the list is bounded) costs time and nothing else.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::profile::Profile;
use crate::embed::{Refiner, Unrefined};
use crate::observe;

/// Bytes of text that wait at most.
const MOST_BYTES: usize = 16 << 20;

/// How long to leave a model alone that does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Entries without a vector in the second space. A task empties the list and ends.
#[derive(Debug)]
pub(super) struct Backlog {
    refiner: Arc<Refiner>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(Weak<Profile>, Box<str>)>,
    /// Bytes of their texts.
    bytes: usize,
    /// Whether a task is at work.
    running: bool,
}

impl State {
    fn add(&mut self, profile: Weak<Profile>, text: Box<str>) {
        self.bytes += text.len();
        self.waiting.push_back((profile, text));
    }
}

impl Backlog {
    pub(super) fn new(refiner: Arc<Refiner>) -> Arc<Self> {
        Arc::new(Self {
            refiner,
            state: Mutex::default(),
        })
    }

    /// Notes that an entry needs its vector. Outside of a runtime nothing is done: the first lookup that
    /// needs it makes it.
    pub(super) fn push(self: &Arc<Self>, profile: &Arc<Profile>, text: &str) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if !profile.lacks_second() {
            return;
        }
        let starts = {
            let mut state = self.state.lock();
            if state.bytes + text.len() > MOST_BYTES {
                return;
            }
            state.add(Arc::downgrade(profile), text.into());
            !std::mem::replace(&mut state.running, true)
        };
        if starts {
            runtime.spawn(Self::work(Arc::downgrade(self)));
        }
    }

    /// Entries that wait, the one at work included.
    pub(super) fn len(&self) -> usize {
        let state = self.state.lock();
        state.waiting.len() + usize::from(state.running)
    }

    async fn work(backlog: Weak<Self>) {
        let mut running = Running {
            backlog: Weak::clone(&backlog),
            ended: false,
        };
        loop {
            // Held for one entry only, so that a cache that is dropped meanwhile goes.
            let Some(backlog) = backlog.upgrade() else {
                return;
            };
            let (profile, text) = {
                let mut state = backlog.state.lock();
                let Some(next) = state.waiting.pop_front() else {
                    // Under the lock: whoever pushes next begins a new task.
                    state.running = false;
                    running.ended = true;
                    observe::embedding_waiting("second", 0);
                    return;
                };
                state.bytes -= next.1.len();
                observe::embedding_waiting("second", state.waiting.len());
                next
            };
            // It may have been removed, or a lookup was faster.
            let Some(profile) = profile.upgrade().filter(|profile| profile.lacks_second()) else {
                continue;
            };
            match backlog.refiner.embed_patiently(&text).await {
                Ok(vector) => profile.keep_second(Some(&vector)),
                Err(Unrefined::NotEmbeddable) => profile.keep_second(None),
                Err(_) => {
                    backlog.state.lock().add(Arc::downgrade(&profile), text);
                    drop((profile, backlog));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Notes that the task is gone, should its runtime end it.
struct Running {
    backlog: Weak<Backlog>,
    /// Whether the task has noted it itself.
    ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let (false, Some(backlog)) = (self.ended, self.backlog.upgrade()) {
            backlog.state.lock().running = false;
        }
    }
}
