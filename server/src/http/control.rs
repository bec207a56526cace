//! What a request's headers ask of the cache, with what is wrong in them as a [`Problem`].

use std::time::Duration;

use askonce::gateway::control;
pub(crate) use askonce::gateway::control::{Wishes, is_ours};

use super::error::Problem;

/// Reads seconds or a duration such as `90m`.
pub(crate) fn read_span(text: &str) -> Result<Duration, Problem> {
    Ok(control::read_span(text)?)
}

/// Refuses too many tags, and tags that are empty or too long.
pub(crate) fn check_tags(tags: &[String]) -> Result<(), Problem> {
    Ok(control::check_tags(tags)?)
}

/// Refuses a name that is empty or too long.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Problem> {
    Ok(control::check_name(what, name)?)
}
