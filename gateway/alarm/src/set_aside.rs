//! Shelving, taking out of service and testing: the orders of people, their limits, and what ends by itself.
//!
//! Owns the ways in ([`Engine::shelve`], [`Engine::unshelve`], [`Engine::serve`], [`Engine::end_service`]) and the end of each. Refuses what
//! goes beyond the limits, with the remedy, and never touches a condition.

use gengfu_contract::command::Outcome;
use gengfu_contract::event::{EventType, Side};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::{AlarmKind, CapStatus};
use jiff::{SignedDuration, Timestamp};

use crate::book::{Alarm, Book};
use crate::condition::Ending;
use crate::engine::{Answer, Engine, done, refused};
use crate::output::Output;
use crate::sides::{SHELVE_MAX, Service, Shelf, Terms, is_quiet, may_be_shelved};

/// Longest reason and name, bytes.
const TEXT_MAX_BYTES: usize = 256;

impl Engine {
    /// The centre puts a kind of alarm of one device aside until the terms end. Its open alarms are told as `shelved`, its new ones too; nothing
    /// is raised or escalated. Shelving anew changes the terms. Refused: smoke, SOS, an overdue receipt; a device or
    /// zone that is not configured; an end that has passed or lies more than 8 h ahead; no reason.
    pub fn shelve(&mut self, now: Timestamp, shelf: &Shelf, terms: &Terms) -> Answer {
        self.take_time(now);
        if !may_be_shelved(shelf.kind) || !shelf.kind.is_known() {
            return refused(
                Outcome::Refused,
                format!("“{}”不可搁置：生命安全类报警只能确认或复位", shelf.kind.title().zh),
                format!("{} cannot be shelved: what saves lives is acknowledged or reset, never hidden", shelf.kind),
            );
        }
        if let Some(refusal) = self.no_device(&shelf.device, true).or_else(|| bad_terms(now, terms, SHELVE_MAX)) {
            return refusal;
        }
        if let Some(zone) = shelf.zone.as_ref().filter(|zone| self.rules.zone(&shelf.device, zone).is_none()) {
            return refused(
                Outcome::Refused,
                format!("{} 没有区域 {zone}，请检查名称", shelf.device),
                format!("{} has no zone {zone}: check the name, or leave `zone` out", shelf.device),
            );
        }
        self.book.sides_mut().shelve(shelf.clone(), terms.clone());
        let mut out = Vec::new();
        self.book.take_aside(now, &mut out, |alarm| {
            shelf.holds(&alarm.subject.device, alarm.subject.kind, alarm.subject.zone.as_ref())
        });
        done(out)
    }

    /// The centre takes a shelving back; what is still so is raised. What is not shelved was taken back before.
    pub fn unshelve(&mut self, now: Timestamp, shelf: &Shelf) -> Answer {
        self.take_time(now);
        let mut out = Vec::new();
        if self.book.sides_mut().unshelve(shelf) {
            self.book.bring_back(now, &mut out);
        }
        done(out)
    }

    /// A technician takes a device, with all it carries, out of service or begins to test it. Refused: a device that is not configured, an end that
    /// has passed or lies beyond the limit, no reason or name.
    pub fn serve(&mut self, now: Timestamp, device: &Slug, service: Service, terms: &Terms) -> Answer {
        self.take_time(now);
        let names = self.with_carried(device);
        let refusal = self.no_device(device, false).or_else(|| bad_terms(now, terms, service.longest()));
        let open_fire = || self.open_fire(&names).filter(|_| service == Service::Test);
        if let Some(refusal) = refusal.or_else(open_fire) {
            return refusal;
        }
        let mut out = Vec::new();
        for name in &names {
            let before = self.book.sides_mut().serve(name, service, terms.clone());
            if before == Some(Service::Test) && service == Service::Out {
                self.book.end_test(now, name, &mut out);
            }
        }
        if service == Service::Out {
            self.book.take_aside(now, &mut out, |alarm| names.contains(&alarm.subject.device));
        } else {
            // Out of service before, a test now: what is still so counts again.
            self.book.bring_back(now, &mut out);
        }
        done(out)
    }

    /// A technician gives a device, with all it carries, back. What is still so is raised.
    pub fn end_service(&mut self, now: Timestamp, device: &Slug) -> Answer {
        self.take_time(now);
        if let Some(refusal) = self.no_device(device, false) {
            return refusal;
        }
        let mut out = Vec::new();
        for name in self.with_carried(device) {
            self.end_service_of(now, &name, &mut out);
        }
        self.book.bring_back(now, &mut out);
        done(out)
    }

    /// What is shelved, and on what terms.
    pub fn shelves(&self) -> impl Iterator<Item = (&Shelf, &Terms)> {
        self.book.sides().shelves()
    }

    /// What is out of service or being tested, and on what terms.
    pub fn services(&self) -> impl Iterator<Item = (&Slug, Service, &Terms)> {
        self.book.sides().services()
    }

    /// Ends what has reached its end.
    pub(crate) fn end_sides(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let (shelves, services) = self.book.sides().due(now);
        if shelves.is_empty() && services.is_empty() {
            return;
        }
        for shelf in &shelves {
            self.book.sides_mut().unshelve(shelf);
        }
        for device in &services {
            self.end_service_of(now, device, out);
        }
        self.book.bring_back(now, out);
    }

    fn end_service_of(&mut self, now: Timestamp, device: &Slug, out: &mut Vec<Output>) {
        if self.book.sides_mut().unserve(device) == Some(Service::Test) {
            self.book.end_test(now, device, out);
        }
    }

    fn with_carried(&self, device: &Slug) -> Vec<Slug> {
        let carried = self.rules.carried_by(device).into_iter().cloned();
        std::iter::once(device.clone()).chain(carried).collect()
    }

    /// The refusal for a device that is not configured. The gateway's own troubles are about the gateway itself.
    fn no_device(&self, device: &Slug, or_gateway: bool) -> Option<Answer> {
        let known = self.rules.devices.contains_key(device) || (or_gateway && *device == self.rules.gateway);
        (!known).then(|| {
            refused(
                Outcome::Refused,
                format!("本网关没有设备 {device}，请检查名称（gengfu status）"),
                format!("there is no device {device} here: check the name (gengfu status lists them)"),
            )
        })
    }

    /// A test would make a fire that is open now come back as the real one: it must be ended first.
    fn open_fire(&self, names: &[Slug]) -> Option<Answer> {
        let is_open = |alarm: &&Alarm| {
            names.contains(&alarm.subject.device)
                && alarm.subject.kind.lane().is_life_safety()
                && alarm.data.cap.status == CapStatus::Actual
        };
        self.book.iter().find(is_open).map(|alarm| {
            let (device, kind) = (&alarm.subject.device, alarm.subject.kind);
            refused(
                Outcome::Refused,
                format!("{device} 有未结束的“{}”，复位后才能测试", kind.title().zh),
                format!("{device} has an open alarm ({kind}): have it reset, then test"),
            )
        })
    }
}

fn bad_terms(now: Timestamp, terms: &Terms, longest: SignedDuration) -> Option<Answer> {
    let minutes = longest.as_mins();
    if terms.until <= now || terms.until.duration_since(now) > longest {
        return Some(refused(
            Outcome::Refused,
            format!("截止时间须在现在与 {minutes} 分钟之内"),
            format!("it ends between now and {minutes} min ahead: give another end"),
        ));
    }
    let is_text = |text: &str| !text.trim().is_empty() && text.len() <= TEXT_MAX_BYTES;
    (!is_text(&terms.reason) || !is_text(&terms.who)).then(|| {
        refused(
            Outcome::Refused,
            format!("须写明原因和姓名，各不超过 {TEXT_MAX_BYTES} 字节"),
            format!("a reason and a name are needed, each of at most {TEXT_MAX_BYTES} bytes"),
        )
    })
}

impl Book {
    /// Open alarms that are meant fall quiet: each is told as `shelved`. A test is left alone.
    fn take_aside(&mut self, now: Timestamp, out: &mut Vec<Output>, is_meant: impl Fn(&Alarm) -> bool) {
        let meant = |alarm: &&Alarm| is_meant(alarm) && alarm.data.cap.status == CapStatus::Actual;
        let ids: Vec<String> = self.iter().filter(meant).map(|alarm| alarm.data.alarm_id.clone()).collect();
        for id in ids {
            let told = self.tell(now, &id, |_| Some(EventType::AlarmShelved));
            out.extend(told.map(Output::Alarm));
        }
    }

    /// Open alarms that were quiet and have no reason to be so any more: what is still there is raised, the rest is told as `unshelved`.
    fn bring_back(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let sides = self.sides();
        let is_back =
            |alarm: &&Alarm| is_quiet(alarm.data.side.as_ref()) && sides.of(&alarm.subject) != alarm.data.side;
        let ids: Vec<(String, Option<Side>)> =
            self.iter().filter(is_back).map(|alarm| (alarm.data.alarm_id.clone(), sides.of(&alarm.subject))).collect();
        for (id, side) in ids {
            let told = self.tell(now, &id, |alarm| {
                if is_quiet(side.as_ref()) {
                    return Some(EventType::AlarmShelved);
                }
                alarm.machine.set_ending(Ending::of(alarm.subject.kind, alarm.subject.test));
                Some(alarm.machine.ask_again().unwrap_or(EventType::AlarmUnshelved))
            });
            out.extend(told.map(Output::Alarm));
        }
    }

    /// A device's test is over: what began as a test and is still there is meant from now on. What no sensor ever takes back (a
    /// button's press) was the test itself, and ends with it.
    fn end_test(&mut self, now: Timestamp, device: &Slug, out: &mut Vec<Output>) {
        let begun = |alarm: &&Alarm| {
            alarm.subject.device == *device && !alarm.subject.test && alarm.data.cap.status == CapStatus::Test
        };
        let ids: Vec<String> = self.iter().filter(begun).map(|alarm| alarm.data.alarm_id.clone()).collect();
        for id in ids {
            let told = self.tell(now, &id, |alarm| {
                if is_moment(alarm.subject.kind) {
                    return alarm.machine.end();
                }
                alarm.machine.set_ending(Ending::of(alarm.subject.kind, false));
                alarm.data.cap.status = CapStatus::Actual;
                Some(alarm.machine.ask_again().unwrap_or(EventType::AlarmUpdated))
            });
            out.extend(told.map(Output::Alarm));
        }
    }
}

/// Kinds that begin and are never taken back by a sensor.
fn is_moment(kind: AlarmKind) -> bool {
    matches!(Ending::of(kind, false), Ending::Reset | Ending::Acknowledged)
}
