//! What a node's levels and its own measurements mean (W25, W29).
//!
//! Owns the comparison of levels with the edges that were taken, what is passed on of heartbeats and batteries, and what becomes of an event that
//! no configured device can have said. Refuses to judge a level while edges numbered before it are still to come.

use gengfu_alarm::observation::What;
use gengfu_contract::event::Origin;
use gengfu_contract::words::Text;
use gengfu_wire::{Event, Heartbeat, Level, NODE_CHANNEL};
use jiff::SignedDuration;

use super::{Now, OBSERVATIONS_MAX, Session};
use crate::link::mapping;
use crate::link::stats::Discard;

/// A heartbeat is passed on at most this often.
const HEARTBEAT_EVERY: SignedDuration = SignedDuration::from_secs(60);
/// A battery's change worth telling, in millivolts.
const BATTERY_STEP_MV: u16 = 50;

impl Session {
    /// Keeps the level that an event led to, so that the next heartbeat brings no news.
    pub(super) fn remember(&mut self, event: Event) {
        use gengfu_wire::EventKind::{Battery, FaultCleared, FaultRaised};
        match event.kind {
            FaultRaised | FaultCleared => {
                self.taken.faults.insert(event.channel, event.kind == FaultRaised);
            }
            Battery(battery) => self.battery_told = Some(battery),
            edge => {
                if let Some(level) = Level::after(edge) {
                    self.taken.levels.insert(event.channel, level);
                }
            }
        }
    }

    /// An event that no configured device can have said (W29).
    pub(super) fn on_unmapped(&mut self, now: Now, event: Event, origin: Origin, reason: Discard) {
        let Event { channel, kind, sequence, .. } = event;
        let (text, remedy) = match self.config.channels.get(&channel) {
            Some((device, class)) => (
                Text {
                    zh: format!("通道 {channel} 配置为 {device}（{}），但节点发送的是 {kind:?}", class.as_str()),
                    en: format!(
                        "channel {channel} is {device}, a {} device, but the node sends {kind:?}",
                        class.as_str()
                    ),
                },
                Text {
                    zh: "更正配置中该设备的类型或通道，或节点的接线".into(),
                    en: "correct class or channel of the device in the configuration, or the node's wiring".into(),
                },
            ),
            None => (
                Text {
                    zh: format!("节点在未配置的通道 {channel} 上发送 {kind:?}"),
                    en: format!("the node sends {kind:?} on channel {channel}, which is not configured"),
                },
                Text {
                    zh: "在配置中为该通道添加 [[node.device]]".into(),
                    en: "add a [[node.device]] with this channel to the configuration".into(),
                },
            ),
        };
        self.stats.warn(text, remedy);
        self.discard(reason, &event);
        if kind.is_life_safety() {
            self.stats.events_lost += 1;
            let lost = What::EventsLost { first: sequence, count: 1 };
            self.see(now, self.config.node.clone(), now.at, Some(origin), lost);
        }
    }

    pub(super) fn on_heartbeat(&mut self, now: Now, heartbeat: &Heartbeat) {
        self.clock_sample(now, heartbeat.uptime_ms);
        self.note_numbered(heartbeat.boot, heartbeat.next_sequence);
        // Edges that are still to come would be judged twice, and out of order (W25).
        let has_all = self.taken.through(heartbeat.boot).is_some_and(|through| through + 1 == heartbeat.next_sequence);
        if has_all && self.waiting.len() < OBSERVATIONS_MAX {
            self.repair_levels(now, heartbeat);
        }
        if let Some(battery) = heartbeat.battery
            && self.battery_told.is_none_or(|told| {
                told.low != battery.low || told.millivolts.abs_diff(battery.millivolts) >= BATTERY_STEP_MV
            })
        {
            self.battery_told = Some(battery);
            let what = mapping::event(gengfu_wire::EventKind::Battery(battery));
            if let Ok(device) =
                mapping::device(&self.config, NODE_CHANNEL, gengfu_wire::EventKind::Battery(battery)).cloned()
            {
                self.see(now, device, now.at, None, what);
            }
        }
        if self.heartbeat_told_at.is_none_or(|at| now.at.duration_since(at).abs() >= HEARTBEAT_EVERY) {
            self.heartbeat_told_at = Some(now.at);
            self.see(now, self.config.node.clone(), now.at, None, What::Heartbeat);
        }
    }

    fn repair_levels(&mut self, now: Now, heartbeat: &Heartbeat) {
        for it in &heartbeat.levels {
            let device = match mapping::device(&self.config, it.channel, it.level.edge()).cloned() {
                Ok(device) => device,
                Err(reason) => {
                    self.discard(reason, it);
                    continue;
                }
            };
            // A failed batch that may be durable all the same: both are told again, whatever was known.
            let is_unsure = self.taken.unsure.remove(&it.channel);
            let before = self.taken.levels.insert(it.channel, it.level);
            if before != Some(it.level) || is_unsure {
                // At the first contact a level is news; later it is a repair.
                self.stats.repaired += u64::from(before.is_some());
                tracing::info!(node = %self.config.node, %device, ?before, now = ?it.level, "level taken from a heartbeat");
                self.see(now, device.clone(), now.at, None, mapping::state(it.level, true));
            }
            let had_fault = self.taken.faults.insert(it.channel, it.fault).unwrap_or(false);
            if had_fault != it.fault || is_unsure {
                self.see(now, device, now.at, None, What::DeviceFault(it.fault));
            }
        }
    }
}
