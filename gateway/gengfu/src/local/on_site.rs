//! Sounders, lamps and test buttons: what was decided reaches the node or the box's own lines.
//!
//! Owns the way from the decider's wanted state to the links' orders and the box's lines, and the last word on a command for a node. Refuses to
//! decide, and to remember: a lost order is repaired by the next wanted state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gengfu_alarm as alarm;
use gengfu_alarm::{OutputKind, Want};
use gengfu_contract::command::{Outcome, Reply};
use gengfu_contract::slug::Slug;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::outputs::{Output, Pattern};
use crate::clock::Clock;
use crate::decide::{Action, Order};
use crate::link::{self, LinkInlets, Refusal};

/// The wanted state is told again this often: a node that was away hears of it then.
const AGAIN: Duration = Duration::from_secs(5);
/// A node's sounder is ordered for this long at a time; it is ordered again well before.
const SOUND_FOR: Duration = Duration::from_secs(60);
/// A port that does not answer in this time is stuck.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Where it all goes.
pub struct Ways {
    /// To the nodes.
    pub nodes: LinkInlets,
    /// To the box's own lines.
    pub lines: watch::Sender<BTreeMap<Output, Pattern>>,
    /// To the decider, which remembers the last word and tells the centre.
    pub answers: mpsc::Sender<Reply>,
    /// The box's own outputs by name.
    pub own: BTreeMap<Slug, Output>,
}

/// Passes on until `stop`.
pub async fn run(
    mut wanted: watch::Receiver<Vec<Want>>,
    mut orders: mpsc::Receiver<(String, Order)>,
    ways: Ways,
    clock: std::sync::Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let mut sounding = BTreeSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = wanted.changed() => if changed.is_err() { return },
            Some((cmd_id, order)) = orders.recv() => {
                let reply = carry_out(&ways.nodes, cmd_id, order, clock.as_ref()).await;
                // The decider never waits for this task, so waiting for it is safe; without its last word a command stays in hand.
                if ways.answers.send(reply).await.is_err() {
                    return;
                }
                continue;
            }
            () = tokio::time::sleep(AGAIN) => {}
        }
        let now: Vec<Want> = wanted.borrow_and_update().clone();
        let lines = own_lines(&now, &ways.own);
        ways.lines.send_if_modified(|shown| {
            let is_news = *shown != lines;
            *shown = lines;
            is_news
        });
        sound(&ways.nodes, &now, &ways.own, &mut sounding);
    }
}

fn own_lines(wanted: &[Want], own: &BTreeMap<Slug, Output>) -> BTreeMap<Output, Pattern> {
    let pattern = |want: &Want| match want.pattern {
        alarm::Pattern::Alarm => Pattern::Alarm,
        alarm::Pattern::TransmissionFailed => Pattern::TransmissionFailed,
    };
    wanted.iter().filter_map(|want| Some((*own.get(&want.output)?, pattern(want)))).collect()
}

/// Tells every node that should sound, and once those that no longer should.
fn sound(nodes: &LinkInlets, wanted: &[Want], own: &BTreeMap<Slug, Output>, sounding: &mut BTreeSet<Slug>) {
    let should: BTreeSet<Slug> = wanted
        .iter()
        .filter(|want| want.kind == OutputKind::Sounder && !own.contains_key(&want.output))
        .map(|want| want.output.clone())
        .collect();
    for node in should.union(sounding) {
        let sound_for = if should.contains(node) { SOUND_FOR } else { Duration::ZERO };
        // Its answer adds nothing: it is told again, and the link's own trouble is told by the link.
        if let Err(refusal) = nodes.order(node, link::Order::Sounder { sound_for }) {
            tracing::error!(%node, %refusal, "a sounder is not told");
        }
    }
    *sounding = should;
}

async fn carry_out(nodes: &LinkInlets, cmd_id: String, order: Order, clock: &dyn Clock) -> Reply {
    let what = match order.what {
        Action::Sound(sound_for) => link::Order::Sounder { sound_for },
        Action::Test(channel) => link::Order::Test { channel },
    };
    let answer = match nodes.order(&order.node, what) {
        Err(refusal) => Err(refusal),
        Ok(answer) => match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(answer)) => answer,
            _ => Err(Refusal::LinkDown("its port does not answer".into())),
        },
    };
    reply(cmd_id, answer, clock.now())
}

fn reply(cmd_id: String, answer: Result<(), Refusal>, at: Timestamp) -> Reply {
    match answer {
        Ok(()) => Reply::new(cmd_id, Outcome::Done, None, at),
        Err(refusal) => Reply::new(cmd_id, Outcome::Refused, Some(refusal.text()), at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slug(name: &str) -> Slug {
        Slug::new(name).unwrap()
    }

    #[test]
    fn the_boxs_own_lines_take_their_patterns_and_nodes_are_no_lines() {
        let want = |output: &str, pattern| Want {
            output: slug(output),
            kind: OutputKind::Sounder,
            pattern,
            until: Timestamp::from_second(0).unwrap(),
        };
        let wanted = [
            want("gateway-lamp", alarm::Pattern::TransmissionFailed),
            want("gateway-sounder", alarm::Pattern::Alarm),
            want("node-1", alarm::Pattern::Alarm),
        ];
        let own = [(slug("gateway-lamp"), Output::Lamp), (slug("gateway-sounder"), Output::Sounder)].into();
        let lines = own_lines(&wanted, &own);
        assert_eq!(lines, [(Output::Lamp, Pattern::TransmissionFailed), (Output::Sounder, Pattern::Alarm)].into());
        assert_eq!(own_lines(&[], &own), BTreeMap::new());
    }
}
