//! What the ledger tells: figures for the API, a table for the terminal.
//!
//! A report is plain data, computed once by [`super::Ledger::report`]; nothing in it changes
//! afterwards. Lists are in an order that repeats, and money stays exact in JSON.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::money::grouped;
use super::{CostKind, Costs, Day, Line, PriceVersion, Usd};
use crate::clock::Timestamp;

/// What a report is about; each part left out means all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SavingsFilter {
    /// Only this tenant. The cache's own cost has no tenant and is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Only this model. The cache's own cost has no model and is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Only this route. The cache's own cost has no route and is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Only the last days, today included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
    /// Only this day, `YYYY-MM-DD` in UTC, and later ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Day>,
    /// Only the list by this; the sums are the same. All lists otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
}

impl SavingsFilter {
    /// Whether nobody's part is left out, so that the cache's own cost belongs in.
    #[must_use]
    pub const fn is_of_all(&self) -> bool {
        self.tenant.is_none() && self.model.is_none() && self.route.is_none()
    }
}

/// What a list of lines is by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Who asked.
    Tenant,
    /// The model that answered.
    Model,
    /// Where requests went.
    Route,
    /// The day.
    Day,
}

/// Hits that nobody has reported and that were wrong all the same, by the audits of hits. An estimate: it is in
/// no sum of the books.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WrongHitEstimate {
    /// The share of hits by similarity that are wrong, 0 to 1.
    pub rate: f64,
    /// The lower end of its interval at 95 %.
    pub lower: f64,
    /// The upper end.
    pub upper: f64,
    /// How many hits that makes beyond those found wrong already.
    pub hits: f64,
    /// What they cost: the savings that they claim, and what the policy's settings put on a wrong answer.
    pub usd: Usd,
    /// The net less that.
    pub net_usd: Usd,
}

/// A tenant, a model or a route and its line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamedLine {
    /// The tenant, the model or the route, or [`super::OTHER`]. Empty: not told.
    pub name: String,
    /// Its sums.
    #[serde(flatten)]
    pub line: Line,
}

/// A day and its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DayLine {
    /// The day in UTC, or `None` for everything older than the days kept apart.
    pub day: Option<Day>,
    /// Its sums.
    #[serde(flatten)]
    pub line: Line,
    /// The cache's own cost that day; `None` in a report on one tenant, model or route.
    pub costs: Option<Costs>,
    /// Saved, less withdrawn, less the cache's own cost.
    pub net_usd: Usd,
}

/// What the cache was worth, for the API, the command line and the admin page.
///
/// `{}` is a text table; the JSON form has every figure, money as exact decimal strings.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SavingsReport {
    /// When the report was made.
    pub generated_at: Timestamp,
    /// What it is about.
    pub filter: SavingsFilter,
    /// Saved, less withdrawn, less the cache's own cost. Negative when the cache cost more.
    pub net_usd: Usd,
    /// Everything in one line.
    pub totals: Line,
    /// The cache's own cost; `None` in a report on one tenant, model or route.
    pub costs: Option<Costs>,
    /// What hits that nobody found wrong may have cost; `None` where no hits were audited, and in a report on
    /// a part.
    pub wrong_hits: Option<WrongHitEstimate>,
    /// The list that money was reckoned by; `None` in a report that no cache made.
    pub prices: Option<PriceVersion>,
    /// Models whose money is missing from all sums because they have no price, by name.
    pub unpriced_models: Vec<String>,
    /// By tenant, most saved first.
    pub by_tenant: Vec<NamedLine>,
    /// By model, most saved first.
    pub by_model: Vec<NamedLine>,
    /// By route, most saved first.
    pub by_route: Vec<NamedLine>,
    /// By day, oldest first.
    pub by_day: Vec<DayLine>,
}

impl SavingsReport {
    /// What all answers would have cost without the cache, as far as models have a price.
    #[must_use]
    pub fn without_cache_usd(&self) -> Usd {
        self.totals.spent.usd + self.totals.net_usd()
    }
}

/// Lines shown of each text table: the most saved, and the latest days.
const LINES_SHOWN: usize = 20;

impl fmt::Display for SavingsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let totals = &self.totals;
        let number = |n: u64| grouped(u128::from(n));
        writeln!(
            f,
            "hits       {} ({} exact, {} semantic), {} reported wrong",
            number(totals.hits()),
            number(totals.hits_exact),
            number(totals.hits_semantic),
            number(totals.hits_wrong),
        )?;
        writeln!(
            f,
            "upstream   {} ({}, {} tokens), hit rate {:.1} %",
            number(totals.calls),
            totals.spent.usd,
            number(totals.spent.usage.total()),
            totals.hit_rate() * 100.0,
        )?;
        writeln!(
            f,
            "saved      {}, {} tokens, {}",
            totals.net_usd(),
            number(totals.net_tokens()),
            Span(totals.net_duration()),
        )?;
        if let Some(costs) = &self.costs {
            let parts: Vec<_> = CostKind::ALL
                .into_iter()
                .filter(|&kind| !costs.of(kind).is_zero())
                .map(|kind| format!("{} {}", kind.as_str(), costs.of(kind)))
                .collect();
            write!(f, "own cost   {}", costs.total())?;
            match parts.is_empty() {
                true => writeln!(f)?,
                false => writeln!(f, " ({})", parts.join(", "))?,
            }
        }
        writeln!(f, "net        {}", self.net_usd)?;
        if let Some(wrong) = &self.wrong_hits {
            writeln!(
                f,
                "estimated  {} after some {:.0} more wrong hits, {} ({:.2} % of the similar ones, {:.2} to {:.2} % at 95 %)",
                wrong.net_usd,
                wrong.hits,
                wrong.usd,
                wrong.rate * 100.0,
                wrong.lower * 100.0,
                wrong.upper * 100.0,
            )?;
        }
        if let Some(prices) = &self.prices {
            writeln!(f, "prices     {prices}")?;
        }
        if !self.unpriced_models.is_empty() {
            writeln!(
                f,
                "no price   {} (tokens only; set prices.models)",
                self.unpriced_models.join(", ")
            )?;
        }
        let named = |lines: &[NamedLine]| -> Vec<(String, Line, Usd)> {
            lines
                .iter()
                .map(|named| (named.name.clone(), named.line, named.line.net_usd()))
                .collect()
        };
        table(f, "tenant", &named(&self.by_tenant))?;
        table(f, "model", &named(&self.by_model))?;
        if self.by_route.iter().any(|named| !named.name.is_empty()) {
            table(f, "route", &named(&self.by_route))?;
        }
        let days: Vec<_> = self
            .by_day
            .iter()
            .rev()
            .map(|day| {
                let name = day.day.map_or("earlier".to_owned(), |day| day.to_string());
                (name, day.line, day.net_usd)
            })
            .collect();
        table(f, "day", &days)
    }
}

/// Names to the left, figures to the right, each column as wide as its widest cell.
fn table(f: &mut fmt::Formatter<'_>, first: &str, lines: &[(String, Line, Usd)]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    let head = [
        first,
        "hits",
        "calls",
        "hit rate",
        "tokens saved",
        "spent",
        "net saved",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for (name, line, net) in lines.iter().take(LINES_SHOWN) {
        rows.push([
            name.clone(),
            grouped(u128::from(line.hits())),
            grouped(u128::from(line.calls)),
            format!("{:.1} %", line.hit_rate() * 100.0),
            grouped(u128::from(line.net_tokens())),
            line.spent.usd.to_string(),
            net.to_string(),
        ]);
    }
    let widths: [usize; 7] = std::array::from_fn(|column| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    });
    writeln!(f)?;
    for row in rows {
        write!(f, "{:<width$}", row[0], width = widths[0])?;
        for (cell, width) in row.iter().zip(widths).skip(1) {
            write!(f, "  {cell:>width$}")?;
        }
        writeln!(f)?;
    }
    match lines.len().saturating_sub(LINES_SHOWN) {
        0 => Ok(()),
        more => writeln!(f, "and {more} more"),
    }
}

/// A span of time in its two largest units.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
        match () {
            () if days > 0 => write!(f, "{} d {} h", grouped(u128::from(days)), hours % 24),
            () if hours > 0 => write!(f, "{hours} h {} min", minutes % 60),
            () if minutes > 0 => write!(f, "{minutes} min {} s", seconds % 60),
            () => write!(f, "{:.1} s", self.0.as_secs_f64()),
        }
    }
}

/// Most saved first; ties by name, so that reports repeat.
pub(super) fn by_value(lines: BTreeMap<String, Line>) -> Vec<NamedLine> {
    let mut named: Vec<_> = lines
        .into_iter()
        .map(|(name, line)| NamedLine { name, line })
        .collect();
    let value = |named: &NamedLine| (named.line.net_usd(), named.line.net_tokens());
    named.sort_by_key(|line| Reverse(value(line)));
    named
}
