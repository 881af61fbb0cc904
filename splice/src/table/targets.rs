//! Where a route leads, for whoever dials.

use std::collections::HashMap;

use super::To;

/// One route, as its dialler needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// [`crate::abi::route::Route::version`].
    pub version: u32,
    /// The service's name.
    pub service: String,
    /// The sandbox key.
    pub key: String,
    /// Where it leads.
    pub to: To,
}

/// All routes of a table, by [`crate::abi::route::Route::id`].
///
/// Put it into force before the steps of its [`super::Plan`] are taken: a version that the kernel names is then known
/// already when the first event that names it arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    pub(super) by_id: HashMap<u32, Target>,
}

/// What is known of the route that an event asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// This is it.
    Current(&'a Target),
    /// The route has changed since the kernel looked at it: dial nothing, let the head be read again.
    Changed,
    /// The route is gone: dial nothing, let the head be read again.
    Gone,
}

impl Targets {
    /// The route that an event asks for. A leg that is dialled for one version and stored under another could reach an
    /// endpoint that has left, so the version must be the very same.
    #[must_use]
    pub fn find(&self, route: u32, version: u32) -> Lookup<'_> {
        match self.by_id.get(&route) {
            Some(target) if target.version == version => Lookup::Current(target),
            Some(_) => Lookup::Changed,
            None => Lookup::Gone,
        }
    }

    /// The route, whatever its version.
    #[must_use]
    pub fn of(&self, route: u32) -> Option<&Target> {
        self.by_id.get(&route)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Target)> {
        self.by_id.iter().map(|(id, target)| (*id, target))
    }
}
