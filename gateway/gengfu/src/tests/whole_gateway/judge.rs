//! What must be true when everything works again.
//!
//! Owns the end of a life: it waits until nothing is under way any more, then compares what the nodes saw, what the gateway holds, what the brokers show and what the centre
//! believes. Refuses to repair anything.

use std::collections::BTreeMap;

use gengfu_contract::slug::Slug;
use gengfu_contract::state::AlarmSnapshot;
use gengfu_contract::words::{AlarmKind, CapStatus, Condition};

use super::slug;
use super::trail::told;
use super::world::World;

/// The longest wait between two tries is 900 s and a quarter; then a connection may have to be made anew.
const REST_WITHIN_S: u64 = 2_700;
/// A gateway at rest states its last sequence within 60 s and a little; but a statement that was lost with connection after connection waits for up to 600 s.
const STATED_WITHIN_S: u64 = 130 + 750;

impl World {
    /// Waits until all is delivered and told, then judges.
    pub fn end(&mut self) {
        self.run_us(20_000_000);
        for second in 0.. {
            if self.is_at_rest() {
                break;
            }
            assert!(second < REST_WITHIN_S, "no rest after {second} s: {}", self.unrest());
            self.run_us(1_000_000);
        }
        self.judge();
        // The statement of it: something may happen meanwhile, which is stated in its turn.
        let from = self.oracle.events.len() as u64;
        for second in 0.. {
            let confirmed = self.centre.model.proof(&slug("gw")).and_then(|proof| proof.confirmed);
            if confirmed >= Some(from) {
                break;
            }
            assert!(second < STATED_WITHIN_S, "event {from} is not stated after {second} s: {confirmed:?}");
            self.run_us(1_000_000);
        }
    }

    fn pending(&self) -> u64 {
        self.gateway
            .as_ref()
            .map_or(u64::MAX, |gateway| gateway.outbox.stats().lanes.iter().map(|lane| lane.pending).sum())
    }

    fn is_at_rest(&self) -> bool {
        let Some(gateway) = &self.gateway else { return false };
        self.nodes.iter().all(|node| node.kept() == 0)
            && self.pending() == 0
            && gateway.outbox.head().sequence == self.oracle.events.len() as u64
            && self.net.current().is_some()
            && self.retained_alarms() == self.open_in_gateway()
            && self.open_at_centre() == self.open_in_gateway()
    }

    fn unrest(&self) -> String {
        let status = self.gateway.as_ref().map(|gateway| gateway.status.borrow().clone());
        let kept: Vec<usize> = self.nodes.iter().map(|node| node.kept()).collect();
        format!(
            "{} pending, nodes keep {kept:?}, on broker {:?}, retained {:?}, at the centre {:?}, in the gateway {:?}, {status:?}",
            self.pending(),
            self.net.current(),
            self.retained_alarms(),
            self.open_at_centre(),
            self.open_in_gateway(),
        )
    }

    /// Open alarms with their revision, as the engine has them.
    fn open_in_gateway(&self) -> BTreeMap<String, u32> {
        let alarms = self.gateway.iter().flat_map(|gateway| gateway.decider.open_alarms());
        alarms.map(|alarm| (alarm.alarm_id, alarm.rev)).collect()
    }

    fn open_at_centre(&self) -> BTreeMap<String, u32> {
        let open = self.centre.model.open_alarms().into_iter();
        open.map(|(_, view)| (view.alarm.alarm_id.clone(), view.alarm.rev)).collect()
    }

    /// As a centre that starts now would see them.
    fn retained_alarms(&self) -> BTreeMap<String, u32> {
        let Some(broker) = self.net.current() else { return BTreeMap::new() };
        let snapshots = self.net.brokers[broker].retained.iter().filter(|(topic, _)| topic.contains("/gw/alarm/"));
        let read = |(_, body): (&String, &Vec<u8>)| serde_json::from_slice::<AlarmSnapshot>(body).unwrap();
        snapshots.map(read).map(|shown| (shown.alarm.alarm_id, shown.alarm.rev)).collect()
    }

    fn judge(&self) {
        let gateway = self.gateway.as_ref().unwrap();
        let report = gateway.outbox.verify().unwrap();
        assert!(report.faults.is_empty(), "{report:?}");
        assert_eq!(report.records, self.oracle.events.len() as u64);
        assert_eq!(self.oracle.open(), self.open_in_gateway(), "the journal's open alarms are not the engine's");
        self.judge_centre();
        self.judge_nodes();
        for index in 0..self.nodes.len() {
            self.judge_levels(index);
        }
    }

    fn judge_centre(&self) {
        let name: Slug = slug("gw");
        let findings = self.centre.model.findings(&name, self.at());
        let faults: Vec<_> = findings.iter().filter(|finding| finding.is_fault()).collect();
        assert!(faults.is_empty(), "{faults:?}");
        let proof = self.centre.model.proof(&name).unwrap();
        assert!(proof.holds(), "{proof}");
        assert_eq!((proof.first, proof.last), (Some(1), Some(self.oracle.events.len() as u64)), "{proof}");
        let missing: Vec<_> = self
            .oracle
            .events
            .iter()
            .filter(|brief| !self.centre.stored.contains(&brief.id))
            .map(|brief| &brief.id)
            .collect();
        assert!(missing.is_empty(), "settled, and not at the centre: {missing:?}");
        assert_eq!(self.centre.stored.len(), self.oracle.events.len(), "the centre has what no journal has");
    }

    /// Of what a node made nothing is missing but what it lost with its memory, and that is told.
    fn judge_nodes(&self) {
        let truth = self.truth.borrow();
        for (boot, events) in &truth.boots {
            let node = &self.nodes[usize::try_from(boot / 10_000 - 1).unwrap()];
            let accepted = u32::try_from(events.len()).unwrap();
            let through = self.oracle.taken.get(boot).copied().unwrap_or_default();
            assert!(through <= accepted, "boot {boot}: {through} taken of {accepted}");
            assert!(boot % 10_000 < node.boots || through == accepted, "boot {boot}: {through} of {accepted} taken");
            let acked = truth.acked.get(boot).copied().unwrap_or_default();
            assert!(through >= acked, "boot {boot}: acknowledged {acked}, taken {through}");
        }
    }

    /// The gateway knows how each door stands, and of every head that sees smoke there is an alarm.
    fn judge_levels(&self, index: usize) {
        let (node, gateway) = (&self.nodes[index], self.gateway.as_ref().unwrap());
        let door = gateway.decider.devices().into_iter().find(|it| it.device.as_str() == format!("door-{index}"));
        let stands = door.map(|door| door.state);
        assert_eq!(stands.as_deref(), Some(if node.door.get() { "open" } else { "closed" }), "door {index}");
        let is_smoke = |alarm: &gengfu_contract::event::AlarmData| {
            alarm.kind == AlarmKind::Smoke
                && alarm.device.as_str() == format!("smoke-{index}")
                && alarm.cap.status == CapStatus::Actual
                && matches!(alarm.condition, Condition::ActiveUnack | Condition::ActiveAck)
        };
        let burning = gateway.decider.open_alarms().iter().filter(|alarm| is_smoke(alarm)).count();
        assert_eq!(burning, usize::from(node.smoke.get()), "head {index}; {:?}", told().last());
    }
}
