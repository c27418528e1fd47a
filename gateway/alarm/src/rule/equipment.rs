//! The equipment's own faults: tamper, battery, fault, lost events. Owns when each is a trouble and when not any more; refuses to
//! make an alarm of them, and to judge a voltage: the node knows its battery's datasheet.

use gengfu_contract::words::AlarmKind;

use super::{Decision, news};
use crate::book::Subject;
use crate::device::Device;
use crate::explain::Why;
use crate::observation::Observation;
use crate::pauses::Trouble;
use crate::time::{ms_between, spoken};

/// A case opened or closed. Latches.
pub(crate) fn tamper(decision: &mut Decision, seen: &Observation, open: bool) {
    const RULE: &str = "tamper.case";
    let subject = Subject::of(&seen.device, AlarmKind::Tamper);
    if open {
        let why = Why::new(RULE, "设备外壳被打开", "The device's case was opened");
        decision.raise(&subject, seen.sensed_at, news(seen, why));
    } else {
        let why = Why::new(RULE, "设备外壳已合上；须人工复位", "The device's case is closed again; a reset is due");
        decision.clear(&subject, news(seen, lasted(decision, &subject, seen, why)));
    }
}

/// A battery's measurement. Low by the node's own flag; good again when the flag is gone and the voltage well above the lowest
/// seen: a new battery, not a rested one.
pub(crate) fn battery(decision: &mut Decision, device: &mut Device, seen: &Observation, millivolts: u32, low: bool) {
    const RULE: &str = "battery.low";
    let subject = Subject::of(&seen.device, AlarmKind::LowBattery);
    let recovery_mv = decision.rules.timing.battery_recovery_mv;
    device.battery_mv = Some(millivolts);
    if low {
        device.low_mv = Some(device.low_mv.map_or(millivolts, |lowest| lowest.min(millivolts)));
        let why = Why::new(
            RULE,
            format!("电池电压 {millivolts} mV，低于设备限值，请更换"),
            format!("The battery gives {millivolts} mV, below the device's limit: replace it"),
        );
        decision.raise(&subject, seen.sensed_at, news(seen, why.with("battery_mv", millivolts)));
        return;
    }
    if device.low_mv.is_some_and(|lowest| millivolts < lowest.saturating_add(recovery_mv)) {
        return;
    }
    device.low_mv = None;
    let why =
        Why::new(RULE, format!("电池电压恢复至 {millivolts} mV"), format!("The battery gives {millivolts} mV again"));
    let why = why.with("battery_mv", millivolts).with("recovery_mv", recovery_mv);
    decision.clear(&subject, news(seen, why));
}

/// A device's own fault.
pub(crate) fn fault(decision: &mut Decision, seen: &Observation, faulty: bool) {
    const RULE: &str = "device.fault";
    let subject = Subject::of(&seen.device, AlarmKind::DeviceFault);
    if faulty {
        let why = Why::new(RULE, "设备自检报告故障", "The device reports a fault of its own");
        decision.raise(&subject, seen.sensed_at, news(seen, why));
    } else {
        let why = Why::new(RULE, "设备故障消失", "The device reports no fault any more");
        decision.clear(&subject, news(seen, lasted(decision, &subject, seen, why)));
    }
}

/// What a device says of its own upkeep: [`Trouble::Contaminated`] or [`Trouble::EndOfLife`].
pub(crate) fn upkeep(decision: &mut Decision, seen: &Observation, trouble: Trouble, is_so: bool) {
    let subject = Subject::of(&seen.device, trouble.kind());
    let (zh, en) = match (trouble, is_so) {
        (Trouble::EndOfLife, true) => {
            ("设备报告寿命到期，请更换", "The device says that its service life is over: replace it")
        }
        (Trouble::EndOfLife, false) => ("设备已更换", "The device was replaced"),
        (_, true) => ("探测器报告迷宫污染，请清洁", "The head says that its chamber is dirty: clean it"),
        (_, false) => ("探测器已清洁", "The head was cleaned"),
    };
    let why = Why::new(trouble.rule(), zh, en);
    if is_so {
        decision.raise(&subject, seen.sensed_at, news(seen, why));
    } else {
        decision.clear(&subject, news(seen, lasted(decision, &subject, seen, why)));
    }
}

/// A node lost events that it had accepted. A moment, not a state: acknowledging it ends it. Further losses before that are
/// added to the same trouble.
pub(crate) fn events_lost(decision: &mut Decision, seen: &Observation, first: u32, count: u32) {
    const RULE: &str = "events.lost";
    if count == 0 {
        return;
    }
    let subject = Subject::of(&seen.device, AlarmKind::EventsLost);
    let before = decision.book.find(&subject).map(|alarm| {
        let inputs = &alarm.data.explanation.inputs;
        let number = |name: &str| inputs.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
        (number("lost_events"), number("first_sequence"), number("last_count"))
    });
    if before.is_some_and(|(_, had_first, had_count)| (had_first, had_count) == (u64::from(first), u64::from(count))) {
        return;
    }
    let total = before.map_or(0, |(total, ..)| total).saturating_add(u64::from(count));
    let why = Why::new(
        RULE,
        format!("节点丢失了 {total} 条尚未上报的事件"),
        format!("The node lost {total} events before they could be delivered"),
    );
    let why = why.with("lost_events", total).with("first_sequence", first).with("last_count", count);
    if before.is_some() {
        decision.update(&subject, news(seen, why));
    } else {
        decision.raise(&subject, seen.sensed_at, news(seen, why));
    }
}

fn lasted(decision: &Decision, subject: &Subject, seen: &Observation, why: Why) -> Why {
    let Some(alarm) = decision.book.find(subject) else { return why };
    let lasted_ms = ms_between(alarm.data.since, seen.sensed_at).max(0);
    why.with("lasted_ms", lasted_ms).with("lasted", spoken(lasted_ms).en)
}
