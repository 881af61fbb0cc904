//! What a controller's answers come from.

use sidetrack_controller::{Counts, Health};

use super::metrics::Page;

/// A controller.
#[derive(Debug)]
pub(crate) struct OfController(pub(crate) Health);

impl OfController {
    pub(super) fn pending(&self) -> Vec<String> {
        self.0.pending().into_iter().map(str::to_owned).collect()
    }

    pub(super) fn metrics(&self) -> String {
        let Counts { passes, failed, writes, sandboxes } = self.0.counts();
        let mut page = Page::default();
        page.family("sidetrack_build_info", "gauge", "Version of this controller.");
        page.line(format_args!("sidetrack_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
        let ready = u64::from(self.pending().is_empty());
        page.value("sidetrack_ready", "Whether it works, or is ready to.", ready);
        let help = "Whether it has the Lease, and works.";
        page.value("sidetrack_controller_leads", help, u64::from(self.0.leads()));
        page.value("sidetrack_controller_sandboxes", "Sandboxes that are known.", sandboxes);
        page.family("sidetrack_controller_passes_total", "counter", "Passes over a Sandbox, by how they ended.");
        page.samples("sidetrack_controller_passes_total", "result", [("done", passes), ("failed", failed)]);
        page.family(
            "sidetrack_controller_writes_total",
            "counter",
            "Requests to the API server that change something.",
        );
        page.line(format_args!("sidetrack_controller_writes_total {writes}"));
        page.text
    }
}
