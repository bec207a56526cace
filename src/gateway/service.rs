//! The gateway as a `tower` layer over HTTP.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tower_layer::Layer;
use tower_service::Service;

use super::call::oneshot;
use super::exchange::{Gateway, Head, Plan, protocol_of, upstream_headers};
use super::give::{ResponseBody, error};
use super::{BoxError, status};
use crate::request::Protocol;

impl<S> Layer<S> for Gateway {
    type Service = GatewayService<S>;

    fn layer(&self, inner: S) -> GatewayService<S> {
        GatewayService {
            gateway: self.clone(),
            inner,
        }
    }
}

/// An HTTP service with a cache in front; made by [`Gateway`] as a layer.
///
/// It is always ready: a hit does not wait for the service, and a call upstream waits for it by itself. The
/// service sees the calls that miss without `X-Askonce-*` headers, the `cache` field and `Accept-Encoding`: an
/// answer must be readable to be kept.
#[derive(Clone)]
pub struct GatewayService<S> {
    gateway: Gateway,
    inner: S,
}

impl<S> fmt::Debug for GatewayService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayService")
            .field("gateway", &self.gateway)
            .finish_non_exhaustive()
    }
}

impl<S, B, R> Service<Request<B>> for GatewayService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (gateway, inner) = (self.gateway.clone(), self.inner.clone());
        Box::pin(async move {
            let Some(protocol) = protocol_of(request.method(), request.uri().path()) else {
                return Ok(oneshot(inner, request).await?.map(ResponseBody::passed));
            };
            let (mut parts, body) = request.into_parts();
            let body = match read(body, gateway.max_body_bytes).await {
                Ok(body) => body,
                Err(unread) => return Ok(unread.told(gateway.max_body_bytes, protocol)),
            };
            let head = Head {
                headers: &parts.headers,
                origin: None,
                path: parts.uri.path(),
                query: parts.uri.query(),
                extensions: &parts.extensions,
            };
            let plan = gateway.plan(protocol, &head, body);
            let ask = match plan {
                Plan::Refuse(response) => return Ok(*response),
                Plan::Pass(body, why) => {
                    parts.headers.remove(http::header::CONTENT_LENGTH);
                    let request = Request::from_parts(parts, B::from(body));
                    let mut response = oneshot(inner, request).await?.map(ResponseBody::passed);
                    status::bypassed(response.headers_mut(), why);
                    return Ok(response);
                }
                Plan::Ask(ask) => ask,
            };
            upstream_headers(&mut parts.headers);
            // Several calls may be made of one, at the same time perhaps; not every service can be shared for that.
            let inner = Mutex::new(inner);
            let open = move |body: Bytes| {
                let inner = inner.lock().clone();
                let request = Request::from_parts(parts.clone(), B::from(body));
                async move { oneshot(inner, request).await.map_err(Into::into) }
            };
            Ok(gateway.answer(*ask, open).await.unwrap_or_else(|failed| {
                tracing::warn!(error = %failed, "an upstream call failed");
                let status = StatusCode::BAD_GATEWAY;
                error(status, "upstream_failed", failed.message(), None, protocol)
            }))
        })
    }
}

/// Why a request's body could not be read.
enum Unread {
    TooLarge,
    Broken,
}

impl Unread {
    fn told(self, limit: u64, protocol: Protocol) -> Response<ResponseBody> {
        let (status, code, message) = match self {
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("the body is larger than {limit} bytes"),
            ),
            Self::Broken => (
                StatusCode::BAD_REQUEST,
                "invalid_request",
                "the body could not be read to its end".to_owned(),
            ),
        };
        error(status, code, &message, None, protocol)
    }
}

async fn read<B: http_body::Body<Data = Bytes>>(body: B, most: u64) -> Result<Bytes, Unread> {
    if body.size_hint().lower() > most {
        return Err(Unread::TooLarge);
    }
    let mut body = pin!(body);
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Unread::Broken)?;
        if let Ok(bytes) = frame.into_data() {
            whole.extend_from_slice(&bytes);
        }
        if whole.len() as u64 > most {
            return Err(Unread::TooLarge);
        }
    }
    Ok(whole.freeze())
}
