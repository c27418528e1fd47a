//! Answers to what the centre asks.
//!
//! Owns the collecting: homes, devices, open alarms, the journal. Refuses to change anything, and to send more than the contract's parts.

use std::collections::BTreeMap;

use gengfu_alarm::Engine;
use gengfu_contract::command::Reply;
use gengfu_contract::query::{JOURNAL_MAX_EVENTS, PART_MAX_BYTES, QueryCommand, QueryWhat, replies};
use gengfu_contract::slug::Slug;
use gengfu_contract::state::AlarmSnapshot;
use gengfu_contract::words::Text;
use gengfu_outbox::{Outbox, OutboxError};
use jiff::Timestamp;
use serde_json::Value;

/// The answer, in as many parts as it takes; or why there is none.
pub(super) fn answer(
    engine: &Engine,
    outbox: &Outbox,
    sequences: &BTreeMap<String, u64>,
    now: Timestamp,
    cmd_id: &str,
    query: &QueryCommand,
) -> Result<Vec<Reply>, Text> {
    if let Some(unknown) = query.devices.iter().find(|device| !is_known(engine, query.what, device)) {
        return Err(Text {
            zh: format!("本网关没有 {unknown}（或该门没有照护规则），请检查名称"),
            en: format!("there is no {unknown} here (or no care rule for that door): check the name"),
        });
    }
    let is_meant = |device: &Slug| query.devices.is_empty() || query.devices.contains(device);
    let items = match query.what {
        QueryWhat::Homes => engine.home_activities(now, &query.devices).iter().map(value).collect(),
        QueryWhat::Devices => engine.devices().iter().filter(|state| is_meant(&state.device)).map(value).collect(),
        QueryWhat::Alarms => {
            let meant = engine.open_alarms().filter(|alarm| is_meant(&alarm.device));
            let snapshot = |alarm: &gengfu_contract::event::AlarmData| AlarmSnapshot {
                sequence: sequences.get(&alarm.alarm_id).copied().unwrap_or_else(|| outbox.head().sequence),
                alarm: alarm.clone(),
            };
            meant.map(|alarm| value(&snapshot(alarm))).collect()
        }
        QueryWhat::Journal => journal(outbox, query).map_err(|error| Text {
            zh: format!("日志无法读取：{error}"),
            en: format!("the journal cannot be read: {error}"),
        })?,
    };
    Ok(replies(cmd_id, now, query.what, items, PART_MAX_BYTES))
}

fn is_known(engine: &Engine, what: QueryWhat, device: &Slug) -> bool {
    let rules = engine.rules();
    match what {
        QueryWhat::Homes => rules.timing.care.homes.contains_key(device),
        QueryWhat::Devices => rules.devices.contains_key(device),
        QueryWhat::Alarms => rules.devices.contains_key(device) || *device == rules.gateway,
        QueryWhat::Journal => true,
    }
}

fn journal(outbox: &Outbox, query: &QueryCommand) -> Result<Vec<Value>, OutboxError> {
    let from = query.from_sequence.unwrap_or(1).max(outbox.stats().oldest_kept_sequence).max(1);
    let to = query.to_sequence.unwrap_or(u64::MAX).min(from.saturating_add(JOURNAL_MAX_EVENTS - 1));
    let wanted = usize::try_from(to.saturating_add(1).saturating_sub(from)).unwrap_or(usize::MAX);
    let records = outbox.journal(from, wanted)?;
    let events = records.iter().filter(|record| (from..=to).contains(&record.sequence));
    Ok(events.filter_map(|record| serde_json::from_slice(&record.bytes).ok()).collect())
}

fn value(item: &impl serde::Serialize) -> Value {
    serde_json::to_value(item).expect("the contract's types have text keys only, so they have a JSON form")
}
