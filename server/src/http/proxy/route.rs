//! Where a request goes: the upstream that it names, or that has its model, and those that stand in for it.

use std::iter;
use std::sync::Arc;

use askonce::Protocol;
use axum::http::request::Parts;
use reqwest::Url;

use crate::config::Protocol as Speaks;
use crate::http::App;
use crate::http::error::Problem;
use crate::upstream::{Upstream, below_api};

/// The header that names an upstream.
const UPSTREAM: &str = "x-askonce-upstream";

/// The upstreams of a request, the first to be asked first. Cheap to clone.
#[derive(Clone)]
pub(super) struct Route {
    app: Arc<App>,
    parts: Arc<Parts>,
    primary: Arc<Upstream>,
}

impl Route {
    /// The upstream that the caller names; else the first that speaks the protocol and lists the model; else the
    /// first that speaks the protocol and lists none; else the first.
    ///
    /// # Errors
    /// 400 when there is none of the name, or the path leads nowhere.
    pub(super) fn find(
        app: &Arc<App>,
        parts: &Arc<Parts>,
        protocol: Option<Protocol>,
        model: Option<&str>,
    ) -> Result<Self, Problem> {
        let named = parts.headers.get(UPSTREAM);
        let primary = match named {
            Some(name) => app
                .upstreams
                .find(name.to_str().unwrap_or_default())
                .ok_or_else(|| {
                    Problem::bad_request("there is no upstream of that name").field(UPSTREAM)
                })?,
            None => {
                let messages = match protocol {
                    Some(protocol) => protocol == Protocol::AnthropicMessages,
                    None => parts.headers.contains_key("anthropic-version"),
                };
                let speaks = if messages {
                    Speaks::Anthropic
                } else {
                    Speaks::Openai
                };
                app.upstreams
                    .choose(speaks, model)
                    .ok_or_else(|| Problem::bad_request("there is no upstream"))?
            }
        };
        if below_api(parts.uri.path()).is_none() {
            return Err(Problem::bad_request("the path cannot be passed on"));
        }
        Ok(Self::to(app, parts, primary))
    }

    /// The route of a request whose first upstream is known.
    pub(super) fn to(app: &Arc<App>, parts: &Arc<Parts>, primary: &Arc<Upstream>) -> Self {
        Self {
            app: Arc::clone(app),
            parts: Arc::clone(parts),
            primary: Arc::clone(primary),
        }
    }

    pub(super) fn app(&self) -> &App {
        &self.app
    }

    /// The upstream that is asked first: the one whose answers these are.
    pub(super) fn primary(&self) -> &Arc<Upstream> {
        &self.primary
    }

    /// The head of the request.
    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// All, in the order in which they are tried.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        let others = self.app.upstreams.failover(&self.primary);
        iter::once(&self.primary).chain(others)
    }

    /// Where the request's path is at `upstream`.
    pub(super) fn url(&self, upstream: &Upstream) -> Result<Url, Problem> {
        let uri = &self.parts.uri;
        upstream
            .target(uri.path(), uri.query())
            .ok_or_else(|| Problem::bad_request("the path cannot be passed on"))
    }
}

/// The deployment that a path in the style of Azure names.
pub(super) fn deployment(path: &str) -> Option<&str> {
    let (_, rest) = path.split_once("/deployments/")?;
    rest.split('/').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_is_what_stands_behind_its_word() {
        let path = "/openai/deployments/gpt-4o/chat/completions";
        assert_eq!(deployment(path), Some("gpt-4o"));
        assert_eq!(deployment("/v1/chat/completions"), None);
        assert_eq!(deployment("/openai/deployments//chat"), None);
    }
}
