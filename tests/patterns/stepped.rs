//! Control over when a future goes on: a backend that stops before and after each operation, and tasks
//! that are polled by hand.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use askonce::Result;
use askonce::backend::{
    BackendHandle, BackendUsage, CacheBackend, Capability, Condition, Cursor, Glob, KeyPage,
    StoredValue, Write,
};
use askonce::clock::Timestamp;
use bytes::Bytes;

/// Ends the current step: goes on when it is polled again, and asks for that.
pub(crate) async fn step() {
    let mut stopped = false;
    poll_fn(|context| {
        if std::mem::replace(&mut stopped, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A backend whose operations happen in a step of their own: others may go on before and after, and a
/// future that is dropped may have done it or not.
#[derive(Debug)]
pub(crate) struct Stepped(pub(crate) BackendHandle);

impl Stepped {
    async fn around<T>(&self, operation: impl Future<Output = T>) -> T {
        step().await;
        let done = operation.await;
        step().await;
        done
    }
}

impl CacheBackend for Stepped {
    fn name(&self) -> &str {
        "stepped"
    }
    fn capability(&self) -> Capability {
        self.0.capability()
    }
    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        self.around(self.0.get(key)).await
    }
    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        self.around(self.0.set(key, value, expires)).await
    }
    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.around(self.0.delete(key)).await
    }
    async fn clear(&self) -> Result<()> {
        self.around(self.0.clear()).await
    }
    async fn usage(&self) -> Result<BackendUsage> {
        self.around(self.0.usage()).await
    }
    async fn get_many(&self, keys: &[Bytes]) -> Vec<Result<Option<StoredValue>>> {
        self.around(self.0.get_many(keys)).await
    }
    async fn set_many(&self, writes: &[Write]) -> Vec<Result<()>> {
        self.around(self.0.set_many(writes)).await
    }
    async fn delete_many(&self, keys: &[Bytes]) -> Vec<Result<bool>> {
        self.around(self.0.delete_many(keys)).await
    }
    async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        self.around(self.0.set_if(key, value, expires, condition))
            .await
    }
    async fn delete_if(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.around(self.0.delete_if(key, expected)).await
    }
    async fn scan(&self, pattern: &Glob, cursor: Cursor, limit: usize) -> Result<KeyPage> {
        self.around(self.0.scan(pattern, cursor, limit)).await
    }
}

/// Whether somebody has asked for a task to go on.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A task that goes on only when it is told to.
pub(crate) struct Task<'a, T> {
    future: Option<Pin<Box<dyn Future<Output = T> + 'a>>>,
    woken: Arc<Flag>,
    pub(crate) output: Option<T>,
}

impl<'a, T> Task<'a, T> {
    pub(crate) fn new(future: impl Future<Output = T> + 'a) -> Self {
        Self {
            future: Some(Box::pin(future)),
            woken: Arc::new(Flag(AtomicBool::new(true))),
            output: None,
        }
    }

    /// Neither done nor dropped.
    pub(crate) fn is_alive(&self) -> bool {
        self.future.is_some()
    }

    /// Whether polling it may get it further.
    pub(crate) fn is_woken(&self) -> bool {
        self.is_alive() && self.woken.0.load(Ordering::SeqCst)
    }

    /// One step.
    pub(crate) fn poll(&mut self) {
        self.woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self.woken));
        if let Some(future) = &mut self.future
            && let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker))
        {
            self.output = Some(output);
            self.future = None;
        }
    }

    /// What happens to a future whose caller goes away.
    pub(crate) fn cancel(&mut self) {
        self.future = None;
    }
}
