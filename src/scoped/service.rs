//! A scope for each request of a `tower` service.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::futures::TaskLocalFuture;
use tower_layer::Layer;
use tower_service::Service;

use super::{CURRENT, Entered, RequestScope};

/// Gives each request a [`RequestScope`] of its own.
///
/// The scope ends when the service has answered: a body that is streamed after that is outside of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScopeLayer;

impl ScopeLayer {
    /// The layer. It has no settings.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl<S> Layer<S> for ScopeLayer {
    type Service = ScopeService<S>;

    fn layer(&self, inner: S) -> ScopeService<S> {
        ScopeService { inner }
    }
}

/// A service whose requests each have a scope; made by [`ScopeLayer`].
#[derive(Clone, Copy, Debug)]
pub struct ScopeService<S> {
    inner: S,
}

impl<S: Service<R>, R> Service<R> for ScopeService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = ScopeFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let scope = RequestScope::new();
        let entered = |owned| Entered {
            scope: scope.clone(),
            owned,
        };
        // A service may begin its work before it returns its future.
        let response = CURRENT.sync_scope(entered(false), || self.inner.call(request));
        ScopeFuture {
            response: Box::pin(CURRENT.scope(entered(true), response)),
            scope,
        }
    }
}

/// The response of a [`ScopeService`], on its way.
pub struct ScopeFuture<F> {
    response: Pin<Box<TaskLocalFuture<Entered, F>>>,
    scope: RequestScope,
}

impl<F> fmt::Debug for ScopeFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeFuture").finish_non_exhaustive()
    }
}

impl<F: Future> Future for ScopeFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let polled = self.response.as_mut().poll(context);
        if polled.is_ready() {
            // Not left to the drop, which the caller may put off.
            self.scope.end();
        }
        polled
    }
}
