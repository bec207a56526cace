//! The two ways to a cache: through a running server, or straight to the configured backends.
//!
//! A backend that processes share can be looked at and cleaned up without a server. What lies in the
//! memory of a server can not, and a server that runs keeps its own copies of what is removed behind its
//! back, until they expire: so the server is asked when there is one.

use anyhow::bail;
use askonce::SemanticCache;
use askonce::config::BackendConfig;
use clap::Args as ClapArgs;
use serde_json::Value;

use super::Global;
use super::client::{Client, ServerArgs};
use crate::config::ServerConfig;

/// Which way to take.
#[derive(Debug, ClapArgs)]
pub(crate) struct WayArgs {
    /// Only this backend, by its configured name. If processes share it and no server answers, it is asked
    /// directly.
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<String>,
    /// Ask the configured Redis or memcached directly, not a server. Copies in the memory of running
    /// servers stay until they expire.
    #[arg(long)]
    direct: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// A way to a cache.
pub(crate) enum Way {
    /// Through the native API of a server.
    Server(Client),
    /// Straight to the backends that processes share.
    Direct(Box<SemanticCache>),
}

impl WayArgs {
    /// The way to take.
    pub(crate) async fn choose(&self, global: &Global) -> anyhow::Result<Way> {
        if self.direct {
            return Ok(Way::Direct(Box::new(self.open(global).await?)));
        }
        let client = self.server.client()?;
        if self.backend.is_some()
            && !client.is_there().await
            && let Ok(cache) = self.open(global).await
        {
            eprintln!("no server answers: the backend is asked directly");
            return Ok(Way::Direct(Box::new(cache)));
        }
        Ok(Way::Server(client))
    }

    /// A cache over the configured backends that processes share, without similarity.
    async fn open(&self, global: &Global) -> anyhow::Result<SemanticCache> {
        let mut config = ServerConfig::load(&global.sources())?.settings.engine();
        config.semantic.enabled = false;
        config.backends.retain(|section| {
            let named = self.backend.as_deref();
            // Of a stack, the tier that is shared is asked itself.
            let in_process = matches!(
                section.backend,
                BackendConfig::Memory(_) | BackendConfig::Tiered(_)
            );
            section.enabled
                && !in_process
                && named.is_none_or(|name| section.backend.name() == name)
        });
        // What was the default may not be among them.
        config.service.default_backend = None;
        for section in &mut config.backends {
            section.default = false;
        }
        if config.backends.is_empty() {
            bail!(
                "no backend {}is configured that processes share: what lies in the memory of a server \
                 only that server knows; leave out --direct to ask it",
                self.backend
                    .as_deref()
                    .map(|name| format!("{name} "))
                    .unwrap_or_default()
            );
        }
        Ok(SemanticCache::builder().config(&config).build().await?)
    }
}

/// Fails when backends could not do their part of what was reported.
pub(crate) fn check_complete(report: &Value) -> anyhow::Result<()> {
    let troubles = report["troubles"].as_array();
    let troubles = troubles.map(Vec::as_slice).unwrap_or_default();
    let lines: Vec<String> = troubles
        .iter()
        .map(|trouble| {
            let field = |name: &str| trouble[name].as_str().unwrap_or_default().to_owned();
            let (tier, problem, remedy) = (field("tier"), field("problem"), field("remedy"));
            format!("backend {tier}: {problem}; {remedy}")
        })
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    bail!("not everything was reached: {}", lines.join("; "))
}
