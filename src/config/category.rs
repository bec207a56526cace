//! Kinds of traffic, told apart by rules.

use serde::{Deserialize, Serialize};

use crate::backend::Glob;
use crate::error::{Error, ErrorKind, Result};
use crate::request::Request;

/// Longest name of a category.
const LONGEST_NAME: usize = 64;

/// A kind of traffic, and which requests are of it: those that meet all the lists that are given, each by
/// one of its members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CategoryRule {
    /// The name, 1 to 64 bytes, unlike those of other rules. It is a label in metrics.
    pub name: String,
    /// Patterns of models: `gpt-4o*`. Default: any, and none too.
    pub models: Vec<String>,
    /// Tags of requests. Default: any, and none too.
    pub tags: Vec<String>,
    /// Patterns of routes: `support/*`. Default: any, and none too. The route of a request is what its
    /// caller says; the server says the name of the upstream.
    pub routes: Vec<String>,
}

impl CategoryRule {
    /// Whether a request is of this kind.
    #[must_use]
    pub fn matches(&self, request: &Request) -> bool {
        fits(&self.models, request.model_name())
            && fits(&self.routes, request.route_name())
            && (self.tags.is_empty()
                || request.tags().any(|tag| self.tags.iter().any(|t| t == tag)))
    }
}

/// Whether a name fits one of the patterns, if there are any.
fn fits(patterns: &[String], name: Option<&str>) -> bool {
    patterns.is_empty()
        || name.is_some_and(|name| {
            let mut patterns = patterns.iter().map(Glob::new);
            patterns.any(|pattern| pattern.matches(name.as_bytes()))
        })
}

/// Checks the rules; `path` is where the list stands in the file.
pub(super) fn validate(rules: &[CategoryRule], path: &str) -> Result<()> {
    for (i, rule) in rules.iter().enumerate() {
        let refuse = |what: &'static str, field: &str, allowed: &'static str| {
            Err(Error::new(ErrorKind::Config, what)
                .with("field", format!("{path}[{i}]{field}"))
                .with("value", rule.name.escape_debug())
                .with("allowed", allowed))
        };
        if rule.name.is_empty() || rule.name.len() > LONGEST_NAME {
            return refuse("a setting is out of range", ".name", "1 to 64 bytes");
        }
        if rules[..i].iter().any(|other| other.name == rule.name) {
            return refuse(
                "two categories have the same name",
                ".name",
                "a name of its own",
            );
        }
        if rule.models.is_empty() && rule.tags.is_empty() && rule.routes.is_empty() {
            return refuse(
                "a category says of nothing what belongs to it",
                "",
                "at least one of models, tags and routes",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, models: &[&str], tags: &[&str], routes: &[&str]) -> CategoryRule {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        CategoryRule {
            name: name.to_owned(),
            models: owned(models),
            tags: owned(tags),
            routes: owned(routes),
        }
    }

    #[test]
    fn a_request_is_of_a_kind_when_it_meets_each_list_by_one_member() {
        let rule = rule("faq", &["gpt-4*", "o?"], &["faq", "help"], &["support/*"]);
        let base = || Request::prompt("hello").route("support/web").tag("help");
        assert!(rule.matches(&base().model("gpt-4o")));
        assert!(rule.matches(&base().model("o3")));
        assert!(!rule.matches(&base().model("claude")));
        assert!(!rule.matches(&base()));
        let untagged = Request::prompt("hello").route("support/web").model("o3");
        assert!(!rule.matches(&untagged));
        assert!(!rule.matches(&untagged.tag("faq").route("sales")));
    }

    #[test]
    fn rules_without_a_name_a_list_or_a_name_of_their_own_are_refused() {
        let error = |rules: &[CategoryRule]| validate(rules, "c").unwrap_err().to_string();
        assert!(error(&[rule("", &["a"], &[], &[])]).contains("field: c[0].name"));
        assert!(error(&[rule("a", &[], &[], &[])]).contains("field: c[0]"));
        let twice = [rule("a", &["a"], &[], &[]), rule("a", &[], &["b"], &[])];
        assert!(error(&twice).contains("field: c[1].name"));
        validate(&twice[..1], "c").unwrap();
    }
}
