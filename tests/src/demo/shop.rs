//! The cast: a client, two services of which the first calls the second, and their forks.

use super::{server::Server, stage::Stage};
use crate::{
    Routes,
    lab::{Lab, Pod, RENO, Service},
};
use anyhow::Result;

/// The key of the sandbox that has forked `orders`.
pub const ORDERS_KEY: &str = "pr-1";
/// The key of the sandbox that has forked `payments`.
pub const PAYMENTS_KEY: &str = "pr-2";
/// A key that has no fork, until one appears late in the demo. [`ORDERS_KEY`] is a prefix of it.
pub const LATE_KEY: &str = "pr-12";

/// Length of the bodies that go up and down.
pub const MEBIBYTE: usize = 1 << 20;
/// Length of the download during which the agent dies.
pub const LONG: usize = 64 << 20;

/// The shop.
#[derive(Debug)]
pub struct Shop {
    /// Where requests come from.
    pub client: Pod,
    /// All workloads, by name.
    pub servers: Vec<Server>,
    /// The service that the client calls.
    pub orders: Service,
    /// The service that `orders` calls.
    pub payments: Service,
}

impl Shop {
    /// Sets it up.
    pub fn open(lab: &Lab, stage: &Stage) -> Result<Self> {
        stage.progress("pods, with real nginx in them: orders, orders-pr-1, payments, payments-pr-2");
        let client = lab.pod("client", 10)?;
        let payments_base = Server::start(lab.pod("payments", 21)?, None)?;
        let payments_fork = Server::start(lab.pod("payments-pr-2", 22)?, None)?;
        let payments = lab.service("shop/payments", 20, 80, &payments_base.endpoints())?;
        let orders_base = Server::start(lab.pod("orders", 11)?, Some(payments.v4))?;
        let orders_fork = Server::start(lab.pod("orders-pr-1", 12)?, Some(payments.v4))?;
        let orders = lab.service("shop/orders", 10, 80, &orders_base.endpoints())?;
        for server in [&orders_base, &orders_fork] {
            server.file(MEBIBYTE)?;
        }
        orders_fork.file(LONG)?;
        let servers = vec![orders_base, orders_fork, payments_base, payments_fork];
        Ok(Self { client, servers, orders, payments })
    }

    /// Adds the fork of `orders` for [`LATE_KEY`]: a pod that appears while all runs.
    pub fn deploy_late_fork(&mut self, lab: &Lab) -> Result<()> {
        self.servers.push(Server::start(lab.pod("orders-pr-12", 13)?, Some(self.payments.v4))?);
        Ok(())
    }

    /// The server of that name.
    pub fn server(&self, name: &str) -> Option<&Server> {
        self.servers.iter().find(|server| server.name() == name)
    }

    /// The pods that an agent has to be attached to.
    pub fn pods(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.client.name()).chain(self.servers.iter().map(Server::name))
    }

    /// The route table: one fork of each service, and the late one where it runs.
    pub fn routes(&self) -> Routes {
        let endpoints = |name: &str| self.server(name).map_or_else(Vec::new, |server| server.endpoints().to_vec());
        let mut routes = Routes::new().service(&self.orders).fork(ORDERS_KEY, &endpoints("orders-pr-1"));
        if let Some(late) = self.server("orders-pr-12") {
            routes = routes.fork(LATE_KEY, &late.endpoints());
        }
        routes.service(&self.payments).fork(PAYMENTS_KEY, &endpoints("payments-pr-2"))
    }
}

/// A lab for it. Reno is in every kernel, and its throughput varies least.
pub fn lab() -> Result<Lab> {
    Lab::with_congestion("demo", RENO)
}
