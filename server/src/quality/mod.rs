//! Labelled prompts through a real cache: what the tools that measure and fit hit quality share.
//!
//! | file | does |
//! |---|---|
//! | `data.rs` | reads labelled pairs and clusters, or the project's own |
//! | `split.rs` | which part of the data a text belongs to: fitted on, calibrated on, or tested on |
//! | `corpus.rs` | what the labels say of any two texts; `components.rs`: the graph under it |
//! | `stream.rs` | who is stored and who is asked, in which order |
//! | `lab.rs` | the cache under test; `remember.rs`: vectors that recordings share |
//! | `record.rs` | plays a stream and keeps every decision with its evidence and its truth |
//! | `replay.rs`, `policies.rs` | what a policy would have done with the records, and which policies |
//! | `score.rs`, `promise.rs` | figures with intervals; promises and what became of them |
//! | `live.rs` | a policy over a stream for real, and the rule of vCache |
//! | `report.rs`, `table.rs`, `plot.rs`, `html.rs` | the result as data, as text, as pictures, as a page |
//! | `verdicts.rs` | what a reader said of pairs whose labels are in doubt |
//! | `stats.rs`, `seed.rs` | intervals, ranking, percentiles; random numbers that repeat |
//!
//! Always true: decisions are recorded by explaining requests to a real [`SemanticCache`], so evidence is
//! what the engine computes and never a copy of it; and a record holds no text.
//!
//! [`SemanticCache`]: askonce::SemanticCache

pub(crate) mod components;
pub(crate) mod corpus;
pub(crate) mod data;
pub(crate) mod html;
pub(crate) mod lab;
pub(crate) mod live;
pub(crate) mod machine;
pub(crate) mod plot;
pub(crate) mod policies;
pub(crate) mod promise;
pub(crate) mod record;
pub(crate) mod remember;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod score;
pub(crate) mod seed;
pub(crate) mod split;
pub(crate) mod stats;
pub(crate) mod stream;
pub(crate) mod table;
pub(crate) mod verdicts;

pub(crate) use record::{RecordSettings, Wording, record};
pub(crate) use split::Part;
pub(crate) use stream::Order;
