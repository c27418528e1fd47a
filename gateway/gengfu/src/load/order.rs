//! Whether each lane of each gateway arrived in order.
//!
//! Owns one number per gateway and lane: the last sequence that was news. A broker may deliver again what it delivered before; that is a duplicate, no
//! disorder. Refuses to say what is missing: the desk's proof does.

use std::collections::HashMap;

use gengfu_contract::slug::Slug;
use gengfu_contract::words::Lane;

use crate::desk::{Arrival, DeskEvent};

/// The order of arrival, as the desk tells it.
#[derive(Debug, Default)]
pub(super) struct Order {
    last: HashMap<(Slug, Lane), u64>,
    /// Events that came first after a later one of their lane.
    pub(super) out_of_order: u64,
    /// Lines that the desk could not tell.
    pub(super) unjudged: u64,
}

impl Order {
    /// Takes a line of the desk.
    pub(super) fn take(&mut self, event: &DeskEvent) {
        let (gateway, lane, sequence) = match event {
            DeskEvent::Alarm { gateway, sequence, alarm, arrival: Arrival::New, .. } => {
                (gateway, alarm.kind.lane(), *sequence)
            }
            DeskEvent::Observed { gateway, sequence, arrival: Arrival::New, .. } => {
                (gateway, Lane::Telemetry, *sequence)
            }
            DeskEvent::Fault { place, .. } if place == "desk" => {
                self.unjudged += 1;
                return;
            }
            _ => return,
        };
        let last = self.last.entry((gateway.clone(), lane)).or_default();
        if sequence < *last {
            self.out_of_order += 1;
        }
        *last = sequence.max(*last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gengfu_contract::event::EventType;

    fn observed(gateway: &str, sequence: u64, arrival: Arrival) -> DeskEvent {
        DeskEvent::Observed {
            gateway: Slug::new(gateway).unwrap(),
            id: sequence.to_string(),
            sequence,
            what: EventType::DeviceObserved,
            subject: "door-1".into(),
            detail: None,
            latency_ms: 1,
            arrival,
        }
    }

    #[test]
    fn only_news_of_one_gateway_can_be_out_of_order() {
        let mut order = Order::default();
        for (gateway, sequence, arrival) in [
            ("a", 1, Arrival::New),
            ("b", 9, Arrival::New),
            ("a", 4, Arrival::New),
            ("a", 1, Arrival::Duplicate),
            ("a", 5, Arrival::New),
        ] {
            order.take(&observed(gateway, sequence, arrival));
        }
        assert_eq!(order.out_of_order, 0);
        order.take(&observed("a", 2, Arrival::New));
        order.take(&observed("a", 3, Arrival::New));
        assert_eq!(order.out_of_order, 2, "2 and 3 came after 5");
    }
}
