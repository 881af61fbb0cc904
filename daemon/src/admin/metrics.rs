//! `/metrics`, as Prometheus reads it. No address and no key is a label: there is no end to them.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    path::PathBuf,
    sync::Arc,
};

use sidetrack_splice::abi::{ABI, reason::Reason};

use crate::{
    readiness::Readiness,
    routes::cluster::Hearing,
    state::{Pins, StateError, status},
};

/// What an agent's answers come from.
#[derive(Debug)]
pub(crate) struct OfAgent {
    pub(crate) readiness: Readiness,
    pub(crate) pin_dir: PathBuf,
    /// How the cluster is heard, where routes come from one.
    pub(crate) hearing: Option<Arc<Hearing>>,
}

impl OfAgent {
    pub(super) fn metrics(&self) -> Result<String, StateError> {
        text(self)
    }
}

fn text(admin: &OfAgent) -> Result<String, StateError> {
    let pins = Pins::open(&admin.pin_dir)?;
    let counts = status::counts(&pins)?;
    let maps = status::room(&pins)?;
    let mut pods: BTreeMap<&str, u64> = BTreeMap::from([("attached", 0)]);
    for pod in status::pods(&pins, crate::state::now())? {
        *pods.entry(pod.outcome).or_default() += 1;
    }
    let counted = Reason::ALL.iter().map(|it| (it.name(), counts.get(*it as usize).copied().unwrap_or(0)));
    let entries = maps.iter().map(|map| (map.name, map.entries as u64));
    let room = maps.iter().map(|map| (map.name, u64::from(map.room)));

    let mut page = Page::default();
    page.family("sidetrack_build_info", "gauge", "Version of this agent, and of the records that it keeps.");
    page.line(format_args!("sidetrack_build_info{{version=\"{}\",abi=\"{ABI}\"}} 1", env!("CARGO_PKG_VERSION")));
    let ready = u64::from(admin.readiness.pending().is_empty());
    page.value("sidetrack_ready", "Whether all that is waited for at the start was done.", ready);
    page.family("sidetrack_counted_total", "counter", "How often; `sidetrack explain-counter NAME` says what.");
    page.samples("sidetrack_counted_total", "name", counted);
    page.family("sidetrack_map_entries", "gauge", "Connections, legs, services (addresses), routes and more.");
    page.samples("sidetrack_map_entries", "map", entries);
    page.family("sidetrack_map_room", "gauge", "Entries that each map has room for.");
    page.samples("sidetrack_map_room", "map", room);
    page.family("sidetrack_pods", "gauge", "Network namespaces by what became of each.");
    page.samples("sidetrack_pods", "outcome", pods);
    if let Some(hearing) = &admin.hearing {
        let known = u64::from(hearing.known());
        page.value("sidetrack_cluster_known", "Whether the cluster's first lists were complete.", known);
        let help = "For how long the watch was not heard that was not heard for longest.";
        page.value("sidetrack_cluster_silence_seconds", help, hearing.silence().as_secs());
        let help = "Whether that is longer than maxStale, and forks are not steered to.";
        page.value("sidetrack_cluster_cut_off", help, u64::from(hearing.is_cut_off()));
    }
    Ok(page.text)
}

/// A page, line by line.
#[derive(Default)]
pub(super) struct Page {
    pub(super) text: String,
}

impl Page {
    pub(super) fn line(&mut self, line: fmt::Arguments<'_>) {
        // A string takes all that is written to it.
        _ = writeln!(self.text, "{line}");
    }

    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    pub(super) fn value(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "gauge", help);
        self.line(format_args!("{name} {value}"));
    }

    pub(super) fn samples<'a>(&mut self, name: &str, label: &str, samples: impl IntoIterator<Item = (&'a str, u64)>) {
        for (of, value) in samples {
            self.line(format_args!("{name}{{{label}=\"{of}\"}} {value}"));
        }
    }
}
