//! The node's outbox: what was accepted and is not yet acknowledged.
//!
//! Owns the numbering (from 1, without a gap, W12), what is kept (until acknowledged, W13) and what goes first when it is full
//! (W14). Refuses to hide a loss: numbers it had to give up are gaps between those it still has, and a gap is told as
//! [`Loss`] at its place in the stream (W15). So losses need no room, and any number of them is exact. Lives in memory.

use gengfu_wire::{Event, EventKind, Loss};

/// Most events kept. At the Cortex-M's 32 bytes an event that is 2 KiB.
pub const EVENTS_MAX: usize = 64;

/// One entry of the stream to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// An event.
    Event(Event),
    /// The gap left by events given up.
    Loss(Loss),
}

impl Entry {
    /// The highest number that the entry covers.
    #[must_use]
    pub fn last(&self) -> u32 {
        match self {
            Entry::Event(event) => event.sequence,
            Entry::Loss(loss) => loss.first + (loss.count - 1),
        }
    }
}

/// The outbox of one boot.
#[derive(Debug, Clone)]
pub struct Outbox {
    boot: u32,
    /// Ascending by number, without those that were given up.
    events: heapless::Vec<Event, EVENTS_MAX>,
    /// Everything up to here was acknowledged.
    acked_through: u32,
    next_sequence: u32,
    lost_total: u32,
}

impl Outbox {
    /// Empty, at the beginning of a boot.
    #[must_use]
    pub fn new(boot: u32) -> Self {
        Self { boot, events: heapless::Vec::new(), acked_through: 0, next_sequence: 1, lost_total: 0 }
    }

    /// Accepts what happened: gives it the next number and keeps it. The second value is the event given up for it, if
    /// the outbox was full; that may be the new one itself.
    pub fn accept(&mut self, uptime_ms: u64, channel: u8, kind: EventKind) -> (Event, Option<Event>) {
        let event = Event { boot: self.boot, sequence: self.next_sequence, uptime_ms, channel, kind };
        // One event a second for 136 years; at the end it stays the last number, which the gateway takes as a duplicate.
        self.next_sequence = self.next_sequence.saturating_add(1);
        let Err(event) = self.events.push(event) else { return (event, None) };
        self.lost_total = self.lost_total.saturating_add(1);
        let Some(victim) = self.victim(&event) else { return (event, Some(event)) };
        let given_up = self.events.remove(victim);
        self.events.push(event).unwrap_or_else(|_| unreachable!("one was just removed"));
        (event, Some(given_up))
    }

    /// Which event goes for `new`: the oldest of the least urgent, or none when all are more urgent than it. Among calls for
    /// help it is the new one that goes: the first is the one that brings the fire brigade.
    fn victim(&self, new: &Event) -> Option<usize> {
        let oldest_of_least = self.events.iter().enumerate().min_by_key(|(_, event)| urgency(event.kind));
        let (index, least) = oldest_of_least?;
        let goes = match urgency(new.kind).cmp(&urgency(least.kind)) {
            core::cmp::Ordering::Less => false,
            core::cmp::Ordering::Equal => !new.kind.is_life_safety(),
            core::cmp::Ordering::Greater => true,
        };
        goes.then_some(index)
    }

    /// Forgets what the gateway's disk has. Gives back whether anything was new.
    pub fn release(&mut self, through: u32) -> bool {
        if through <= self.acked_through || through >= self.next_sequence {
            return false;
        }
        self.acked_through = through;
        self.events.retain(|event| event.sequence > through);
        true
    }

    /// The entry of the stream that covers number `from`; `None` when there is nothing from there on.
    #[must_use]
    pub fn entry_from(&self, from: u32) -> Option<Entry> {
        let from = from.max(self.unacked_from());
        let following = self.events.iter().find(|event| event.sequence >= from);
        let gap_end = match following {
            Some(event) if event.sequence == from => return Some(Entry::Event(*event)),
            Some(event) => event.sequence,
            None => self.next_sequence,
        };
        (gap_end > from).then(|| Entry::Loss(Loss { boot: self.boot, first: from, count: gap_end - from }))
    }

    /// Every number below this is acknowledged.
    #[must_use]
    pub fn unacked_from(&self) -> u32 {
        self.acked_through.saturating_add(1)
    }

    /// The number the next event gets.
    #[must_use]
    pub fn next_sequence(&self) -> u32 {
        self.next_sequence
    }

    /// Events kept now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// True when nothing is kept and no loss is untold.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entry_from(0).is_none()
    }

    /// Events given up since boot.
    #[must_use]
    pub fn lost_total(&self) -> u32 {
        self.lost_total
    }
}

/// How late an event is given up; the highest last.
fn urgency(kind: EventKind) -> u8 {
    match kind {
        EventKind::Battery(_) | EventKind::FaultCleared | EventKind::TamperClosed => 0,
        EventKind::ContactOpened | EventKind::ContactClosed | EventKind::TamperOpened | EventKind::FaultRaised => 1,
        EventKind::SmokeClear | EventKind::SmokeTest => 2,
        EventKind::SmokeAlarm | EventKind::SmokeHushed | EventKind::SosPressed => 3,
    }
}
