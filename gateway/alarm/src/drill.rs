//! The scheduled test of the whole path: an alarm of the gateway about itself, in the fire lane, that is no fire.
//!
//! Owns its beginning and end. It is a smoke alarm with CAP status Test, so that it travels exactly as a fire does; it sounds nothing,
//! asks for nobody and ends by itself. Refuses to know when it is due and whether it arrived: who holds the journal does.

use gengfu_contract::event::ClockQuality;
use gengfu_contract::words::{AlarmKind, Text};
use jiff::Timestamp;

use crate::book::{News, Subject};
use crate::engine::Engine;
use crate::explain::Why;
use crate::output::Output;
use crate::rule::Decision;
use crate::rules::Rules;

const RULE: &str = "drill.path";

fn subject(rules: &Rules) -> Subject {
    Subject { test: true, ..Subject::of(&rules.gateway, AlarmKind::Smoke) }
}

pub(crate) fn is_one(rules: &Rules, alarm: &Subject) -> bool {
    alarm.test && alarm.device == rules.gateway
}

pub(crate) fn title() -> Text {
    Text { zh: "例行测试（报警通道）".into(), en: "Scheduled test of the alarm path".into() }
}

impl Engine {
    /// Begins the test; the raised alarm's event is the one to be received. Nothing while one is under way.
    pub fn begin_drill(&mut self, now: Timestamp, clock: ClockQuality, scheduled: bool) -> Vec<Output> {
        self.take_time(now);
        let mut out = Vec::new();
        let subject = subject(&self.rules);
        let (zh, en) = (
            "例行测试：检验报警能否到达中心，无须处置",
            "A scheduled test: does an alarm reach the centre? Nothing is to be done",
        );
        let why = Why::new(RULE, zh, en).with("scheduled", scheduled);
        let mut decision = Decision { rules: &self.rules, book: &mut self.book, now, out: &mut out };
        decision.raise(&subject, now, News::at(now, clock, None, why));
        out
    }

    /// Ends the test, however it went. Nothing when none is under way.
    pub fn end_drill(&mut self, now: Timestamp, clock: ClockQuality, latency_ms: Option<i64>) -> Vec<Output> {
        self.take_time(now);
        let mut out = Vec::new();
        let subject = subject(&self.rules);
        let why = match latency_ms {
            Some(ms) => Why::new(
                RULE,
                format!("测试成功：{ms} 毫秒后获中心回执"),
                format!("The test arrived: receipt after {ms} ms"),
            )
            .with("latency_ms", ms),
            None => Why::new(RULE, "测试失败：未获中心回执", "The test failed: no receipt of the centre"),
        };
        let mut decision = Decision { rules: &self.rules, book: &mut self.book, now, out: &mut out };
        decision.clear(&subject, News::at(now, clock, None, why));
        out
    }
}
