//! Several requests at once, with one upstream call for those of them that are new.
//!
//! Each request has a flight of its own, so callers share what they have in common, however their lists differ.
//! A call that fails may do so because of a request that only one of them asked: its error is shared with those
//! who asked for all that was in it, and the others make a call of their own.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;

use super::call::{Landed, Missed, may_look_again, upstream_error};
use super::lookup::{Depth, LookupOptions};
use super::outcome::{Miss, Outcome, Served, Source};
use super::{Fill, Inner, SemanticCache};
use crate::error::{Error, ErrorKind, Result};
use crate::observe;
use crate::request::{ExactKey, Request};
use crate::stampede::{Claim, Flight, Lead, SingleFlight, Waiter};

/// The flights of requests that are asked several at a time.
pub(super) type Batches = SingleFlight<ExactKey, Flown>;

type Flown = Result<Landed, Failed>;

/// A call that failed, and all that was asked in it.
#[derive(Clone)]
pub(super) struct Failed {
    error: Error,
    asked: Arc<[ExactKey]>,
}

/// A request whose answer this caller is to get for all.
struct Led {
    place: usize,
    request: Request,
    missed: Missed,
    lead: Lead<ExactKey, Flown>,
}

/// The part of this caller in a flight.
enum Part {
    Led(Miss),
    Followed(Box<Missed>),
}

impl SemanticCache {
    /// The stored answers for `requests`, and for those that have none the ones that `call` gives: it is told their
    /// places in `requests`, in order, and gives an answer for each. Embeddings are asked for in this way.
    ///
    /// A request that another caller has already asked for, or that stands in `requests` twice, is not asked for
    /// again. The call is a task of its own: it goes on when its caller goes away, and its answers are stored. Its
    /// error is shared with those who wait for all that it asked for; others make a call of their own, so `call`
    /// may run more than once, for other requests each time. Hits are not audited.
    ///
    /// Must be called within a tokio runtime. The results are in the order of `requests`.
    ///
    /// ```
    /// use askonce::{Answer, Fill, Request, SemanticCache};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> askonce::Result<()> {
    /// let cache = SemanticCache::in_memory()?;
    /// let length = |text: &'static str| Request::prompt(text).model("length");
    /// let texts = ["one", "three", "one"];
    /// let call = move |new: Vec<usize>| async move {
    ///     assert_eq!(new, [0, 1]);
    ///     let answers = new.iter().map(|place| Answer::text(texts[*place].len().to_string()));
    ///     Ok::<_, std::io::Error>(answers.map(Fill::from).collect())
    /// };
    /// let served = cache.get_or_call_many(&texts.map(length), call).await;
    /// assert_eq!(served[2].as_ref().unwrap().answer.as_str(), "3");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_call_many<F, Fut, E>(
        &self,
        requests: &[Request],
        call: F,
    ) -> Vec<Result<Served>>
    where
        F: Fn(Vec<usize>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<Fill>, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let call = Arc::new(call);
        let own: HashSet<ExactKey> = requests.iter().map(Request::exact_key).collect();
        let looked = requests.iter().map(|request| self.found(request));
        let mut served = Vec::with_capacity(requests.len());
        let mut open = Vec::new();
        for (place, looked) in join_all(looked).await.into_iter().enumerate() {
            match looked {
                Ok(hit) => served.push(Some(Ok(hit))),
                Err(missed) => {
                    served.push(None);
                    open.push((place, missed));
                }
            }
        }
        while !open.is_empty() {
            let flown = self.fly_many(requests, open, &call).await;
            open = Vec::new();
            for (place, part, flown) in flown {
                served[place] = match (part, flown) {
                    (Part::Led(miss), Some(Ok(landed))) => Some(Ok(self
                        .arrived(&requests[place], landed, Flight::Led, miss)
                        .await)),
                    (Part::Followed(missed), Some(Ok(landed))) => {
                        let (request, role) = (&requests[place], Flight::Followed);
                        Some(Ok(self.arrived(request, landed, role, missed.miss).await))
                    }
                    (Part::Led(_), Some(Err(failed))) => Some(Err(failed.error)),
                    (Part::Led(_), None) => Some(Err(no_result())),
                    (Part::Followed(_), Some(Err(failed)))
                        if failed.asked.iter().all(|key| own.contains(key)) =>
                    {
                        Some(Err(failed.error))
                    }
                    (Part::Followed(missed), _) => {
                        open.push((place, *missed));
                        None
                    }
                };
            }
        }
        served
            .into_iter()
            .map(|served| served.unwrap_or_else(|| Err(no_result())))
            .collect()
    }

    /// The hit, or what a flight needs to know of the miss.
    async fn found(&self, request: &Request) -> Result<Served, Missed> {
        let epoch = self.inner.epochs.now();
        let options = LookupOptions::of(request);
        let lookup = self
            .inner
            .lookup(request, &options, Depth::FirstServed)
            .await;
        self.inner.account(request, &lookup.outcome);
        match lookup.outcome {
            Outcome::Hit(hit) => Ok(Served {
                answer: hit.answer.clone(),
                source: Source::Cache(hit),
            }),
            Outcome::Miss(miss) => Err(Missed {
                miss,
                epoch,
                made: lookup.made,
                noted: lookup.noted,
                look_again: may_look_again(&options.control),
            }),
        }
    }

    /// One round: a call for all that nobody else has asked for, and the wait for it and for the others' calls.
    async fn fly_many<F, Fut, E>(
        &self,
        requests: &[Request],
        open: Vec<(usize, Missed)>,
        call: &Arc<F>,
    ) -> Vec<(usize, Part, Option<Flown>)>
    where
        F: Fn(Vec<usize>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<Fill>, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let mut batch = Vec::new();
        let mut waits: Vec<(usize, Part, Waiter<Flown>)> = Vec::with_capacity(open.len());
        for (place, missed) in open {
            let request = &requests[place];
            match self.inner.batches.claim(&self.inner.flight_key(request)) {
                Claim::Leads(lead, wait) => {
                    waits.push((place, Part::Led(missed.miss.clone()), wait));
                    batch.push(Led {
                        place,
                        request: request.clone(),
                        missed,
                        lead,
                    });
                }
                Claim::Follows(wait) => {
                    waits.push((place, Part::Followed(Box::new(missed)), wait));
                }
            }
        }
        if !batch.is_empty() {
            let (inner, call) = (Arc::clone(&self.inner), Arc::clone(call));
            tokio::spawn(async move { inner.call_many(batch, &*call).await });
        }
        let waits = waits
            .into_iter()
            .map(|(place, part, wait)| async move { (place, part, wait.landed().await) });
        join_all(waits).await
    }
}

impl Inner {
    /// Makes the call, and lands the flights.
    async fn call_many<F, Fut, E>(&self, batch: Vec<Led>, call: &F)
    where
        F: Fn(Vec<usize>) -> Fut,
        Fut: Future<Output = Result<Vec<Fill>, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let begun = batch.into_iter().map(|led| async move {
            let began = self.begin(led.missed.epoch, &led.request, None).await;
            if led.missed.look_again
                && let Some(landed) = self.landed_meanwhile(&led.request).await
            {
                led.lead.land(Ok(landed));
                return None;
            }
            Some((led, began))
        });
        let batch: Vec<_> = join_all(begun).await.into_iter().flatten().collect();
        if batch.is_empty() {
            return;
        }
        let started = Instant::now();
        let fills = call(batch.iter().map(|(led, _)| led.place).collect()).await;
        let fills = fills.map_err(|error| upstream_error(error.into()));
        observe::upstream(if fills.is_ok() { "ok" } else { "error" });
        self.counters.upstream(fills.is_ok());
        let fills = fills.and_then(|fills| match fills.len() == batch.len() {
            true => Ok(fills),
            false => Err(Error::new(
                ErrorKind::Upstream,
                "the upstream call gave not as many answers as it was asked for",
            )),
        });
        let took = started.elapsed();
        match fills {
            Ok(fills) => {
                let landed = batch
                    .into_iter()
                    .zip(fills)
                    .map(|((led, began), fill)| async move {
                        let Led {
                            request,
                            missed,
                            lead,
                            ..
                        } = led;
                        let (made, noted) = (missed.made, missed.noted.as_ref());
                        let landed = self.land(&request, fill, took, &began, made, noted).await;
                        lead.land(Ok(landed));
                    });
                join_all(landed).await;
            }
            Err(error) => {
                let asked: Arc<[ExactKey]> = batch
                    .iter()
                    .map(|(led, _)| led.request.exact_key())
                    .collect();
                for (led, _) in batch {
                    led.lead.land(Err(Failed {
                        error: error.clone(),
                        asked: Arc::clone(&asked),
                    }));
                }
            }
        }
    }
}

fn no_result() -> Error {
    Error::new(
        ErrorKind::Upstream,
        "the upstream call ended without a result",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use parking_lot::Mutex;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::entry::Answer;

    fn requests(texts: &[&str]) -> Vec<Request> {
        let request = |text: &&str| Request::prompt(*text).model("m");
        texts.iter().map(request).collect()
    }

    /// An upstream that waits until it is let go, and fails where it is asked for "bad".
    #[derive(Default)]
    struct Upstream {
        asked: Mutex<Vec<Vec<&'static str>>>,
        gate: Option<Semaphore>,
    }

    impl Upstream {
        async fn ask(
            self: Arc<Self>,
            cache: SemanticCache,
            texts: &'static [&'static str],
        ) -> Vec<Result<Served>> {
            let call = move |places: Vec<usize>| {
                let upstream = Arc::clone(&self);
                async move {
                    let asked: Vec<_> = places.iter().map(|place| texts[*place]).collect();
                    upstream.asked.lock().push(asked.clone());
                    if let Some(gate) = &upstream.gate {
                        let _pass = gate.acquire().await;
                    }
                    match asked.contains(&"bad") {
                        true => Err(std::io::Error::other("bad is not answered")),
                        false => Ok(asked
                            .into_iter()
                            .map(|text| Answer::text(format!("re: {text}")).into())
                            .collect()),
                    }
                }
            };
            cache.get_or_call_many(&requests(texts), call).await
        }
    }

    fn texts(served: &[Result<Served>]) -> Vec<Option<String>> {
        let text =
            |served: &'_ Result<Served>| Some(served.as_ref().ok()?.answer.as_str().to_owned());
        served.iter().map(text).collect()
    }

    #[tokio::test]
    async fn each_request_is_asked_once_and_an_error_reaches_those_who_asked_for_it() {
        let cache = SemanticCache::in_memory().unwrap();
        let upstream = Arc::new(Upstream {
            gate: Some(Semaphore::new(0)),
            ..Upstream::default()
        });
        let start = |texts| tokio::spawn(Arc::clone(&upstream).ask(cache.clone(), texts));
        let bad = start(&["shared", "bad", "shared"]);
        while upstream.asked.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        let same = start(&["bad", "shared"]);
        let good = start(&["own", "shared"]);
        // Each has looked for its requests, and then joins or begins their flights at once.
        while cache.stats().await.misses < 7 || upstream.asked.lock().len() < 2 {
            tokio::task::yield_now().await;
        }
        upstream.gate.as_ref().unwrap().add_permits(1_000);
        let (bad, same, good) = (bad.await.unwrap(), same.await.unwrap(), good.await.unwrap());
        assert!(bad.iter().chain(&same).all(Result::is_err));
        assert_eq!(
            texts(&good),
            ["re: own", "re: shared"].map(|text| Some(text.to_owned()))
        );
        let asked = upstream.asked.lock().clone();
        assert_eq!(asked, [vec!["shared", "bad"], vec!["own"], vec!["shared"]]);
        let kept = Arc::clone(&upstream)
            .ask(cache.clone(), &["shared", "own"])
            .await;
        assert!(
            kept.iter()
                .flatten()
                .all(|served| served.source.hit().is_some())
        );
        assert_eq!(kept.len(), 2);
    }

    #[tokio::test]
    async fn a_call_goes_on_when_its_caller_goes_away() {
        let cache = SemanticCache::in_memory().unwrap();
        let upstream = Arc::new(Upstream {
            gate: Some(Semaphore::new(0)),
            ..Upstream::default()
        });
        let caller = tokio::spawn(Arc::clone(&upstream).ask(cache.clone(), &["a", "b"]));
        while upstream.asked.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        caller.abort();
        let other = tokio::spawn(Arc::clone(&upstream).ask(cache.clone(), &["b", "a"]));
        upstream.gate.as_ref().unwrap().add_permits(1_000);
        let other = other.await.unwrap();
        assert_eq!(
            texts(&other),
            ["re: b", "re: a"].map(|text| Some(text.to_owned()))
        );
        assert_eq!(upstream.asked.lock().len(), 1);
    }

    #[tokio::test]
    async fn a_call_that_panics_or_gives_too_few_answers_ends_in_an_error() {
        let cache = SemanticCache::in_memory().unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        let call = {
            let runs = Arc::clone(&runs);
            move |places: Vec<usize>| {
                let run = runs.fetch_add(1, Ordering::SeqCst);
                async move {
                    assert!(run > 0, "the first call panics");
                    let fills = places.iter().skip(1);
                    Ok::<_, Error>(fills.map(|_| Answer::text("x").into()).collect())
                }
            }
        };
        for run in 1..=2 {
            let served = cache
                .get_or_call_many(&requests(&["a", "b"]), call.clone())
                .await;
            assert_eq!(served.len(), 2);
            assert!(served.iter().all(Result::is_err));
            assert_eq!(runs.load(Ordering::SeqCst), run);
        }
        assert_eq!(cache.inner.batches.running(), 0);
    }
}
