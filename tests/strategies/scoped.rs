use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use askonce::scoped::{self, RequestScope};
use askonce::typed::Key;

#[derive(Clone, Default)]
struct Calls(Arc<AtomicUsize>);

impl Calls {
    async fn load(&self) -> usize {
        let call = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::task::yield_now().await;
        call
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

async fn ask(calls: &Calls) -> usize {
    scoped::get_or_set(&Key::new("user").part(7), || calls.load()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w_28_parallel_tasks_of_a_request_share_one_load() {
    let calls = Calls::default();
    let answers = scoped::scope(async {
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let calls = calls.clone();
                scoped::spawn(async move { ask(&calls).await })
            })
            .collect();
        let mut answers = vec![ask(&calls).await];
        for task in tasks {
            answers.push(task.await.unwrap());
        }
        answers
    })
    .await;
    assert!(answers.iter().all(|answer| *answer == 1), "{answers:?}");
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn w_28_outside_a_request_nothing_is_kept() {
    let calls = Calls::default();
    assert_eq!((ask(&calls).await, ask(&calls).await), (1, 2));
    assert!(RequestScope::current().is_none());

    let kept = Arc::new(());
    let key = Key::new("held");
    let stray = scoped::scope(async {
        let value = scoped::get_or_set(&key, || async { Arc::clone(&kept) }).await;
        assert!(Arc::ptr_eq(&value, &kept));
        RequestScope::current().expect("there is a scope")
    })
    .await;
    assert_eq!(
        Arc::strong_count(&kept),
        1,
        "freed, though a handle is left"
    );
    // Whoever holds on to the handle makes plain calls with it.
    for _ in 0..2 {
        stray.get_or_set(&key, || async { Arc::clone(&kept) }).await;
    }
    assert_eq!(Arc::strong_count(&kept), 1);
}

#[tokio::test]
async fn w_28_two_requests_never_share() {
    let calls = Calls::default();
    let request = || scoped::scope(async { (ask(&calls).await, ask(&calls).await) });
    let (one, two) = tokio::join!(request(), request());
    assert_eq!((one, two), ((1, 1), (2, 2)));
    let nested = scoped::scope(async {
        let outer = ask(&calls).await;
        (outer, scoped::scope(ask(&calls)).await, ask(&calls).await)
    });
    assert_eq!(nested.await, (3, 4, 3));
}

#[tokio::test]
async fn w_46_an_error_is_shared_with_those_who_wait_and_not_kept() {
    let (scope, calls) = (RequestScope::new(), Calls::default());
    let key = Key::new("user");
    let fail = || async { Err::<u64, _>(calls.load().await) };
    let ask = || scope.get_or_try_set(&key, fail);
    let answers = tokio::join!(ask(), ask(), ask());
    assert_eq!(answers, (Err(1), Err(1), Err(1)));
    assert_eq!(ask().await, Err(2));
}

#[tokio::test]
async fn w_46_a_leader_that_goes_away_strands_nobody() {
    let (scope, calls) = (RequestScope::new(), Calls::default());
    let key = Key::new("user");
    let mut leader = Box::pin(scope.get_or_set(&key, || async {
        calls.load().await;
        std::future::pending::<usize>().await
    }));
    assert!(poll(leader.as_mut()).is_pending());
    let waiter = scope.get_or_set(&key, || calls.load());
    let mut waiter = Box::pin(waiter);
    assert!(poll(waiter.as_mut()).is_pending());
    drop(leader);
    assert_eq!(waiter.await, 2);
    assert_eq!(calls.count(), 2);
}

#[tokio::test]
async fn values_of_two_types_under_one_key_do_not_meet_and_what_is_forgotten_is_loaded_anew() {
    let (scope, key) = (RequestScope::new(), Key::new("same"));
    assert_eq!(scope.get_or_set(&key, || async { 1_u8 }).await, 1);
    assert_eq!(scope.get_or_set(&key, || async { "text" }).await, "text");
    assert_eq!(scope.get_or_set(&key, || async { 2_u8 }).await, 1);
    scope.forget(&key);
    assert_eq!(scope.get_or_set(&key, || async { 3_u8 }).await, 3);

    // Forgotten while it was loaded: whoever asked is answered, and nobody after.
    let other = Key::new("other");
    let racing = scope.get_or_set(&other, || async {
        scope.forget(&other);
        1_u8
    });
    assert_eq!(racing.await, 1);
    assert_eq!(scope.get_or_set(&other, || async { 2_u8 }).await, 2);
    assert!(format!("{scope:?}").contains("values: 2"), "{scope:?}");
}

#[cfg(feature = "tower")]
#[tokio::test]
async fn a_layer_gives_each_request_a_scope_and_ends_it() {
    use std::convert::Infallible;

    use askonce::scoped::ScopeLayer;
    use tower_layer::Layer;
    use tower_service::Service;

    struct Asks(Calls);
    impl Service<()> for Asks {
        type Response = (usize, usize, RequestScope);
        type Error = Infallible;
        type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, (): ()) -> Self::Future {
            let scope = RequestScope::current().expect("also before the future is polled");
            let calls = self.0.clone();
            Box::pin(async move { Ok((ask(&calls).await, ask(&calls).await, scope)) })
        }
    }

    let mut service = ScopeLayer::new().layer(Asks(Calls::default()));
    for expected in [1, 2] {
        let (first, second, scope) = service.call(()).await.unwrap();
        assert_eq!((first, second), (expected, expected));
        assert!(format!("{scope:?}").contains("ended: true"), "{scope:?}");
    }
}
