//! The view: real states drawn onto a test terminal, and what each key orders.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use gengfu_contract::case::CaseStage;
use gengfu_contract::command::{Outcome, Reply};
use gengfu_contract::event::Event;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::{AlarmKind, Condition, Text};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::model::{Ordered, Picture};
use super::super::orders::{Action, CaseOrder, GatewayOrder};
use super::state::{Language, Question};
use super::*;
use gengfu_contract::testing::{alarm, at, statement};

fn screen_of(model: &DeskModel, state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let ticker = VecDeque::from(["08:00:00  a line".to_owned()]);
    terminal.draw(|frame| draw(frame, model, state, &ticker, at(90))).unwrap();
    let buffer = terminal.backend().buffer();
    // A wide character fills two cells, the second of which is blank.
    buffer.content().iter().map(ratatui::buffer::Cell::symbol).collect::<String>().replace(' ', "")
}

fn state() -> State {
    State::new("op-1", false)
}

fn model_with(events: &[Event]) -> DeskModel {
    let mut model = DeskModel::new(Slug::new("s").unwrap());
    model.connection(Some(at(0)));
    for event in events {
        model.take("gengfu/v1/s/g/event", &serde_json::to_vec(event).unwrap(), at(1));
    }
    model
}

fn raised() -> DeskModel {
    model_with(&[alarm(1, 1, AlarmKind::Smoke, Condition::ActiveUnack, None)])
}

fn press(state: &mut State, model: &DeskModel, key: char) -> Reaction {
    state.key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE), model)
}

fn ordered(reaction: Reaction) -> Action {
    let Reaction::Order(order) = reaction else { panic!("an order, not {reaction:?}") };
    let GatewayOrder { gateway, operator, action } = order.for_gateway().unwrap();
    assert_eq!((gateway.as_str(), operator.as_str()), ("g", "op-1"));
    action
}

#[test]
fn a_person_sees_the_alarm_its_lane_latency_age_place_and_the_proof() {
    let screen = screen_of(&raised(), &state(), 170, 40);
    for part in [
        "fire",
        "烟雾报警Smokealarm",
        "ACTIVE_UNACK",
        "g/device-1",
        "1000ms",
        "1:30",
        "received1…1,nothingmissing,chainok",
        "aline",
    ] {
        assert!(screen.contains(part), "{part} in {screen}");
    }
}

#[test]
fn the_smallest_terminal_is_drawn_without_a_panic() {
    let model = model_with(&[alarm(1, 1, AlarmKind::Smoke, Condition::Normal, Some(b"x"))]);
    for (width, height) in [(1, 1), (10, 3), (40, 10), (300, 100)] {
        for is_detail in [false, true] {
            screen_of(&model, &State { is_detail, ..state() }, width, height);
        }
    }
}

#[test]
fn the_language_is_switched_by_a_key() {
    let (model, mut state) = (raised(), state());
    press(&mut state, &model, 'l');
    assert_eq!(state.language, Language::Chinese);
    let screen = screen_of(&model, &state, 170, 40);
    assert!(screen.contains("烟雾报警") && !screen.contains("Smokealarm") && screen.contains("派遣"), "{screen}");
    press(&mut state, &model, 'l');
    let screen = screen_of(&model, &state, 170, 40);
    assert!(!screen.contains("烟雾报警") && screen.contains("Smokealarm") && screen.contains("ddispatch"), "{screen}");
}

#[test]
fn details_show_the_three_states_apart_the_reason_the_stages_the_picture_and_the_answers() {
    let mut model = model_with(&[alarm(1, 1, AlarmKind::IllegalParking, Condition::ActiveUnack, Some(b"p"))]);
    let gateway = Slug::new("g").unwrap();
    let sha256 = hex::encode(gengfu_contract::chain::hash(b"p"));
    let picture = Picture { gateway: gateway.clone(), alarm_id: "01ALARM".into(), n: 1, sha256, bytes: b"p".to_vec() };
    model.picture_written(&picture, "pictures/g-01ALARM-1.jpg".into());
    model.receipted(&gateway, &["a1".to_owned()], at(2));
    let ordered = Ordered {
        cmd_id: "c1".into(),
        gateway,
        verb: "case".into(),
        about: "01ALARM CLOSED".into(),
        alarm_id: Some("01ALARM".into()),
        operator: "op-1".into(),
    };
    model.ordered(ordered, at(3));
    let reason = Text { zh: "仍在发生".into(), en: "it is still so".into() };
    let reply = Reply::new("c1", Outcome::Conflict, Some(reason), at(4));
    let told = model.take("gengfu/v1/s/g/reply/c1", &serde_json::to_vec(&reply).unwrap(), at(4)).events;
    let mut state = State { is_detail: true, ..state() };
    told.iter().for_each(|event| state.note_of(event));
    let screen = screen_of(&model, &state, 280, 40);
    for part in [
        "conditionACTIVE_UNACK",
        "case未立案none",
        "deliveryRECEIVED1000ms",
        "[test]",
        "感知sensed",
        "broker+1000ms",
        "receipt+1000ms",
        "ack-",
        "pictures/g-01ALARM-1.jpg(哈希一致hashok)",
        "case01ALARMCLOSED(op-1)→与现状冲突conflict仍在发生itisstillso",
    ] {
        assert!(screen.contains(part), "{part} in {screen}");
    }
    assert!(state.note.contains("conflict") && state.note.contains("still so"), "{}", state.note);
}

#[test]
fn a_gap_is_shown_with_its_number_its_time_and_what_became_of_it() {
    let mut model = model_with(&[alarm(1, 1, AlarmKind::Smoke, Condition::ActiveUnack, None)]);
    model.take("gengfu/v1/s/g/statement", &serde_json::to_vec(&statement(3, 0)).unwrap(), at(5));
    model.tick(at(6));
    let screen = screen_of(&model, &state(), 280, 40);
    let since = at(5).strftime("%H:%M:%SZ").to_string();
    for part in ["missing2…3", &format!("missing#2…3since{since};LOST"), "withfindings1"] {
        assert!(screen.contains(part), "{part} in {screen}");
    }
}

#[test]
fn every_key_orders_what_its_line_says() {
    let (model, mut state) = (raised(), state());
    assert_eq!(ordered(press(&mut state, &model, 'a')), Action::Ack { alarm_id: "01ALARM".into() });
    assert_eq!(ordered(press(&mut state, &model, 'R')), Action::Reset { alarm_id: "01ALARM".into() });
    for (key, stage) in [('f', CaseStage::Filed), ('d', CaseStage::Dispatched), ('c', CaseStage::Closed)] {
        assert_eq!(ordered(press(&mut state, &model, key)), Action::Case(CaseOrder::next("01ALARM", None, stage)));
    }
    assert!(matches!(ordered(press(&mut state, &model, 'n')), Action::Case(case) if case.stage == CaseStage::Filed));
    assert!(
        matches!(ordered(press(&mut state, &model, 'u')), Action::Unshelve { device, .. } if device.as_str() == "device-1")
    );
    assert!(
        matches!(ordered(press(&mut state, &model, 'p')), Action::Snapshot { camera } if camera.as_str() == "device-1")
    );
    assert_eq!(press(&mut state, &model, 'm'), Reaction::Order(Order::HoldReceipts(true)));
    assert_eq!(press(&mut state, &model, 'e'), Reaction::Order(Order::SendReceipts));
    assert_eq!(press(&mut state, &model, 'Q'), Reaction::Leave);
}

#[test]
fn a_rejection_asks_for_its_reason_and_a_shelving_for_its_end_and_reason() {
    let (model, mut state) = (raised(), state());
    assert_eq!(press(&mut state, &model, 'r'), Reaction::Nothing);
    assert!(screen_of(&model, &state, 170, 40).contains("1burnt_food"));
    assert_eq!(press(&mut state, &model, 'x'), Reaction::Nothing, "no reason");
    let Action::Case(case) = ordered(press(&mut state, &model, '2')) else { panic!("a case") };
    assert_eq!((case.stage, case.reason.unwrap().as_str()), (CaseStage::Rejected, "steam"));
    press(&mut state, &model, 's');
    "2h".chars().for_each(|letter| drop(press(&mut state, &model, letter)));
    let enter = KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE);
    assert_eq!(state.key(enter, &model), Reaction::Nothing, "no reason");
    assert!(matches!(state.question, Some(Question::Shelve(_))) && state.note.contains("2h"));
    " works".chars().for_each(|letter| drop(press(&mut state, &model, letter)));
    let Action::Shelve { lasts, reason, .. } = ordered(state.key(enter, &model)) else { panic!("a shelving") };
    assert_eq!((lasts, reason.as_str()), (Duration::from_secs(7200), "works"));
}

#[test]
fn a_query_of_the_journal_asks_for_what_is_missing() {
    let mut model = raised();
    model.take("gengfu/v1/s/g/statement", &serde_json::to_vec(&statement(3, 0)).unwrap(), at(5));
    let mut state = state();
    press(&mut state, &model, 'q');
    assert!(matches!(ordered(press(&mut state, &model, 'j')), Action::Query { from: Some(2), to: Some(3), .. }));
}

#[test]
fn the_chosen_alarm_stays_chosen_when_a_more_urgent_one_comes() {
    let mut first = alarm(1, 1, AlarmKind::IllegalParking, Condition::ActiveUnack, None);
    first.data["alarm_id"] = "01FIRST".into();
    let mut model = model_with(&[first]);
    let mut state = state();
    state.key(KeyEvent::new(KeyCode::Down, KeyModifiers::NONE), &model);
    let smoke = alarm(2, 1, AlarmKind::Smoke, Condition::ActiveUnack, None);
    model.take("gengfu/v1/s/g/event", &serde_json::to_vec(&smoke).unwrap(), at(2));
    assert_eq!(ordered(press(&mut state, &model, 'a')), Action::Ack { alarm_id: "01FIRST".into() });
    state.key(KeyEvent::new(KeyCode::Up, KeyModifiers::NONE), &model);
    assert_eq!(ordered(press(&mut state, &model, 'a')), Action::Ack { alarm_id: "01ALARM".into() });
}
