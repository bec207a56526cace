//! Names of what a stack of tiers counts. Each carries the label `tiers`, the name of the stack.

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// Messages of other stacks, by `kind`.
pub const FEED_MESSAGES: &str = "askonce_tier_feed_messages_total";
/// Times that messages were lost before they were read, and the near tier was cleared for it.
pub const FEED_GAPS: &str = "askonce_tier_feed_gaps_total";
/// Seconds from the sending of a message to its coming back.
pub const FEED_LAG_SECONDS: &str = "askonce_tier_feed_lag_seconds";
/// 1 while the near tier is trusted, 0 while each of its values is checked.
pub const NEAR_TRUSTED: &str = "askonce_tier_near_trusted";
/// Operations that went on without the far tier, by `operation`.
pub const DEGRADED: &str = "askonce_tier_degraded_total";
/// Changes that the far tier missed and has not been told yet.
pub const RECOVERY_DEPTH: &str = "askonce_tier_recovery_depth";
/// Seconds since the oldest of them.
pub const RECOVERY_AGE_SECONDS: &str = "askonce_tier_recovery_age_seconds";
/// Changes that the far tier was told after it had missed them.
pub const RECOVERED: &str = "askonce_tier_recovered_total";
/// Times that there were too many of them, so that the far tier is to be cleared.
pub const RECOVERY_OVERFLOWS: &str = "askonce_tier_recovery_overflows_total";

/// Tells the installed recorder what each of these metrics means. Call once, after installing it.
pub fn describe() {
    describe_counter!(FEED_MESSAGES, "Messages of other stacks of tiers, by kind");
    describe_counter!(FEED_GAPS, "Times that messages of other stacks were lost");
    describe_histogram!(
        FEED_LAG_SECONDS,
        Unit::Seconds,
        "Time from the sending of a message to its coming back"
    );
    describe_gauge!(NEAR_TRUSTED, "Whether the near tier is trusted");
    describe_counter!(DEGRADED, "Operations without the far tier, by operation");
    describe_gauge!(RECOVERY_DEPTH, "Changes that the far tier missed");
    describe_gauge!(
        RECOVERY_AGE_SECONDS,
        Unit::Seconds,
        "Age of the oldest change that the far tier missed"
    );
    describe_counter!(RECOVERED, "Missed changes that the far tier was told");
    describe_counter!(
        RECOVERY_OVERFLOWS,
        "Times that too many changes were missed"
    );
}

pub(super) fn message(tiers: &str, kind: &'static str) {
    counter!(FEED_MESSAGES, "tiers" => tiers.to_owned(), "kind" => kind).increment(1);
}

pub(super) fn gap(tiers: &str) {
    counter!(FEED_GAPS, "tiers" => tiers.to_owned()).increment(1);
}

pub(super) fn lag(tiers: &str, lag: Duration) {
    histogram!(FEED_LAG_SECONDS, "tiers" => tiers.to_owned()).record(lag.as_secs_f64());
}

pub(super) fn trusted(tiers: &str, trusted: bool) {
    gauge!(NEAR_TRUSTED, "tiers" => tiers.to_owned()).set(f64::from(u8::from(trusted)));
}

pub(super) fn degraded(tiers: &str, operation: &'static str) {
    counter!(DEGRADED, "tiers" => tiers.to_owned(), "operation" => operation).increment(1);
}

pub(super) fn owed(tiers: &str, depth: usize, age: Duration) {
    gauge!(RECOVERY_DEPTH, "tiers" => tiers.to_owned()).set(depth as f64);
    gauge!(RECOVERY_AGE_SECONDS, "tiers" => tiers.to_owned()).set(age.as_secs_f64());
}

pub(super) fn recovered(tiers: &str) {
    counter!(RECOVERED, "tiers" => tiers.to_owned()).increment(1);
}

pub(super) fn overflow(tiers: &str) {
    counter!(RECOVERY_OVERFLOWS, "tiers" => tiers.to_owned()).increment(1);
}
