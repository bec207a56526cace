//! Configuration values that a more specific level overrides.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::entry::Ttl;
use crate::error::Result as CacheResult;
use crate::typed::{Cache, Key};

/// Where settings come from.
pub trait SettingSource: Send + Sync + 'static {
    /// Why it failed. Given to all who wait for the same load.
    type Error: Clone + Send + Sync + 'static;

    /// The setting `name` as `level` has it, `None` being the base that is the same everywhere. `Ok(None)`
    /// when it says nothing of it.
    fn load(
        &self,
        level: Option<&str>,
        name: &str,
    ) -> impl Future<Output = Result<Option<Value>, Self::Error>> + Send;
}

/// Configuration values, each from the most specific level that has one.
///
/// Where several levels have a map of that name, the maps are laid over each other, field by field; any
/// other value replaces what lies below it, and so does a `null`. Levels are kept apart from each other:
/// that a level says nothing of a setting is kept too.
pub struct Settings<S> {
    cache: Cache,
    source: Arc<S>,
    /// Most specific first.
    levels: Arc<[String]>,
    ttl: Ttl,
}

impl<S> Clone for Settings<S> {
    fn clone(&self) -> Self {
        Self {
            cache: self.cache.clone(),
            source: Arc::clone(&self.source),
            levels: Arc::clone(&self.levels),
            ttl: self.ttl,
        }
    }
}

impl<S> fmt::Debug for Settings<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("levels", &self.levels)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

impl<S: SettingSource> Settings<S> {
    /// The settings of the base level, kept as `name` in `cache` for an hour.
    #[must_use]
    pub fn new(cache: &Cache, name: &str, source: S) -> Self {
        Self {
            cache: cache.namespace(("settings", name)),
            source: Arc::new(source),
            levels: Arc::new([]),
            ttl: Ttl::For(Duration::from_secs(3600)),
        }
    }

    /// The levels over the base, most specific first: `["eu-west", "production"]`. Default: none.
    #[must_use]
    pub fn levels<L: Into<String>>(mut self, levels: impl IntoIterator<Item = L>) -> Self {
        self.levels = levels.into_iter().map(Into::into).collect();
        self
    }

    /// How long a value is kept, and that there is none. Default: an hour.
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// The setting `name`, all levels laid over each other. `None` when none of them has it.
    ///
    /// # Errors
    /// Only what the source returns.
    pub async fn get(&self, name: &str) -> Result<Option<Value>, S::Error> {
        let mut setting: Option<Value> = None;
        for level in self.all_levels() {
            let Some(below) = self.at(level, name).await? else {
                continue;
            };
            // Only a map lets anything below it through.
            let last = !below.is_object();
            setting = Some(match setting {
                None => below,
                Some(above) => laid_over(below, above),
            });
            if last {
                break;
            }
        }
        Ok(setting)
    }

    /// One value within a setting: `field("pool", "limits.size")`.
    ///
    /// # Errors
    /// Only what the source returns.
    pub async fn field(&self, name: &str, path: &str) -> Result<Option<Value>, S::Error> {
        let mut value = self.get(name).await?;
        for field in path.split('.') {
            value = match value {
                Some(Value::Object(mut map)) => map.remove(field),
                _ => None,
            };
        }
        Ok(value)
    }

    /// The setting has changed at `level`, `None` being the base.
    ///
    /// # Errors
    /// Whatever the backend reports. The old value may then be kept until it expires.
    pub async fn invalidate(&self, level: Option<&str>, name: &str) -> CacheResult<bool> {
        self.cache.delete(&Self::key(level, name)).await
    }

    fn all_levels(&self) -> impl Iterator<Item = Option<&str>> {
        let levels = self.levels.iter().map(|level| Some(level.as_str()));
        levels.chain([None])
    }

    fn key(level: Option<&str>, name: &str) -> Key {
        Key::new(name).part(level)
    }

    async fn at(&self, level: Option<&str>, name: &str) -> Result<Option<Value>, S::Error> {
        let key = Self::key(level, name);
        let load = self.cache.load(&key).ttl(self.ttl).negative_ttl(self.ttl);
        load.run(|| self.source.load(level, name)).await
    }
}

/// `above` where it says something, else `below`.
fn laid_over(below: Value, above: Value) -> Value {
    match (below, above) {
        (Value::Object(mut below), Value::Object(above)) => {
            for (name, above) in above {
                let value = match below.remove(&name) {
                    Some(below) => laid_over(below, above),
                    None => above,
                };
                below.insert(name, value);
            }
            Value::Object(below)
        }
        (_, above) => above,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maps_are_laid_over_each_other_and_all_else_replaces() {
        let below = json!({"a": 1, "b": {"x": 1, "y": 2}, "c": [1, 2], "d": {"x": 1}});
        let above = json!({"b": {"y": 3, "z": 4}, "c": [3], "d": null});
        let laid = json!({"a": 1, "b": {"x": 1, "y": 3, "z": 4}, "c": [3], "d": null});
        assert_eq!(laid_over(below, above), laid);
        assert_eq!(laid_over(json!({"a": 1}), json!(2)), json!(2));
        assert_eq!(laid_over(json!(2), json!({"a": 1})), json!({"a": 1}));
    }
}
