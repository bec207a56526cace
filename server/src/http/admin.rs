//! The admin page: plain files that are part of the binary, and hold no data themselves.
//!
//! What the page shows it asks of the native API, with the caller's rights. With `auth.keys` anybody may load
//! the files, and the page asks for a key; without, they are given to this machine alone, as its callers are
//! admins. Nothing is loaded from elsewhere, and no other page may frame it.

use std::sync::Arc;

use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

use super::App;
use super::error::Problem;
use super::native::{Answered, Peer};

/// The files, by name.
const FILES: [(&str, &str, &str); 5] = [
    (
        "",
        "text/html; charset=utf-8",
        include_str!("../../admin/index.html"),
    ),
    (
        "style.css",
        "text/css; charset=utf-8",
        include_str!("../../admin/style.css"),
    ),
    (
        "app.js",
        "text/javascript; charset=utf-8",
        include_str!("../../admin/app.js"),
    ),
    (
        "chart.js",
        "text/javascript; charset=utf-8",
        include_str!("../../admin/chart.js"),
    ),
    (
        "icon.svg",
        "image/svg+xml",
        include_str!("../../admin/icon.svg"),
    ),
];

/// How the page is told whether it must ask for a key.
const NO_KEY: &str = "name=\"askonce-auth\" content=\"none\"";
const KEY: &str = "name=\"askonce-auth\" content=\"key\"";

const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    // Asked for again each time, and answered with 304 while the program is the same.
    (header::CACHE_CONTROL, "no-cache"),
];

/// `GET /admin`
pub(crate) async fn page(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
) -> Answered {
    serve(&app, peer, &headers, "")
}

/// `GET /admin/{file}`
pub(crate) async fn file(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Answered {
    serve(&app, peer, &headers, &name)
}

fn serve(app: &App, peer: std::net::SocketAddr, headers: &HeaderMap, name: &str) -> Answered {
    if !app.config.admin.enabled {
        return Err(Problem::not_found(
            "there is no admin page: admin.enabled is off",
        ));
    }
    if !app.auth.owns_keys() {
        let caller = app.auth.identify(headers, peer)?;
        caller.require_admin("open the admin page")?;
    }
    let file = FILES.iter().find(|(file, _, _)| *file == name);
    let (_, media, content) = file.ok_or_else(|| Problem::not_found("there is no such file"))?;
    let content = if app.auth.owns_keys() {
        content.replace(NO_KEY, KEY)
    } else {
        (*content).to_owned()
    };
    let tag = tag(&content);
    let known = headers.get(header::IF_NONE_MATCH);
    let mut response = if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Response::new(content.into())
    };
    let told = response.headers_mut();
    told.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    for (name, value) in HEADERS {
        told.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        told.insert(header::ETAG, tag);
    }
    Ok(response)
}

fn tag(content: &str) -> String {
    let digest = Sha256::digest(content);
    let digits: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("\"{digits}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_from_elsewhere_and_holds_no_inline_script_or_style() {
        let (_, _, page) = FILES[0];
        for forbidden in [
            "http://", "https://", "<style", "style=", "onclick", "onload",
        ] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        let script = "<script type=\"module\" src=\"/admin/";
        assert_eq!(
            page.matches("<script").count(),
            page.matches(script).count()
        );
        assert!(page.contains(NO_KEY));
        for (name, _, _) in &FILES[1..] {
            let used = FILES.iter().any(|(_, _, content)| content.contains(name));
            assert!(used, "{name} is not used");
        }
    }
}
