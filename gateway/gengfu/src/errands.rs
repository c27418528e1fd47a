//! What the centre asks for that neither a rule nor a node can do, handed to whoever can.
//!
//! Owns one thing: which errand goes to whom, and that none goes without a last word. It never waits: who is asked has a bounded channel of their own and
//! gives the last word himself; an errand that nobody takes is refused here. Refuses to carry anything out.

use std::sync::Arc;

use gengfu_contract::command::{Outcome, Reply, SnapshotCommand};
use gengfu_contract::words::Text;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::decide::Errand;
use crate::settings;

/// Who takes what. Where nobody does, [`crate::decide::Wiring`] says so and the decider refuses before it comes here.
#[derive(Debug, Default)]
pub struct Hands {
    /// The keeper of the configuration.
    pub settings: Option<mpsc::Sender<settings::Order>>,
    /// Who takes snapshots; they give the last word.
    pub snapshots: Option<mpsc::Sender<(String, SnapshotCommand)>>,
}

/// Hands errands out until `stop`. `errands` are named by the command that asks; `answers` leads to the decider.
pub async fn run(
    mut errands: mpsc::Receiver<(String, Errand)>,
    hands: Hands,
    answers: mpsc::Sender<Reply>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    loop {
        let (cmd_id, errand) = tokio::select! {
            () = stop.cancelled() => return,
            errand = errands.recv() => match errand {
                Some(errand) => errand,
                None => return stop.cancelled().await,
            },
        };
        if let Err(why) = hands.give(&cmd_id, errand) {
            tracing::warn!(cmd = %cmd_id, why = %why.en, "an errand of the centre is not taken");
            let reply = Reply::new(cmd_id, Outcome::Refused, Some(why), clock.now());
            // When the decider's door is full the centre repeats its command.
            let _ = answers.try_send(reply);
        }
    }
}

impl Hands {
    /// Gives an errand to who takes it; `Err` is the refusal.
    fn give(&self, cmd_id: &str, errand: Errand) -> Result<(), Text> {
        tracing::info!(cmd = %cmd_id, "an errand of the centre");
        match errand {
            Errand::Snapshot(order) => {
                let camera = self.snapshots.as_ref().ok_or_else(|| nobody("抓拍", "takes snapshots"))?;
                camera.try_send((cmd_id.to_owned(), order)).map_err(|_| busy())
            }
            Errand::Config(command) => {
                let hand = self.settings.as_ref().ok_or_else(|| nobody("接受配置", "takes a configuration"))?;
                hand.try_send(settings::Order::Command { cmd_id: cmd_id.to_owned(), command }).map_err(|_| busy())
            }
        }
    }
}

/// Who does it has no time now.
fn busy() -> Text {
    Text {
        zh: "网关繁忙，请用新编号重发该指令".into(),
        en: "the gateway is busy; give the command again with a new id".into(),
    }
}

/// Nobody at this gateway does it.
fn nobody(zh: &str, en: &str) -> Text {
    Text { zh: format!("此网关没有{zh}的部件"), en: format!("nothing at this gateway {en}") }
}
