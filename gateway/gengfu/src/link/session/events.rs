//! What a node's numbered stream brings (W15, W20, W21).
//!
//! Owns the decision whether a number is what comes next, and what becomes of an event or a loss that is. Refuses to acknowledge past a gap.

use gengfu_contract::event::Origin;
use gengfu_wire::{Event, Loss};

use super::{Now, OBSERVATIONS_MAX, Session};
use crate::link::mapping;
use crate::link::stats::Discard;

impl Session {
    /// Whether numbers up to `last` from `first` on are what comes next; counts and answers what is not (W20, W21).
    fn is_next(&mut self, boot: u32, first: u32, last: u32, what: &dyn std::fmt::Debug) -> bool {
        self.note_numbered(boot, last.saturating_add(1));
        let Some(through) = self.taken.through(boot) else { return false };
        if last <= through {
            // If the disk has it already, the Ack was lost; else it goes when the disk has it.
            if self.committed.through(boot).is_some_and(|committed| last <= committed) {
                self.acknowledge(boot);
            }
            self.discard(Discard::Duplicate, what);
        } else if first > through + 1 {
            self.acknowledge(boot);
            self.discard(Discard::Gap, what);
        } else if self.waiting.len() >= OBSERVATIONS_MAX {
            self.discard(Discard::Backlog, what);
        } else {
            return true;
        }
        false
    }

    pub(super) fn on_event(&mut self, now: Now, event: Event) {
        if !self.is_next(event.boot, event.sequence, event.sequence, &event) {
            return;
        }
        let Some(boot) = &mut self.boot else { return };
        let origin = Origin { node: boot.uid.to_string(), boot: event.boot, sequence: event.sequence };
        boot.clock.happened(now.at, event.uptime_ms);
        let sensed_at = boot.clock.time_at(event.uptime_ms, now.at);
        self.taken.set(event.boot, event.sequence);
        self.stats.events += 1;
        match mapping::device(&self.config, event.channel, event.kind).cloned() {
            Ok(device) => {
                self.remember(event);
                self.see(now, device, sensed_at, Some(origin), mapping::event(event.kind));
            }
            Err(reason) => self.on_unmapped(now, event, origin, reason),
        }
    }

    pub(super) fn on_loss(&mut self, now: Now, loss: Loss) {
        // Ranges that overflow were refused by the decoder (W08).
        let last = loss.first + (loss.count - 1);
        if !self.is_next(loss.boot, loss.first, last, &loss) {
            return;
        }
        let (Some(boot), Some(through)) = (&self.boot, self.taken.through(loss.boot)) else { return };
        let uid = boot.uid;
        self.taken.set(loss.boot, last);
        self.tell_lost(now, uid, loss.boot, through + 1, last - through);
    }
}
