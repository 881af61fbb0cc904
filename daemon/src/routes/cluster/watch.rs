//! One watch: a list, and what changes from then on, for ever.
//!
//! The list comes as the beginning of the watch where the server can do that (it then keeps no second copy of it), else in
//! pages. A watch that ends goes on where it ended. One that is too old for that (`410 Gone`) begins with a list again; until
//! that list is complete, what was told before stays true.

use std::{
    collections::BTreeMap,
    fmt::{Debug, Display},
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use futures::StreamExt as _;
use kube::{
    Api, Resource,
    api::{ListParams, WatchEvent, WatchParams},
    core::Status,
};
use serde::de::DeserializeOwned;
use sidetrack_resolve::{Change, Name, Update, read};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, error, warn};

/// How long a request may wait for its answer's head.
const ANSWER: Duration = Duration::from_secs(30);
/// How much longer than it was asked for a watch may be silent before it counts as dead.
const MARGIN: Duration = Duration::from_secs(5);
/// Objects in a page of a list.
const PAGE: u32 = 500;
/// A watch that ends sooner counts as a failure: whoever ends all of them at once is not asked without a pause.
const SHORT: Duration = Duration::from_secs(1);
/// The pause behind a first failure; each further one doubles it.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Says in a bookmark that the list is complete.
const LIST_END: &str = "k8s.io/initial-events-end";

/// What a watch hears.
enum Heard<T> {
    /// Something of its objects.
    Update(Update<T>),
    /// That somebody is there.
    Life,
}

/// What a watch has told.
pub(super) struct Told {
    /// Its number.
    pub(super) watch: u64,
    /// None where it only lives.
    pub(super) change: Option<Change>,
}

/// Tells what a watch hears.
pub(super) struct Teller<C> {
    pub(super) tell: mpsc::Sender<Told>,
    pub(super) watch: u64,
    /// The change that an update is.
    pub(super) change: C,
}

impl<C> Teller<C> {
    async fn heard<T>(&self, heard: Heard<T>) -> Result<(), End>
    where
        C: Fn(Update<T>) -> Change,
    {
        let change = match heard {
            Heard::Update(update) => Some((self.change)(update)),
            Heard::Life => None,
        };
        self.tell.send(Told { watch: self.watch, change }).await.map_err(|_| End::Unheard)
    }
}

/// What of which objects is to be told.
pub(super) struct Watch<K> {
    pub(super) api: Api<K>,
    /// For people.
    pub(super) what: String,
    /// Labels that the objects must have.
    pub(super) labels: Option<String>,
    /// A selector that the server does not take selects nothing: somebody else wrote it.
    pub(super) foreign_labels: bool,
    /// After so long the server ends the watch, and it is begun again: nobody knows otherwise whether it lives.
    pub(super) renew: Duration,
}

/// Why a watch has ended.
enum End {
    /// It has had its time.
    Over,
    /// The server does not know any more what has changed since.
    TooOld,
    /// The server sends no list as the beginning of a watch.
    NoStreaming,
    /// All else.
    Failed(kube::Error),
    /// Nobody wants to hear it.
    Unheard,
}

impl From<kube::Error> for End {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) => Self::of(status).unwrap_or(Self::Failed(error)),
            _ => Self::Failed(error),
        }
    }
}

impl End {
    fn of(status: &Status) -> Option<Self> {
        (status.code == 410 || status.reason == "Expired").then_some(Self::TooOld)
    }
}

fn silent() -> kube::Error {
    kube::Error::Service("no answer in time".into())
}

impl<K> Watch<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Watches until nobody wants to hear of it. `make` makes the record of an object; none where it does not count.
    pub(super) async fn follow<T, E: Display>(
        self,
        make: impl Fn(&K) -> Result<Option<T>, E>,
        to: Teller<impl Fn(Update<T>) -> Change>,
    ) {
        let mut at = None;
        let mut streaming = true;
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            let end = match &at {
                None if streaming => self.stream(&mut at, true, &make, &to).await,
                None => self.list(&mut at, &make, &to).await,
                Some(_) => self.stream(&mut at, false, &make, &to).await,
            };
            // Without the feature a streamed list is invalid; with an etcd that is too old for it, an error of the server's.
            let end = match end {
                Err(End::Failed(kube::Error::Api(status)))
                    if streaming && at.is_none() && matches!(status.code, 400 | 422 | 500) =>
                {
                    Err(End::NoStreaming)
                }
                end => end,
            };
            match end {
                Err(End::Over) if begun.elapsed() < SHORT => {}
                Ok(()) | Err(End::Over) => {
                    failures = 0;
                    continue;
                }
                Err(End::Unheard) => return,
                Err(End::NoStreaming) => {
                    debug!(
                        what = self.what,
                        "the server sends no list as the beginning of a watch: it is asked for in pages"
                    );
                    streaming = false;
                    continue;
                }
                Err(End::TooOld) => {
                    debug!(what = self.what, "what has changed is not known any more: listed anew");
                    at = None;
                }
                Err(End::Failed(kube::Error::Api(status)))
                    if self.foreign_labels && matches!(status.code, 400 | 422) =>
                {
                    warn!(
                        what = self.what,
                        labels = self.labels,
                        "the server does not take this selector, it selects nothing: {status}"
                    );
                    if to.heard(Heard::Update(Update::List(BTreeMap::new()))).await.is_err() {
                        return;
                    }
                    failures = 10;
                }
                Err(End::Failed(error)) => {
                    let what = &self.what;
                    if failures == 0 {
                        warn!("{what} cannot be watched, it is tried again: {}", hint(&error));
                    } else {
                        debug!(failures, "{what} cannot be watched: {error}");
                    }
                }
            }
            sleep(pause(failures)).await;
            failures += 1;
        }
    }

    fn read<T, E: Display>(&self, object: &K, make: &impl Fn(&K) -> Result<Option<T>, E>) -> Option<(Name, T)> {
        let name = read::name(object.meta());
        match make(object) {
            Ok(record) => record.map(|record| (name, record)),
            Err(error) => {
                error!("{name} of {} is not understood and does not count: {error}", self.what);
                None
            }
        }
    }

    /// A list in pages, for servers that cannot stream one.
    async fn list<T, E: Display>(
        &self,
        at: &mut Option<String>,
        make: &impl Fn(&K) -> Result<Option<T>, E>,
        to: &Teller<impl Fn(Update<T>) -> Change>,
    ) -> Result<(), End> {
        let mut all = BTreeMap::new();
        let mut params = ListParams { label_selector: self.labels.clone(), limit: Some(PAGE), ..ListParams::default() };
        loop {
            let page = timeout(ANSWER, self.api.list(&params)).await.map_err(|_| silent())??;
            all.extend(page.items.iter().filter_map(|object| self.read(object, make)));
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                *at = page.metadata.resource_version;
                return to.heard(Heard::Update(Update::List(all))).await;
            }
            to.heard(Heard::Life).await?;
        }
    }

    /// A watch from some version on, or one that begins with a list.
    async fn stream<T, E: Display>(
        &self,
        at: &mut Option<String>,
        list: bool,
        make: &impl Fn(&K) -> Result<Option<T>, E>,
        to: &Teller<impl Fn(Update<T>) -> Change>,
    ) -> Result<(), End> {
        let params = WatchParams {
            label_selector: self.labels.clone(),
            timeout: Some(self.renew.as_secs() as u32),
            bookmarks: true,
            send_initial_events: list,
            ..WatchParams::default()
        };
        let begun = timeout(ANSWER, self.api.watch(&params, at.as_deref().unwrap_or_default())).await;
        let mut events = std::pin::pin!(begun.map_err(|_| silent())??);
        to.heard(Heard::Life).await?;
        // Of a list that is not complete nothing counts.
        let mut listing = list.then(BTreeMap::new);
        loop {
            let Ok(event) = timeout(self.renew + MARGIN, events.next()).await else { return Err(silent().into()) };
            match event {
                None if listing.is_some() => return Err(End::NoStreaming),
                None => return Err(End::Over),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(WatchEvent::Error(status))) => {
                    return Err(End::of(&status).unwrap_or(End::Failed(kube::Error::Api(status))));
                }
                Some(Ok(WatchEvent::Bookmark(mark))) => {
                    let complete = mark.metadata.annotations.contains_key(LIST_END);
                    match listing.take_if(|_| complete) {
                        Some(all) => to.heard(Heard::Update(Update::List(all))).await?,
                        None => to.heard(Heard::Life).await?,
                    }
                    if listing.is_none() {
                        *at = Some(mark.metadata.resource_version);
                    }
                }
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    let record = self.read(&object, make);
                    if let Some(all) = &mut listing {
                        all.extend(record);
                        continue;
                    }
                    let told = record.map_or(Heard::Life, |(name, record)| Heard::Update(Update::Put(name, record)));
                    to.heard(told).await?;
                    at.clone_from(&object.meta().resource_version);
                }
                Some(Ok(WatchEvent::Deleted(object))) => {
                    let name = read::name(object.meta());
                    if let Some(all) = &mut listing {
                        all.remove(&name);
                        continue;
                    }
                    to.heard(Heard::Update(Update::Remove(name))).await?;
                    at.clone_from(&object.meta().resource_version);
                }
            }
        }
    }
}

/// What is wrong, and what to do.
fn hint(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.is_forbidden() => {
            format!("{}; give the agent's ServiceAccount this right", status.message)
        }
        kube::Error::Api(status) if status.code == 404 => {
            format!("the cluster has no such objects; apply the definitions in deploy/crd ({})", status.message)
        }
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

/// How long to wait after so many failures: between half of it and all, so that a cluster's agents do not come at once.
fn pause(failures: u32) -> Duration {
    let whole = PAUSE.saturating_mul(1 << failures.min(10)).min(PAUSE_MAX);
    let share = RandomState::new().hash_one(failures) as u32 % 1000;
    whole / 2 + whole / 2000 * share
}

#[cfg(test)]
mod tests;
