//! The books: what hits saved and what calls cost, by tenant, model, route and day.
//!
//! An [`Account`] (a tenant, a model, a route) has a series of lines, one a day (UTC). Recording takes a shared
//! lock to find the series and that series' own lock to add to its line, so accounts do not wait for each
//! other; the exclusive lock is taken once for each new one. What the cache spends on itself
//! ([`CostKind`]) is kept by day only, for an embedding or a shadow call serves no tenant's answer.
//!
//! A hit reported wrong saved nothing. Its claim is not erased but booked against, as
//! [`Line::withdrawn`] on the day of the report: the gross figures never go down, so they can be
//! exported as counters, and the net is right.
//!
//! # Bounds
//! [`LedgerConfig`] limits accounts and days; labels are cut at 128 bytes. What exceeds
//! a limit is added to a coarser line, never dropped: accounts beyond a tenant's limit to
//! `(tenant, (other), (other))`, those beyond the whole limit to `((other), (other), (other))`, days beyond
//! the kept ones to an undated line. At the defaults the books take 24 MB when every line is in use.
//!
//! The books outlive the process where [`LedgerConfig::path`] names a file; `file.rs` reads and writes it.
//!
//! Always true: totals are the exact sum of everything recorded, in whatever order, from whatever
//! threads, and however much of it went to coarser lines. A report taken while others record may
//! hold one account's record and not yet another's, but never half of one.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::report::by_value;
use super::tokens::prefix;
use super::{
    By, CostKind, Costs, Day, DayLine, HitKindLabel, Line, Saved, SavingsFilter, SavingsReport,
    Tally, Usage, Usd,
};
use crate::clock::{ClockHandle, Timestamp};
use crate::files::beside;
use crate::{Error, ErrorKind, Result};

/// The name of the line that takes what a limit keeps from having its own.
pub const OTHER: &str = "(other)";

/// Tenant and model labels are cut to this many bytes.
const MAX_LABEL_BYTES: usize = 128;

/// The version of [`LedgerState`] that is written, and the only one read.
const STATE_VERSION: u32 = 1;

/// Whose line a record belongs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Account<'a> {
    /// Who asked.
    pub tenant: &'a str,
    /// The model that answered.
    pub model: &'a str,
    /// Where the request went, such as an upstream's name; may be empty.
    pub route: &'a str,
}

impl<'a> From<(&'a str, &'a str)> for Account<'a> {
    /// A tenant and a model, whatever the route.
    fn from((tenant, model): (&'a str, &'a str)) -> Self {
        Self {
            tenant,
            model,
            route: "",
        }
    }
}

impl<'a> From<(&'a str, &'a str, &'a str)> for Account<'a> {
    /// A tenant, a model and a route.
    fn from((tenant, model, route): (&'a str, &'a str, &'a str)) -> Self {
        Self {
            tenant,
            model,
            route,
        }
    }
}

impl Account<'_> {
    fn cut(self) -> Self {
        Self {
            tenant: label(self.tenant),
            model: label(self.model),
            route: label(self.route),
        }
    }
}

/// How much detail a [`Ledger`] keeps, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LedgerConfig {
    /// The file that keeps the books beyond the life of the process. It is written once a minute and at the
    /// end, whole or not at all. Default: `null`; then it stands beside the index of `semantic.index.path`, by
    /// that name and `.savings`, if that is set, and there is none otherwise. Each process needs one of its own.
    pub path: Option<PathBuf>,
    /// Tenants with a model and a route that have lines of their own. From 1 to 100,000. Default: 1,024.
    /// Raise it when the report names a tenant `(other)`.
    pub pairs: usize,
    /// Models, by route, that one tenant may have lines for, so that one of them cannot use up `pairs`.
    /// From 1 to 100,000. Default: 64.
    pub models_per_tenant: usize,
    /// Days that are kept apart; what is older is kept in one sum. From 1 to 3,660. Default: 90.
    pub days: usize,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            path: None,
            pairs: 1_024,
            models_per_tenant: 64,
            days: 90,
        }
    }
}

impl LedgerConfig {
    /// The file of the books, beside an index in the folder `index`.
    pub(crate) fn file(&self, index: Option<&Path>) -> Option<PathBuf> {
        let beside_index = || index.map(|index| beside(index, ".savings"));
        self.path.clone().or_else(beside_index)
    }

    /// Checks the limits; `path` is where this section stands in the file.
    ///
    /// # Errors
    /// Names the first field out of range, its value and the allowed range.
    pub fn validate(&self, path: &str) -> Result<()> {
        for (field, value, most) in [
            ("pairs", self.pairs, 100_000),
            ("models_per_tenant", self.models_per_tenant, 100_000),
            ("days", self.days, 3_660),
        ] {
            if !(1..=most).contains(&value) {
                return Err(
                    Error::new(ErrorKind::Config, "a limit of the ledger is out of range")
                        .with("field", format_args!("{path}.{field}"))
                        .with("value", value)
                        .with("allowed", format_args!("1 to {most}")),
                );
            }
        }
        Ok(())
    }
}

/// Dated sums, the oldest of which lose their date when there are too many.
#[derive(Debug, Default)]
struct Days<T> {
    earlier: T,
    /// By day, oldest first, each day once.
    days: Vec<(Day, T)>,
}

impl<T: Copy + Default + PartialEq + AddAssign> Days<T> {
    /// The sum of `day`, with at most `keep` days dated.
    fn at(&mut self, day: Day, keep: usize) -> &mut T {
        let i = match self.days.binary_search_by_key(&day, |&(day, _)| day) {
            Ok(i) => i,
            Err(0) if self.days.len() >= keep => return &mut self.earlier,
            Err(i) if self.days.len() >= keep => {
                let (_, oldest) = self.days.remove(0);
                self.earlier += oldest;
                self.days.insert(i - 1, (day, T::default()));
                i - 1
            }
            Err(i) => {
                self.days.insert(i, (day, T::default()));
                i
            }
        };
        &mut self.days[i].1
    }

    /// Every sum that is not empty; the undated one first.
    fn iter(&self) -> impl Iterator<Item = (Option<Day>, T)> {
        let earlier = (self.earlier != T::default()).then_some((None, self.earlier));
        let dated = self.days.iter().map(|&(day, sum)| (Some(day), sum));
        earlier.into_iter().chain(dated)
    }
}

type Series = Mutex<Days<Line>>;
/// By a label; these are looked up on every hit, and there are few.
type Labelled<T> = std::collections::HashMap<String, T, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
struct Books {
    tenants: Labelled<Tenant>,
    /// Accounts in `tenants`, without that of all others.
    accounts: usize,
}

#[derive(Debug, Default)]
struct Tenant {
    /// By model, then by route.
    models: Labelled<Labelled<Series>>,
    accounts: usize,
}

/// The account of all for whom there is no room.
const OTHERS: Account<'static> = Account {
    tenant: OTHER,
    model: OTHER,
    route: OTHER,
};

impl Books {
    fn get(&self, account: Account<'_>) -> Option<&Series> {
        let models = &self.tenants.get(account.tenant)?.models;
        models.get(account.model)?.get(account.route)
    }

    /// The account that a record is booked on: its own if there is one or room for it.
    fn place<'a>(&self, account: Account<'a>, limits: &LedgerConfig) -> Account<'a> {
        let own = Account {
            model: OTHER,
            route: OTHER,
            ..account
        };
        let room = self.accounts < limits.pairs;
        let tenant = self.tenants.get(account.tenant);
        let crowded = tenant.is_some_and(|tenant| tenant.accounts >= limits.models_per_tenant);
        if self.get(account).is_some() || (room && !crowded) {
            account
        } else if self.get(own).is_some() || room {
            own
        } else {
            OTHERS
        }
    }

    /// The series of an account that [`Books::place`] chose, opened when there is none.
    fn open(&mut self, account: Account<'_>) -> &mut Days<Line> {
        let new = self.get(account).is_none() && account != OTHERS;
        self.accounts += usize::from(new);
        let tenant = self.tenants.entry(account.tenant.to_owned()).or_default();
        tenant.accounts += usize::from(new);
        tenant
            .models
            .entry(account.model.to_owned())
            .or_default()
            .entry(account.route.to_owned())
            .or_default()
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The accounts of one engine.
///
/// ```
/// use std::time::Duration;
/// use askonce::clock::{ManualClock, Timestamp};
/// use askonce::savings::{HitKindLabel, Ledger, PriceTable, Saved, Usage};
///
/// let clock = ManualClock::starting_at(Timestamp::from_millis(1_754_438_400_000));
/// let ledger = Ledger::new(clock);
/// let usage = Usage::new(1_000, 500);
/// let usd = PriceTable::builtin().cost("gpt-4o", &usage);
/// let took = Duration::from_secs(4);
///
/// ledger.record_upstream(("acme", "gpt-4o"), usage, usd, took);
/// let saved = Saved { usage, usd, duration: took };
/// ledger.record_hit(("acme", "gpt-4o"), HitKindLabel::Semantic, &saved);
///
/// let report = ledger.summary(Timestamp::from_millis(1_754_438_400_000));
/// assert_eq!(report.totals.hits(), 1);
/// assert_eq!(report.net_usd.to_string(), "$0.0075");
/// println!("{report}");
/// ```
#[derive(Debug)]
pub struct Ledger {
    clock: ClockHandle,
    limits: LedgerConfig,
    books: RwLock<Books>,
    costs: Mutex<Days<Costs>>,
    /// Something was recorded since the books were last written.
    pub(super) changed: AtomicBool,
}

impl Ledger {
    /// Empty books with the default limits; `clock` tells the day of each record.
    #[must_use]
    pub fn new(clock: ClockHandle) -> Self {
        Self::with_limits(clock, LedgerConfig::default())
    }

    /// Empty books with other limits; a limit of 0 is taken as 1.
    #[must_use]
    pub fn with_limits(clock: ClockHandle, limits: LedgerConfig) -> Self {
        Self {
            clock,
            changed: AtomicBool::new(false),
            limits: LedgerConfig {
                path: limits.path,
                pairs: limits.pairs.max(1),
                models_per_tenant: limits.models_per_tenant.max(1),
                days: limits.days.max(1),
            },
            books: RwLock::default(),
            costs: Mutex::default(),
        }
    }

    /// Books a served hit and what it saved.
    pub fn record_hit<'a>(
        &self,
        account: impl Into<Account<'a>>,
        kind: HitKindLabel,
        saved: &Saved,
    ) {
        let (hits_exact, hits_semantic) = match kind {
            HitKindLabel::Exact => (1, 0),
            HitKindLabel::Semantic => (0, 1),
        };
        self.record(
            account.into(),
            &Line {
                hits_exact,
                hits_semantic,
                unpriced: u64::from(saved.usd.is_none()),
                saved: Tally::new(saved.usage, saved.usd, saved.duration),
                ..Line::default()
            },
        );
    }

    /// Books that an earlier hit was wrong: it saved nothing, so what it claimed is withdrawn.
    ///
    /// `saved` is what was booked with the hit. The hit itself stays counted, and is counted as
    /// wrong too.
    pub fn record_wrong_hit<'a>(&self, account: impl Into<Account<'a>>, saved: &Saved) {
        self.record(
            account.into(),
            &Line {
                hits_wrong: 1,
                withdrawn: Tally::new(saved.usage, saved.usd, saved.duration),
                ..Line::default()
            },
        );
    }

    /// Books a call that went upstream; `usd` is `None` for a model without a price.
    pub fn record_upstream<'a>(
        &self,
        account: impl Into<Account<'a>>,
        usage: Usage,
        usd: Option<Usd>,
        duration: Duration,
    ) {
        self.record(
            account.into(),
            &Line {
                calls: 1,
                unpriced: u64::from(usd.is_none()),
                spent: Tally::new(usage, usd, duration),
                ..Line::default()
            },
        );
    }

    /// Books what the cache spent on itself.
    pub fn record_cost(&self, kind: CostKind, usd: Usd) {
        self.changed.store(true, Ordering::Relaxed);
        let day = Day::of(self.clock.now());
        *lock(&self.costs).at(day, self.limits.days).of_mut(kind) += usd;
    }

    fn record(&self, account: Account<'_>, line: &Line) {
        self.add(account, Some(Day::of(self.clock.now())), line);
    }

    fn add(&self, account: Account<'_>, day: Option<Day>, line: &Line) {
        self.changed.store(true, Ordering::Relaxed);
        let account = account.cut();
        let keep = self.limits.days;
        let add = |days: &mut Days<Line>| match day {
            Some(day) => *days.at(day, keep) += *line,
            None => days.earlier += *line,
        };
        {
            let books = self.books.read().unwrap_or_else(PoisonError::into_inner);
            let own = books.get(account);
            let placed = || books.get(books.place(account, &self.limits));
            if let Some(series) = own.or_else(placed) {
                return add(&mut lock(series));
            }
        }
        // Decided again: others may have opened accounts between the two locks.
        let mut books = self.books.write().unwrap_or_else(PoisonError::into_inner);
        let place = books.place(account, &self.limits);
        add(books.open(place));
    }

    /// The sums of everything recorded so far, without the detail: for metrics.
    #[must_use]
    pub fn totals(&self) -> (Line, Costs) {
        let mut totals = Line::default();
        self.visit(|_, _, line| totals += line);
        let mut costs = Costs::default();
        lock(&self.costs).iter().for_each(|(_, cost)| costs += cost);
        (totals, costs)
    }

    /// Everything recorded so far.
    #[must_use]
    pub fn summary(&self, now: Timestamp) -> SavingsReport {
        self.report(now, &SavingsFilter::default())
    }

    /// What was recorded for a tenant, a model or the last days.
    #[must_use]
    pub fn report(&self, now: Timestamp, filter: &SavingsFilter) -> SavingsReport {
        let today = Day::of(now);
        let since = |days: u32| today.before(days.saturating_sub(1));
        let from = filter.days.map(since).max(filter.since);
        let in_time = |day: Option<Day>| match from {
            Some(from) => day.is_some_and(|day| day >= from),
            None => true,
        };
        // Series that were quiet keep older days than others do; in the report all end alike.
        let oldest = since(u32::try_from(self.limits.days).unwrap_or(u32::MAX));
        let dated = |day: Option<Day>| day.filter(|&day| day >= oldest);

        let mut totals = Line::default();
        let mut tenants = BTreeMap::<String, Line>::new();
        let mut models = BTreeMap::<String, Line>::new();
        let mut routes = BTreeMap::<String, Line>::new();
        let mut days = BTreeMap::<Option<Day>, (Line, Costs)>::new();
        self.visit(|account, day, line| {
            let chosen = |filter: &Option<String>, name| {
                filter.as_deref().is_none_or(|wanted| label(wanted) == name)
            };
            if chosen(&filter.tenant, account.tenant)
                && chosen(&filter.model, account.model)
                && chosen(&filter.route, account.route)
                && in_time(day)
            {
                totals += line;
                *tenants.entry(account.tenant.to_owned()).or_default() += line;
                *models.entry(account.model.to_owned()).or_default() += line;
                *routes.entry(account.route.to_owned()).or_default() += line;
                days.entry(dated(day)).or_default().0 += line;
            }
        });
        let costs = filter.is_of_all().then(|| {
            let mut costs = Costs::default();
            for (day, cost) in lock(&self.costs).iter().filter(|&(day, _)| in_time(day)) {
                costs += cost;
                days.entry(dated(day)).or_default().1 += cost;
            }
            costs
        });
        let wanted = |by: By| filter.by.is_none_or(|wanted| wanted == by);
        let listed = |by: By, lines| match wanted(by) {
            true => by_value(lines),
            false => Vec::new(),
        };
        SavingsReport {
            generated_at: now,
            filter: filter.clone(),
            net_usd: totals.net_usd() - costs.unwrap_or_default().total(),
            costs,
            wrong_hits: None,
            prices: None,
            unpriced_models: models
                .iter()
                .filter(|(_, line)| line.unpriced > 0)
                .map(|(name, _)| name.clone())
                .collect(),
            totals,
            by_tenant: listed(By::Tenant, tenants),
            by_model: listed(By::Model, models),
            by_route: listed(By::Route, routes),
            by_day: days
                .into_iter()
                .filter(|_| wanted(By::Day))
                .map(|(day, (line, cost))| DayLine {
                    day,
                    line,
                    costs: costs.map(|_| cost),
                    net_usd: line.net_usd() - cost.total(),
                })
                .collect(),
        }
    }

    /// The books in a form to store or to send, every figure exact.
    #[must_use]
    pub fn export(&self) -> LedgerState {
        let mut lines = Vec::new();
        self.visit(|account, day, line| {
            lines.push(StateLine {
                tenant: account.tenant.to_owned(),
                model: account.model.to_owned(),
                route: account.route.to_owned(),
                day,
                line,
            });
        });
        let order = |line: &StateLine| {
            let StateLine {
                tenant,
                model,
                route,
                ..
            } = line;
            (tenant.clone(), model.clone(), route.clone(), line.day)
        };
        lines.sort_by_cached_key(order);
        let costs = lock(&self.costs)
            .iter()
            .map(|(day, costs)| StateCosts { day, costs })
            .collect();
        LedgerState {
            version: STATE_VERSION,
            lines,
            costs,
        }
    }

    /// Adds exported books to these: a restart's own, or those of another node.
    ///
    /// # Errors
    /// `Corrupt` when the state has a version that is not known here; nothing is added then.
    pub fn import(&self, state: &LedgerState) -> Result<()> {
        if state.version != STATE_VERSION {
            return Err(
                Error::new(ErrorKind::Corrupt, "the ledger has an unknown version")
                    .with("version", state.version)
                    .with("known", STATE_VERSION),
            );
        }
        for StateLine {
            tenant,
            model,
            route,
            day,
            line,
        } in &state.lines
        {
            self.add((&**tenant, &**model, &**route).into(), *day, line);
        }
        let mut costs = lock(&self.costs);
        for state in &state.costs {
            match state.day {
                Some(day) => *costs.at(day, self.limits.days) += state.costs,
                None => costs.earlier += state.costs,
            }
        }
        Ok(())
    }

    fn visit(&self, mut each: impl FnMut(Account<'_>, Option<Day>, Line)) {
        let books = self.books.read().unwrap_or_else(PoisonError::into_inner);
        for (tenant, own) in &books.tenants {
            for (model, routes) in &own.models {
                for (route, series) in routes {
                    for (day, line) in lock(series).iter() {
                        each((&**tenant, &**model, &**route).into(), day, line);
                    }
                }
            }
        }
    }
}

/// No code here can panic with a lock held, so a poisoned one still guards whole sums.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn label(name: &str) -> &str {
    prefix(name, MAX_LABEL_BYTES)
}

/// The books of a [`Ledger`] as data, with a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerState {
    version: u32,
    lines: Vec<StateLine>,
    costs: Vec<StateCosts>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StateLine {
    tenant: String,
    model: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    route: String,
    day: Option<Day>,
    #[serde(flatten)]
    line: Line,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StateCosts {
    day: Option<Day>,
    #[serde(flatten)]
    costs: Costs,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::NamedLine;
    use super::*;
    use crate::clock::ManualClock;

    const NOON: Timestamp = Timestamp::from_millis(1_754_481_600_000); // 2025-08-06
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn books(pairs: usize, models_per_tenant: usize, days: usize) -> (Arc<ManualClock>, Ledger) {
        let clock = ManualClock::starting_at(NOON);
        let limits = LedgerConfig {
            path: None,
            pairs,
            models_per_tenant,
            days,
        };
        (clock.clone(), Ledger::with_limits(clock, limits))
    }

    fn saved(tokens: u64, micros: i64) -> Saved {
        Saved {
            usage: Usage::new(tokens, tokens / 2),
            usd: Some(Usd::from_micros(micros)),
            duration: Duration::from_millis(tokens),
        }
    }

    fn names(lines: &[NamedLine]) -> Vec<&str> {
        lines.iter().map(|named| named.name.as_str()).collect()
    }

    fn sum<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Line {
        let mut total = Line::default();
        lines.into_iter().for_each(|line| total += *line);
        total
    }

    fn assert_adds_up(report: &SavingsReport) {
        assert_eq!(
            sum(report.by_tenant.iter().map(|named| &named.line)),
            report.totals
        );
        assert_eq!(
            sum(report.by_model.iter().map(|named| &named.line)),
            report.totals
        );
        assert_eq!(
            sum(report.by_route.iter().map(|named| &named.line)),
            report.totals
        );
        assert_eq!(
            sum(report.by_day.iter().map(|day| &day.line)),
            report.totals
        );
        let net: Usd = report.by_day.iter().map(|day| day.net_usd).sum();
        assert_eq!(net, report.net_usd);
    }

    #[test]
    fn the_net_is_what_right_hits_saved_less_the_own_cost() {
        let (clock, ledger) = books(10, 10, 10);
        ledger.record_hit(
            ("acme", "gpt-4o"),
            HitKindLabel::Exact,
            &saved(1_000, 5_000),
        );
        ledger.record_hit(
            ("acme", "gpt-4o"),
            HitKindLabel::Semantic,
            &saved(600, 3_000),
        );
        let cost = Some(Usd::from_micros(9_000));
        ledger.record_upstream(("acme", "gpt-4o"), Usage::new(10, 10), cost, DAY);
        ledger.record_cost(CostKind::Embedding, Usd::from_micros(100));
        ledger.record_cost(CostKind::Shadow, Usd::from_micros(900));
        clock.advance(DAY);
        ledger.record_wrong_hit(("acme", "gpt-4o"), &saved(600, 3_000));
        ledger.record_cost(CostKind::WrongHit, Usd::from_micros(2_500));

        let report = ledger.summary(clock_now(&clock));
        assert_adds_up(&report);
        assert_eq!(report.totals.hits(), 2);
        assert_eq!(report.totals.hits_wrong, 1);
        assert_eq!(report.totals.net_usd(), Usd::from_micros(5_000));
        assert_eq!(report.totals.net_tokens(), 1_500);
        assert_eq!(report.totals.net_duration(), Duration::from_secs(1));
        assert_eq!(report.net_usd, Usd::from_micros(1_500));
        assert_eq!(report.without_cache_usd(), Usd::from_micros(14_000));
        // The correction is booked on its own day and the gross figures stay.
        assert_eq!(report.totals.saved.usd, Usd::from_micros(8_000));
        let nets: Vec<_> = report.by_day.iter().map(|day| day.net_usd).collect();
        assert_eq!(nets, [Usd::from_micros(7_000), Usd::from_micros(-5_500)]);
    }

    fn clock_now(clock: &ManualClock) -> Timestamp {
        crate::clock::Clock::now(clock)
    }

    #[test]
    fn a_model_without_a_price_counts_tokens_and_is_named() {
        let (_, ledger) = books(10, 10, 10);
        let hit = Saved {
            usd: None,
            ..saved(100, 0)
        };
        ledger.record_hit(("acme", "house-model"), HitKindLabel::Exact, &hit);
        ledger.record_upstream(("acme", "other-model"), Usage::new(7, 0), None, DAY);
        ledger.record_upstream(("acme", "gpt-4o"), Usage::new(7, 0), Some(Usd::ZERO), DAY);
        let report = ledger.summary(NOON);
        assert_eq!(report.unpriced_models, ["house-model", "other-model"]);
        assert_eq!(report.totals.unpriced, 2);
        assert_eq!(report.totals.net_tokens(), 150);
        assert!(report.totals.net_usd().is_zero());
        assert!(
            report
                .to_string()
                .contains("no price   house-model, other-model (tokens only")
        );
    }

    #[test]
    fn pairs_beyond_the_limit_share_a_line_and_totals_stay_exact() {
        let (_, ledger) = books(3, 10, 10);
        for round in 1..=2 {
            for tenant in 0..5 {
                let tenant = format!("tenant-{tenant}");
                ledger.record_hit((&*tenant, "m"), HitKindLabel::Exact, &saved(10, round));
            }
        }
        let report = ledger.summary(NOON);
        assert_adds_up(&report);
        assert_eq!(
            names(&report.by_tenant),
            [OTHER, "tenant-0", "tenant-1", "tenant-2"]
        );
        assert_eq!(report.by_tenant[0].line.hits(), 4);
        assert_eq!(report.totals.hits(), 10);
        assert_eq!(report.totals.net_usd(), Usd::from_micros(5 * (1 + 2)));
    }

    #[test]
    fn a_tenant_that_invents_models_crowds_out_nobody() {
        let (_, ledger) = books(10, 3, 10);
        for model in 0..1_000 {
            let model = format!("made-up-{model}");
            ledger.record_hit(("noisy", &*model), HitKindLabel::Exact, &saved(1, 1));
        }
        ledger.record_hit(("quiet", "gpt-4o"), HitKindLabel::Exact, &saved(1, 1));
        let report = ledger.summary(NOON);
        assert_adds_up(&report);
        assert_eq!(names(&report.by_tenant), ["noisy", "quiet"]);
        assert_eq!(report.by_model.len(), 3 + 1 + 1);
        assert_eq!(
            (
                report.by_model[0].name.as_str(),
                report.by_model[0].line.hits()
            ),
            (OTHER, 997)
        );
    }

    #[test]
    fn old_days_lose_their_date_and_nothing_else() {
        let (clock, ledger) = books(10, 10, 3);
        for _ in 0..10 {
            ledger.record_hit(("acme", "gpt-4o"), HitKindLabel::Exact, &saved(1, 1));
            ledger.record_cost(CostKind::Embedding, Usd::from_micros(1));
            clock.advance(DAY);
        }
        let report = ledger.summary(NOON.after(9 * DAY));
        assert_adds_up(&report);
        let days: Vec<_> = report
            .by_day
            .iter()
            .map(|day| day.day.map(|day| day.to_string()))
            .collect();
        assert_eq!(
            days,
            [
                None,
                Some("2025-08-13".into()),
                Some("2025-08-14".into()),
                Some("2025-08-15".into())
            ]
        );
        assert_eq!(report.by_day[0].line.hits(), 7);
        assert_eq!(
            report.by_day[0].costs.unwrap().embedding,
            Usd::from_micros(7)
        );
        assert!(report.net_usd.is_zero());
    }

    #[test]
    fn a_clock_that_steps_back_loses_nothing() {
        let day = |n: u32| Day::of(NOON.after(n * DAY));
        let mut days = Days::<Line>::default();
        let hit = Line {
            hits_exact: 1,
            ..Line::default()
        };
        for n in [10, 12, 11, 12, 3, 20, 1] {
            *days.at(day(n), 3) += hit;
        }
        let dated: Vec<_> = days.iter().map(|(day, line)| (day, line.hits())).collect();
        assert_eq!(
            dated,
            [
                (None, 3),
                (Some(day(11)), 1),
                (Some(day(12)), 2),
                (Some(day(20)), 1)
            ]
        );
    }

    #[test]
    fn a_report_can_be_about_a_tenant_a_model_or_the_last_days() {
        let (clock, ledger) = books(10, 10, 10);
        ledger.record_hit(("acme", "gpt-4o"), HitKindLabel::Exact, &saved(1, 1));
        ledger.record_cost(CostKind::Embedding, Usd::from_micros(5));
        clock.advance(DAY);
        ledger.record_hit(("acme", "o3"), HitKindLabel::Exact, &saved(1, 10));
        ledger.record_hit(("other", "o3"), HitKindLabel::Exact, &saved(1, 100));
        let now = clock_now(&clock);
        let net = |filter: SavingsFilter| {
            let report = ledger.report(now, &filter);
            assert_adds_up(&report);
            (
                report.net_usd.as_picos() / 1_000_000,
                report.costs.is_some(),
            )
        };
        let all = SavingsFilter::default();
        assert_eq!(net(all.clone()), (106, true));
        assert_eq!(
            net(SavingsFilter {
                days: Some(1),
                ..all.clone()
            }),
            (110, true)
        );
        assert_eq!(
            net(SavingsFilter {
                days: Some(2),
                ..all.clone()
            }),
            (106, true)
        );
        assert_eq!(
            net(SavingsFilter {
                tenant: Some("acme".into()),
                ..all.clone()
            }),
            (11, false)
        );
        assert_eq!(
            net(SavingsFilter {
                model: Some("o3".into()),
                ..all.clone()
            }),
            (110, false)
        );
        assert_eq!(
            net(SavingsFilter {
                tenant: Some("nobody".into()),
                ..all
            }),
            (0, false)
        );
    }

    #[test]
    fn labels_are_cut_between_characters() {
        let (_, ledger) = books(10, 10, 10);
        let long = "é".repeat(1_000);
        ledger.record_hit((&*long, ""), HitKindLabel::Exact, &saved(1, 1));
        let report = ledger.summary(NOON);
        assert_eq!(report.by_tenant[0].name, "é".repeat(64));
        let filter = SavingsFilter {
            tenant: Some(long),
            ..SavingsFilter::default()
        };
        assert_eq!(ledger.report(NOON, &filter).totals.hits(), 1);
    }

    #[test]
    fn exported_books_survive_json_and_add_to_others() {
        let (clock, ledger) = books(10, 10, 2);
        for day in 0..4 {
            ledger.record_hit(
                ("acme", "gpt-4o"),
                HitKindLabel::Semantic,
                &saved(day + 1, 7),
            );
            ledger.record_upstream(
                ("b", "m"),
                Usage::new(3, 4),
                None,
                Duration::from_micros(1_999),
            );
            ledger.record_cost(CostKind::Verification, Usd::from_picos(1));
            clock.advance(DAY);
        }
        let now = clock_now(&clock);
        let json = serde_json::to_string(&ledger.export()).unwrap();
        let state: LedgerState = serde_json::from_str(&json).unwrap();
        let (_, restored) = books(10, 10, 2);
        restored.import(&state).unwrap();
        assert_eq!(restored.summary(now), ledger.summary(now));
        assert_eq!(restored.export(), state);
        restored.import(&state).unwrap();
        assert_eq!(restored.summary(now).totals.hits(), 8);

        let newer: LedgerState =
            serde_json::from_str(&json.replace("\"version\":1", "\"version\":2")).unwrap();
        let error = restored.import(&newer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(restored.summary(now).totals.hits(), 8);
    }

    #[test]
    fn version_1_of_the_exported_books_stays_readable() {
        let json = r#"{"version":1,"lines":[{"tenant":"acme","model":"gpt-4o","day":"2025-08-06",
            "hits_exact":2,"hits_semantic":1,"hits_wrong":0,"calls":1,"unpriced":0,
            "saved":{"input_tokens":30,"cached_input_tokens":4,"output_tokens":6,"usd":"0.000135","millis":900},
            "withdrawn":{"input_tokens":0,"cached_input_tokens":0,"output_tokens":0,"usd":"0","millis":0},
            "spent":{"input_tokens":10,"cached_input_tokens":0,"output_tokens":2,"usd":"0.000045","millis":400}}],
            "costs":[{"day":null,"embedding":"0.000001","verification":"0","shadow":"0","wrong_hit":"0"}]}"#;
        let state: LedgerState = serde_json::from_str(json).unwrap();
        let (_, ledger) = books(10, 10, 10);
        ledger.import(&state).unwrap();
        assert_eq!(ledger.export(), state);
        let report = ledger.summary(NOON);
        assert_eq!(format!("{:#}", report.net_usd), "$0.000134");
        assert_eq!(report.totals.saved.usage.cached_input_tokens, 4);
    }

    #[test]
    fn the_text_form_shows_what_an_operator_asks() {
        let (clock, ledger) = books(10, 10, 10);
        ledger.record_hit(
            ("acme", "gpt-4o"),
            HitKindLabel::Exact,
            &saved(60_000, 1_234_000),
        );
        ledger.record_hit(
            ("acme", "gpt-4o"),
            HitKindLabel::Semantic,
            &saved(30_000, 2_100),
        );
        let spent = Some(Usd::from_micros(250_000));
        ledger.record_upstream(("globex", "o3"), Usage::new(1_500, 500), spent, DAY);
        ledger.record_cost(CostKind::Embedding, Usd::from_micros(2_000));
        clock.advance(DAY);
        ledger.record_wrong_hit(("acme", "gpt-4o"), &saved(30_000, 2_100));
        let expected = "\
hits       2 (1 exact, 1 semantic), 1 reported wrong
upstream   1 ($0.25, 2,000 tokens), hit rate 66.7 %
saved      $1.23, 90,000 tokens, 1 min 0 s
own cost   $0.0020 (embedding $0.0020)
net        $1.23

tenant  hits  calls  hit rate  tokens saved  spent  net saved
acme       2      0   100.0 %        90,000  $0.00      $1.23
globex     0      1     0.0 %             0  $0.25      $0.00

model   hits  calls  hit rate  tokens saved  spent  net saved
gpt-4o     2      0   100.0 %        90,000  $0.00      $1.23
o3         0      1     0.0 %             0  $0.25      $0.00

day         hits  calls  hit rate  tokens saved  spent  net saved
2025-08-07     0      0     0.0 %             0  $0.00   -$0.0021
2025-08-06     2      1    66.7 %       135,000  $0.25      $1.23
";
        assert_eq!(ledger.summary(clock_now(&clock)).to_string(), expected);
    }

    #[test]
    fn the_json_form_has_exact_money_and_no_prose() {
        let (_, ledger) = books(10, 10, 10);
        ledger.record_hit(("acme", "gpt-4o"), HitKindLabel::Exact, &saved(10, 2_100));
        let json = serde_json::to_value(ledger.summary(NOON)).unwrap();
        assert_eq!(json["net_usd"], "0.0021");
        assert_eq!(json["totals"]["saved"]["usd"], "0.0021");
        assert_eq!(json["totals"]["saved"]["input_tokens"], 10);
        assert_eq!(json["by_tenant"][0]["name"], "acme");
        assert_eq!(json["by_tenant"][0]["hits_exact"], 1);
        assert_eq!(json["by_day"][0]["day"], "2025-08-06");
    }

    #[test]
    fn limits_out_of_range_are_named() {
        LedgerConfig::default().validate("savings").unwrap();
        let config = LedgerConfig {
            days: 0,
            ..LedgerConfig::default()
        };
        assert_eq!(
            config.validate("savings").unwrap_err().to_string(),
            "a limit of the ledger is out of range (field: savings.days, value: 0, allowed: 1 to 3660)"
        );
        // Unchecked limits of zero still give a ledger that adds up.
        let (_, ledger) = books(0, 0, 0);
        ledger.record_hit(("a", "b"), HitKindLabel::Exact, &saved(1, 1));
        ledger.record_hit(("c", "d"), HitKindLabel::Exact, &saved(1, 1));
        assert_adds_up(&ledger.summary(NOON));
    }

    /// One record, as the property below makes them up.
    #[derive(Clone, Debug)]
    enum Entry {
        Hit(u8, u8, bool, u32, u32),
        Wrong(u8, u8, u32, u32),
        Call(u8, u8, u32, Option<u32>),
        Cost(u8, u32),
    }

    impl Entry {
        fn book(&self, ledger: &Ledger) {
            let saved = |tokens: u32, micros: u32| saved(u64::from(tokens), i64::from(micros));
            let name = |n: u8| format!("n{n}");
            let route = |model: u8| if model.is_multiple_of(2) { "eu" } else { "us" };
            match *self {
                Self::Hit(tenant, model, exact, tokens, micros) => {
                    let kind = if exact {
                        HitKindLabel::Exact
                    } else {
                        HitKindLabel::Semantic
                    };
                    let account = (name(tenant), name(model));
                    let account = (&*account.0, &*account.1, route(model));
                    ledger.record_hit(account, kind, &saved(tokens, micros));
                }
                Self::Wrong(tenant, model, tokens, micros) => {
                    let account = (name(tenant), name(model));
                    let account = (&*account.0, &*account.1, route(model));
                    ledger.record_wrong_hit(account, &saved(tokens, micros));
                }
                Self::Call(tenant, model, tokens, micros) => {
                    let usage = Usage::new(u64::from(tokens), 1);
                    let usd = micros.map(|micros| Usd::from_micros(i64::from(micros)));
                    let account = (name(tenant), name(model));
                    let account = (&*account.0, &*account.1, route(model));
                    ledger.record_upstream(account, usage, usd, DAY);
                }
                Self::Cost(kind, micros) => {
                    let kind = CostKind::ALL[usize::from(kind) % CostKind::ALL.len()];
                    ledger.record_cost(kind, Usd::from_micros(i64::from(micros)));
                }
            }
        }
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = prop_oneof![
            (0u8..6, 0u8..6, any::<bool>(), any::<u32>(), any::<u32>())
                .prop_map(|(t, m, exact, tokens, usd)| Entry::Hit(t, m, exact, tokens, usd)),
            (0u8..6, 0u8..6, any::<u32>(), any::<u32>())
                .prop_map(|(t, m, tokens, usd)| Entry::Wrong(t, m, tokens, usd)),
            (0u8..6, 0u8..6, any::<u32>(), any::<Option<u32>>())
                .prop_map(|(t, m, tokens, usd)| Entry::Call(t, m, tokens, usd)),
            (0u8..5, any::<u32>()).prop_map(|(kind, usd)| Entry::Cost(kind, usd)),
        ];
        prop::collection::vec(entry, 0..80)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn totals_are_the_sum_of_lines_in_any_order_on_any_number_of_threads(
            entries in entries(), threads in 1usize..5, pairs in 1usize..40, models in 1usize..8,
        ) {
            let (_, forwards) = books(100, 100, 10);
            entries.iter().for_each(|entry| entry.book(&forwards));
            let expected = forwards.summary(NOON);
            assert_adds_up(&expected);

            let (_, backwards) = books(100, 100, 10);
            entries.iter().rev().for_each(|entry| entry.book(&backwards));
            prop_assert_eq!(&backwards.summary(NOON), &expected);

            // With limits, who has a line of its own depends on the order; the sums do not.
            let (_, threaded) = books(pairs, models, 10);
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    let (entries, ledger) = (&entries, &threaded);
                    scope.spawn(move || {
                        entries.iter().skip(thread).step_by(threads).for_each(|e| e.book(ledger));
                    });
                }
            });
            let report = threaded.summary(NOON);
            assert_adds_up(&report);
            prop_assert_eq!((report.totals, report.costs.unwrap()), threaded.totals());
            prop_assert_eq!(report.totals, expected.totals);
            prop_assert_eq!(report.costs, expected.costs);
            prop_assert_eq!(report.net_usd, expected.net_usd);
            let lines = threaded.export().lines.len();
            prop_assert!(lines <= pairs + 1, "{lines} lines, {pairs} pairs");
        }

    }
}
