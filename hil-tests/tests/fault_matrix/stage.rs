//! Acts a row out: starts its site, lets the nodes live, follows the row's steps, ends every fault, and waits until all has arrived. It owns the
//! order of these; what must be true in the end is the judge's.
#![expect(
    clippy::disallowed_methods,
    reason = "the table tells how long a recovery took, and a certificate ends, in real time; nothing is judged by it"
)]

use std::time::{Duration, Instant};

use gengfu::config::Protocol;
use hil_tests::broker::Memory;
use hil_tests::ca::Validity;
use hil_tests::mqtt_proxy::{Direction, MqttProxy};
use hil_tests::node::Traffic;
use hil_tests::process::eventually;
use hil_tests::site::{Account, SETTLED_WITHIN, Site};
use hil_tests::{Result, RigError};
use jiff::Timestamp;
use serde_json::Value;

use crate::judge;
use crate::rows::{Row, Step};
use crate::world::{self, World};

/// A fault must have happened, and its state be shown, within this: the longest time-out of the uplink is ten seconds, and machines are slow.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);
/// No event of a row can have waited for longer, whatever was done to the gateway's clock.
const LATENCY_MAX_MS: u64 = 600_000;
/// Of the gateway's warnings, a failure tells so many.
const WARNINGS_TOLD: usize = 30;

/// How a row went.
pub struct Outcome {
    /// What arrived.
    pub account: Account,
    /// How often rules struck.
    pub struck: u64,
    /// States that `status` showed, with the remedy, in the order of the row's steps.
    pub shown: Vec<(String, String)>,
    /// From the end of the last fault until all had arrived.
    pub whole_after: Duration,
    /// Of 100 life-safety events 99 had the centre's receipt so soon after they were sensed, as `status` says; the fault's time is in it.
    pub life_safety_p99_ms: u64,
}

struct Stage {
    site: Site,
    world: World,
    shown: Vec<(String, String)>,
}

/// Plays a row and judges it.
///
/// # Errors
/// Whatever was not as promised.
pub fn play(row: &Row, protocol: Protocol, seed: u64) -> Result<Outcome> {
    let world = World::prepare(row.setting, protocol)?;
    let site = Site::start(&world.plan)?;
    let mut stage = Stage { site, world, shown: Vec::new() };
    stage.play(row, seed).map_err(|e| {
        let warned = stage.site.gateway.process().map(|process| warnings(&process.output())).unwrap_or_default();
        RigError::failed(e.to_string(), format!("the gateway warned:\n{warned}"))
    })
}

/// The last warnings in a gateway's log.
fn warnings(log: &str) -> String {
    let warned: Vec<&str> =
        log.lines().filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\"")).collect();
    warned[warned.len().saturating_sub(WARNINGS_TOLD)..].join("\n")
}

impl Stage {
    fn play(&mut self, row: &Row, seed: u64) -> Result<Outcome> {
        // Who comes first to the broker, gateway or desk, is no part of a row: what was sent before anybody listened is sent again, late.
        self.site.settle()?;
        let before = self.site.gateway.status()?["outbox"]["sequence"].as_u64().unwrap_or(0);
        let traffic = Traffic::start(self.site.nodes.clone(), seed, 40..160)?;
        for (step, n) in row.story.iter().zip(1..) {
            self.act(step).map_err(|e| RigError::failed(format!("step {n}, {step:?}"), e))?;
        }
        let ways = [&self.site.mqtt, &self.site.desk_path];
        let struck = ways.into_iter().flatten().map(MqttProxy::struck).sum();
        self.heal()?;
        traffic.stop()?;
        let healed_at = Instant::now();
        self.site.settle()?;
        let whole_after = healed_at.elapsed();
        let life_safety_p99_ms = self.site.gateway.status()?["uplink"]["latency"]["p99_ms"].as_u64().unwrap_or(0);
        if life_safety_p99_ms > LATENCY_MAX_MS {
            return Err(RigError::failed("read the latency", format!("{life_safety_p99_ms} ms: no row lasts so long")));
        }
        let account = judge::judge(&mut self.site, row, before)?;
        Ok(Outcome { account, struck, shown: std::mem::take(&mut self.shown), whole_after, life_safety_p99_ms })
    }

    fn act(&mut self, step: &Step) -> Result<()> {
        match *step {
            Step::Strike(rules) => {
                let way = self.way()?;
                rules().into_iter().for_each(|rule| way.add(rule));
                Ok(())
            }
            Step::StrikeDesk(rules) => {
                let path = self.desk_path()?;
                rules().into_iter().for_each(|rule| path.add(rule));
                Ok(())
            }
            Step::Struck(times) => self.struck(times),
            Step::Live(events) => self.live(events),
            Step::Shows { state, cause } => self.shows(&[state], cause),
            Step::Tells(cause) => self.shows(&["refused", "offline"], cause),
            Step::Cut => self.way().map(MqttProxy::cut),
            Step::Reset => self.way().map(MqttProxy::reset),
            Step::Stall(direction) => self.way().map(|way| way.stall(direction, true)),
            Step::DeskRate(bytes_per_s) => {
                self.desk_path().map(|path| path.throttle(Direction::ToClient, Some(bytes_per_s)))
            }
            Step::DeskStands(stands) => {
                let path = self.desk_path()?;
                [Direction::ToClient, Direction::ToServer].into_iter().for_each(|way| path.stall(way, stands));
                Ok(())
            }
            Step::DeskAway(away) => self.desk_path().map(|path| path.refuse(away)),
            Step::BrokerFreezes => self.site.broker.freeze(),
            Step::BrokerKilled => {
                self.site.broker.kill();
                Ok(())
            }
            Step::BrokerBack(memory) => self.site.broker.restart(memory),
            Step::BrokerWith(lines) => {
                let lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
                self.site.broker.restart_with(&lines)
            }
            Step::Acl(text) => self.site.broker.set_acl(text),
            Step::BrokersCertificate { validity, of_a_stranger } => {
                self.trust()?.broker_has(validity, of_a_stranger)?;
                self.site.broker.restart(Memory::Keep)
            }
            Step::GatewaysCertificate(validity) => self.certify(validity),
            Step::RevokeGateway => {
                let trust = self.trust()?;
                trust.revoke_gateway()?;
                // A listener's options cannot be given twice: the last line of a listener is its list.
                let list = trust.listener(true).last().cloned().unwrap_or_default();
                self.site.broker.restart_with(&[list])
            }
            Step::Clock(offset) => {
                let file = self.world.clock.as_ref().ok_or_else(|| RigError::failed("set the clock", "no clock"))?;
                world::set_clock(file, offset)
            }
            Step::TellsClock => self.tells_clock(),
            Step::Finds(words) => self.finds(words),
            Step::CertificateEnds => self.certificate_ends(),
            Step::Heal => self.heal(),
        }
    }

    /// Ends what the proxies and a frozen broker do; the rest a story ends itself.
    fn heal(&mut self) -> Result<()> {
        if self.site.broker.process().is_running() {
            self.site.broker.thaw()?;
        }
        [&self.site.mqtt, &self.site.desk_path].into_iter().flatten().for_each(MqttProxy::heal);
        Ok(())
    }

    fn certify(&mut self, validity: Validity) -> Result<()> {
        let trust = self.world.trust.as_mut().ok_or_else(|| RigError::failed("make a certificate", "no authority"))?;
        trust.gateway_has(validity)?;
        // A connection that stands does not ask again: the broker's restart ends it.
        self.site.broker.restart(Memory::Keep)
    }

    /// Until rules have struck so often since the start.
    fn struck(&self, times: u64) -> Result<()> {
        eventually(&format!("{times} faults have happened"), SHOWN_WITHIN, || {
            let ways = [&self.site.mqtt, &self.site.desk_path];
            let struck: u64 = ways.into_iter().flatten().map(MqttProxy::struck).sum();
            if struck >= times { Ok(()) } else { Err(format!("{struck} faults")) }
        })
    }

    /// Until so many more events have happened at the nodes.
    fn live(&self, events: usize) -> Result<()> {
        let happened = || self.site.nodes.iter().map(|node| node.accepted().len()).sum::<usize>();
        let before = happened();
        eventually(&format!("{events} more events"), SHOWN_WITHIN, || match happened() - before {
            more if more >= events => Ok(()),
            more => Err(format!("{more} events")),
        })
    }

    /// Until `status` shows one of these states of the uplink for this cause; the remedy must be there in both languages, and among the findings.
    fn shows(&mut self, states: &[&str], cause: &str) -> Result<()> {
        let what = format!("`status` shows {} {cause}", states.join(" or "));
        let is_one = |uplink: &Value| states.iter().any(|state| uplink["state"] == *state);
        let status = self.site.gateway.wait_until(&what, SHOWN_WITHIN, |status| {
            let uplink = &status["uplink"];
            is_one(uplink) && (cause.is_empty() || uplink["cause"] == cause)
        })?;
        if states == ["online"] {
            return Ok(());
        }
        let word = |key: &str| status["uplink"][key].as_str().unwrap_or_default().to_owned();
        let findings = status["findings"].as_array().cloned().unwrap_or_default();
        let about = |finding: &Value| finding["problem"].as_str().is_some_and(|text| text.contains("uplink"));
        let found = |finding: &Value| about(finding) && finding["remedy"].as_str().is_some_and(|text| !text.is_empty());
        if word("remedy").is_empty() || word("remedy_zh").is_empty() || !findings.iter().any(found) {
            return Err(RigError::failed(what, format!("the remedy is missing: {:#}", status["uplink"])));
        }
        self.shown.push((format!("{}: {}", word("state"), word("cause")), word("remedy")));
        Ok(())
    }

    /// Until the certificate in use is over. (The gateway does not say so where the kernel does not hold its clock for synchronised.)
    fn certificate_ends(&mut self) -> Result<()> {
        let is_over = |status: &Value| {
            let until =
                status["identity"]["current"]["not_after_at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
            until.is_some_and(|until| until < Timestamp::now())
        };
        self.site.gateway.wait_until("the certificate in use is over", SHOWN_WITHIN, is_over).map(|_| ())
    }

    /// Until `status` has a finding with these words; problem and remedy are there in both languages.
    fn finds(&mut self, words: &str) -> Result<()> {
        let of = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let meant = |status: &Value| {
            let findings = status["findings"].as_array().cloned().unwrap_or_default();
            findings.into_iter().find(|finding| of(finding, "problem").contains(words))
        };
        let what = format!("`status` finds \"{words}\"");
        let status = self.site.gateway.wait_until(&what, SHOWN_WITHIN, |status| meant(status).is_some())?;
        let finding = meant(&status).unwrap_or_default();
        if ["problem_zh", "remedy", "remedy_zh"].iter().any(|key| of(&finding, key).is_empty()) {
            return Err(RigError::failed(what, format!("one language or the remedy is missing: {finding:#}")));
        }
        self.shown.push((of(&finding, "problem"), of(&finding, "remedy")));
        Ok(())
    }

    /// The kernel's word is not the row's to change: libfaketime changes the time, not the trust in it.
    fn tells_clock(&mut self) -> Result<()> {
        let status = self.site.gateway.status()?;
        if status["gateway"]["clock"] != "unsynced" {
            return Ok(());
        }
        let findings = status["findings"].as_array().cloned().unwrap_or_default();
        let about = |finding: &&Value| finding["problem"].as_str().is_some_and(|text| text.contains("clock"));
        let remedy = findings.iter().find(about).and_then(|finding| finding["remedy"].as_str()).unwrap_or_default();
        if remedy.is_empty() {
            return Err(RigError::failed("read what `status` says of the clock", format!("{findings:#?}")));
        }
        self.shown.push(("clock: unsynced".to_owned(), remedy.to_owned()));
        Ok(())
    }

    fn way(&self) -> Result<&MqttProxy> {
        self.site.mqtt.as_ref().ok_or_else(|| RigError::failed("break the way to the broker", "this row has no proxy"))
    }

    fn desk_path(&self) -> Result<&MqttProxy> {
        self.site.desk_path.as_ref().ok_or_else(|| RigError::failed("break the desk's way", "this row has no proxy"))
    }

    fn trust(&self) -> Result<&world::Trust> {
        self.world.trust.as_ref().ok_or_else(|| RigError::failed("make a certificate", "this row has no authority"))
    }
}

/// After a row the gateway says by itself that all is well.
///
/// # Errors
/// What it says instead.
pub fn is_well(site: &mut Site) -> Result<Value> {
    site.gateway.wait_until("the uplink is well again", SETTLED_WITHIN, |status| {
        let findings = status["findings"].as_array();
        let about = |finding: &Value| finding["problem"].as_str().unwrap_or_default().starts_with("uplink");
        status["uplink"]["state"] == "online" && findings.is_some_and(|all| !all.iter().any(about))
    })
}
