//! Faults that other caches have had, and what may go wrong between two awaits.
//!
//! [`changelogs`] has one test for each fault that was found in the change logs of other caches and their
//! clients: what happened to them must not happen here. [`cancellation`] drops every operation of the typed
//! cache at each of its await points. [`schedules`] runs loads, writes and cancellations of several
//! processes in every order, or in thousands of orders by seed where there are too many.
//!
//! What these tests decide is the order in which the real code's tasks go on at their await points. They
//! do not decide how threads interleave within one step, so they are no proof about memory order: no step
//! holds more than one lock, and tests with many threads stand beside the code.

#[cfg(feature = "memcached")]
#[path = "../support/memcached.rs"]
mod memcached;
#[path = "../support/mod.rs"]
mod support;

mod cancellation;
mod changelogs;
mod schedules;
mod stepped;
