//! Tiers that fail in every way while callers go on: nobody gets an error, and what is down is left alone.
//!
//! `planned` makes stores fail by a seeded schedule, on a clock and a runtime that are told the time;
//! `outage` does it to a real Redis. What a fault costs is counted in attempts that reach the store.

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "redis")]
mod outage;
#[cfg(feature = "test-support")]
mod planned;
