//! What a million tokens of a model cost.
//!
//! The table that comes with the crate (`prices.json`, dated, see [`PriceTable::as_of`]) holds
//! public list prices of the common hosted models. List prices change, and contracts, regions,
//! batch, priority and peak-hour rates differ from them: `prices.models` in the configuration overrides any
//! row and adds missing ones. Long-context surcharges are not modelled; the built-in rows hold the
//! short-context rate. A host known by its prefix (`azure/`, `openrouter/`) is priced like the
//! model's maker.
//!
//! Always true: a model either has the price of a row that names it, or none. Names are matched
//! whole after removing a calendar date or a provider prefix; nothing is matched by its beginning,
//! so `gpt-4o-mini` is never billed as `gpt-4o`, and an unknown model costs `None`, not zero.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::{Usage, Usd};
use crate::{Error, ErrorKind, Result};

/// The highest price that is taken for real, in dollars per million tokens.
const MAX_DOLLARS: f64 = 1_000_000.0;

/// What a model charges per million tokens, exact to a micro-dollar.
///
/// ```
/// use askonce::savings::{Price, Usage};
///
/// let price = Price::per_million(2.5, Some(1.25), 10.0)?;
/// let usage = Usage { input_tokens: 1_000, cached_input_tokens: 400, output_tokens: 200 };
/// assert_eq!(price.cost(&usage).to_string(), "$0.0040");
/// assert_eq!(format!("{:#}", price.cost(&usage)), "$0.004");
/// # Ok::<(), askonce::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Price {
    // Micro-dollars per million tokens, which are pico-dollars per token.
    input: u64,
    cached_input: u64,
    output: u64,
}

impl Price {
    /// A price in dollars per million tokens, rounded to a micro-dollar. Without a cached rate,
    /// cached input costs what input costs.
    ///
    /// # Errors
    /// When a figure is not a number from 0 to 1,000,000.
    pub fn per_million(input: f64, cached_input: Option<f64>, output: f64) -> Result<Self> {
        PriceConfig {
            input,
            cached_input,
            output,
        }
        .check("price")
    }

    /// A price in micro-dollars per million tokens.
    #[must_use]
    pub const fn from_micros_per_million(input: u64, cached_input: u64, output: u64) -> Self {
        Self {
            input,
            cached_input,
            output,
        }
    }

    /// The exact cost of `usage`. Cached tokens beyond the input count as input.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Usd {
        let cached = usage.cached_input_tokens.min(usage.input_tokens);
        let plain = usage.input_tokens - cached;
        // A product of two u64 fits i128; only their sum could leave it.
        let of = |tokens: u64, price: u64| Usd::from_picos(i128::from(tokens) * i128::from(price));
        of(plain, self.input) + of(cached, self.cached_input) + of(usage.output_tokens, self.output)
    }

    /// The price of a million input tokens.
    #[must_use]
    pub fn input(&self) -> Usd {
        self.cost(&Usage::new(1_000_000, 0))
    }

    /// The price of a million cached input tokens.
    #[must_use]
    pub fn cached_input(&self) -> Usd {
        self.cost(&Usage {
            input_tokens: 1_000_000,
            cached_input_tokens: 1_000_000,
            output_tokens: 0,
        })
    }

    /// The price of a million output tokens.
    #[must_use]
    pub fn output(&self) -> Usd {
        self.cost(&Usage::new(0, 1_000_000))
    }
}

/// Where prices come from: the `prices` section of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct PricesConfig {
    /// The table that `models` adds to. Default: `builtin`. Choose `none` when only contract
    /// prices may be reported; models without a price then count tokens only.
    pub source: PriceSource,
    /// Prices by model name, in dollars per 1M tokens. Default: empty. A name covers the spellings
    /// that [`PriceTable::price`] reduces to it, and wins over the built-in table for all of them;
    /// write `azure/gpt-4o` to cover one provider only. Give a price of 0 to a model you host and
    /// count as free.
    pub models: BTreeMap<String, PriceConfig>,
}

/// The table that configured prices are laid over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PriceSource {
    /// The list prices that come with this version.
    #[default]
    Builtin,
    /// No table: only what `models` holds.
    None,
}

/// A configured price, in dollars per 1M tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PriceConfig {
    /// Input tokens. From 0 to 1,000,000; digits beyond a micro-dollar are rounded.
    pub input: f64,
    /// Input tokens that the provider serves from its own prompt cache. Default: the same as
    /// `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<f64>,
    /// Output tokens. Write 0 for embedding models.
    pub output: f64,
}

impl PriceConfig {
    /// The price, or what is wrong with it; `path` names the section in the message.
    fn check(&self, path: &str) -> Result<Price> {
        let micros = |field: &str, dollars: f64| {
            if (0.0..=MAX_DOLLARS).contains(&dollars) {
                // In range and rounded: at most 10^12, which u64 and f64 both hold exactly.
                Ok((dollars * 1e6).round() as u64)
            } else {
                Err(Error::new(ErrorKind::Config, "a price is out of range")
                    .with("field", format_args!("{path}.{field}"))
                    .with("value", dollars)
                    .with("allowed", "0 to 1000000 dollars per 1M tokens"))
            }
        };
        let input = micros("input", self.input)?;
        Ok(Price {
            input,
            cached_input: match self.cached_input {
                Some(dollars) => micros("cached_input", dollars)?,
                None => input,
            },
            output: micros("output", self.output)?,
        })
    }
}

impl PricesConfig {
    /// Checks every price; `path` is where this section stands in the file, such as `prices`.
    ///
    /// # Errors
    /// Names the field, its value and the allowed range of the first price that is not a number
    /// from 0 to 1,000,000, or the model that is named twice or not at all.
    pub fn validate(&self, path: &str) -> Result<()> {
        self.overrides(path).map(drop)
    }

    fn overrides(&self, path: &str) -> Result<BTreeMap<String, Price>> {
        let mut overrides = BTreeMap::new();
        for (model, config) in &self.models {
            let at = format!("{path}.models.{model}");
            let name = fold(model);
            let wrong = |message: &'static str| {
                Error::new(ErrorKind::Config, message)
                    .with("field", &at)
                    .with("value", format_args!("{model:?}"))
                    .with("allowed", "a model name, once, whatever its case")
            };
            if name.is_empty() {
                return Err(wrong("a price has no model name"));
            }
            if overrides.insert(name, config.check(&at)?).is_some() {
                return Err(wrong("a model has two prices"));
            }
        }
        Ok(overrides)
    }
}

/// Prices by model name.
///
/// ```
/// use askonce::savings::{PriceConfig, PriceTable, PricesConfig, Usage};
///
/// let table = PriceTable::builtin();
/// let usage = Usage::new(1_000_000, 0);
/// let cost = |model: &str| table.cost(model, &usage).map(|usd| usd.to_string());
/// assert_eq!(cost("gpt-4o-2024-08-06"), cost("gpt-4o"));
/// assert_eq!(cost("openrouter/openai/gpt-4o-mini").as_deref(), Some("$0.15"));
/// assert_eq!(cost("gpt-4o-experimental"), None);
///
/// let mut config = PricesConfig::default();
/// let contract = PriceConfig { input: 2.0, cached_input: None, output: 8.0 };
/// config.models.insert("gpt-4o".to_owned(), contract);
/// let table = PriceTable::new(&config)?;
/// assert_eq!(table.cost("gpt-4o-2024-08-06", &usage).map(|usd| usd.to_string()).as_deref(), Some("$2.00"));
/// # Ok::<(), askonce::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PriceTable {
    overrides: BTreeMap<String, Price>,
    base: Option<&'static Asset>,
}

/// Which prices a report was made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PriceVersion {
    /// The date of the built-in list, `YYYY-MM-DD`, which is its version; `None` when it is not used.
    pub builtin: Option<String>,
    /// Models whose price the configuration gives.
    pub configured: usize,
}

impl fmt::Display for PriceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.builtin {
            Some(date) => write!(f, "list of {date}")?,
            None => write!(f, "no list")?,
        }
        write!(f, ", {} of your own", self.configured)
    }
}

/// A row of a [`PriceTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriceRow<'a> {
    /// The name that the row was written for, in lower case.
    pub model: &'a str,
    /// Who asks this price, or `None` for a configured one.
    pub provider: Option<&'a str>,
    /// The price itself.
    pub price: Price,
}

impl Default for PriceTable {
    fn default() -> Self {
        Self::builtin()
    }
}

impl PriceTable {
    /// The list prices that come with this version.
    #[must_use]
    pub fn builtin() -> Self {
        Self {
            overrides: BTreeMap::new(),
            base: Some(asset()),
        }
    }

    /// The table that the configuration describes.
    ///
    /// # Errors
    /// As [`PricesConfig::validate`], with `prices` as the path.
    pub fn new(config: &PricesConfig) -> Result<Self> {
        Ok(Self {
            overrides: config.overrides("prices")?,
            base: match config.source {
                PriceSource::Builtin => Some(asset()),
                PriceSource::None => None,
            },
        })
    }

    /// Which list this is, for reports.
    #[must_use]
    pub fn version(&self) -> PriceVersion {
        PriceVersion {
            builtin: self.as_of().map(str::to_owned),
            configured: self.overrides.len(),
        }
    }

    /// The date of the built-in list (`YYYY-MM-DD`), when this table uses it.
    #[must_use]
    pub fn as_of(&self) -> Option<&'static str> {
        self.base.map(|asset| asset.as_of.as_str())
    }

    /// The price of `model`, or `None` when no row names it.
    ///
    /// Tried in this order, ignoring case, first among the configured prices and then in the
    /// built-in list:
    /// 1. the name as it is;
    /// 2. without a calendar date at its end (`-2024-08-06`, `-20250514`, `@20240620`) or Bedrock's
    ///    revision (`-v1:0`); a fine-tuned model (`ft:gpt-4o:acme::id`) is reduced to
    ///    `ft:gpt-4o`, which has its own price;
    /// 3. both again without a known provider in front (`openai/`, `azure/`, `models/`,
    ///    `us.anthropic.`), repeatedly. An unknown prefix is kept: `ollama/gpt-oss:20b` on your own
    ///    machine has no list price.
    #[must_use]
    pub fn price(&self, model: &str) -> Option<Price> {
        self.find(model).map(|row| row.price)
    }

    /// As [`PriceTable::price`], with the row that supplied it.
    #[must_use]
    pub fn find(&self, model: &str) -> Option<PriceRow<'_>> {
        let spellings = spellings(model);
        let own = spellings.iter().find_map(|name| {
            let (model, price) = self.overrides.get_key_value(name)?;
            Some(PriceRow {
                model,
                provider: None,
                price: *price,
            })
        });
        own.or_else(|| {
            let base = self.base?;
            spellings.iter().find_map(|name| base.row(name))
        })
    }

    /// The exact cost of `usage` on `model`, or `None` when the model has no price.
    #[must_use]
    pub fn cost(&self, model: &str, usage: &Usage) -> Option<Usd> {
        Some(self.price(model)?.cost(usage))
    }

    /// Every row: configured ones by name, then the built-in ones that none of them replaces, in
    /// the order of the list.
    pub fn rows(&self) -> impl Iterator<Item = PriceRow<'_>> {
        let own = self.overrides.iter().map(|(model, price)| PriceRow {
            model,
            provider: None,
            price: *price,
        });
        let base = self.base.into_iter().flat_map(Asset::rows);
        own.chain(base.filter(|row| !self.overrides.contains_key(row.model)))
    }
}

/// The built-in list in memory.
#[derive(Debug, Default)]
struct Asset {
    as_of: String,
    rows: Vec<(AssetRow, Price)>,
    /// Positions in `rows`, by name and alias.
    by_name: HashMap<String, usize>,
}

#[derive(Debug, Deserialize)]
struct AssetFile {
    as_of: String,
    models: Vec<AssetRow>,
}

#[derive(Debug, Deserialize)]
struct AssetRow {
    provider: String,
    model: String,
    #[serde(default)]
    aliases: Vec<String>,
    input: f64,
    cached_input: Option<f64>,
    output: f64,
}

impl Asset {
    fn parse(text: &str) -> Result<Self> {
        let file: AssetFile = serde_json::from_str(text).map_err(|error| {
            Error::new(ErrorKind::Config, "the price list cannot be read").caused_by(error)
        })?;
        let mut asset = Self {
            as_of: file.as_of,
            ..Self::default()
        };
        for row in file.models {
            let price = Price::per_million(row.input, row.cached_input, row.output)?;
            for name in std::iter::once(&row.model).chain(&row.aliases) {
                asset.by_name.insert(name.clone(), asset.rows.len());
            }
            asset.rows.push((row, price));
        }
        Ok(asset)
    }

    fn row(&self, name: &str) -> Option<PriceRow<'_>> {
        self.by_name
            .get(name)
            .and_then(|&at| self.rows.get(at))
            .map(Self::view)
    }

    fn rows(&self) -> impl Iterator<Item = PriceRow<'_>> {
        self.rows.iter().map(Self::view)
    }

    fn view((row, price): &(AssetRow, Price)) -> PriceRow<'_> {
        PriceRow {
            model: &row.model,
            provider: Some(&row.provider),
            price: *price,
        }
    }
}

fn asset() -> &'static Asset {
    static ASSET: OnceLock<Asset> = OnceLock::new();
    // The list is part of the binary and a test reads it, so the empty table is never seen; even
    // then models would be reported as unpriced rather than the process stopped.
    ASSET.get_or_init(|| Asset::parse(include_str!("prices.json")).unwrap_or_default())
}

/// Providers whose models cost what their maker asks, as gateways write them before a slash.
const SAME_PRICE: &[&str] = &[
    "anthropic",
    "azure",
    "azure_ai",
    "azure_openai",
    "bedrock",
    "cohere",
    "deepseek",
    "gemini",
    "google",
    "litellm_proxy",
    "mistral",
    "mistralai",
    "models",
    "openai",
    "openrouter",
    "vertex_ai",
    "vertexai",
    "x-ai",
    "xai",
];

/// Bedrock's inference regions, and the makers whose name Bedrock puts before a dot.
const BEDROCK_REGIONS: &[&str] = &["apac", "au", "eu", "global", "jp", "us", "us-gov"];
const BEDROCK_MAKERS: &[&str] = &["amazon", "anthropic", "meta"];

/// Model names are compared without regard to case or surrounding space.
fn fold(model: &str) -> String {
    model.trim().to_ascii_lowercase()
}

/// No model has a longer name. Callers choose the name, so what is done with it is bounded.
const MAX_NAME_BYTES: usize = 256;

/// The names under which a model's price may be listed, most specific first.
fn spellings(model: &str) -> Vec<String> {
    if model.len() > MAX_NAME_BYTES {
        return Vec::new();
    }
    let mut all = Vec::with_capacity(4);
    let mut name = fold(model);
    loop {
        let undated = without_date(&name);
        let bare = without_provider(&name).map(str::to_owned);
        all.push(name);
        all.extend(undated);
        match bare {
            Some(bare) => name = bare,
            None => return all,
        }
    }
}

/// The name without the provider at its front.
pub(super) fn without_provider(name: &str) -> Option<&str> {
    if let Some((provider, rest)) = name.split_once('/') {
        return SAME_PRICE.contains(&provider).then_some(rest);
    }
    let (first, rest) = name.split_once('.')?;
    let made_there = |name: &str| {
        name.split_once('.')
            .is_some_and(|(maker, _)| BEDROCK_MAKERS.contains(&maker))
    };
    // "us.anthropic.claude-…" to "anthropic.claude-…" to "claude-…". The other makers on Bedrock
    // keep their name: their models cost there what Bedrock asks.
    let region = BEDROCK_REGIONS.contains(&first) && made_there(rest);
    (region || first == "anthropic").then_some(rest)
}

/// The name without the release it is pinned to.
fn without_date(name: &str) -> Option<String> {
    if let Some(tuned) = name.strip_prefix("ft:") {
        let base = tuned.split(':').next().unwrap_or(tuned);
        let base = calendar_date(base).unwrap_or(base);
        return Some(format!("ft:{base}"));
    }
    let revised = bedrock_revision(name);
    let rest = revised.unwrap_or(name);
    calendar_date(rest).or(revised).map(str::to_owned)
}

/// What stands before `-v1:0` or `:0`.
fn bedrock_revision(name: &str) -> Option<&str> {
    let (rest, minor) = name.rsplit_once(':')?;
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (base, major) = rest.rsplit_once("-v")?;
    (number(minor) && number(major)).then_some(base)
}

/// What stands before `-YYYY-MM-DD`, `-YYYYMMDD` or `@YYYYMMDD`.
fn calendar_date(name: &str) -> Option<&str> {
    let split = |tail: usize| {
        let at = name.len().checked_sub(tail)?;
        Some((name.get(..at)?, name.get(at..)?))
    };
    let is_date = |digits: &str| {
        let part = |range: std::ops::Range<usize>| digits.get(range)?.parse::<u32>().ok();
        digits.len() == 8
            && digits.bytes().all(|b| b.is_ascii_digit())
            && part(0..4).is_some_and(|year| (2000..2100).contains(&year))
            && part(4..6).is_some_and(|month| (1..=12).contains(&month))
            && part(6..8).is_some_and(|day| (1..=31).contains(&day))
    };
    let dashed = || {
        let (base, tail) = split(11)?;
        let b = tail.as_bytes();
        let shaped = b[0] == b'-' && b[5] == b'-' && b[8] == b'-';
        (shaped && is_date(&tail.replace('-', ""))).then_some(base)
    };
    let compact = || {
        let (base, tail) = split(9)?;
        let digits = tail.strip_prefix(['-', '@'])?;
        is_date(digits).then_some(base)
    };
    dashed().or_else(compact).filter(|base| !base.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn dollars(table: &PriceTable, model: &str) -> Option<(f64, f64, f64)> {
        let price = table.price(model)?;
        Some((
            price.input().as_dollars(),
            price.cached_input().as_dollars(),
            price.output().as_dollars(),
        ))
    }

    fn with_models(source: PriceSource, models: &[(&str, f64, f64)]) -> PricesConfig {
        PricesConfig {
            source,
            models: models
                .iter()
                .map(|&(name, input, output)| {
                    let price = PriceConfig {
                        input,
                        cached_input: None,
                        output,
                    };
                    (name.to_owned(), price)
                })
                .collect(),
        }
    }

    #[test]
    fn the_builtin_list_is_whole() {
        let asset = Asset::parse(include_str!("prices.json")).unwrap();
        assert!(asset.rows.len() > 100);
        assert_eq!(calendar_date(&format!("x-{}", asset.as_of)), Some("x"));
        let mut seen = HashSet::new();
        for (row, price) in &asset.rows {
            for name in std::iter::once(&row.model).chain(&row.aliases) {
                assert!(seen.insert(name), "{name} is listed twice");
                assert_eq!(*name, fold(name), "{name} is not in lower case");
                assert_eq!(asset.row(name).unwrap().price, *price);
            }
            assert!(price.cached_input <= price.input, "{}", row.model);
            assert!(price.input > 0, "{}", row.model);
        }
        assert_eq!(PriceTable::builtin().as_of(), Some(asset.as_of.as_str()));
    }

    #[test]
    fn well_known_models_have_their_list_price() {
        let table = PriceTable::builtin();
        for (model, price) in [
            ("gpt-4o", (2.5, 1.25, 10.0)),
            ("gpt-4o-mini", (0.15, 0.075, 0.6)),
            ("gpt-4.1-nano", (0.1, 0.025, 0.4)),
            ("o3", (2.0, 0.5, 8.0)),
            ("gpt-5-mini", (0.25, 0.025, 2.0)),
            ("text-embedding-3-small", (0.02, 0.02, 0.0)),
            ("claude-sonnet-4-20250514", (3.0, 0.3, 15.0)),
            ("gemini-2.5-flash", (0.3, 0.03, 2.5)),
        ] {
            assert_eq!(dollars(&table, model), Some(price), "{model}");
        }
    }

    #[test]
    fn dates_prefixes_and_case_do_not_change_the_price() {
        let table = PriceTable::builtin();
        for (spelling, row) in [
            ("gpt-4o-2024-08-06", "gpt-4o"),
            (" GPT-4o ", "gpt-4o"),
            ("openai/gpt-4o", "gpt-4o"),
            ("azure/gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
            (
                "openrouter/anthropic/claude-3.5-sonnet",
                "claude-3-5-sonnet",
            ),
            ("claude-3-5-sonnet@20240620", "claude-3-5-sonnet"),
            (
                "us.anthropic.claude-sonnet-4-20250514-v1:0",
                "claude-sonnet-4",
            ),
            (
                "bedrock/anthropic.claude-3-haiku-20240307-v1:0",
                "claude-3-haiku",
            ),
            ("eu.amazon.nova-lite-v1:0", "amazon.nova-lite"),
            ("models/gemini-1.5-pro-002", "gemini-1.5-pro"),
            (
                "ft:gpt-4o-mini-2024-07-18:acme:support:9x",
                "ft:gpt-4o-mini",
            ),
            ("azure/gpt-35-turbo", "gpt-3.5-turbo"),
            (
                "meta-llama/Llama-3.3-70B-Instruct-Turbo",
                "meta-llama/llama-3.3-70b-instruct-turbo",
            ),
        ] {
            let found = table.find(spelling).map(|row| row.model);
            assert_eq!(found, Some(row), "{spelling}");
        }
    }

    #[test]
    fn a_listed_release_keeps_its_own_price() {
        let table = PriceTable::builtin();
        assert_eq!(dollars(&table, "gpt-4o-2024-05-13"), Some((5.0, 5.0, 15.0)));
        assert_eq!(dollars(&table, "gpt-3.5-turbo-1106"), Some((1.0, 1.0, 2.0)));
        assert_eq!(dollars(&table, "gpt-3.5-turbo-0125"), Some((0.5, 0.5, 1.5)));
    }

    #[test]
    fn names_that_only_begin_like_a_known_model_have_no_price() {
        let table = PriceTable::builtin();
        for model in [
            "",
            "/",
            "-",
            ".",
            ":",
            "ft:",
            "ft::",
            "@",
            "openai/",
            "gpt",
            "gpt-4o-",
            "gpt-4o-mini-high",
            "gpt-4o-audio-preview-2024-12-17",
            "gpt-4o-2024-13-40",
            "gpt-4o-20240806x",
            "-2024-08-06",
            "20240806",
            "my-team/gpt-4o",
            "azure/eu/gpt-4o",
            "ollama/llama3.1",
            "gpt-4o:free",
            "ft:unknown:acme",
            "eu.claude-sonnet-4",
            "mistral-large-latest",
            "模型-2024-08-06",
        ] {
            assert_eq!(table.price(model), None, "{model}");
        }
    }

    #[test]
    fn a_name_made_to_be_slow_has_no_price_at_once() {
        let table = PriceTable::builtin();
        let name = |prefixes: usize| format!("{}gpt-4o", "openai/".repeat(prefixes));
        assert!(table.price(&name(30)).is_some());
        assert_eq!(table.price(&name(1_000_000)), None);
    }

    #[test]
    fn a_configured_price_wins_for_every_spelling_it_covers() {
        let config = with_models(
            PriceSource::Builtin,
            &[
                ("GPT-4o", 2.0, 8.0),
                ("azure/o3", 1.0, 1.0),
                ("house-model", 0.0, 0.0),
            ],
        );
        let table = PriceTable::new(&config).unwrap();
        let own = Some((2.0, 2.0, 8.0));
        for model in [
            "gpt-4o",
            "openai/gpt-4o",
            "gpt-4o-2024-05-13",
            "azure/GPT-4O",
        ] {
            assert_eq!(dollars(&table, model), own, "{model}");
        }
        assert_eq!(
            dollars(&table, "azure/o3-2025-04-16"),
            Some((1.0, 1.0, 1.0))
        );
        assert_eq!(dollars(&table, "o3"), Some((2.0, 0.5, 8.0)));
        assert_eq!(dollars(&table, "house-model"), Some((0.0, 0.0, 0.0)));
        assert_eq!(dollars(&table, "gpt-4o-mini"), Some((0.15, 0.075, 0.6)));
        assert_eq!(table.rows().filter(|row| row.model == "gpt-4o").count(), 1);
    }

    #[test]
    fn without_the_builtin_list_only_configured_models_have_a_price() {
        let config = with_models(PriceSource::None, &[("gpt-4o", 2.0, 8.0)]);
        let table = PriceTable::new(&config).unwrap();
        assert_eq!(table.as_of(), None);
        assert_eq!(table.rows().count(), 1);
        assert!(table.price("gpt-4o").is_some());
        assert_eq!(table.price("gpt-4o-mini"), None);
    }

    #[test]
    fn a_price_out_of_range_is_named_with_its_field_value_and_range() {
        for wrong in [-0.1, f64::NAN, f64::INFINITY, 1_000_001.0] {
            let config = with_models(PriceSource::Builtin, &[("gpt-4o", wrong, 8.0)]);
            let error = config.validate("prices").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert_eq!(
                error.to_string(),
                format!(
                    "a price is out of range (field: prices.models.gpt-4o.input, value: {wrong}, \
                     allowed: 0 to 1000000 dollars per 1M tokens)"
                )
            );
        }
    }

    #[test]
    fn a_model_has_one_price() {
        let config = with_models(PriceSource::None, &[("o3", 1.0, 1.0), ("O3", 2.0, 2.0)]);
        let message = config.validate("prices").unwrap_err().to_string();
        assert!(
            message.starts_with("a model has two prices (field: prices.models.o3"),
            "{message}"
        );
        let config = with_models(PriceSource::None, &[(" ", 1.0, 1.0)]);
        assert!(config.validate("prices").is_err());
    }

    #[test]
    fn the_section_reads_as_documented_and_refuses_unknown_fields() {
        let config: PricesConfig =
            serde_json::from_str(r#"{"models": {"m": {"input": 3, "output": 15.5}}}"#).unwrap();
        assert_eq!(config.source, PriceSource::Builtin);
        let table = PriceTable::new(&config).unwrap();
        assert_eq!(dollars(&table, "m"), Some((3.0, 3.0, 15.5)));
        for wrong in [
            r#"{"sorce": "none"}"#,
            r#"{"source": "internet"}"#,
            r#"{"models": {"m": {"input": 3}}}"#,
            r#"{"models": {"m": {"input": 3, "output": 1, "ouput": 2}}}"#,
        ] {
            assert!(
                serde_json::from_str::<PricesConfig>(wrong).is_err(),
                "{wrong}"
            );
        }
        let back = serde_json::to_string(&PricesConfig::default()).unwrap();
        assert_eq!(back, r#"{"source":"builtin","models":{}}"#);
    }

    proptest! {
        #[test]
        fn any_text_can_be_looked_up(model in ".{0,40}") {
            let _ = PriceTable::builtin().price(&model);
        }

        #[test]
        fn any_text_after_a_date_or_colon_can_be_looked_up(
            head in "[a-z@:./-]{0,8}", date in "[0-9é-]{6,12}", tail in "[a-z0-9:-]{0,4}",
        ) {
            let _ = PriceTable::builtin().price(&format!("{head}{date}{tail}"));
        }

        #[test]
        fn costs_add_up_exactly(
            a in 0..u64::MAX / 4, b in 0..u64::MAX / 4, c in 0..u64::MAX / 4, d in 0..u64::MAX / 4,
            input in 0u64..1_000_000_000_000, output in 0u64..1_000_000_000_000,
        ) {
            let price = Price::from_micros_per_million(input, input / 2, output);
            let (one, two) = (Usage::new(a, b), Usage::new(c, d));
            prop_assert_eq!(price.cost(&one) + price.cost(&two), price.cost(&(one + two)));
        }
    }
}
