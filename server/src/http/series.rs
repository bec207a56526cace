//! What the server did minute by minute, of late: a bounded ring of differences between metrics.
//!
//! Nothing is counted anew: once a minute, and when somebody asks, the metrics are read as they are rendered
//! for Prometheus, and what they have grown by is a row. Percentiles are interpolated within the buckets of
//! their histograms, as Prometheus does.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use askonce::observe::{LOOKUP_SECONDS, LOOKUPS, UPSTREAM_CALLS};
use parking_lot::Mutex;
use serde::Serialize;

use super::App;
use super::observe::REQUEST_SECONDS;

/// Minutes that are kept.
pub(crate) const MINUTES: u32 = 24 * 60;

const MINUTE: Duration = Duration::from_secs(60);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) minutes: u32,
    /// Minutes of a row.
    pub(crate) step: u32,
}

/// The rows.
#[derive(Debug, Default)]
pub(crate) struct Series(Mutex<State>);

#[derive(Debug)]
struct State {
    /// The minutes that are over, oldest first.
    rows: VecDeque<Counts>,
    /// When the running minute began.
    began: Instant,
    /// What the metrics were then; at the start of the process, nothing.
    before: Counts,
}

impl Default for State {
    fn default() -> Self {
        Self {
            rows: VecDeque::new(),
            began: Instant::now(),
            before: Counts::default(),
        }
    }
}

impl App {
    /// Ends the running minute, if it is over.
    pub(crate) fn close_minute(&self) {
        if self.series.is_due() {
            self.series.close(&self.metrics.render());
        }
    }
}

impl Series {
    fn is_due(&self) -> bool {
        self.0.lock().began.elapsed() >= MINUTE
    }

    fn close(&self, metrics: &str) {
        let now = Counts::read(metrics);
        let mut state = self.0.lock();
        // A machine that slept has minutes of which nothing is known.
        let passed = state.began.elapsed().as_secs() / MINUTE.as_secs();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX).max(1);
        for _ in 1..passed.min(MINUTES) {
            state.rows.push_back(Counts::default());
        }
        let grown = now.less(&state.before);
        state.rows.push_back(grown);
        let extra = state.rows.len().saturating_sub(MINUTES as usize);
        state.rows.drain(..extra);
        // Not from now on: whoever closes it comes late, and minutes must not drift.
        state.began += MINUTE * passed;
        state.before = now;
    }

    /// The last minutes, the running one included.
    pub(crate) fn told(&self, metrics: &str, window: Window) -> Told {
        let now = Counts::read(metrics);
        let state = self.0.lock();
        let (running, age) = (now.less(&state.before), state.began.elapsed());
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let step = window.step as usize;
        let wanted = (window.minutes as usize).div_ceil(step) * step;
        // Counted back from the running minute, which is the end of the last row.
        let over = state.rows.iter().rev().take(wanted - 1);
        let minutes: Vec<&Counts> = std::iter::once(&running).chain(over).collect();
        let mut total = Counts::default();
        let mut rows: Vec<Row> = Vec::with_capacity(wanted / step);
        for (i, minutes) in minutes.chunks(step).enumerate() {
            let mut counts = Counts::default();
            for minute in minutes {
                counts.add(minute);
            }
            total.add(&counts);
            let back = age + MINUTE * u32::try_from((i + 1) * step - 1).unwrap_or(u32::MAX);
            let began = since_1970.saturating_sub(back).as_millis();
            rows.push(Row {
                at: u64::try_from(began).unwrap_or(u64::MAX),
                sums: counts.sums(),
            });
        }
        rows.reverse();
        Told {
            step_seconds: u64::from(window.step) * MINUTE.as_secs(),
            total: total.sums(),
            rows,
        }
    }
}

/// What is told of a time.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    step_seconds: u64,
    total: Sums,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    /// When it began, in milliseconds since 1970.
    at: u64,
    #[serde(flatten)]
    sums: Sums,
}

#[derive(Debug, PartialEq, Serialize)]
struct Sums {
    /// Hits by tier; those by similarity as `semantic`.
    hits: BTreeMap<String, u64>,
    /// Misses by decisive reason.
    misses: BTreeMap<String, u64>,
    /// Upstream calls by outcome.
    upstream: BTreeMap<String, u64>,
    /// Seconds to the head of an answer, by what the cache did for it.
    answers: BTreeMap<String, Quantiles>,
    /// Seconds that lookups took, by stage.
    stages: BTreeMap<String, Quantiles>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Quantiles {
    count: u64,
    p50: f64,
    p90: f64,
    p99: f64,
}

/// Sums of a time. What is zero is left out.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counts {
    hits: BTreeMap<String, u64>,
    misses: BTreeMap<String, u64>,
    upstream: BTreeMap<String, u64>,
    answers: BTreeMap<String, Histogram>,
    stages: BTreeMap<String, Histogram>,
}

impl Counts {
    /// Reads what the metrics say. Lines that are not understood are left out.
    fn read(metrics: &str) -> Self {
        let mut counts = Self::default();
        for line in metrics.lines() {
            let Some(sample) = Sample::parse(line) else {
                continue;
            };
            let count = sample.value as u64;
            let bucket = sample.name.strip_suffix("_bucket");
            match (sample.name, bucket) {
                (LOOKUPS, _) => match sample.label("outcome") {
                    Some("hit") => add(&mut counts.hits, sample.label("tier"), count),
                    _ => add(&mut counts.misses, sample.label("reason"), count),
                },
                (UPSTREAM_CALLS, _) => add(&mut counts.upstream, sample.label("outcome"), count),
                (_, Some(LOOKUP_SECONDS)) => {
                    bucketed(&mut counts.stages, sample.label("stage"), &sample);
                }
                // The time of those that the cache was asked for, on whatever route.
                (_, Some(REQUEST_SECONDS)) if sample.label("cache") != Some("none") => {
                    bucketed(&mut counts.answers, sample.label("cache"), &sample);
                }
                _ => {}
            }
        }
        counts
    }

    fn add(&mut self, other: &Self) {
        for (mine, other) in [
            (&mut self.hits, &other.hits),
            (&mut self.misses, &other.misses),
            (&mut self.upstream, &other.upstream),
        ] {
            for (name, count) in other {
                *mine.entry(name.clone()).or_default() += count;
            }
        }
        for (mine, other) in [
            (&mut self.answers, &other.answers),
            (&mut self.stages, &other.stages),
        ] {
            for (name, histogram) in other {
                mine.entry(name.clone()).or_default().add(histogram);
            }
        }
    }

    /// What has come since `before`.
    fn less(&self, before: &Self) -> Self {
        fn counts(
            now: &BTreeMap<String, u64>,
            before: &BTreeMap<String, u64>,
        ) -> BTreeMap<String, u64> {
            let grown = now.iter().map(|(name, count)| {
                let before = before.get(name).copied().unwrap_or_default();
                (name.clone(), count.saturating_sub(before))
            });
            grown.filter(|(_, count)| *count > 0).collect()
        }
        fn histograms(
            now: &BTreeMap<String, Histogram>,
            before: &BTreeMap<String, Histogram>,
        ) -> BTreeMap<String, Histogram> {
            let grown = now.iter().map(|(name, now)| {
                let grown = before
                    .get(name)
                    .map_or_else(|| now.clone(), |before| now.less(before));
                (name.clone(), grown)
            });
            grown
                .filter(|(_, histogram)| histogram.count() > 0)
                .collect()
        }
        Self {
            hits: counts(&self.hits, &before.hits),
            misses: counts(&self.misses, &before.misses),
            upstream: counts(&self.upstream, &before.upstream),
            answers: histograms(&self.answers, &before.answers),
            stages: histograms(&self.stages, &before.stages),
        }
    }

    fn sums(&self) -> Sums {
        let quantiles = |histograms: &BTreeMap<String, Histogram>| {
            let told = histograms
                .iter()
                .filter(|(_, histogram)| histogram.count() > 0);
            told.map(|(name, histogram)| (name.clone(), histogram.quantiles()))
                .collect()
        };
        Sums {
            hits: self.hits.clone(),
            misses: self.misses.clone(),
            upstream: self.upstream.clone(),
            answers: quantiles(&self.answers),
            stages: quantiles(&self.stages),
        }
    }
}

fn add(counts: &mut BTreeMap<String, u64>, name: Option<&str>, count: u64) {
    if let Some(name) = name {
        *counts.entry(name.to_owned()).or_default() += count;
    }
}

fn bucketed(histograms: &mut BTreeMap<String, Histogram>, name: Option<&str>, sample: &Sample<'_>) {
    let (Some(name), Some(bound)) = (name, sample.label("le")) else {
        return;
    };
    let bound: f64 = match bound {
        "+Inf" => f64::INFINITY,
        bound => match bound.parse() {
            Ok(bound) => bound,
            Err(_) => return,
        },
    };
    let histogram = histograms.entry(name.to_owned()).or_default();
    histogram.raise(bound, sample.value as u64);
}

/// Counts up to bounds that rise; the last bound is infinite.
#[derive(Clone, Debug, Default, PartialEq)]
struct Histogram(Vec<(f64, u64)>);

impl Histogram {
    fn raise(&mut self, bound: f64, count: u64) {
        match self.0.binary_search_by(|(own, _)| own.total_cmp(&bound)) {
            Ok(place) => self.0[place].1 += count,
            Err(place) => self.0.insert(place, (bound, count)),
        }
    }

    fn add(&mut self, other: &Self) {
        for (bound, count) in &other.0 {
            self.raise(*bound, *count);
        }
    }

    fn less(&self, before: &Self) -> Self {
        let grown = self.0.iter().map(|&(bound, count)| {
            let mut others = before.0.iter();
            let before = others
                .find(|(other, _)| *other == bound)
                .map_or(0, |(_, count)| *count);
            (bound, count.saturating_sub(before))
        });
        Self(grown.collect())
    }

    fn count(&self) -> u64 {
        self.0.last().map_or(0, |(_, count)| *count)
    }

    fn quantiles(&self) -> Quantiles {
        Quantiles {
            count: self.count(),
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
        }
    }

    /// Linear within a bucket; what is beyond the last finite bound counts as that bound.
    fn quantile(&self, share: f64) -> f64 {
        let rank = share * self.count() as f64;
        let (mut below, mut bound_below) = (0_u64, 0.0);
        for &(bound, count) in &self.0 {
            if count as f64 >= rank && count > below {
                if bound.is_infinite() {
                    return bound_below;
                }
                let within = (rank - below as f64) / (count - below) as f64;
                return bound_below + (bound - bound_below) * within;
            }
            (below, bound_below) = (count, bound);
        }
        bound_below
    }
}

/// A line of the text format of Prometheus.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    value: f64,
}

impl<'a> Sample<'a> {
    /// `None` for comments, and for what is no such line.
    fn parse(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (head, value) = line.rsplit_once(' ')?;
        let value = value.parse().ok()?;
        let Some((name, rest)) = head.split_once('{') else {
            return Some(Self {
                name: head,
                labels: Vec::new(),
                value,
            });
        };
        let mut rest = rest.strip_suffix('}')?;
        let mut labels = Vec::new();
        while let Some((label, quoted)) = rest.split_once("=\"") {
            let end = closing_quote(quoted)?;
            labels.push((label, &quoted[..end]));
            rest = quoted[end + 1..].trim_start_matches(',');
        }
        Some(Self {
            name,
            labels,
            value,
        })
    }

    fn label(&self, name: &str) -> Option<&'a str> {
        let mut labels = self.labels.iter();
        labels
            .find(|(own, _)| *own == name)
            .map(|(_, value)| *value)
    }
}

/// Where a quoted text ends.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(hits: u64, misses: u64, slow: u64) -> String {
        let fast = hits + misses;
        format!(
            "# TYPE askonce_lookups_total counter\n\
             askonce_lookups_total{{tier=\"memory\",outcome=\"hit\",reason=\"exact\"}} {hits}\n\
             askonce_lookups_total{{tier=\"none\",outcome=\"miss\",reason=\"not_found\"}} {misses}\n\
             askonce_upstream_calls_total{{outcome=\"ok\"}} {misses}\n\
             askonce_http_request_duration_seconds_bucket{{route=\"/v1/{{*path}}\",cache=\"exact\",le=\"0.001\"}} {fast}\n\
             askonce_http_request_duration_seconds_bucket{{route=\"/v1/{{*path}}\",cache=\"exact\",le=\"0.1\"}} {all}\n\
             askonce_http_request_duration_seconds_bucket{{route=\"/v1/{{*path}}\",cache=\"exact\",le=\"+Inf\"}} {all}\n\
             askonce_http_request_duration_seconds_bucket{{route=\"/metrics\",cache=\"none\",le=\"+Inf\"}} 9\n",
            all = fast + slow
        )
    }

    #[test]
    fn a_row_is_what_the_metrics_grew_by() {
        let series = Series::default();
        series.close(&metrics(10, 4, 0));
        let window = Window {
            minutes: 5,
            step: 1,
        };
        let told = series.told(&metrics(13, 5, 2), window);
        let rows = &told.rows;
        assert_eq!(rows.len(), 2);
        assert!(rows[0].at < rows[1].at);
        assert_eq!(rows[0].sums.hits["memory"], 10);
        assert_eq!(rows[1].sums.hits["memory"], 3);
        assert_eq!(rows[1].sums.misses["not_found"], 1);
        assert_eq!(rows[1].sums.answers["exact"].count, 6);
        assert_eq!(told.total.hits["memory"], 13);
        assert_eq!(told.total.upstream["ok"], 5);
        assert!(!told.total.answers.contains_key("none"));
        let merged = series.told(
            &metrics(13, 5, 2),
            Window {
                minutes: 4,
                step: 2,
            },
        );
        assert_eq!(merged.rows.len(), 1);
        assert_eq!(merged.rows[0].sums, merged.total);
    }

    #[test]
    fn the_ring_is_bounded() {
        let series = Series::default();
        for hits in 0..u64::from(MINUTES) + 10 {
            series.close(&metrics(hits, 0, 0));
        }
        assert_eq!(series.0.lock().rows.len(), MINUTES as usize);
    }

    #[test]
    fn quantiles_are_linear_within_a_bucket() {
        let histogram = Histogram(vec![(1.0, 50), (2.0, 90), (f64::INFINITY, 100)]);
        let quantiles = histogram.quantiles();
        assert_eq!(
            (quantiles.count, quantiles.p50, quantiles.p90),
            (100, 1.0, 2.0)
        );
        assert_eq!(quantiles.p99, 2.0, "beyond the last bound");
        assert_eq!(histogram.quantile(0.7), 1.5);
        assert_eq!(Histogram::default().quantile(0.5), 0.0);
    }

    #[test]
    fn labels_may_hold_braces_commas_and_quotes() {
        let sample = Sample::parse(r#"a{b="x,y\"}",c="{*path}"} 4.5"#).unwrap();
        assert_eq!(sample.name, "a");
        assert_eq!(sample.label("b"), Some(r#"x,y\"}"#));
        assert_eq!(sample.label("c"), Some("{*path}"));
        assert_eq!(sample.value, 4.5);
        assert_eq!(Sample::parse("up 1").unwrap().name, "up");
        assert!(Sample::parse("# HELP a b").is_none());
    }
}
