//! The route table as a file.

use std::{net::SocketAddr, path::Path};

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};
use sidetrack_splice::table::{Invalid, OnUnreachable, Place, Route, RouteTable, Service, To};

use crate::document::{self, DocumentError, Mistake};

/// `kind` of the object.
pub const KIND: &str = "RouteTable";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawTable {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    services: Spanned<Vec<RawService>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawService {
    name: Spanned<String>,
    addresses: Spanned<Vec<Spanned<String>>>,
    routes: Option<Spanned<Vec<Spanned<RawRoute>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawRoute {
    key: Spanned<String>,
    endpoints: Option<Spanned<Vec<Spanned<String>>>>,
    fail: Option<Spanned<String>>,
    on_unreachable: Option<Spanned<String>>,
}

impl RawService {
    fn routes(&self) -> &[Spanned<RawRoute>] {
        self.routes.as_ref().map_or(&[], |routes| &routes.value)
    }
}

/// Reads a table from a file.
pub fn load(path: &Path) -> Result<RouteTable, DocumentError> {
    parse(&document::read(path, KIND)?).map_err(|mistakes| DocumentError::Invalid { path: path.to_owned(), mistakes })
}

/// Reads a table from a file's text.
pub fn parse(text: &str) -> Result<RouteTable, Vec<Mistake>> {
    let raw: RawTable = document::parse(text, KIND)?;
    let mut mistakes = Vec::new();
    let mut address = |text: &Spanned<String>, at: Place| {
        text.value.parse::<SocketAddr>().map_err(|_| mistakes.push(not_an_address(text, at))).ok()
    };
    let mut services = Vec::new();
    let mut forms = Vec::new();
    for (s, service) in raw.services.value.iter().enumerate() {
        let addresses =
            service.addresses.value.iter().enumerate().filter_map(|(a, text)| address(text, Place::Address(s, a)));
        let addresses = addresses.collect();
        let mut routes = Vec::new();
        for (r, route) in service.routes().iter().enumerate() {
            let on_unreachable = match on_unreachable(&route.value) {
                Ok(said) => said,
                Err((at, what)) => {
                    forms.push(Mistake::new(at, format!("services[{s}].routes[{r}].onUnreachable"), what));
                    OnUnreachable::default()
                }
            };
            let to = match (&route.value.endpoints, &route.value.fail) {
                (Some(endpoints), None) => {
                    let endpoints = endpoints.value.iter().enumerate();
                    To::Fork {
                        endpoints: endpoints.filter_map(|(e, t)| address(t, Place::Endpoint(s, r, e))).collect(),
                        on_unreachable,
                    }
                }
                (None, Some(reason)) => To::Fail { reason: reason.value.clone() },
                (endpoints, _) => {
                    let what = if endpoints.is_some() { "both `endpoints` and `fail`" } else { "no place to go" };
                    let what = format!("{what}: expected either `endpoints: [\"ip:port\"]` or `fail: \"why\"`");
                    forms.push(Mistake::new(route.referenced, format!("services[{s}].routes[{r}]"), what));
                    To::Fail { reason: "invalid".into() }
                }
            };
            routes.push(Route { key: route.value.key.value.clone(), to });
        }
        services.push(Service { name: service.name.value.clone(), addresses, routes });
    }
    mistakes.append(&mut forms);
    // What could not be read is missing from the lists: whatever else would be said about them could be wrong.
    if mistakes.is_empty() {
        let invalid = match RouteTable::new(services) {
            Ok(table) => return Ok(table),
            Err(invalid) => invalid,
        };
        mistakes.extend(
            invalid
                .into_iter()
                .map(|Invalid { at, problem }| Mistake::new(raw.locate(at), at.to_string(), problem.to_string())),
        );
    }
    mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    Err(mistakes)
}

/// What a route says of a fork that cannot be reached. A mistake is where it stands, and what was expected.
fn on_unreachable(route: &RawRoute) -> Result<OnUnreachable, (Location, String)> {
    let Some(said) = &route.on_unreachable else { return Ok(OnUnreachable::default()) };
    match said.value.as_str() {
        "Baseline" if route.fail.is_some() => {
            let what = "\"Baseline\" beside `fail`, which refuses every request: leave one of the two out";
            Err((said.referenced, what.to_owned()))
        }
        "Baseline" => Ok(OnUnreachable::Baseline),
        "Fail" => Ok(OnUnreachable::Fail),
        other => Err((said.referenced, format!("{other:?}, expected \"Fail\" (the default) or \"Baseline\""))),
    }
}

fn not_an_address(text: &Spanned<String>, at: Place) -> Mistake {
    let what = format!("{:?}, expected \"ip:port\" or \"[ipv6]:port\", with numbers and no name", text.value);
    Mistake::new(text.referenced, at.to_string(), what)
}

impl RawTable {
    /// Where in the file a place of the table stands.
    fn locate(&self, at: Place) -> Location {
        let services = &self.services.value;
        match at {
            Place::Services => self.services.referenced,
            Place::Name(s) => services[s].name.referenced,
            Place::Addresses(s) => services[s].addresses.referenced,
            Place::Address(s, a) => services[s].addresses.value[a].referenced,
            Place::Routes(s) => services[s].routes.as_ref().map_or(services[s].name.referenced, |r| r.referenced),
            Place::Key(s, r) => services[s].routes()[r].value.key.referenced,
            Place::Reason(s, r) => {
                let route = &services[s].routes()[r];
                route.value.fail.as_ref().map_or(route.referenced, |reason| reason.referenced)
            }
            Place::Endpoints(s, r) => {
                let route = &services[s].routes()[r];
                route.value.endpoints.as_ref().map_or(route.referenced, |endpoints| endpoints.referenced)
            }
            Place::Endpoint(s, r, e) => {
                let route = &services[s].routes()[r];
                route.value.endpoints.as_ref().map_or(route.referenced, |list| list.value[e].referenced)
            }
        }
    }
}

#[cfg(test)]
mod tests;
