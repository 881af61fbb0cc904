//! The scenes, in their order.

use super::{
    report::Connection,
    shop::{LATE_KEY, LONG, ORDERS_KEY, PAYMENTS_KEY, Shop},
    stage::Stage,
    steady::Steady,
    visitor::{Ask, Visitor, conclude, digest, path, same},
};
use crate::{Agent, Request, digest::body, lab::Lab};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};

/// A call through both services.
const CHECKOUT: &str = "/checkout";
/// A call that `orders` answers alone.
const HOME: &str = "/";
/// Both baselines.
const BASELINE: &[&str] = &["orders", "payments"];
/// The fork of `orders`, and the baseline behind it.
const ORDERS_FORK: &[&str] = &["orders-pr-1", "payments"];
/// The baseline, and the fork of `payments` behind it.
const PAYMENTS_FORK: &[&str] = &["orders", "payments-pr-2"];
/// The fork of `orders` that comes late.
const LATE_FORK: &[&str] = &["orders-pr-12", "payments"];

/// Requests before and after the agent's death.
const BEFORE: u64 = 200;
const AFTER: u64 = 500;

const fn checkout<'a>(key: Option<&'a str>, by: &'a [&'a str]) -> Ask<'a> {
    Ask { target: CHECKOUT, key, by }
}

/// A client's view of the shop: one connection that is kept from scene to scene, others for one request each.
struct Play<'a> {
    lab: &'a Lab,
    shop: Shop,
    kept: Visitor,
    agent: Agent<'a>,
}

/// What the shop does while nothing is attached to its pods. It asks `orders` alone: a connection of nginx's pool to
/// `payments` would be older than the agent, which follows those that it has seen from their SYN on.
pub fn before(shop: &Shop, stage: &mut Stage) -> Result<()> {
    let expected = "a key is a header like any other: the baseline answers";
    stage.scene("before", "Without Sidetrack", expected, |stage| {
        let mut kept = Visitor::new(&shop.client, shop.orders.v4);
        for key in [None, Some(ORDERS_KEY), None] {
            stage.row(kept.ask(shop, Ask { target: HOME, key, by: &["orders"] }));
        }
        Ok(())
    })
}

/// Plays all other scenes.
pub fn play(lab: &Lab, shop: Shop, agent: Agent, stage: &mut Stage) -> Result<()> {
    let kept = Visitor::new(&shop.client, shop.orders.v4);
    let mut play = Play { lab, shop, kept, agent };
    play.fresh(stage)?;
    play.mixed(stage)?;
    play.bodies(stage)?;
    play.killed(stage)?;
    play.restarted(stage)?;
    play.late(stage)?;
    super::ledger::close(stage, &play.shop, &play.agent)?;
    play.removed(stage)
}

impl Play<'_> {
    /// Asks over a new connection to the service's IPv4 address.
    fn once(&self, stage: &mut Stage, ask: Ask) {
        stage.row(Visitor::new(&self.shop.client, self.shop.orders.v4).ask(&self.shop, ask));
    }

    /// The same to its IPv6 address.
    fn once_v6(&self, stage: &mut Stage, ask: Ask) {
        let mut row = Visitor::new(&self.shop.client, self.shop.orders.v6).ask(&self.shop, ask);
        row.note = Some("IPv6".into());
        stage.row(row);
    }

    /// Asks over the connection that is kept.
    fn again(&mut self, stage: &mut Stage, ask: Ask) {
        let row = self.kept.ask(&self.shop, ask);
        stage.row(row);
    }

    fn fresh(&self, stage: &mut Stage) -> Result<()> {
        stage.scene("no-key", "No key", "the baseline answers, at both services", |stage| {
            self.once(stage, checkout(None, BASELINE));
            self.once_v6(stage, checkout(None, BASELINE));
            Ok(())
        })?;
        let expected = "the fork answers where that sandbox has one, the baseline everywhere else";
        stage.scene("key", "A key", expected, |stage| {
            self.once(stage, checkout(Some(ORDERS_KEY), ORDERS_FORK));
            self.once_v6(stage, checkout(Some(ORDERS_KEY), ORDERS_FORK));
            self.once(stage, checkout(Some(PAYMENTS_KEY), PAYMENTS_FORK));
            Ok(())
        })?;
        let expected = "pr-12 has forked nothing: the baseline answers, though pr-1 looks alike";
        stage.scene("unknown-key", "An unknown key", expected, |stage| {
            self.once(stage, checkout(Some(LATE_KEY), BASELINE));
            Ok(())
        })
    }

    fn mixed(&mut self, stage: &mut Stage) -> Result<()> {
        let expected = "each request where it belongs, all over one TCP connection";
        stage.scene("mixed-keys", "Mixed keys on one keep-alive connection", expected, |stage| {
            for ask in [
                checkout(None, BASELINE),
                checkout(Some(ORDERS_KEY), ORDERS_FORK),
                checkout(None, BASELINE),
                checkout(Some(ORDERS_KEY), ORDERS_FORK),
                checkout(Some(PAYMENTS_KEY), PAYMENTS_FORK),
                checkout(Some(LATE_KEY), BASELINE),
                checkout(Some(ORDERS_KEY), ORDERS_FORK),
            ] {
                self.again(stage, ask);
            }
            Ok(())
        })
    }

    fn bodies(&mut self, stage: &mut Stage) -> Result<()> {
        let expected = "every byte arrives, by its digest, over that same connection";
        stage.scene("bodies", "1 MiB up, 1 MiB down", expected, |stage| {
            for (key, by) in [(Some(ORDERS_KEY), &["orders-pr-1"][..]), (None, &["orders"])] {
                self.again(stage, Ask { target: "/upload", key, by });
                self.again(stage, Ask { target: "/bytes/1048576", key, by });
            }
            Ok(())
        })
    }

    /// `kill -9` while four clients ask without a pause, and during a download.
    fn killed(&mut self, stage: &mut Stage) -> Result<()> {
        let expected = "spliced connections and everything without a key go on as if nothing had happened";
        stage.scene("agent-killed", "The agent is killed (-9)", expected, |stage| {
            let (client, orders) = (&self.shop.client, self.shop.orders.v4);
            let home = |key, by| Ask { target: HOME, key, by };
            let steady = [
                Steady::start(client, orders, home(Some(ORDERS_KEY), &["orders-pr-1"]), Connection::Kept),
                Steady::start(client, orders, home(None, &["orders"]), Connection::Kept),
                Steady::start(client, orders, home(None, &["orders"]), Connection::New),
                Steady::start(client, orders, checkout(Some(PAYMENTS_KEY), PAYMENTS_FORK), Connection::Kept),
            ];
            steady.iter().try_for_each(|one| one.more(BEFORE))?;
            let row = download(&mut self.kept, || self.agent.kill9())?;
            steady.iter().try_for_each(|one| one.more(AFTER))?;
            for one in steady {
                stage.row(one.stop());
            }
            stage.row(row);
            self.again(stage, checkout(Some(ORDERS_KEY), ORDERS_FORK));
            self.again(stage, checkout(None, BASELINE));
            Ok(())
        })
    }

    fn restarted(&mut self, stage: &mut Stage) -> Result<()> {
        let expected = "it adopts what is in the kernel, and answers whoever had to wait for it";
        stage.scene("agent-restarted", "The agent is started again", expected, |stage| {
            let (routes, flow) = (self.agent.routes()?, self.flow()?);
            // Nobody dials for this one: the head stays held in the client's kernel, which sends it again and again.
            let mut waiting = Visitor::new(&self.shop.client, self.shop.orders.v4);
            let ask = Ask { target: HOME, key: Some(ORDERS_KEY), by: &["orders-pr-1"] };
            let mut row = waiting.row(ask, "GET");
            let request = Request::get(HOME).key(ORDERS_KEY);
            let began = Instant::now();
            waiting.dial()?.0.send(&request.wire())?;
            self.agent.restart()?;
            let back = began.elapsed();
            let answer = waiting.dial()?.0.response(&request);
            row.seconds = began.elapsed().as_secs_f64();
            row.slowest_seconds = row.seconds;
            let checked = answer.map_err(anyhow::Error::from).and_then(|response| {
                row.answered = path(&response);
                ensure!(row.answered == ask.by, "answered by {}", row.answered.join(", "));
                Ok(Some(format!("sent while it was dead; it was back after {}", spoken(back))))
            });
            conclude(&mut row, checked);
            stage.row(row);
            self.agent.wait_attached(self.shop.pods())?;
            let adopted = self.agent.routes()?;
            let count = adopted["items"].as_array().map_or(0, Vec::len);
            stage.check("routes adopted with their numbers", &count.to_string(), adopted == routes && count > 0);
            let found = self.flow()?;
            let same = !flow.is_null() && ["client", "asked", "legs"].iter().all(|field| flow[*field] == found[*field]);
            let words = format!("{} requests so far, {} legs", found["asked"], found["legs"]);
            stage.check("the kept connection adopted", &words, same);
            self.again(stage, checkout(Some(ORDERS_KEY), ORDERS_FORK));
            self.again(stage, checkout(None, BASELINE));
            self.once(stage, checkout(Some(PAYMENTS_KEY), PAYMENTS_FORK));
            self.once_v6(stage, checkout(Some(ORDERS_KEY), ORDERS_FORK));
            Ok(())
        })
    }

    fn late(&mut self, stage: &mut Stage) -> Result<()> {
        let expected = "pr-12, unknown so far, leads to a pod that has just appeared; nothing is restarted";
        stage.scene("new-fork", "A fork is added", expected, |stage| {
            self.shop.deploy_late_fork(self.lab)?;
            self.agent.wait_attached(["orders-pr-12"])?;
            let began = Instant::now();
            self.agent.set_routes(&self.shop.routes())?;
            let took = spoken(began.elapsed());
            stage.check("the route file was changed and is in force", &format!("after {took}"), true);
            self.again(stage, checkout(Some(LATE_KEY), LATE_FORK));
            self.again(stage, checkout(Some(ORDERS_KEY), ORDERS_FORK));
            self.once(stage, checkout(Some(LATE_KEY), LATE_FORK));
            Ok(())
        })
    }

    /// What `sidetrack flows` says of the connection that is kept.
    fn flow(&self) -> Result<Value> {
        let client = self.kept.local().map(|address| address.to_string());
        let flows = self.agent.flows()?;
        let ours = flows["items"].as_array().and_then(|items| {
            items.iter().find(|item| client.as_deref().is_some_and(|client| item["client"] == client)).cloned()
        });
        Ok(ours.unwrap_or_default())
    }

    fn removed(&mut self, stage: &mut Stage) -> Result<()> {
        let expected = "`sidetrack purge`: a key is a header like any other again";
        stage.scene("removed", "Sidetrack is removed", expected, |stage| {
            // Open connections of the shop's own pools end with it.
            let status = self.agent.term()?;
            stage.check("the agent ends when it is told to", &status.to_string(), status.success());
            self.agent.purge()?;
            let left = std::fs::read_dir(self.lab.pin_dir()).map_or(0, Iterator::count);
            stage.check("pins left in the kernel", &left.to_string(), left == 0);
            self.once(stage, Ask { target: HOME, key: Some(ORDERS_KEY), by: &["orders"] });
            self.once(stage, Ask { target: HOME, key: None, by: &["orders"] });
            Ok(())
        })
    }
}

/// A long download over a spliced connection; `then` happens when its head has come.
fn download(kept: &mut Visitor, then: impl FnOnce() -> Result<()>) -> Result<super::report::Row> {
    let (target, by) = (format!("/bytes/{LONG}"), ["orders-pr-1"]);
    let ask = Ask { target: &target, key: Some(ORDERS_KEY), by: &by };
    let mut row = kept.row(ask, "GET");
    let request = Request::get(&target).key(ORDERS_KEY);
    let (http, _) = kept.dial()?;
    let began = Instant::now();
    let head = http.send(&request.wire()).and_then(|()| http.head());
    then()?;
    let got = head.and_then(|head| Ok((http.body(&head, false)?.1, head)));
    row.seconds = began.elapsed().as_secs_f64();
    row.slowest_seconds = row.seconds;
    let checked = got.context("the download broke off").and_then(|(found, head)| {
        row.answered = head.header("x-path").map(str::to_owned).into_iter().collect();
        ensure!(row.answered == by, "answered by {}", row.answered.join(", "));
        same(&found, &digest(&body(by[0], LONG)))?;
        Ok(Some(format!("killed after its first byte; digest {}", found.hex())))
    });
    conclude(&mut row, checked);
    Ok(row)
}

fn spoken(time: Duration) -> String {
    super::paint::seconds(time.as_secs_f64()).trim().to_owned()
}
