//! Of several controllers one works: the one whose name stands in the Lease.
//!
//! The rules are those of Kubernetes' own components. A clock is compared with itself alone: somebody's Lease has run out
//! when it has not changed for its time *since it was last seen to change*.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

/// The Lease's name.
pub const NAME: &str = sidetrack_acknowledge::meeting::LEASE;
/// So long others wait for one that is not heard of.
const TIME: Duration = Duration::from_secs(15);
/// One that could not renew its Lease for so long stops: well before others begin.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often it is renewed, and looked at by others.
const EVERY: Duration = Duration::from_secs(2);

/// The Lease, as one of those sees it who want it.
pub(crate) struct Lease {
    api: Api<Object>,
    identity: String,
    /// What its holder says of itself there.
    annotations: BTreeMap<String, String>,
    /// What was seen last, and when it was seen to change.
    seen: Option<(Object, Instant)>,
}

impl Lease {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        identity: String,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, annotations, seen: None }
    }

    /// Waits until it is ours. `heard` is called once it is known whose it is.
    pub(crate) async fn acquire(&mut self, heard: impl Fn()) {
        let mut last = None;
        loop {
            match self.try_once().await {
                Ok(true) => {
                    heard();
                    info!(identity = self.identity, "leads");
                    return;
                }
                Ok(false) => {
                    heard();
                    let holder = self.holder();
                    if last != holder {
                        info!(holder, "another controller leads");
                        last = holder;
                    }
                }
                Err(error) => warn!("the Lease {NAME} cannot be asked for, it is tried again: {error}"),
            }
            sleep(EVERY).await;
        }
    }

    /// Renews it until it is lost.
    pub(crate) async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            sleep(EVERY).await;
            let left = DEADLINE.saturating_sub(renewed.elapsed());
            match timeout(left.max(EVERY), self.try_once()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => {
                    warn!(holder = self.holder(), "another controller has taken the Lease");
                    return;
                }
                Ok(Err(error)) => debug!("the Lease was not renewed: {error}"),
                Err(_) => debug!("the Lease was not renewed: no answer"),
            }
            if renewed.elapsed() >= DEADLINE {
                warn!("the Lease could not be renewed for {DEADLINE:?}: stops until it can");
                return;
            }
        }
    }

    /// Lets it go at once, so that nobody has to wait.
    pub(crate) async fn release(&mut self) {
        let Some((mut lease, _)) = self.seen.take() else { return };
        if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity)) {
            (spec.holder_identity, spec.lease_duration_seconds) = (None, Some(1));
            if let Err(error) = self.api.replace(NAME, &PostParams::default(), &lease).await {
                warn!("the Lease was not released, others wait for its time: {error}");
            }
        }
    }

    fn holder(&self) -> Option<String> {
        self.seen.as_ref()?.0.spec.as_ref()?.holder_identity.clone()
    }

    /// Asks for it, or renews it; whether it is ours.
    async fn try_once(&mut self) -> kube::Result<bool> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            return self.write(None).await;
        };
        let changed = self.seen.as_ref().is_none_or(|(seen, _)| seen.spec != lease.spec);
        if changed {
            self.seen = Some((lease.clone(), Instant::now()));
        }
        let since = self.seen.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        if is_free(&lease, &self.identity, since) { self.write(Some(lease)).await } else { Ok(false) }
    }

    /// Writes it with our name; whether nobody else was quicker.
    async fn write(&mut self, old: Option<Object>) -> kube::Result<bool> {
        let mut new = ours(old.as_ref(), &self.identity, Timestamp::now());
        new.metadata.annotations.get_or_insert_default().extend(self.annotations.clone());
        let written = match old {
            Some(_) => self.api.replace(NAME, &PostParams::default(), &new).await,
            None => self.api.create(&PostParams::default(), &new).await,
        };
        match written {
            Ok(lease) => {
                self.seen = Some((lease, Instant::now()));
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether somebody of this name may write his name into it, which has not changed for so long.
fn is_free(lease: &Object, identity: &str, unchanged: Duration) -> bool {
    let Some(spec) = &lease.spec else { return true };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let time = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
    holder.is_empty() || holder == identity || unchanged > Duration::from_secs(time)
}

/// The Lease with this name in it.
fn ours(old: Option<&Object>, identity: &str, now: Timestamp) -> Object {
    let spec = old.and_then(|old| old.spec.clone()).unwrap_or_default();
    let same = spec.holder_identity.as_deref() == Some(identity);
    let transitions = spec.lease_transitions.unwrap_or(0);
    Object {
        metadata: old.map_or_else(
            || ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
            |old| old.metadata.clone(),
        ),
        spec: Some(LeaseSpec {
            holder_identity: Some(identity.to_owned()),
            lease_duration_seconds: i32::try_from(TIME.as_secs()).ok(),
            acquire_time: if same { spec.acquire_time } else { Some(MicroTime(now)) },
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if same || old.is_none() { transitions } else { transitions + 1 }),
            ..spec
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_free_when_its_holder_is_silent_for_its_time_or_has_let_it_go() {
        let lease = ours(None, "a", Timestamp::UNIX_EPOCH);
        let after = |identity, seconds| is_free(&lease, identity, Duration::from_secs(seconds));
        assert!(after("a", 0) && !after("b", 0) && !after("b", 15) && after("b", 16));
        let mut released = lease.clone();
        released.spec.as_mut().expect("it has one").holder_identity = None;
        assert!(is_free(&released, "b", Duration::ZERO));
    }

    #[test]
    fn a_lease_says_since_when_who_leads() {
        let at = |seconds| Timestamp::from_second(seconds).expect("a time");
        let first = ours(None, "a", at(1));
        let renewed = ours(Some(&first), "a", at(5)).spec.expect("it has one");
        assert_eq!((renewed.acquire_time, renewed.renew_time), (Some(MicroTime(at(1))), Some(MicroTime(at(5)))));
        let taken = ours(Some(&first), "b", at(9)).spec.expect("it has one");
        assert_eq!((taken.acquire_time, taken.lease_transitions), (Some(MicroTime(at(9))), Some(1)));
    }
}
