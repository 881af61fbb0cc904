//! Objects of one kind in a namespace, kept by a watch.

use std::{
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use backon::ExponentialBuilder;
use futures::{StreamExt as _, pin_mut};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt as _,
        reflector::{Store, store::Writer},
        watcher::{self, ExponentialBackoff, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::{Tell, Touched};

/// The pause behind a first failure, and the longest: a right that is given counts soon.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// What is known of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its list is on its way.
    Pending,
    /// All objects are.
    Known,
    /// The API server refuses it: its words.
    Refused(String),
    /// This cluster has no such kind.
    Absent,
}

/// Objects of a kind. The watch ends with it.
pub(crate) struct Watched<K>
where
    K: Resource + 'static,
    K::DynamicType: Hash + Eq,
{
    pub(crate) store: Store<K>,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

impl<K> Watched<K>
where
    K: Resource + 'static,
    K::DynamicType: Hash + Eq,
{
    pub(crate) fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<K> Drop for Watched<K>
where
    K: Resource + 'static,
    K::DynamicType: Hash + Eq,
{
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Watches a kind, those with a label only where one is named. `touches` says of an object who depends on it.
pub(super) fn start<K>(
    api: Api<K>,
    of: &K::DynamicType,
    label: Option<&str>,
    tell: &Tell,
    touches: impl Fn(&K) -> Touched + Send + 'static,
) -> Watched<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Hash + Eq + Clone + Send + Sync,
{
    let mut writer = Writer::<K>::new(of.clone());
    let store = writer.as_reader();
    let state = Arc::new(Mutex::new(State::Pending));
    let namespace = api.namespace().unwrap_or_default().to_owned();
    let what = K::plural(of).into_owned();
    let config = label.map_or_else(watcher::Config::default, |label| watcher::Config::default().labels(label));
    let (noted, tell) = (Arc::clone(&state), tell.clone());
    let pauses = ExponentialBuilder::default().with_min_delay(PAUSES.0).with_max_delay(PAUSES.1);
    let pauses = pauses.without_max_times().with_jitter();
    let task = tokio::spawn(async move {
        let stream = watcher(api, config).backoff(ExponentialBackoff::from(pauses));
        pin_mut!(stream);
        // Nobody hears it where the controller ends.
        let say = |touched| drop(tell.send((namespace.clone(), touched)));
        let note = |new: State| {
            let mut state = noted.lock().unwrap_or_else(PoisonError::into_inner);
            let changed = *state != new;
            *state = new;
            drop(state);
            if changed {
                say(Touched::All);
            }
        };
        while let Some(event) = stream.next().await {
            match event {
                Ok(mut event) => {
                    if let watcher::Event::Apply(object) | watcher::Event::InitApply(object) = &mut event {
                        object.meta_mut().managed_fields = None;
                    }
                    writer.apply_watcher_event(&event);
                    match &event {
                        watcher::Event::Apply(object) | watcher::Event::Delete(object) => say(touches(object)),
                        watcher::Event::InitDone => {
                            note(State::Known);
                            // A list that begins again may have brought anything.
                            say(Touched::All);
                        }
                        watcher::Event::Init | watcher::Event::InitApply(_) => {}
                    }
                }
                Err(error) => match refusal(&error) {
                    Some(state) => note(state),
                    None => {
                        debug!(what, namespace, "cannot be watched, it is tried again: {error}");
                    }
                },
            }
        }
        warn!(what, namespace, "is not watched any more");
    });
    Watched { store, state, task: task.abort_handle() }
}

/// What an error says of the kind, if it says something.
fn refusal(error: &watcher::Error) -> Option<State> {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchFailed(kube::Error::Api(status))
    | watcher::Error::WatchError(status)) = error
    else {
        return None;
    };
    match status.code {
        401 | 403 => Some(State::Refused(status.message.clone())),
        404 => Some(State::Absent),
        _ => None,
    }
}
