//! Cameras that give no usable picture. Owns the trouble, after a hold, and what it does to that camera's open alarms: nobody can
//! tell any more, so they are UNKNOWN and not "still on". Refuses to look at pictures.

use gengfu_contract::slug::Slug;
use gengfu_contract::words::AlarmKind;

use super::{Decision, news};
use crate::book::{News, Subject};
use crate::device::{Outage, Service, Timer};
use crate::explain::Why;
use crate::observation::{Camera, Observation};
use crate::time::{ms, ms_between, spoken};

const RULE: &str = "camera.fault";
const BLIND_RULE: &str = "camera.blind";

/// Judges the state of a camera's stream.
pub(crate) fn observe(decision: &mut Decision, service: &mut Option<Service>, seen: &Observation, camera: &Camera) {
    match camera {
        Camera::Streaming => {
            *service = Some(Service::Good);
            streaming(decision, seen);
        }
        Camera::Fault { reason, detail } => match service {
            Some(Service::Out(outage)) => {
                outage.detail.clone_from(detail);
                if outage.reason != *reason {
                    outage.reason.clone_from(reason);
                    changed(decision, outage, seen);
                }
            }
            _ => {
                let hold = Some(Timer::start(decision.now, decision.now, decision.rules.timing.camera_fault_hold));
                let (reason, detail) = (reason.clone(), detail.clone());
                *service =
                    Some(Service::Out(Outage { since: seen.sensed_at, hold, reason, detail, clock: seen.clock }));
            }
        },
    }
}

/// Raises when the hold has passed.
pub(crate) fn tick(decision: &mut Decision, service: &mut Option<Service>, device: &Slug) {
    let Some(Service::Out(outage)) = service else { return };
    let Some(due_at) = outage.hold.as_ref().filter(|timer| timer.is_due(decision.now)).map(|timer| timer.due_at) else {
        return;
    };
    outage.hold = None;
    let subject = Subject::of(device, AlarmKind::CameraFault);
    let why = told(outage).with("hold_ms", ms(decision.rules.timing.camera_fault_hold));
    decision.raise(&subject, outage.since, News::at(due_at, outage.clock, None, why));
    let scenes = decision.book.iter().filter(|alarm| alarm.subject.device == *device && alarm.subject.spot.is_some());
    let scenes: Vec<Subject> = scenes.map(|alarm| alarm.subject.clone()).collect();
    for subject in scenes {
        let (zh, en) = (
            "摄像机无可用画面，无法判断是否仍然存在",
            "The camera gives no usable picture: nobody can tell whether it is still so",
        );
        let why = Why::new(BLIND_RULE, zh, en).with("camera_fault", outage.reason.clone());
        decision.lose_sight(&subject, News::at(due_at, outage.clock, None, why));
    }
}

fn told(outage: &Outage) -> Why {
    Why::new(
        RULE,
        format!("摄像机无可用画面（{}）：{}", in_chinese(&outage.reason), outage.detail),
        format!("The camera gives no usable picture ({}): {}", outage.reason, outage.detail),
    )
    .with("reason", outage.reason.clone())
    .with("detail", outage.detail.clone())
    .with("fault_since", outage.since.to_string())
}

/// A reason for people; the reason itself where this version does not know it.
fn in_chinese(reason: &str) -> &str {
    match reason {
        "no_frames" => "连接正常但无画面",
        "frozen" => "画面静止不变",
        "dark" => "画面过暗",
        "blown_out" => "画面过曝",
        "covered" => "镜头被遮挡",
        "moved" => "镜头移位",
        "defocused" => "镜头失焦或脏污",
        "open" => "无法连接",
        "no_video" => "没有可解码的视频",
        "closed" => "连接中断",
        "silence" => "无数据",
        "corrupt" | "unreadable" => "数据无法解码",
        "ended" => "录像已播完",
        "worker" | "stuck" => "处理程序故障",
        "detector" => "识别程序故障",
        "configuration" | "config" => "配置错误",
        "sandbox" => "运行环境受限",
        other => other,
    }
}

fn changed(decision: &mut Decision, outage: &Outage, seen: &Observation) {
    let subject = Subject::of(&seen.device, AlarmKind::CameraFault);
    if decision.book.is_active(&subject) {
        decision.update(&subject, news(seen, told(outage)));
    }
}

fn streaming(decision: &mut Decision, seen: &Observation) {
    let subject = Subject::of(&seen.device, AlarmKind::CameraFault);
    let Some(alarm) = decision.book.find(&subject) else { return };
    let lasted_ms = ms_between(alarm.data.since, seen.sensed_at).max(0);
    let lasted = spoken(lasted_ms);
    let why =
        Why::new(RULE, format!("画面恢复，中断 {}", lasted.zh), format!("Pictures arrive again after {}", lasted.en));
    decision.clear(&subject, news(seen, why.with("lasted_ms", lasted_ms)));
}
