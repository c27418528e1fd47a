//! What a centre asks about homes: when was the door last opened, and can that be trusted.
//!
//! Owns the contract's view of a home ([`HomeActivity`]). Refuses judgement: the levels are the care rule's.

use gengfu_contract::command::Whereabouts;
use gengfu_contract::query::{HomeActivity, HomePause};
use gengfu_contract::slug::Slug;
use jiff::Timestamp;

use crate::engine::Engine;
use crate::home::PauseKind;

impl Engine {
    /// Every home with a care rule, or those of `doors`; a door without a care rule is left out.
    #[must_use]
    pub fn home_activities(&self, now: Timestamp, doors: &[Slug]) -> Vec<HomeActivity> {
        let homes = self.rules().timing.care.homes.keys();
        if doors.is_empty() {
            return homes.map(|door| self.home_activity(now, door)).collect();
        }
        let known = doors.iter().filter(|door| self.rules().timing.care.homes.contains_key(*door));
        known.map(|door| self.home_activity(now, door)).collect()
    }

    fn home_activity(&self, now: Timestamp, door: &Slug) -> HomeActivity {
        let state = self.device_state(door);
        let home = self.homes.homes.get(door);
        let pause = home.and_then(|home| home.pause.as_ref()).filter(|pause| now < pause.until);
        let contact = self.devices.get(door).and_then(|device| device.door.as_ref());
        HomeActivity {
            door: door.clone(),
            subject_ref: self.rules().device(door).subject_ref.clone(),
            state: state.state,
            last_opened_at: contact.and_then(|contact| contact.opened_at),
            last_heard_at: state.last_heard_at,
            coverage_percent: state.coverage_percent,
            level: home.and_then(|home| home.level),
            pause: pause.map(|pause| HomePause {
                what: match pause.kind {
                    PauseKind::Absence => Whereabouts::Away,
                    PauseKind::Visit => Whereabouts::Visited,
                    PauseKind::Call => Whereabouts::Well,
                },
                until: pause.until,
                operator: pause.operator.clone(),
            }),
            troubles: state.troubles,
        }
    }
}
