//! Waiting until a Sandbox is what it is to be: by a watch.

use std::{cell::RefCell, time::Duration};

use futures::StreamExt as _;
use kube::{
    ResourceExt as _,
    api::{DynamicObject, ListParams, WatchEvent, WatchParams},
};
use sidetrack_objects::Sandbox;
use tokio::time::{sleep, timeout};

use super::{
    Asked, Failure, Server,
    condition::{self, Aim, Verdict},
};

/// The server ends a watch after so long, and it is begun again: nobody knows otherwise whether it lives.
const RENEW: Duration = Duration::from_mins(1);
/// Between two watches: a server that ends them at once is not asked without a pause.
const PAUSE: Duration = Duration::from_millis(200);

/// One Sandbox that is waited for.
struct Waiting<'a> {
    server: &'a Server,
    name: &'a str,
    aim: Aim,
    /// Which object of this name it is; the first one that is seen.
    uid: RefCell<Option<String>>,
    /// How far it is.
    last: RefCell<String>,
}

/// Waits until a Sandbox is what it is to be. With a `uid`, until that one is.
pub async fn until(server: &Server, name: &str, aim: Aim, limit: Duration, uid: Option<String>) -> Result<(), Failure> {
    let last = "the API server has not answered yet".to_owned();
    let waiting = Waiting { server, name, aim, uid: RefCell::new(uid), last: RefCell::new(last) };
    match timeout(limit, waiting.follow()).await {
        Ok(met) => met,
        Err(_) => Err(Failure::TimedOut {
            what: format!("{} is not {}", waiting.asked("watch"), aim.word()),
            limit,
            why: waiting.last.into_inner(),
        }),
    }
}

impl Waiting<'_> {
    fn asked(&self, verb: &'static str) -> Asked {
        self.server.asked(verb, "sandbox", Some(self.name))
    }

    async fn follow(&self) -> Result<(), Failure> {
        let mut heard = false;
        loop {
            match self.look_and_watch(&mut heard).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // A server that is away for a while is no reason to give up; one that never was there is.
                Err(failure) if heard && failure.may_pass() => _ = self.last.replace(failure.to_string()),
                Err(failure) => return Err(failure),
            }
            sleep(PAUSE).await;
        }
    }

    /// Looks how far it is, and watches from there on until it is what it is to be, or the watch ends.
    async fn look_and_watch(&self, heard: &mut bool) -> Result<bool, Failure> {
        let api = self.server.sandboxes();
        let fields = format!("metadata.name={}", self.name);
        let list = self.server.answer(self.asked("list"), api.list(&ListParams::default().fields(&fields))).await?;
        *heard = true;
        if self.met(list.items.first())? {
            return Ok(true);
        }
        let params = WatchParams::default().fields(&fields).timeout(RENEW.as_secs() as u32);
        let from = list.metadata.resource_version.unwrap_or_default();
        let mut events = std::pin::pin!(self.server.answer(self.asked("watch"), api.watch(&params, &from)).await?);
        while let Ok(Some(event)) = timeout(RENEW + PAUSE, events.next()).await {
            let met = match event.map_err(|error| self.server.failed(error, self.asked("watch")))? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => self.met(Some(&object))?,
                WatchEvent::Deleted(_) => self.met(None)?,
                WatchEvent::Bookmark(_) => false,
                // What has happened since is not known any more: it is looked anew.
                WatchEvent::Error(_) => return Ok(false),
            };
            if met {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether this is what is waited for; none: there is none of this name.
    fn met(&self, object: Option<&DynamicObject>) -> Result<bool, Failure> {
        let known = self.uid.borrow().clone();
        let Some(object) = object else {
            return match (self.aim, known) {
                (Aim::Deleted, _) => Ok(true),
                (_, Some(_)) => Err(Failure::Nothing(format!("{} was deleted meanwhile", self.asked("watch")))),
                (_, None) => {
                    let advice = ": `sidetrack create` or `sidetrack apply` makes it".into();
                    Err(Failure::NotFound { asked: Box::new(self.asked("watch")), advice })
                }
            };
        };
        match (known, object.uid()) {
            // Another one of this name: the first is gone.
            (Some(known), Some(uid)) if known != uid => {
                if self.aim == Aim::Deleted {
                    return Ok(true);
                }
                self.uid.replace(Some(uid));
            }
            (None, uid) => _ = self.uid.replace(uid),
            _ => {}
        }
        let sandbox: Sandbox = object
            .clone()
            .try_parse()
            .map_err(|error| Failure::Answer { asked: Box::new(self.asked("watch")), why: error.to_string() })?;
        match condition::verdict(&sandbox, self.aim) {
            Verdict::Met => Ok(true),
            Verdict::NotYet(why) => {
                self.last.replace(why);
                Ok(false)
            }
            Verdict::Never(why) => {
                Err(Failure::Never(format!("{} will not be {}: {why}", self.asked("watch"), self.aim.word())))
            }
        }
    }
}
