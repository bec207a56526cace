//! From settings to backends in their layers: what typed caches and semantic caches are both built of.
//!
//! Each enabled backend is built once and put into layers of its own; a stack is made of two that stand
//! in theirs, and is put into layers that only count. Backends that are tiers of a stack are part of it
//! and nothing else. Building connects to nothing. Of a configuration that is switched off, every
//! backend is one that keeps nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::{
    BackendConfig, BackendContext, BackendHandle, BackendRegistry, NullBackend, build_built_in,
};
use crate::config::{BackendSection, Config};
use crate::error::{Error, ErrorKind, Result};
use crate::layer::{BreakerConfig, LayerConfig, Layered};
use crate::tier::TieredBackend;

/// The stores of a configuration by their names, before layers and stacks.
pub(crate) struct Stores<'a> {
    config: &'a Config,
    context: &'a BackendContext,
    built: BTreeMap<&'a str, BackendHandle>,
}

impl<'a> Stores<'a> {
    /// Builds the stores of all enabled backends.
    pub(crate) async fn build(
        config: &'a Config,
        registry: &BackendRegistry,
        context: &'a BackendContext,
    ) -> Result<Self> {
        let mut built = BTreeMap::new();
        for section in Self::sections(config) {
            let store = match Self::off(config, section) {
                Some(off) => off,
                None => registry.build(&config.backend_of(section), context).await?,
            };
            built.insert(section.backend.name(), store);
        }
        Ok(Self {
            config,
            context,
            built,
        })
    }

    /// As [`build`](Self::build), of built-in types alone.
    pub(crate) fn build_local(config: &'a Config, context: &'a BackendContext) -> Result<Self> {
        let mut built = BTreeMap::new();
        for section in Self::sections(config) {
            let store = match Self::off(config, section) {
                Some(off) => off,
                None => build_built_in(&config.backend_of(section), context)?,
            };
            built.insert(section.backend.name(), store);
        }
        Ok(Self {
            config,
            context,
            built,
        })
    }

    /// What there is a store for.
    fn sections(config: &Config) -> impl Iterator<Item = &BackendSection> {
        config.backends.iter().filter(|section| {
            section.enabled && !matches!(section.backend, BackendConfig::Tiered(_))
        })
    }

    fn off(config: &Config, section: &BackendSection) -> Option<BackendHandle> {
        let name = section.backend.name();
        (!config.enabled).then(|| Arc::new(NullBackend::new(name)) as BackendHandle)
    }

    /// A backend of the configuration in its layers, with all that it is made of.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a setting is out of range, or a stack is made of what is not there.
    pub(crate) fn layered(&self, section: &BackendSection) -> Result<Arc<Layered>> {
        let name = section.backend.name();
        let (backend, layers) = match &section.backend {
            BackendConfig::Tiered(_) if !self.config.enabled => {
                let off: BackendHandle = Arc::new(NullBackend::new(name));
                (off, LayerConfig::default())
            }
            BackendConfig::Tiered(tiered) => {
                let tier = |name: &str| -> Result<BackendHandle> {
                    let section = self.config.section(name).ok_or_else(|| missing(name))?;
                    Ok(self.layered(section)?)
                };
                let stack = TieredBackend::builder(tier(&tiered.near)?, tier(&tiered.far)?)
                    .name(name)
                    .config(tiered.tiers.clone())
                    .clock(self.context.clock())
                    .build()?;
                (Arc::new(stack) as BackendHandle, around_a_stack())
            }
            _ => {
                let store = self.built.get(name).ok_or_else(|| missing(name))?;
                (Arc::clone(store), self.config.layers_of(section))
            }
        };
        let counted = section.enable_metrics && self.config.service.enable_metrics;
        let layered = Layered::builder(backend)
            .config(layers)
            .clock(self.context.clock())
            .events(self.context.events().clone())
            .metrics(counted)
            .build()?;
        Ok(Arc::new(layered))
    }
}

/// Its tiers have deadlines, retries and breakers. Another breaker around them would keep callers from the
/// copies when the far tier is down.
fn around_a_stack() -> LayerConfig {
    LayerConfig {
        deadline: Some(Duration::from_secs(600)),
        retries: 0,
        breaker: BreakerConfig {
            enabled: false,
            ..BreakerConfig::default()
        },
        ..LayerConfig::default()
    }
}

fn missing(name: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        "a stack is made of backends that are listed and enabled",
    )
    .with("value", name)
}
