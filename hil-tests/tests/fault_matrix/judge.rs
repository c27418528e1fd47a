//! What must be true after every row. It owns the judgement of a site that has settled: nothing missing, every copy under its id, order within a lane, the
//! gateway's own journal whole, and the state well again without anybody's help.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gengfu_contract::event::Event;
use gengfu_contract::words::Lane;
use gengfu_outbox::{Options, Outbox};
use hil_tests::mqtt_packet::Kind;
use hil_tests::mqtt_proxy::{Direction, Seen};
use hil_tests::site::{Account, Site};
use hil_tests::{Result, RigError};

use crate::rows::{Order, Row};
use crate::stage::is_well;

const END_WITHIN: Duration = Duration::from_secs(30);

/// Judges a site that has settled, and ends its gateway.
///
/// # Errors
/// All that is not so.
pub fn judge(site: &mut Site, row: &Row) -> Result<Account> {
    let account = site.account()?;
    let mut faults = Vec::new();
    let status = is_well(site)?;
    if status["gateway"]["boot"] != 1 {
        faults.push(format!("the gateway did not live through it: start {}", status["gateway"]["boot"]));
    }
    if account.acknowledged < 10 {
        faults.push(format!("too little happened to prove anything: {account:?}"));
    }
    let arrived: Vec<Event> = site.desk.journal()?.into_iter().map(|line| line.event).collect();
    if row.order == Order::Arrival {
        faults.extend(disorder(&arrived).map(|what| format!("arrived out of order: {what}")));
    }
    if let Some(way) = &site.mqtt {
        let seen = way.seen();
        faults.extend(copies(&seen));
        if row.order != Order::Refused {
            faults.extend(disorder(&first_sendings(&seen)).map(|what| format!("sent out of order: {what}")));
        }
        faults.extend(row.check.and_then(|check| check(&seen).err()));
        if way.no_mqtt() > 0 {
            faults.push("the gateway sent what is no MQTT".to_owned());
        }
    }
    if site.gateway.stop(END_WITHIN)? != Some(0) {
        faults.push("the gateway did not end in order".to_owned());
    }
    faults.extend(own_journal(site, account.events).err());
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

/// The first place where, within a lane, an event comes behind a later one. What waited and what is new may each go in its own order.
fn disorder(events: &[Event]) -> Option<String> {
    let mut last: BTreeMap<(Lane, bool), &Event> = BTreeMap::new();
    for event in events {
        let row = (event.lane, event.historical == Some(true));
        if let Some(before) = last.insert(row, event)
            && before.sequence > event.sequence
        {
            return Some(format!(
                "in lane {} event {} ({:?}, attempt {:?}) comes behind {} ({:?})",
                event.lane, event.sequence, event.event_type, event.attempt, before.sequence, before.event_type
            ));
        }
    }
    None
}

/// The gateway's own journal is whole, and as long as the desk's.
fn own_journal(site: &Site, at_the_desk: usize) -> std::result::Result<(), String> {
    let path = site.dir.path().join("data/outbox");
    let report = Outbox::open(Options::new(path)).and_then(|outbox| outbox.verify()).map_err(|e| e.to_string())?;
    // Ending, the gateway may have journaled something more.
    let whole = report.faults.is_empty() && report.first_sequence == 1 && report.records >= at_the_desk as u64;
    if whole { Ok(()) } else { Err(format!("the gateway's journal is not whole: {report:?}")) }
}
