//! What other parts of the gateway may ask of a node.
//!
//! Owns the list of orders, the reasons for which one is refused, and the way from a node's name to its port's task. Refuses to promise that the
//! node obeyed: an order that is taken is sent, and where it must not be lost it is repeated; what came of it is seen in the node's events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gengfu_contract::slug::Slug;
use gengfu_contract::words::Text;
use tokio::sync::{mpsc, oneshot};

use super::PortConfig;
use super::bundle::Verified;

/// What a node is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Behave as if the test button of the smoke head on this channel were pressed. Sent once: a test that does not show is repeated by a person.
    Test {
        /// The head's channel.
        channel: u8,
    },
    /// Sound for so long from now; zero stops it. While it is wanted the node is told again every two seconds, also after its reboot and after the
    /// return of a torn cable. A gateway that restarts forgets it, and the node falls silent within [`super::downlinks::SOUND_FOR_MS`].
    Sounder {
        /// For how long, an hour at most. A new order takes the place of the one before.
        sound_for: Duration,
    },
    /// Change timing until the next boot of the node; what is configured is sent again then.
    Configure(gengfu_wire::Configure),
    /// Say who you are, then everything that is not acknowledged.
    Identify,
    /// Replace the node's firmware. It takes minutes and yields to everything else; how it stands is in [`super::LinkStats::update`]. An order
    /// for another bundle takes the place of one that is not over. A gateway that restarts forgets it; ordered again it goes on where it was.
    Update(Arc<Verified>),
}

/// Why an order is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such node.
    #[error("no node of this name is configured")]
    UnknownNode,
    /// The node is not heard.
    #[error("the node is not heard: {0}")]
    LinkDown(String),
    /// It has no sounder.
    #[error("the node has no sounder")]
    NoSounder,
    /// Its firmware cannot be replaced over the link.
    #[error("the node's firmware cannot be updated over the link; flash it once by cable, with the boot loader")]
    NotUpdatable,
    /// There is no smoke head on this channel.
    #[error("no smoke head is configured on channel {0} of the node")]
    NoHead(u8),
    /// A value outside its range.
    #[error("value out of range: {0}")]
    Value(&'static str),
    /// More orders than the link takes.
    #[error("the link has too many orders waiting; try again")]
    Busy,
}

impl Refusal {
    /// For people.
    #[must_use]
    pub fn text(&self) -> Text {
        let zh = match self {
            Refusal::UnknownNode => "没有配置该名称的节点".into(),
            Refusal::LinkDown(why) => format!("收不到该节点：{why}"),
            Refusal::NoSounder => "该节点没有声响器".into(),
            Refusal::NotUpdatable => "节点的固件不支持远程升级，请用编程器烧写带引导程序的固件一次".into(),
            Refusal::NoHead(channel) => format!("该节点的通道 {channel} 没有配置烟感探头"),
            Refusal::Value(what) => format!("数值超出范围：{what}"),
            Refusal::Busy => "该链路等待的命令过多，请稍后重试".into(),
        };
        Text { zh, en: self.to_string() }
    }
}

/// An order on its way to its port's task.
#[derive(Debug)]
pub struct LinkCommand {
    /// The node's device name.
    pub node: Slug,
    /// What it shall do.
    pub order: Order,
    /// Whether it was taken.
    pub answer: oneshot::Sender<Result<(), Refusal>>,
}

/// The ways to all ports' tasks. Made by `app.rs`, which creates the channels.
#[derive(Debug, Clone, Default)]
pub struct LinkInlets {
    ports: BTreeMap<Slug, mpsc::Sender<LinkCommand>>,
}

impl LinkInlets {
    /// Adds a port's nodes.
    pub fn add(&mut self, config: &PortConfig, inlet: &mpsc::Sender<LinkCommand>) {
        self.ports.extend(config.nodes().iter().map(|node| (node.node.clone(), inlet.clone())));
    }

    /// Hands an order over without waiting. The receiver gets the link's answer; that it is dropped means the port's task has ended.
    ///
    /// # Errors
    /// [`Refusal::UnknownNode`] and [`Refusal::Busy`] at once; the others come by the receiver.
    pub fn order(&self, node: &Slug, order: Order) -> Result<oneshot::Receiver<Result<(), Refusal>>, Refusal> {
        let inlet = self.ports.get(node).ok_or(Refusal::UnknownNode)?;
        let (answer, answered) = oneshot::channel();
        match inlet.try_send(LinkCommand { node: node.clone(), order, answer }) {
            Ok(()) => Ok(answered),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Refusal::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Refusal::LinkDown("the gateway is stopping".into())),
        }
    }
}
