//! What callers are told when a request fails: problem documents (RFC 9457) in the native API, and the
//! provider's own shape in the proxy.
//!
//! Neither repeats a prompt, an answer or a key; values that serde would quote are cut out.

use std::borrow::Cow;

use askonce::{Error, ErrorKind, Protocol};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

/// A failed request.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    #[serde(serialize_with = "status_number")]
    status: StatusCode,
    detail: Cow<'static, str>,
    /// The field of the request that is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

fn status_number<S: serde::Serializer>(
    status: &StatusCode,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    /// A problem of the kind that `name` stands for, in lower-case words joined by underscores.
    pub(crate) fn new(
        status: StatusCode,
        name: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        let kind = format!("urn:askonce:problem:{name}");
        Self {
            kind,
            title,
            status,
            detail: detail.into(),
            field: None,
        }
    }

    /// The request is malformed.
    pub(crate) fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "The request cannot be understood",
            detail,
        )
    }

    /// There is no such thing, or not for this caller.
    pub(crate) fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not found", detail)
    }

    /// The caller may not do that.
    pub(crate) fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail)
    }

    /// The body is larger than `limit` bytes.
    pub(crate) fn too_large(limit: u64) -> Self {
        let detail =
            format!("the body is larger than {limit} bytes, the limit set by max_body_bytes");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "The body is too large",
            detail,
        )
    }

    /// Names the field at fault.
    #[must_use]
    pub(crate) fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Names the field at fault by its path from further up.
    pub(crate) fn prefix_field(&mut self, prefix: &str) {
        if let Some(field) = &mut self.field {
            field.insert_str(0, prefix);
        }
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The same in the shape of the API that was called; OpenAI's, where that is not known.
    pub(crate) fn into_provider_response(self, protocol: Option<Protocol>) -> Response {
        let name = self.kind.rsplit(':').next().unwrap_or_default();
        provider_error(
            self.status,
            name,
            &self.detail,
            self.field.as_deref(),
            protocol,
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self)).into_response();
        let problem = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, problem);
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let field = error.context().iter().find(|(name, _)| *name == "field");
        let field = field.map(|(_, value)| value.clone());
        let mut problem = match error.kind() {
            ErrorKind::InvalidRequest => Self::bad_request(error.to_string()),
            ErrorKind::TooLarge => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                "A value is too large",
                error.to_string(),
            ),
            _ => {
                tracing::error!(%error, "a request failed");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal",
                    "The server failed",
                    error.kind().as_str(),
                )
            }
        };
        problem.field = field;
        problem
    }
}

/// An error as a provider words it: Anthropic for its messages, OpenAI for all else.
pub(crate) fn provider_error(
    status: StatusCode,
    code: &str,
    message: &str,
    param: Option<&str>,
    protocol: Option<Protocol>,
) -> Response {
    let kind = match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    };
    let body = match protocol {
        Some(Protocol::AnthropicMessages) => json!({
            "type": "error",
            "error": { "type": kind, "message": message, "code": code },
        }),
        _ => json!({
            "error": { "message": message, "type": kind, "param": param, "code": code },
        }),
    };
    (status, Json(body)).into_response()
}

/// What serde says, without the value that it may quote: the value may be a prompt.
pub(crate) fn without_value(message: &str) -> Cow<'_, str> {
    if let Some((head, expected)) = message.rsplit_once(", expected ")
        && let Some((head, _)) = head.split_once(": string \"")
    {
        return format!("{head}: a string, expected {expected}").into();
    }
    message.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_values_are_cut_out() {
        let message = r#"invalid type: string "my, expected \"secret", expected a map"#;
        assert_eq!(
            without_value(message),
            "invalid type: a string, expected a map"
        );
        let message = "invalid type: integer `7`, expected a string";
        assert_eq!(without_value(message), message);
    }
}
