//! Step 6: one upstream call per key, however many callers ask at once; and one stream that all of them read
//! while it comes.

mod broadcast;
mod single_flight;

pub use broadcast::{Attendance, Broadcast, Tail};
pub use single_flight::{Claim, Flight, Lead, SingleFlight, Waiter};
