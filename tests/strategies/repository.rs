use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use askonce::Cache;
use askonce::repository::{
    CacheEntity, Observer, Params, Repository, SettingSource, Settings, Source,
};
use askonce::typed::{CacheValue, Key};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Flaky, cache, clock, over};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
}

impl CacheValue for User {
    fn schema() -> std::borrow::Cow<'static, str> {
        "user@1".into()
    }
}

impl CacheEntity for User {
    type Id = u64;
    const NAME: &'static str = "user";

    fn id(&self) -> &u64 {
        &self.id
    }
    fn negative_ttl() -> Option<askonce::Ttl> {
        Some(Duration::from_secs(30).into())
    }
}

/// A table that gives ids to those who have none, and counts what it is asked.
#[derive(Clone, Default)]
struct Table {
    rows: Arc<Mutex<BTreeMap<u64, String>>>,
    loads: Arc<AtomicUsize>,
    batches: Arc<Mutex<Vec<Vec<u64>>>>,
    lists: Arc<AtomicUsize>,
    down: Arc<AtomicBool>,
}

impl Table {
    fn with(names: &[&str]) -> Self {
        let table = Self::default();
        let rows = (1..).zip(names.iter().map(|name| (*name).to_owned()));
        table.rows.lock().extend(rows);
        table
    }

    fn answer<T>(&self, answer: T) -> Result<T, &'static str> {
        if self.down.load(Ordering::SeqCst) {
            Err("down")
        } else {
            Ok(answer)
        }
    }

    fn row(&self, id: u64) -> Option<User> {
        let name = self.rows.lock().get(&id).cloned()?;
        Some(User { id, name })
    }
}

impl Source<User> for Table {
    type Error = &'static str;

    async fn load(&self, id: &u64) -> Result<Option<User>, &'static str> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.answer(self.row(*id))
    }

    async fn load_many(&self, ids: &[&u64]) -> Result<Vec<Option<User>>, &'static str> {
        let ids: Vec<u64> = ids.iter().map(|id| **id).collect();
        let rows = ids.iter().map(|id| self.row(*id)).collect();
        self.batches.lock().push(ids);
        self.answer(rows)
    }

    async fn list(&self, params: &Params) -> Result<Vec<User>, &'static str> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        assert!(params.iter().count() <= 2);
        let ids: Vec<u64> = self.rows.lock().keys().copied().collect();
        self.answer(ids.into_iter().filter_map(|id| self.row(id)).collect())
    }

    async fn save(&self, mut user: User) -> Result<User, &'static str> {
        if user.id == 0 {
            user.id = self.rows.lock().len() as u64 + 1;
        }
        user.name = user.name.trim().to_owned();
        self.rows.lock().insert(user.id, user.name.clone());
        self.answer(user)
    }

    async fn delete(&self, id: &u64) -> Result<bool, &'static str> {
        let had = self.rows.lock().remove(id).is_some();
        self.answer(had)
    }
}

fn user(id: u64, name: &str) -> User {
    let name = name.to_owned();
    User { id, name }
}

fn users(cache: &Cache, names: &[&str]) -> (Repository<User, Table>, Table) {
    let table = Table::with(names);
    (Repository::new(cache, table.clone()), table)
}

#[tokio::test]
async fn w_21_an_entity_is_loaded_once_and_so_is_its_absence() {
    let (users, table) = users(&cache(), &["Ada"]);
    for _ in 0..3 {
        assert_eq!(users.get_by_id(&1).await, Ok(Some(user(1, "Ada"))));
        assert_eq!(users.get_by_id(&9).await, Ok(None));
    }
    assert_eq!(table.loads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn w_26_a_saved_entity_is_what_the_source_made_of_it() {
    let (users, table) = users(&cache(), &["Ada"]);
    assert_eq!(users.get_by_id(&0).await, Ok(None));
    let saved = users.save(user(0, " Grace ")).await;
    assert_eq!(saved, Ok(user(2, "Grace")));
    let loads = table.loads.load(Ordering::SeqCst);
    assert_eq!(users.get_by_id(&2).await, Ok(Some(user(2, "Grace"))));
    assert_eq!(
        table.loads.load(Ordering::SeqCst),
        loads,
        "kept by the save"
    );

    assert_eq!(users.get_by_id(&3).await, Ok(None), "kept for a while");
    users.save(user(0, "Edsger")).await.unwrap();
    assert_eq!(users.get_by_id(&3).await, Ok(Some(user(3, "Edsger"))));

    let loads = table.loads.load(Ordering::SeqCst);
    users.save(user(2, "Hopper ")).await.unwrap();
    assert_eq!(users.get_by_id(&2).await, Ok(Some(user(2, "Hopper"))));
    assert_eq!(table.loads.load(Ordering::SeqCst), loads);
}

#[tokio::test]
async fn w_26_a_source_that_fails_leaves_nothing_that_it_does_not_have() {
    let (users, table) = users(&cache(), &["Ada"]);
    users.get_by_id(&1).await.unwrap();
    table.down.store(true, Ordering::SeqCst);
    // This source applies the change and loses the answer.
    assert_eq!(users.save(user(1, "Grace")).await, Err("down"));
    table.down.store(false, Ordering::SeqCst);
    assert_eq!(users.get_by_id(&1).await, Ok(Some(user(1, "Grace"))));

    table.down.store(true, Ordering::SeqCst);
    assert_eq!(users.delete(&1).await, Err("down"));
    table.down.store(false, Ordering::SeqCst);
    assert_eq!(users.get_by_id(&1).await, Ok(None));
}

#[tokio::test]
async fn a_cache_that_is_down_is_not_the_callers_trouble() {
    let clock = clock();
    let flaky = Flaky::new(&clock);
    let (users, table) = users(&over(&flaky, &clock), &["Ada"]);
    flaky.down.store(true, Ordering::SeqCst);
    assert_eq!(users.save(user(1, "Grace")).await, Ok(user(1, "Grace")));
    assert_eq!(users.get_by_id(&1).await, Ok(Some(user(1, "Grace"))));
    assert_eq!(users.get_many(&[1, 2]).await.unwrap().len(), 2);
    assert_eq!(users.list(&Params::new()).await.unwrap().len(), 1);
    assert_eq!(users.list(&Params::new()).await.unwrap().len(), 1);
    assert_eq!(table.lists.load(Ordering::SeqCst), 2);
    assert_eq!(users.delete(&1).await, Ok(true));
    assert!(
        users.observer().changed(&1).await.is_err(),
        "who invalidates is told"
    );
}

#[tokio::test]
async fn many_are_asked_for_together_and_only_those_that_are_missing() {
    let (users, table) = users(&cache(), &["Ada", "Grace", "Edsger"]);
    users.get_by_id(&2).await.unwrap();
    let expected = [
        Some(user(3, "Edsger")),
        Some(user(2, "Grace")),
        None,
        Some(user(1, "Ada")),
    ];
    for _ in 0..2 {
        assert_eq!(users.get_many(&[3, 2, 9, 1]).await.unwrap(), expected);
    }
    assert_eq!(*table.batches.lock(), [[3, 9, 1]]);
    assert_eq!(table.loads.load(Ordering::SeqCst), 1);
    assert_eq!(users.get_by_id(&3).await, Ok(Some(user(3, "Edsger"))));
    assert_eq!(table.loads.load(Ordering::SeqCst), 1, "kept one by one");
    assert_eq!(users.get_many(&[]).await, Ok(vec![]));

    table.down.store(true, Ordering::SeqCst);
    assert_eq!(users.get_many(&[1, 10, 11]).await, Err("down"));
}

#[tokio::test]
async fn askers_for_many_who_wait_for_each_other_are_both_answered() {
    let (users, table) = users(&cache(), &["Ada", "Grace"]);
    // Two who find the namespace without its mark do not share.
    users.get_by_id(&9).await.unwrap();
    let answers = tokio::join!(
        users.get_many(&[1, 2]),
        users.get_many(&[2, 1]),
        users.get_many(&[1, 1])
    );
    let (ada, grace) = (Some(user(1, "Ada")), Some(user(2, "Grace")));
    assert_eq!(answers.0.unwrap(), [ada.clone(), grace.clone()]);
    assert_eq!(answers.1.unwrap(), [grace, ada.clone()]);
    assert_eq!(answers.2.unwrap(), [ada.clone(), ada]);
    let asked: usize = table.batches.lock().iter().map(Vec::len).sum();
    assert_eq!(asked, 2, "each once");
}

#[tokio::test]
async fn lists_are_kept_by_their_parameters_until_an_entity_changes() {
    let (users, table) = users(&cache(), &["Ada"]);
    let page = |page: i64| Params::new().with("status", "open").with("page", page);
    let lists = async || {
        for _ in 0..2 {
            users.list(&page(1)).await.unwrap();
            users.list(&page(2)).await.unwrap();
            users
                .list(&Params::new().with("page", 1).with("status", "open"))
                .await
                .unwrap();
        }
        table.lists.swap(0, Ordering::SeqCst)
    };
    assert_eq!(lists().await, 2);
    assert_eq!(lists().await, 0);
    users.save(user(0, "Grace")).await.unwrap();
    assert_eq!(lists().await, 2);
    assert_eq!(users.list(&page(1)).await.unwrap().len(), 2);
    users.delete(&1).await.unwrap();
    assert_eq!(lists().await, 2);
}

#[tokio::test]
async fn w_72_an_observer_really_invalidates_the_entity_its_lists_and_its_queries() {
    let cache = cache();
    let (users, table) = users(&cache, &["Ada"]);
    let count = || async { Ok(table.rows.lock().len() as u64) };
    let ask = async || {
        (
            users.get_by_id(&1).await.unwrap().map(|user| user.name),
            users.list(&Params::new()).await.unwrap().len(),
            users.query("count", &Params::new(), count).await.unwrap(),
        )
    };
    assert_eq!(ask().await, (Some("Ada".to_owned()), 1, 1));
    // Somebody else writes to the table, and tells.
    table.rows.lock().insert(1, "Augusta".to_owned());
    table.rows.lock().insert(2, "Grace".to_owned());
    assert_eq!(ask().await, (Some("Ada".to_owned()), 1, 1));
    let observer = Observer::of(&cache);
    observer.saved(&user(1, "Augusta")).await.unwrap();
    assert_eq!(ask().await, (Some("Augusta".to_owned()), 2, 2));
    table.rows.lock().remove(&1);
    users.observer().changed(&1).await.unwrap();
    assert_eq!(ask().await, (None, 1, 1));
}

#[tokio::test]
async fn everything_of_a_kind_goes_at_once_and_nothing_of_another() {
    let cache = cache();
    let (users, table) = users(&cache, &["Ada", "Grace"]);
    let key = Key::new("other");
    cache.set(&key, &1_u8, askonce::Ttl::Forever).await.unwrap();
    users.get_many(&[1, 2]).await.unwrap();
    table.rows.lock().clear();
    users.observer().all_changed().await.unwrap();
    assert_eq!(users.get_many(&[1, 2]).await, Ok(vec![None, None]));
    assert!(cache.exists(&key).await.unwrap());
}

#[tokio::test]
async fn a_list_that_was_being_loaded_during_a_change_is_not_given_to_those_after_it() {
    let (users, _) = users(&cache(), &["Ada"]);
    let count = Params::new();
    let racing = users.query("count", &count, || async {
        users.save(user(0, "Grace")).await?;
        Ok(1_u64)
    });
    assert_eq!(racing.await, Ok(1));
    assert_eq!(
        users.query("count", &count, || async { Ok(2_u64) }).await,
        Ok(2)
    );
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Team {
    id: u64,
}

impl CacheValue for Team {
    fn schema() -> std::borrow::Cow<'static, str> {
        "user@1".into()
    }
}

impl CacheEntity for Team {
    type Id = u64;
    const NAME: &'static str = "team";
    fn id(&self) -> &u64 {
        &self.id
    }
}

struct NoTeams;

impl Source<Team> for NoTeams {
    type Error = &'static str;
    async fn load(&self, _: &u64) -> Result<Option<Team>, &'static str> {
        Ok(None)
    }
    async fn list(&self, _: &Params) -> Result<Vec<Team>, &'static str> {
        Ok(vec![])
    }
    async fn save(&self, team: Team) -> Result<Team, &'static str> {
        Ok(team)
    }
    async fn delete(&self, _: &u64) -> Result<bool, &'static str> {
        Ok(false)
    }
}

#[derive(Clone)]
struct SettingRows(
    &'static [(Option<&'static str>, &'static str, &'static str)],
    Arc<AtomicUsize>,
);

impl SettingSource for SettingRows {
    type Error = &'static str;

    async fn load(&self, level: Option<&str>, name: &str) -> Result<Option<Value>, &'static str> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let row = self.0.iter().find(|row| (row.0, row.1) == (level, name));
        row.map(|row| serde_json::from_str(row.2).map_err(|_| "no JSON"))
            .transpose()
    }
}

#[tokio::test]
async fn w_23_repositories_over_one_cache_never_meet() {
    let cache = cache();
    let (users, _) = users(&cache, &["Ada"]);
    let teams = Repository::<Team, _>::new(&cache, NoTeams);
    users.get_by_id(&1).await.unwrap();
    users.list(&Params::new()).await.unwrap();
    assert_eq!(
        teams.get_by_id(&1).await,
        Ok(None),
        "of the same stored form, even"
    );
    assert_eq!(teams.list(&Params::new()).await, Ok(vec![]));
    let acme = Repository::new(
        &cache.namespace(("tenant", "acme")),
        Table::with(&["Grace"]),
    );
    assert_eq!(acme.get_by_id(&1).await, Ok(Some(user(1, "Grace"))));

    let flags = Settings::new(
        &cache,
        "flags",
        SettingRows(&[(None, "timeout", "1")], Arc::default()),
    );
    let app = Settings::new(
        &cache,
        "app",
        SettingRows(&[(None, "timeout", "2")], Arc::default()),
    );
    assert_eq!(flags.get("timeout").await, Ok(Some(json!(1))));
    assert_eq!(app.get("timeout").await, Ok(Some(json!(2))));
    // None of them lies under its bare name.
    for key in ["timeout", "1"].map(Key::new) {
        assert!(!cache.exists(&key).await.unwrap());
    }
}

#[tokio::test]
async fn a_setting_is_that_of_the_most_specific_level_that_has_one() {
    const ROWS: &[(Option<&str>, &str, &str)] = &[
        (None, "timeout", "30"),
        (Some("production"), "timeout", "10"),
        (
            None,
            "pool",
            r#"{"size": 5, "limits": {"wait": 1, "idle": 2}}"#,
        ),
        (Some("production"), "pool", r#"{"size": 50}"#),
        (Some("eu-west"), "pool", r#"{"limits": {"wait": 9}}"#),
        (None, "region", r#""us""#),
        (Some("production"), "gone", "null"),
        (None, "gone", "1"),
        (None, "shadowed", r#"{"a": 1}"#),
        (Some("production"), "shadowed", "7"),
        (Some("eu-west"), "shadowed", r#"{"b": 2}"#),
    ];
    let (cache, loads) = (cache(), Arc::new(AtomicUsize::new(0)));
    let source = SettingRows(ROWS, Arc::clone(&loads));
    let base = Settings::new(&cache, "app", source.clone());
    let europe = Settings::new(&cache, "app", source).levels(["eu-west", "production"]);
    assert_eq!(base.get("timeout").await, Ok(Some(json!(30))));
    assert_eq!(europe.get("timeout").await, Ok(Some(json!(10))));
    assert_eq!(europe.get("region").await, Ok(Some(json!("us"))));
    assert_eq!(europe.get("gone").await, Ok(Some(Value::Null)));
    assert_eq!(europe.get("shadowed").await, Ok(Some(json!({"b": 2}))));
    assert_eq!(europe.get("nothing").await, Ok(None));
    let pool = json!({"size": 50, "limits": {"wait": 9, "idle": 2}});
    assert_eq!(europe.get("pool").await, Ok(Some(pool)));
    assert_eq!(
        europe.field("pool", "limits.idle").await,
        Ok(Some(json!(2)))
    );
    assert_eq!(europe.field("pool", "limits.idle.x").await, Ok(None));

    let before = loads.load(Ordering::SeqCst);
    for name in ["timeout", "pool", "nothing", "region"] {
        europe.get(name).await.unwrap();
    }
    assert_eq!(loads.load(Ordering::SeqCst), before, "absence is kept too");
    assert!(
        europe
            .invalidate(Some("production"), "timeout")
            .await
            .unwrap()
    );
    europe.get("timeout").await.unwrap();
    assert_eq!(
        loads.load(Ordering::SeqCst),
        before + 1,
        "one level, and no other"
    );
}
