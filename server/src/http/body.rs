//! Bodies read whole, up to a bound.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;

use super::error::Problem;

/// How long to go on reading, and dropping, a body that is too large. A client that is cut off while it
/// sends may never see the answer that says why.
const DRAIN: Duration = Duration::from_secs(2);

/// The whole body.
///
/// # Errors
/// 413 when it is larger than `limit`, 400 when it ends early.
pub(crate) async fn read(mut body: Body, limit: u64) -> Result<Bytes, Problem> {
    // Most bodies come in one piece, which need not be copied.
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|_| Problem::bad_request("the body ended before it was complete"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let read = first.len().max(whole.len());
        if read as u64 + data.len() as u64 > limit {
            drop((first, whole));
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            let _ = tokio::time::timeout(DRAIN, rest).await;
            return Err(Problem::too_large(limit));
        }
        if read == 0 {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() {
        first
    } else {
        whole.freeze()
    })
}
