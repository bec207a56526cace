//! A layer over a service whose calls have types of the program's own.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use super::BoxError;
use crate::cache::{Fill, SemanticCache, Served};
use crate::error::{Error, ErrorKind, Result};
use crate::request::Request;

/// A call to a model that the cache can answer.
pub trait Call: Send + 'static {
    /// What the service gives back.
    type Response: Send + 'static;

    /// What identifies the call; `None` when it must reach the service each time.
    fn request(&self) -> Option<Request>;

    /// What to keep of a fresh response, if anything: [`Fill::keep`] or [`Fill::pass_on`].
    ///
    /// # Errors
    /// The call then counts as failed.
    fn fill(response: Self::Response) -> Result<Fill>;

    /// The response that an answer stands for. Fresh ones pass through here too, as several callers may wait
    /// for one; [`Served::source`] tells where the answer came from.
    ///
    /// # Errors
    /// When the answer is none of this type's.
    fn response(served: Served) -> Result<Self::Response>;
}

/// Puts a cache in front of a service of [`Call`]s.
///
/// ```
/// use askonce::gateway::{CacheLayer, Call};
/// use askonce::{Answer, Fill, Request, Result, SemanticCache, Served};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// struct Question(&'static str);
///
/// impl Call for Question {
///     type Response = String;
///
///     fn request(&self) -> Option<Request> {
///         Some(Request::prompt(self.0).model("gpt-4o"))
///     }
///
///     fn fill(response: String) -> Result<Fill> {
///         Ok(Answer::text(response).into())
///     }
///
///     fn response(served: Served) -> Result<String> {
///         let from = if served.source.hit().is_some() { "kept" } else { "fresh" };
///         Ok(format!("{from}: {}", served.answer.as_str()))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let model = service_fn(|_: Question| async { Ok::<_, std::io::Error>("Paris.".to_owned()) });
/// let cached = CacheLayer::new(SemanticCache::in_memory()?).layer(model);
/// let ask = |question| cached.clone().oneshot(Question(question));
/// assert_eq!(ask("What is the capital of France?").await?, "fresh: Paris.");
/// assert_eq!(ask("What's the capital of France").await?, "kept: Paris.");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CacheLayer {
    cache: SemanticCache,
}

impl CacheLayer {
    /// The layer over `cache`.
    #[must_use]
    pub fn new(cache: SemanticCache) -> Self {
        Self { cache }
    }
}

impl fmt::Debug for CacheLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheLayer")
    }
}

impl<S> Layer<S> for CacheLayer {
    type Service = CacheService<S>;

    fn layer(&self, inner: S) -> CacheService<S> {
        CacheService {
            cache: self.cache.clone(),
            inner,
        }
    }
}

/// A service with a cache in front; made by [`CacheLayer`].
///
/// It is always ready: a hit does not wait for the service, and a call upstream waits for it by itself.
#[derive(Clone)]
pub struct CacheService<S> {
    cache: SemanticCache,
    inner: S,
}

impl<S> fmt::Debug for CacheService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheService")
    }
}

impl<S, C> Service<C> for CacheService<S>
where
    C: Call,
    S: Service<C, Response = C::Response> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = C::Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: C) -> Self::Future {
        let (cache, inner) = (self.cache.clone(), self.inner.clone());
        Box::pin(async move {
            let Some(request) = call.request() else {
                return oneshot(inner, call).await.map_err(failed);
            };
            let upstream = || async move {
                let response = oneshot(inner, call).await.map_err(failed)?;
                C::fill(response)
            };
            C::response(cache.get_or_call(&request, upstream).await?)
        })
    }
}

/// One call, once the service is ready for it.
pub(super) async fn oneshot<S: Service<C>, C>(
    mut service: S,
    call: C,
) -> Result<S::Response, S::Error> {
    poll_fn(|context| service.poll_ready(context)).await?;
    service.call(call).await
}

fn failed(error: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::Upstream, "the upstream call failed").caused_by(error)
}
