//! What must be true after every row. It owns the judgement of a site that has settled: nothing missing, every copy under its id, order within a lane, the
//! gateway's own journal whole, and the state well again without anybody's help.

use std::collections::{BTreeMap, BTreeSet};

use gengfu_contract::event::Event;
use gengfu_contract::words::Lane;
use hil_tests::mqtt_packet::Kind;
use hil_tests::mqtt_proxy::{Direction, Seen};
use hil_tests::site::{Account, Site};
use hil_tests::{Result, RigError};

use crate::rows::{Order, Row};
use crate::stage::is_well;

/// Judges a site that has settled, and ends its gateway. Order counts for events behind `before`, the last sequence before the row's story.
///
/// # Errors
/// All that is not so.
pub fn judge(site: &mut Site, row: &Row, before: u64) -> Result<Account> {
    let account = site.account()?;
    let mut faults = Vec::new();
    let status = is_well(site)?;
    if status["gateway"]["boot"] != 1 {
        faults.push(format!("the gateway did not live through it: start {}", status["gateway"]["boot"]));
    }
    if account.acknowledged < 10 {
        faults.push(format!("too little happened to prove anything: {account:?}"));
    }
    let of_the_story = |event: &Event| event.sequence > before;
    let arrived: Vec<Event> = site.desk.journal()?.into_iter().map(|line| line.event).filter(of_the_story).collect();
    let one_connection = status["uplink"]["connects"] == 1;
    if row.order == Order::Arrival {
        faults.extend(disorder(&arrived, one_connection).map(|what| format!("arrived out of order: {what}")));
    }
    if let Some(way) = &site.mqtt {
        let seen = way.seen();
        faults.extend(copies(&seen));
        if row.order != Order::Refused {
            let sent: Vec<Event> = first_sendings(&seen).into_iter().filter(of_the_story).collect();
            faults.extend(disorder(&sent, one_connection).map(|what| format!("sent out of order: {what}")));
        }
        faults.extend(row.check.and_then(|check| check(&seen).err()));
        if way.no_mqtt() > 0 {
            faults.push("the gateway sent what is no MQTT".to_owned());
        }
    }
    match site.own_journal() {
        Ok(last) if last >= account.events as u64 => {}
        Ok(last) => {
            faults.push(format!("the gateway's journal ends at {last}, the desk has {} events", account.events))
        }
        Err(error) => faults.push(error.to_string()),
    }
    if faults.is_empty() { Ok(account) } else { Err(RigError::failed("judge the row", faults.join("\n"))) }
}

fn events_sent(seen: &[Seen]) -> impl Iterator<Item = Event> {
    let sent = seen.iter().filter(|seen| seen.direction == Direction::ToServer && seen.kind == Kind::Publish);
    let events = sent.filter(|seen| seen.topic.as_deref().is_some_and(|topic| topic.ends_with("/event")));
    events.filter_map(|seen| serde_json::from_slice(&seen.payload).ok())
}

/// Every event once, in the order of its first sending.
fn first_sendings(seen: &[Seen]) -> Vec<Event> {
    let mut known = BTreeSet::new();
    events_sent(seen).filter(|event| known.insert(event.sequence)).collect()
}

/// Every further copy of a sequence carries the id of the first.
fn copies(seen: &[Seen]) -> Vec<String> {
    let mut ids: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for event in events_sent(seen) {
        ids.entry(event.sequence).or_default().insert(event.id);
    }
    ids.retain(|_, ids| ids.len() > 1);
    ids.iter().map(|(sequence, ids)| format!("event {sequence} was sent under {ids:?}")).collect()
}

/// The first place where an event comes behind a later one: of the same alarm or device always; within a lane as long as one connection lasted. What waits when
/// a connection ends is backlog, and behind it goes what happens from then on, each in its own order.
fn disorder(events: &[Event], one_connection: bool) -> Option<String> {
    let mut of_subject: BTreeMap<(Lane, &str), &Event> = BTreeMap::new();
    let mut of_lane: BTreeMap<Lane, &Event> = BTreeMap::new();
    for event in events {
        let same = of_subject.insert((event.lane, event.subject.as_str()), event);
        let lane = of_lane.insert(event.lane, event).filter(|_| one_connection);
        if let Some(before) = [same, lane].into_iter().flatten().find(|before| before.sequence > event.sequence) {
            return Some(format!(
                "in lane {} event {} ({:?}, attempt {:?}) of {} comes behind {} ({:?}) of {}",
                event.lane,
                event.sequence,
                event.event_type,
                event.attempt,
                event.subject,
                before.sequence,
                before.event_type,
                before.subject
            ));
        }
    }
    None
}
