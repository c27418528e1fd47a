//! What a person at the desk has before them: which alarm, which screen, which question; and what each key means.
//!
//! Owns the keys. Pure: a key and the model in, an order out. It refuses to forbid what the gateway would refuse: the gateway's answer is
//! shown instead, but for what cannot be said at all (a rejection without a reason, a shelving without an end).

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use gengfu_contract::case::{CaseStage, RejectReason};
use gengfu_contract::command::Outcome;
use gengfu_contract::query::QueryWhat;
use gengfu_contract::slug::Slug;

use super::super::model::{AlarmView, DeskModel};
use super::super::orders::{Action, AlarmOrder, CaseOrder, GatewayOrder, Order, span};
use super::super::told::DeskEvent;

/// In which language it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// Chinese, then English.
    #[default]
    Both,
    /// Chinese.
    Chinese,
    /// English.
    English,
}

impl Language {
    /// One thing said in it.
    #[must_use]
    pub fn say(self, zh: &str, en: &str) -> String {
        match self {
            Language::Both => format!("{zh} {en}"),
            Language::Chinese => zh.to_owned(),
            Language::English => en.to_owned(),
        }
    }
}

/// A question that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Why is the case rejected or returned: a number.
    Why(CaseStage),
    /// For how long is it shelved, and why: a line of text.
    Shelve(String),
    /// What is asked: a letter.
    Query,
}

/// What is before the person.
#[derive(Debug)]
pub struct State {
    /// Who sits here; opaque to the gateway.
    pub operator: String,
    /// The language.
    pub language: Language,
    /// The alarm chosen: gateway and id. The first when it is gone.
    pub chosen: Option<(Slug, String)>,
    /// One alarm in full instead of the lists.
    pub is_detail: bool,
    /// The question that is open.
    pub question: Option<Question>,
    /// Receipts wait for an order.
    pub holds_receipts: bool,
    /// The last thing to say: an answer, a refusal.
    pub note: String,
}

/// What comes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one of it lives, from a key to what it does")]
pub enum Reaction {
    /// Nothing for others.
    Nothing,
    /// Give this order.
    Order(Order),
    /// The person leaves.
    Leave,
}

impl State {
    /// The start: no alarm chosen, no question.
    #[must_use]
    pub fn new(operator: &str, holds_receipts: bool) -> Self {
        Self {
            operator: operator.to_owned(),
            language: Language::default(),
            chosen: None,
            is_detail: false,
            question: None,
            holds_receipts,
            note: String::new(),
        }
    }

    /// The alarm chosen, or the most urgent one.
    #[must_use]
    pub fn alarm<'m>(&self, model: &'m DeskModel) -> Option<(&'m Slug, &'m AlarmView)> {
        let chosen = self.chosen.as_ref().and_then(|(gateway, id)| {
            let (gateway, view) = model.gateways().get_key_value(gateway)?;
            Some((gateway, view.alarms.get(id)?))
        });
        chosen.or_else(|| rows(model).into_iter().next())
    }

    /// Keeps an answer before the person's eyes.
    pub fn note_of(&mut self, event: &DeskEvent) {
        let DeskEvent::Reply { reply, verb: Some(verb), about, .. } = event else { return };
        let word = outcome(self.language, reply.outcome);
        let why = reply.reason.as_ref().map(|why| format!(": {}", self.language.say(&why.zh, &why.en)));
        self.note = format!("{verb} {} → {word}{}", about.as_deref().unwrap_or_default(), why.unwrap_or_default());
    }

    /// Says that something cannot be done.
    pub fn refuse(&mut self, zh: &str, en: &str) {
        self.note = self.language.say(zh, en);
    }

    /// What a key means.
    pub fn key(&mut self, key: KeyEvent, model: &DeskModel) -> Reaction {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Reaction::Leave;
        }
        if let Some(question) = self.question.take() {
            return self.answer(question, key.code, model);
        }
        match key.code {
            KeyCode::Char('Q') => return Reaction::Leave,
            KeyCode::Esc if self.is_detail => self.is_detail = false,
            KeyCode::Esc => return Reaction::Leave,
            KeyCode::Enter => self.is_detail = !self.is_detail,
            KeyCode::Up | KeyCode::Char('k') => self.go(model, -1),
            KeyCode::Down | KeyCode::Char('j') => self.go(model, 1),
            KeyCode::Char('l') => {
                self.language = match self.language {
                    Language::Both => Language::Chinese,
                    Language::Chinese => Language::English,
                    Language::English => Language::Both,
                }
            }
            KeyCode::Char('m') => {
                self.holds_receipts = !self.holds_receipts;
                return Reaction::Order(Order::HoldReceipts(self.holds_receipts));
            }
            KeyCode::Char('e') => return Reaction::Order(Order::SendReceipts),
            KeyCode::Char('q') => self.question = Some(Question::Query),
            KeyCode::Char(letter) => return self.about_alarm(letter, model),
            _ => {}
        }
        Reaction::Nothing
    }

    fn go(&mut self, model: &DeskModel, step: isize) {
        let rows = rows(model);
        let here = self.alarm(model).and_then(|(gateway, alarm)| {
            rows.iter().position(|(g, a)| *g == gateway && a.alarm.alarm_id == alarm.alarm.alarm_id)
        });
        let next = here.unwrap_or(0).saturating_add_signed(step).min(rows.len().saturating_sub(1));
        self.chosen = rows.get(next).map(|(gateway, alarm)| ((*gateway).clone(), alarm.alarm.alarm_id.clone()));
    }

    /// Keys that are about the alarm chosen.
    fn about_alarm(&mut self, letter: char, model: &DeskModel) -> Reaction {
        if !"afdncrbsuRp".contains(letter) {
            return Reaction::Nothing;
        }
        let Some((gateway, alarm)) = self.alarm(model) else {
            self.refuse("没有报警", "there is no alarm");
            return Reaction::Nothing;
        };
        let (gateway, data) = (gateway.clone(), &alarm.alarm);
        let about =
            AlarmOrder { gateway: gateway.clone(), alarm_id: data.alarm_id.clone(), operator: self.operator.clone() };
        let stage = match letter {
            'a' => return Reaction::Order(Order::Ack(about)),
            'R' => return Reaction::Order(Order::Reset(about)),
            'r' => return self.ask(Question::Why(CaseStage::Rejected)),
            'b' => return self.ask(Question::Why(CaseStage::Returned)),
            's' => return self.ask(Question::Shelve(String::new())),
            'p' => return self.give(gateway, Action::Snapshot { camera: data.device.clone() }),
            'u' => {
                let (device, kind, zone) = (data.device.clone(), data.kind, data.zone.clone());
                return self.give(gateway, Action::Unshelve { device, kind, zone });
            }
            'f' => Some(CaseStage::Filed),
            'd' => Some(CaseStage::Dispatched),
            'c' => Some(CaseStage::Closed),
            _ => next_stage(stage_of(alarm)),
        };
        let Some(stage) = stage else {
            self.refuse("案件已完结", "the case is over");
            return Reaction::Nothing;
        };
        let case = CaseOrder::next(&data.alarm_id, data.case.as_ref().map(|case| case.case_id.as_str()), stage);
        self.give(gateway, Action::Case(case))
    }

    fn ask(&mut self, question: Question) -> Reaction {
        self.question = Some(question);
        Reaction::Nothing
    }

    fn give(&self, gateway: Slug, action: Action) -> Reaction {
        Reaction::Order(Order::Give(GatewayOrder { gateway, operator: self.operator.clone(), action }))
    }

    fn answer(&mut self, question: Question, key: KeyCode, model: &DeskModel) -> Reaction {
        if key == KeyCode::Esc {
            return Reaction::Nothing;
        }
        match question {
            Question::Why(stage) => self.why(stage, key, model),
            Question::Query => self.query(key, model),
            Question::Shelve(mut text) => match key {
                KeyCode::Enter => self.shelve(text, model),
                KeyCode::Backspace => {
                    text.pop();
                    self.ask(Question::Shelve(text))
                }
                KeyCode::Char(letter) if text.chars().count() < 200 => {
                    text.push(letter);
                    self.ask(Question::Shelve(text))
                }
                _ => self.ask(Question::Shelve(text)),
            },
        }
    }

    fn why(&mut self, stage: CaseStage, key: KeyCode, model: &DeskModel) -> Reaction {
        let number = match key {
            KeyCode::Char(digit) => digit.to_digit(10).and_then(|n| (n as usize).checked_sub(1)),
            _ => None,
        };
        let reason = number.and_then(|n| RejectReason::ALL.get(n).copied());
        let (Some(reason), Some((gateway, alarm))) = (reason, self.alarm(model)) else {
            return self.ask(Question::Why(stage));
        };
        let data = &alarm.alarm;
        let mut case = CaseOrder::next(&data.alarm_id, data.case.as_ref().map(|case| case.case_id.as_str()), stage);
        case.reason = Some(reason);
        self.give(gateway.clone(), Action::Case(case))
    }

    fn query(&mut self, key: KeyCode, model: &DeskModel) -> Reaction {
        let what = match key {
            KeyCode::Char('h') => QueryWhat::Homes,
            KeyCode::Char('d') => QueryWhat::Devices,
            KeyCode::Char('a') => QueryWhat::Alarms,
            KeyCode::Char('j') => QueryWhat::Journal,
            _ => return self.ask(Question::Query),
        };
        let gateway = self.alarm(model).map(|(gateway, _)| gateway).or_else(|| model.gateways().keys().next());
        let Some(gateway) = gateway.cloned() else {
            self.refuse("没有网关", "there is no gateway");
            return Reaction::Nothing;
        };
        // Of the journal, what is missing here: the answer heals the gap.
        let gap = model.proof(&gateway).and_then(|proof| proof.missing.first().copied());
        let (from, to) = if what == QueryWhat::Journal { gap.unzip() } else { (None, None) };
        self.give(gateway, Action::Query { what, devices: Vec::new(), from, to })
    }

    fn shelve(&mut self, text: String, model: &DeskModel) -> Reaction {
        let (lasts, reason) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let reason = reason.trim().to_owned();
        let Some((gateway, alarm)) = self.alarm(model) else { return Reaction::Nothing };
        match span(lasts) {
            Ok(lasts) if !reason.is_empty() => {
                let (device, kind, zone) = (alarm.alarm.device.clone(), alarm.alarm.kind, alarm.alarm.zone.clone());
                self.give(gateway.clone(), Action::Shelve { device, kind, zone, lasts, reason })
            }
            _ => {
                self.refuse("先写时长再写原因，如 2h 施工", "a time and a reason, as in 2h roadworks");
                self.ask(Question::Shelve(text))
            }
        }
    }
}

/// The rows of the alarm list: open ones by urgency and age, then those that are over.
#[must_use]
pub fn rows(model: &DeskModel) -> Vec<(&Slug, &AlarmView)> {
    let mut rows = model.open_alarms();
    rows.extend(model.over_alarms());
    rows
}

/// Where the case stands: as the gateway was last told and keeps it, or as was ordered here and done.
#[must_use]
pub fn stage_of(alarm: &AlarmView) -> Option<CaseStage> {
    let told = alarm.alarm.case.as_ref().map(|case| case.stage);
    let ordered = alarm.orders.iter().rev().filter(|order| matches!(order.answer, Some((Outcome::Done, _))));
    let ordered = ordered.filter_map(|order| {
        let word = order.what.strip_prefix("case ")?.rsplit(' ').next()?;
        CaseStage::ALL.iter().copied().find(|stage| stage.as_str() == word)
    });
    ordered.into_iter().next().or(told)
}

/// The stage after this one on the plain way.
#[must_use]
pub fn next_stage(stage: Option<CaseStage>) -> Option<CaseStage> {
    use CaseStage::*;
    let way = [Filed, Dispatched, Accepted, InProgress, Feedback, Verifying, Closed, Rated];
    match stage {
        None | Some(Reported | Rejected) => Some(Filed),
        Some(Returned) => Some(Dispatched),
        Some(stage) => way.iter().skip_while(|known| **known != stage).nth(1).copied(),
    }
}

/// An outcome in words.
#[must_use]
pub fn outcome(language: Language, outcome: Outcome) -> String {
    match outcome {
        Outcome::Accepted => language.say("已受理", "accepted"),
        Outcome::Done => language.say("已完成", "done"),
        Outcome::Refused => language.say("被拒绝", "refused"),
        Outcome::Conflict => language.say("与现状冲突", "conflict"),
    }
}
