//! The gateway as a middleware of `reqwest` clients.

use std::pin::pin;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{Extensions, Response};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use reqwest::ResponseBuilderExt as _;
use reqwest_middleware::{Error as ClientError, Middleware, Next};
use tokio::sync::oneshot;

use super::exchange::{Ask, Gateway, Head, Plan, protocol_of, upstream_headers};
use super::give::ResponseBody;
use super::{BoxError, status};

/// Caches the calls of a client, each origin's for itself.
///
/// A call whose caller goes away before the response has begun is given up, and those who wait for the same
/// answer make it themselves; once it has begun it is read to its end, as everywhere. Audits of hits are not
/// made through a client.
#[async_trait::async_trait]
impl Middleware for Gateway {
    async fn handle(
        &self,
        mut request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let url = request.url().clone();
        let protocol = protocol_of(request.method(), url.path());
        let body = request.body().and_then(reqwest::Body::as_bytes);
        let (Some(protocol), Some(body)) = (protocol, body) else {
            return next.run(request, extensions).await;
        };
        let head = Head {
            headers: request.headers(),
            origin: Some(&url.origin().ascii_serialization()),
            path: url.path(),
            query: url.query(),
            extensions,
        };
        let plan = self.plan(protocol, &head, Bytes::copy_from_slice(body));
        let ask = match plan {
            Plan::Refuse(response) => return to_client(*response, &url),
            Plan::Pass(body, why) => {
                *request.body_mut() = Some(body.into());
                request.headers_mut().remove(http::header::CONTENT_LENGTH);
                let mut response = next.run(request, extensions).await?;
                status::bypassed(response.headers_mut(), why);
                return Ok(response);
            }
            Plan::Ask(ask) => ask,
        };
        upstream_headers(request.headers_mut());
        loop {
            let Some(copy) = request.try_clone() else {
                return next.run(request, extensions).await;
            };
            match self.attempt(&ask, copy, extensions, next.clone()).await {
                Ok(response) => return to_client(response, &url),
                Err(Failed::Own(error)) => return Err(error),
                // Whoever made the call is gone: this caller makes it.
                Err(Failed::Shared(error)) if is_abandoned(&error) => {}
                Err(Failed::Shared(error)) => return Err(ClientError::middleware(error)),
            }
        }
    }
}

enum Failed {
    /// This caller's call.
    Own(ClientError),
    /// The call of another.
    Shared(crate::Error),
}

/// The caller that was to make a call has gone away.
#[derive(Debug, thiserror::Error)]
#[error("the caller that made the call has gone away")]
struct Abandoned;

fn is_abandoned(error: &crate::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<Abandoned>() {
            return true;
        }
        cause = error.source();
    }
    false
}

impl Gateway {
    /// One way through the cache. The call upstream is the client's own and cannot leave its caller, so the
    /// task that fills the cache asks this one to make it, and reads what comes.
    async fn attempt(
        &self,
        ask: &Ask,
        mut request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response<ResponseBody>, Failed> {
        type Reply = Response<reqwest::Body>;
        let (wanted, asked_to_call) = oneshot::channel::<(Bytes, oneshot::Sender<Option<Reply>>)>();
        let wanted = Mutex::new(Some(wanted));
        let open = move |body: Bytes| {
            let (give, given) = oneshot::channel();
            // A second call is another attempt's to make.
            let asked = wanted.lock().take().map(|wanted| wanted.send((body, give)));
            async move {
                let Some(Ok(())) = asked else {
                    return Err(Abandoned.into());
                };
                match given.await {
                    Ok(Some(response)) => Ok(response),
                    Ok(None) => Err(BoxError::from("the client could not send the request")),
                    Err(_) => Err(Abandoned.into()),
                }
            }
        };
        let mut answer = pin!(self.answer(ask.clone(), open));
        let (body, give) = match select(answer.as_mut(), asked_to_call).await {
            Either::Left((answer, _)) => return answer.map_err(Failed::Shared),
            Either::Right((Ok(wanted), _)) => wanted,
            // Another's call is under way, or a hit is.
            Either::Right((Err(_), _)) => return answer.await.map_err(Failed::Shared),
        };
        *request.body_mut() = Some(body.into());
        match next.run(request, extensions).await {
            Ok(response) => {
                // Where nobody waits for it any more, the end of `answer` says why.
                let _ = give.send(Some(response.into()));
                answer.await.map_err(Failed::Shared)
            }
            Err(error) => {
                let _ = give.send(None);
                let _ = answer.await;
                Err(Failed::Own(error))
            }
        }
    }
}

fn to_client(
    response: Response<ResponseBody>,
    url: &reqwest::Url,
) -> reqwest_middleware::Result<reqwest::Response> {
    let (head, body) = response.into_parts();
    let builder = Response::builder().status(head.status).url(url.clone());
    let mut response = builder
        .body(reqwest::Body::wrap_stream(body.into_data_stream()))
        .map_err(ClientError::middleware)?;
    *response.headers_mut() = head.headers;
    Ok(response.into())
}
