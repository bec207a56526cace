//! A backend that keeps nothing: what stands behind caches that are switched off.

use bytes::Bytes;

use super::{
    BackendUsage, CacheBackend, Capability, Condition, Cursor, Glob, KeyPage, StoredValue,
};
use crate::clock::Timestamp;
use crate::error::Result;

/// A backend that takes every value and keeps none, as if each were evicted at once.
///
/// Nothing fails with it, so a program works as with an empty cache. It holds no locks: it does not say
/// that it writes conditionally.
#[derive(Clone, Debug)]
pub struct NullBackend {
    name: String,
}

impl NullBackend {
    /// A backend with this name in metrics and reports.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

impl CacheBackend for NullBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn capability(&self) -> Capability {
        Capability {
            in_process: true,
            evicts: true,
            counts_exactly: true,
            max_value_bytes: None,
            conditional_writes: false,
            lists_keys: true,
        }
    }

    async fn get(&self, _: &[u8]) -> Result<Option<StoredValue>> {
        Ok(None)
    }

    async fn set(&self, _: &[u8], _: Bytes, _: Option<Timestamp>) -> Result<()> {
        Ok(())
    }

    async fn delete(&self, _: &[u8]) -> Result<bool> {
        Ok(false)
    }

    async fn clear(&self) -> Result<()> {
        Ok(())
    }

    async fn usage(&self) -> Result<BackendUsage> {
        Ok(BackendUsage::default())
    }

    async fn set_if(
        &self,
        _: &[u8],
        _: Bytes,
        _: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        Ok(matches!(condition, Condition::Absent))
    }

    async fn delete_if(&self, _: &[u8], _: &[u8]) -> Result<bool> {
        Ok(false)
    }

    async fn take(&self, _: &[u8]) -> Result<Option<StoredValue>> {
        Ok(None)
    }

    async fn touch(&self, _: &[u8], _: Option<Timestamp>) -> Result<bool> {
        Ok(false)
    }

    async fn increment(&self, _: &[u8], by: i64, _: Option<Timestamp>) -> Result<i64> {
        Ok(by)
    }

    async fn scan(&self, _: &Glob, _: Cursor, _: usize) -> Result<KeyPage> {
        Ok(KeyPage::default())
    }

    async fn delete_matching(&self, _: &Glob) -> Result<u64> {
        Ok(0)
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }
}
