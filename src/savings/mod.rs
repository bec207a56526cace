//! Tokens, money and time that hits did not spend, and what the cache itself cost.
//!
//! Usage comes from the provider where it says and is counted where it does not (`usage.rs`,
//! `tokens.rs`); a table prices it (`price.rs`), in exact integers (`money.rs`); the ledger adds it
//! up by tenant, model, route and day and reports the net: what hits saved, less the hits found wrong,
//! less embedding, verification, judgements and shadow calls. Its file (`file.rs`) outlives the process.
//!
//! Nothing here emits metrics or touches the request path beyond one short lock per record. A
//! model without a price is counted in tokens and named in the report, never billed as zero.

mod day;
mod file;
mod ledger;
mod line;
mod money;
mod price;
mod report;
mod tokens;
mod usage;

pub use day::Day;
pub use ledger::{Account, Ledger, LedgerConfig, LedgerState, OTHER};
pub use line::{CostKind, Costs, HitKindLabel, Line, Saved, Tally};
pub use money::Usd;
pub use price::{
    Price, PriceConfig, PriceRow, PriceSource, PriceTable, PriceVersion, PricesConfig,
};
pub use report::{By, DayLine, NamedLine, SavingsFilter, SavingsReport, WrongHitEstimate};
pub use tokens::{MAX_COUNTED_BYTES, TokenCount, TokenCounter};
pub use usage::{Usage, UsageSource};
